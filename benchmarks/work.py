"""What is measured of one context, and what sae-checks finds there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import random_release
import torch
from random_release import Shape

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import TextLosses
from sae_checks.measuring import corpus_pass
from sae_checks.measuring.scoring import Fault
from sae_checks.model.hugging_face import HuggingFaceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What both sides measure of one SAE."""

    ce_clean: float
    ce_spliced: float
    kl: float
    l0: float
    explained_variance: float
    squared_error: float | None = None
    """per token; None where a side does not tell it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One context to measure at."""

    shape: Shape
    raw: torch.nn.Module
    model: HuggingFaceModel
    hooked: Any  # Any: TransformerLens is not typed
    saes: list[Any]  # Any: sae_lens ships no types
    peer_at: tuple[int, ...]
    """which of *saes* SAE Lens evaluates, one by one; its time is scaled to all."""
    in_bfloat16: HuggingFaceModel | None = None
    """the same model, with SAEs and losses in float32 as ever."""
    sequences: Sequences
    n_prompts: int = 1
    """sequences per batch of the others."""
    bos_id: int | None = None
    """None: the last of the vocabulary."""

    @property
    def n_context(self) -> int:
        return int(self.sequences.tokens.shape[1])

    @property
    def n_tokens(self) -> int:
        return int(self.sequences.tokens.size)

    @property
    def bos(self) -> int:
        return self.shape.n_vocabulary - 1 if self.bos_id is None else self.bos_id

    @property
    def tokens(self) -> torch.Tensor:
        return torch.from_numpy(self.sequences.tokens)


def ours(work: Work, *, ablates: bool, n_batch_tokens: int = 4096) -> list[Values]:
    loaded = [random_release.measured_sae(sae, n_context=work.n_context) for sae in work.saes]
    found = corpus_pass.measure_text(
        work.model, loaded, work.sequences, n_batch_tokens=n_batch_tokens, progress=lambda *_: None, ablates=ablates
    )
    return [_values(losses) for losses in found]


def _values(losses: TextLosses | Fault) -> Values:
    """From the sums, so that one sequence is enough."""
    if isinstance(losses, Fault):
        raise SystemExit(losses.problem)
    span, made = losses.within, losses.reconstructions
    n, n_replaced = span.n_tokens.sum(), made.n_tokens.sum()
    spread = made.norm_squared.sum() - np.square(made.target_sum.sum(0)).sum() / n_replaced
    return Values(
        ce_clean=float(span.ce_clean_nats.sum() / n),
        ce_spliced=float(span.ce_spliced_nats.sum() / n),
        kl=float(span.kl_nats.sum() / n),
        l0=float(made.n_active.sum() / n_replaced),
        explained_variance=float(1 - made.error_squared.sum() / spread),
        squared_error=float(made.error_squared.sum() / n_replaced),
    )


def flop(work: Work, *, ablates: bool) -> float:
    """Of the matrix products that remain once the clean pass is shared and every splice resumes behind its hook."""
    shape, d = work.shape, work.shape.d_model
    layer = (
        2 * (shape.n_block_weights or 12 * d * d) + 2 * d * work.n_context
    )  # its matrices; scores and mixing, of which half is masked
    unembed = 2 * d * shape.n_vocabulary
    resumed = sum(shape.n_layers - start_of(sae) for sae in work.saes)
    n_saes = len(work.saes)
    per_token = shape.n_layers * layer + unembed  # the clean pass
    per_token += n_saes * (2 * d * (shape.d_sae + shape.l0)) + (1 + ablates) * (resumed * layer + n_saes * unembed)
    return per_token * work.n_tokens


def start_of(sae: Any) -> int:  # Any: as above
    """Blocks before the hook of *sae*."""
    _, layer, name = sae.cfg.metadata.hook_name.split(".", 2)
    return int(layer) + name.endswith("post")
