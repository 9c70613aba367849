"""Small plain builders of what the tests look at: an SAE folder on disk, losses from arrays, a limit, a result."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sae_checks import checks
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.limits import Limit
from sae_checks.judging.samples import Ratio
from sae_checks.losses import ByPosition, ChoiceLosses, ItemLosses, RatioSums, Reconstructions, Span, TextLosses
from sae_checks.release.configuration import Sae


class _Missing:
    def __repr__(self) -> str:  # node ids must be the same in every process
        return "left out"


MISSING = _Missing()
"""As the value of a cfg entry: leave the entry out."""

D_IN, D_SAE = 4, 8


def overridden(entries: Mapping[str, object], changes: Mapping[str, object] | None) -> dict[str, object]:
    return {key: value for key, value in {**entries, **(changes or {})}.items() if value is not MISSING}


def cfg(*, metadata: Mapping[str, object] | None = None, **entries: object) -> dict[str, object]:
    """A configuration as SAE Lens 6 saves it, with some entries other than usual."""
    of_metadata = {
        "sae_lens_version": "6.54.0",
        "model_name": "tiny",
        "hook_name": "blocks.2.hook_resid_pre",
        "hook_head_index": None,
        "context_size": 16,
        "prepend_bos": True,
        "seqpos_slice": [None],
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }
    usual = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": overridden(of_metadata, metadata),
    }
    return overridden(usual, entries)


def flat_cfg(**entries: object) -> dict[str, object]:
    """A configuration as SAE Lens before 6 saved it: all on one level, `hook_point` for the hook."""
    usual = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "model_name": "tiny",
        "hook_point": "blocks.2.hook_resid_pre",
        "hook_point_layer": 2,
        "hook_point_head_index": None,
        "context_size": 16,
        "normalize_activations": "none",
    }
    return overridden(usual, entries)


def weights(*, d_in: int = D_IN, d_sae: int = D_SAE) -> dict[str, np.ndarray]:
    return {
        "W_dec": np.zeros((d_sae, d_in), np.float32),
        "W_enc": np.zeros((d_in, d_sae), np.float32),
        "b_dec": np.zeros(d_in, np.float32),
        "b_enc": np.zeros(d_sae, np.float32),
    }


def write_sae(
    folder: Path,
    *,
    written: Mapping[str, object] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, object] | None = None,
    **entries: object,
) -> Path:
    """An SAE in *folder*: cfg.json (*written*, or the usual one with changes) beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = cfg(metadata=metadata, **entries) if written is None else written
    (folder / "cfg.json").write_text(json.dumps(configuration), encoding="utf-8")
    save_file(dict(weights() if tensors is None else tensors), folder / "sae_weights.safetensors")
    return folder


def write_sae_at_layer(folder: Path, layer: int) -> Path:
    return write_sae(folder, metadata={"hook_name": f"blocks.{layer}.hook_resid_pre"})


def header_bytes(header: bytes, n_data_bytes: int = 0) -> bytes:
    """A .safetensors file with just that header."""
    return len(header).to_bytes(8, "little") + header + bytes(n_data_bytes)


