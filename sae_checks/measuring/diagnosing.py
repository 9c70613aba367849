"""Measures what is wrong with one SAE, by correcting its reconstruction and splicing that."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.diagnosis import Corrected, Diagnosis, Place, conclusion
from sae_checks.losses import Moments
from sae_checks.measuring.places import Moved, Search
from sae_checks.measuring.scoring import Batch, Progress, batches
from sae_checks.measuring.sequence_sums import n_within
from sae_checks.measuring.variants import Outputs, Variants
from sae_checks.model.interface import CleanPass, LanguageModel
from sae_checks.saes.lazy_weights import LazySae
from sae_checks.saes.sae import LoadedSae, Reconstructs

N_SEQUENCES = 16
N_SEQUENCES_LEAST = 2
N_TOKENS_LEAST, N_TOKENS_MOST = 512, 2048
N_MULTIPLICATIONS = 1 << 36
"""of one pass over the tokens, about: 1 to 2 s on one core. Larger models run fewer tokens."""
N_FIRST_POSITIONS = 4
TOP_SHARE = 0.01
"""of the tokens, by their increase."""
N_WORST_LATENTS = 10
N_STEPS = 10
"""of the descent to a better b_dec."""
_LESS, _CLEARLY_LESS = 0.9, 0.5
"""shares of the error that another b_dec, and a norm, may leave to be measured further."""
_HARMLESS = 1e-3
"""harmful mass up to which no latent is to blame."""


def _silent(_n_done: int, _n_all: int) -> None:
    """Show no progress."""


def few(model: LanguageModel, sequences: Sequences, n_positions: int) -> Sequences:
    """The first of *sequences*, cut to *n_positions*, that are diagnosed: as many as *model* runs in seconds."""
    n_tokens = min(N_TOKENS_MOST, max(N_TOKENS_LEAST, N_MULTIPLICATIONS // _n_weights(model)))
    return sequences.first(min(N_SEQUENCES, max(N_SEQUENCES_LEAST, n_tokens // n_positions)), n_positions)


def _n_weights(model: LanguageModel) -> int:
    """Weights of a transformer of this size, about."""
    facts = model.facts
    return facts.d_model * (12 * facts.n_layers * facts.d_model + model.n_logits)


def diagnosis(
    model: LanguageModel,
    sae: LoadedSae,
    others: Sequence[LazySae],
    sequences: Sequences,
    *,
    copies: tuple[str, ...] | None,
    n_batch_tokens: int,
    progress: Progress,
) -> Diagnosis:
    """
    Diagnose *sae* on the first of *sequences*.

    Args:
        model: the model of *sae*.
        sae: the SAE.
        others: the other SAEs of its release in that model.
        sequences: the text corpus.
        copies: ids of SAEs that are known to have the same weights; None: weights are not to be compared.
        n_batch_tokens: most tokens per forward pass.
        progress: called with (tokens of spliced passes, all of them), unless that takes no time.
    """
    n_positions = n_within(sae, sequences)
    first = few(model, sequences, n_positions)

    def passes(some: Sequences, hooks: Collection[str]) -> list[tuple[Batch, CleanPass]]:
        return [(batch, model.clean(batch.tokens, hooks)) for batch in batches(model, some, n_batch_tokens, _silent)]

    with torch.inference_mode():
        search = Search(sae, model, others, n_positions)
        if search.hooks:
            search.see(passes(first.first(search.n_sequences, n_positions), search.hooks))
        at = {hook for pair in (search.own, search.best) if pair is not None for hook in pair}
        kept = passes(first, at)
        is_quick = first.tokens.size * _n_weights(model) < N_MULTIPLICATIONS // 8
        found = _corrections(Variants(model, sae, kept, n_positions), _silent if is_quick else progress)
        if search.best is not None:
            found = _with_place(found, search, Variants(model, Moved(sae, search.best), kept, n_positions))
        found = replace(
            found,
            n_places=len(search.pairs),
            copy_of=copies or found.copy_of,
            b_dec_of=() if copies is None else _same_b_dec(sae, others),
            worse_next_sae=search.worse_next,
        )
    return replace(found, sentence=conclusion(found, sae.hook_out))


def _with_place(found: Diagnosis, search: Search, there: Variants) -> Diagnosis:
    """*found* with the place that *search* found, at which the SAE is measured by *there*."""
    moments = there.moments(there.output)
    corrected = _corrected(
        moments, there.increases({"own": there.output}, _silent)["own"].mean, found.ce_increase_nats_per_token
    )
    if corrected is None:
        return found
    home_of = search.home_of
    return replace(
        found,
        place=Place(
            hook=there.sae.hook_out, best_explained_variance=moments.best_explained_variance, corrected=corrected
        ),
        home_of=None if home_of is None else home_of.sae_id,
        swapped_with=search.swapped_with,
        copy_of=search.copy_of,
    )


def _corrections(of: Variants, progress: Progress) -> Diagnosis:
    """Every measurement that changes the reconstruction at the SAE's own hook; the sentence is still empty."""
    own = of.moments(of.output)
    norm_factor = of.mean_norm / math.sqrt(of.seen[0].x.shape[-1])
    worst, harmful_mass = _worst_latents(of)
    at_norm = _at_norm(of, own, norm_factor)
    variants: dict[str, Outputs | None] = {
        "own": of.output,
        **_by_moments(of, own),
        "b_dec": _with_b_dec(of, own),
        "norm": None if at_norm is None else at_norm[0],
        "latents": of.without(worst) if worst and harmful_mass is not None and harmful_mass > _HARMLESS else None,
    }
    known = {name: outputs for name, outputs in variants.items() if outputs is not None}
    increases = of.increases(known, progress)
    increase = increases["own"]

    def corrected(name: str) -> Corrected | None:
        return (
            _corrected(of.moments(known[name]), increases[name].mean, finite(increase.mean)) if name in known else None
        )

    return Diagnosis(
        sentence="",
        n_sequences=of.n_sequences,
        n_tokens=own.n,
        explained_variance=finite(own.explained_variance),
        best_explained_variance=finite(own.best_explained_variance),
        ce_increase_nats_per_token=finite(increase.mean),
        length_ratio=finite(own.length_ratio),
        with_length=corrected("length"),
        relative_bias=finite(own.relative_bias),
        with_bias=corrected("bias"),
        with_b_dec=corrected("b_dec"),
        zero_biases=tuple(name for name, bias in biases(of.sae).items() if not bool(bias.any())),
        with_length_and_bias=corrected("both"),
        norm_factor=finite(norm_factor),
        with_norm=corrected("norm"),
        norm_is_folded_twice=None if at_norm is None else at_norm[1],
        worst_latents=worst,
        without_worst_latents=corrected("latents"),
        harmful_mass=harmful_mass,
        first_positions_share=increase.share_of(increase.position < N_FIRST_POSITIONS),
        top_tokens_share=increase.share_of(increase.is_costliest(TOP_SHARE)),
    )