def floats(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def counts(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def span(
    n_tokens: Sequence[int],
    clean: Sequence[float] | None = None,
    spliced: Sequence[float] | None = None,
    kl: Sequence[float] | None = None,
) -> Span:
    """Sums per sequence; what is not given is zero."""
    zeros = np.zeros(len(n_tokens))
    return Span(
        n_tokens=counts(n_tokens),
        ce_clean_nats=zeros if clean is None else floats(clean),
        ce_spliced_nats=zeros if spliced is None else floats(spliced),
        kl_nats=zeros if kl is None else floats(kl),
    )


def reconstructions(
    x: Sequence[np.ndarray], x_hat: Sequence[np.ndarray], n_active: Sequence[int] | None = None
) -> Reconstructions:
    """The sums that *x* and *x_hat*, each (n_tokens, d_in) per sequence, come to."""
    return Reconstructions(
        n_tokens=counts([len(of_sequence) for of_sequence in x]),
        n_active=counts([0] * len(x) if n_active is None else n_active),
        max_active=counts([0] * len(x) if n_active is None else n_active),
        error_squared=floats([float(((a - b) ** 2).sum()) for a, b in zip(x, x_hat, strict=True)]),
        norm_squared=floats([float((a**2).sum()) for a in x]),
        target_sum=np.stack([a.sum(axis=0) for a in x]) if x else np.zeros((0, 1)),
    )


def ratio_sums(pairs: Sequence[Sequence[tuple[float, float]]]) -> RatioSums:
    """*pairs* holds, per position, (top, bottom) of every sequence that has it."""
    top, bottom = ([floats([pair[i] for pair in here]) for here in pairs] for i in (0, 1))

    def summed(rows):
        return floats([row.sum() for row in rows])

    return RatioSums(
        n=counts([len(here) for here in pairs]),
        numerator=summed(top),
        denominator=summed(bottom),
        numerator_squared=summed([t * t for t in top]),
        numerator_times_denominator=summed([t * b for t, b in zip(top, bottom, strict=True)]),
        denominator_squared=summed([b * b for b in bottom]),
    )


def by_position(increases: Sequence[Sequence[float]] = (), running: RatioSums | None = None) -> ByPosition:
    """*increases* holds, per position, a number of every sequence that has it; it is KL and L0, too."""
    plain = ratio_sums([[(x, 1) for x in here] for here in increases])
    return ByPosition(
        ce_increase=plain, kl=plain, l0=plain, unexplained=plain, running_increase=running or ratio_sums([])
    )


def of_sequences(increases: Sequence[Sequence[float]]) -> ByPosition:
    """*increases* holds, per sequence, the increase at each of its positions from 0 on."""
    n_positions = max(map(len, increases), default=0)
    running = [[(sum(s[: p + 1]), p + 1) for s in increases if len(s) > p] for p in range(n_positions)]
    at = [[s[p] for s in increases if len(s) > p] for p in range(n_positions)]
    return by_position(at, ratio_sums(running))


def cells(sae_ids: Sequence[str], *of_checks: checks.Check) -> list[tuple[str, str]]:
    """Each of *of_checks* of each SAE."""
    return [(sae_id, check.name) for sae_id in sae_ids for check in of_checks]


def text_losses(
    within: Span,
    beyond: Span | None = None,
    *,
    ablated: Sequence[float] | None = None,
    of_reconstructing: Reconstructions | None = None,
    of_positions: ByPosition | None = None,
    ever_active: np.ndarray | None = None,
    n_training_context_tokens: int | None = 16,
    n_context_tokens: int = 32,
    increase: np.ndarray | None = None,
) -> TextLosses:
    n = len(within.n_tokens)
    nothing = [np.zeros((1, 2))] * n
    return TextLosses(
        documents=100 + np.arange(n),
        n_training_context_tokens=n_training_context_tokens,
        n_context_tokens=n_context_tokens,
        increase_nats=np.full((n, n_context_tokens), np.nan, dtype=np.float32) if increase is None else increase,
        within=within,
        beyond=span([0] * n) if beyond is None else beyond,
        ce_ablated_nats=np.zeros(n) if ablated is None else floats(ablated),
        reconstructions=reconstructions(nothing, nothing) if of_reconstructing is None else of_reconstructing,
        ever_active=ever_active,
        by_position=by_position() if of_positions is None else of_positions,
    )


def item_losses(
    clean_correct: Sequence[bool],
    spliced_correct: Sequence[bool],
    clean_logprob: Sequence[float] | None = None,
    spliced_logprob: Sequence[float] | None = None,
    *,
    n_context_tokens: Sequence[int] | None = None,
    ranks: tuple[Sequence[int], Sequence[int]] | None = None,
) -> ItemLosses:
    n = len(clean_correct)
    clean_rank, spliced_rank = ranks or (np.where(right, 1, 2) for right in (clean_correct, spliced_correct))
    return ItemLosses(
        items=100 + np.arange(n),
        clean_correct=np.asarray(clean_correct, dtype=np.bool_),
        spliced_correct=np.asarray(spliced_correct, dtype=np.bool_),
        clean_logprob_nats=np.full(n, -1.0) if clean_logprob is None else floats(clean_logprob),
        spliced_logprob_nats=np.full(n, -1.0) if spliced_logprob is None else floats(spliced_logprob),
        n_target_tokens=np.ones(n, dtype=np.int64),
        n_context_tokens=counts([10] * n if n_context_tokens is None else n_context_tokens),
        clean_rank=counts(clean_rank),
        spliced_rank=counts(spliced_rank),
    )


def choice_losses(
    clean_correct: Sequence[bool],
    spliced_correct: Sequence[bool],
    clean_logprob: Sequence[float] | None = None,
    spliced_logprob: Sequence[float] | None = None,
    *,
    n_options: Sequence[int] | None = None,
    chosen: tuple[Sequence[int], Sequence[int]] | None = None,
) -> ChoiceLosses:
    n = len(clean_correct)
    clean_chosen, spliced_chosen = chosen or (np.where(right, 0, 1) for right in (clean_correct, spliced_correct))
    return ChoiceLosses(
        queries=100 + np.arange(n),
        n_options=counts([10] * n if n_options is None else n_options),
        clean_correct=np.asarray(clean_correct, dtype=np.bool_),
        spliced_correct=np.asarray(spliced_correct, dtype=np.bool_),
        clean_chosen=counts(clean_chosen),
        spliced_chosen=counts(spliced_chosen),
        clean_logprob_nats=np.full(n, -1.0) if clean_logprob is None else floats(clean_logprob),
        spliced_logprob_nats=np.full(n, -1.0) if spliced_logprob is None else floats(spliced_logprob),
    )


def rows_of(noun, index):
    """*noun* with only the rows *index*, in that order; every field of it is an array of rows."""
    return replace(noun, **{field.name: getattr(noun, field.name)[index] for field in fields(noun)})


def sequences_of(losses: TextLosses, index) -> TextLosses:
    return replace(
        losses,
        documents=losses.documents[index],
        within=rows_of(losses.within, index),
        beyond=rows_of(losses.beyond, index),
        ce_ablated_nats=losses.ce_ablated_nats[index],
        reconstructions=rows_of(losses.reconstructions, index),
    )


def limit(
    check: str = "ce_loss", measure: str = "ce_increase", kind: str = "max", value: float = 0.3, **rest: str
) -> Limit:
    unit = checks.named(check).unit_of(measure)
    assert unit is not None, measure
    told = {"source": "a test", "where": f"thresholds.toml [default.{check}]", **rest}
    return Limit(check=check, measure=measure, kind=kind, value=value, unit=unit, **told)


def estimate(measure: str, value: float, low: float | None = None, high: float | None = None, n: int = 64) -> Estimate:
    unit = next(m.unit for check in checks.CHECKS for m in check.measures if m.name == measure)
    return Estimate(
        measure=measure,
        value=value,
        low=value - 0.01 if low is None else low,
        high=value + 0.01 if high is None else high,
        unit=unit,
        n=n,
    )


BUDGET = Budget(n_planned=256, n_most=256, n_checks=31)


def sampled(measure: str, values: Sequence[float], *, ideal_value: float | None = 0.0, **numbers: float) -> Estimate:
    """An estimate behind which there is a sample: the mean of *values*, one per sequence."""
    tops = floats(values)
    found = estimate(measure, float(tops.mean()), n=len(tops), **numbers)
    return replace(found, sample=Ratio(numerators=tops, denominators=np.ones(len(tops)), ideal_value=ideal_value))


def around(value: float, width: float, n: int) -> list[float]:
    """*n* numbers whose mean is *value* and whose distance from it is *width*."""
    return [value + (width if i % 2 else -width) for i in range(n)]


def with_weights(described: Sae) -> Any:  # Any: a LoadedSae; who only judges does not import it
    """*described*, with its weights, as a run has it."""
    import torch

    from sae_checks.saes.lazy_weights import LazySae, WeightCache

    everything = WeightCache(lambda: 2**40)
    return LazySae(described, everything, device=torch.device("cpu"), center=False, head_slice=slice(0, None)).loaded()