def _by_moments(of: Variants, own: Moments) -> dict[str, Outputs]:  # a dict: by name of the variant
    """The reconstruction with the best length, with the best bias, and with both."""
    missing = of.vector(own.mean_error)
    mean = of.vector(own.output_sum.sum(0) / max(1, own.n))
    found: dict[str, Outputs] = {"bias": [output + missing for output in of.output]}
    if not math.isfinite(own.length_ratio) or own.length_ratio == 0:
        return found
    factor = 1 / own.length_ratio
    lengths: list[Outputs] = [[factor * output for output in of.output]]
    if not isinstance(of.contributions, str):
        own_bias = [each.bias for each in of.contributions]
        lengths.append([b + factor * (output - b) for b, output in zip(own_bias, of.output, strict=True)])
    found["length"] = max(lengths, key=lambda outputs: of.moments(outputs).explained_variance)
    found["both"] = [mean + missing + factor * (output - mean) for output in of.output]
    return found


def biases(sae: Reconstructs) -> dict[str, torch.Tensor]:  # a dict: by name
    """The biases of *sae* whose loss is noticed: those that its decoder and its encoder add."""
    module = getattr(sae, "module", None)
    found = {name: getattr(module, name, None) for name in ("b_dec", "b_enc")}
    return {name: bias for name, bias in found.items() if isinstance(bias, torch.Tensor)}


def _same_b_dec(sae: LoadedSae, others: Sequence[LazySae]) -> tuple[str, ...]:
    """Ids of the *others* that have the b_dec of *sae*, unless that is zero."""
    own, found = biases(sae).get("b_dec"), []
    if own is None or not bool(own.any()):
        return ()
    for other in others:
        if other.sae_id != sae.sae_id and other.can_be_loaded():
            b_dec = biases(other.loaded()).get("b_dec")
            if b_dec is not None and torch.equal(b_dec, own):
                found.append(other.sae_id)
    return tuple(found)


def _subtracts_b_dec(sae: Reconstructs) -> bool:
    """Whether b_dec is subtracted from the input, too."""
    module: Any = getattr(sae, "module", None)  # Any: SAE Lens's classes have no types of their own
    has_b_dec = isinstance(getattr(module, "b_dec", None), torch.Tensor)
    return has_b_dec and bool(getattr(module.cfg, "apply_b_dec_to_input", False))


def _with_b_dec(of: Variants, own: Moments) -> Outputs | None:
    """
    The reconstruction with a better b_dec, subtracted from the input and added to the output.

    None: it is not subtracted from the input, or no other one leaves less error than adding the mean error does.

    Each step adds a share of the mean error to b_dec, and is kept if the SAE explains more; otherwise the share halves.
    """
    if not _subtracts_b_dec(of.sae):
        return None
    found, best = None, own
    b_dec, share = of.vector(own.mean_error) * 0, 0.5
    for _ in range(N_STEPS):
        tried = b_dec + share * of.vector(best.mean_error)
        outputs = of.with_b_dec(tried)
        moments = of.moments(outputs)
        if moments.explained_variance > best.explained_variance:
            found, best, b_dec = outputs, moments, tried
        else:
            share /= 2
    left_by_bias = 1 - own.explained_variance - own.relative_bias**2
    return found if 1 - best.explained_variance < _LESS * left_by_bias else None


def _worst_latents(of: Variants) -> tuple[tuple[int, ...], float | None]:
    """The latents whose removal lowers the squared error most, and the share of such effects in all; or (), None."""
    effects = of.removal_effects()
    if isinstance(effects, str):
        return (), None
    worst = torch.argsort(effects, stable=True)[:N_WORST_LATENTS]
    harmful = float(effects.clamp_max(0).sum().abs() / effects.abs().sum().clamp_min(torch.finfo(effects.dtype).tiny))
    return tuple(int(i) for i in worst if effects[i] < 0), finite(harmful)


def _at_norm(of: Variants, own: Moments, norm_factor: float) -> tuple[Outputs, bool] | None:
    """
    The reconstruction with the SAE run as if its input were still to be divided by its norm, or multiplied.

    Returns:
        The better of the two, and whether it is the multiplied one; None: neither leaves clearly less error.
    """
    tried = [(of.at_scale(f, f), is_twice) for f, is_twice in ((1 / norm_factor, False), (norm_factor, True))]
    explained = [of.moments(outputs).explained_variance for outputs, _ in tried]
    best = max(range(2), key=lambda i: explained[i])
    return tried[best] if 1 - explained[best] < _CLEARLY_LESS * (1 - own.explained_variance) else None


def _corrected(moments: Moments, nats: float, nats_before: float | None) -> Corrected | None:
    """What is left with a correction, whose CE increase is *nats* per token; None: a number is not finite."""
    explained = moments.explained_variance
    if not (math.isfinite(explained) and math.isfinite(nats)):
        return None
    recovered = 1 - nats / nats_before if nats_before is not None and nats_before > 0 else None
    return Corrected(explained_variance=explained, ce_increase_nats_per_token=nats, recovered_loss=recovered)


def finite(value: float) -> float | None:
    """*value*, or None if it is not finite."""
    return value if math.isfinite(value) else None
