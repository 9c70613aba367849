"""Accumulates the losses of one SAE per sequence or item, batch by batch."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Flags, Floats, ItemLosses, Reconstructions, TextLosses
from sae_checks.measuring.position_sums import PositionSums
from sae_checks.measuring.scoring import Batch, Fault, Scores, SpanSums
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice

Losses = TypeVar("Losses")


def n_within(sae: Reconstructs, sequences: Sequences) -> int:
    """Number of positions within the training context of *sae*; all positions of *sequences* if it is unknown."""
    n_positions = int(sequences.tokens.shape[1])
    return min(n_positions, sae.n_training_context_tokens or n_positions)


class Sums(Generic[Losses]):
    """Accumulates the losses of one SAE over *n* sequences."""

    def __init__(self, n: int) -> None:
        self.fault: str | None = None
        """why the SAE cannot be measured; None: it can."""
        self.is_decided = False
        """whether every check of this SAE is decided; set by the caller of the pass."""
        self.n_measured = n
        """number of sequences, from the first on, that `losses` covers."""

    @property
    def is_active(self) -> bool:
        """Whether the SAE is measured further."""
        return self.fault is None and not self.is_decided

    def losses(self) -> Losses | Fault:
        """The losses of the first *n_measured* sequences, or why there are none."""
        raise NotImplementedError


class TextSums(Sums[TextLosses]):
    """Accumulates the `TextLosses` of one SAE."""

    def __init__(self, sae: Reconstructs, sequences: Sequences, *, ablates: bool = True) -> None:
        n, n_positions = sequences.tokens.shape
        super().__init__(n)
        self.n_within = n_within(sae, sequences)
        self.n_training = sae.n_training_context_tokens
        self.documents = sequences.rows
        self.spans = {is_within: SpanSums(n) for is_within in (True, False)}
        self.ablated = np.zeros(n) if ablates else None
        self.n_replaced, self.n_active, self.max_active = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.ever_active: Flags | None = None  # (d_sae,), known with the first batch if the SAE has latents
        self.error_squared, self.norm_squared = np.zeros(n), np.zeros(n)
        self.target_sum: Floats | None = None  # (n, d_out), known with the first batch
        self.n_positions = n_positions
        self.increase = np.full((n, n_positions), np.nan, dtype=np.float32)
        self.at = PositionSums(n_positions)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores, ablated: Scores | None) -> None:
        """Add the scores of one batch; *ablated* is None where zero ablation is not measured."""
        is_within = batch.position < self.n_within
        for key, span in self.spans.items():
            span.add(batch.row, clean, spliced, is_within == key)
        if self.ablated is not None and ablated is not None:
            self.ablated += np.bincount(batch.row[is_within], ablated.ce_nats[is_within], len(self.ablated))
        increase = spliced.ce_nats.astype(np.float64) - clean.ce_nats
        self.increase[batch.row, batch.position] = increase
        self.at.add_scores(batch.scored.cpu().numpy(), increase, spliced.kl_nats)

    def add_reconstruction(self, batch: Batch, made: Splice) -> None:
        """Add the errors and active latents of one batch."""
        replaced = batch.replaced.cpu()  # (batch, seq)
        target = torch.where(replaced[..., None], made.target.cpu().double(), 0)  # (batch, seq, d_out)
        n_active = torch.where(replaced, made.n_active.cpu(), 0)
        error_squared = torch.where(replaced, made.error_squared.cpu().double(), 0)
        rows, within = batch.sequences, slice(self.n_within)
        if self.target_sum is None:
            self.target_sum = np.zeros((len(self.n_replaced), target.shape[-1]))
        self.n_replaced[rows] = replaced[:, within].sum(-1).numpy()
        self.n_active[rows] = n_active[:, within].sum(-1).numpy()
        self.max_active[rows] = n_active[:, within].amax(-1).numpy()
        if made.ever_active is not None:
            active = made.ever_active.cpu().numpy()
            self.ever_active = active if self.ever_active is None else self.ever_active | active
        self.error_squared[rows] = error_squared[:, within].sum(-1).numpy()
        self.norm_squared[rows] = target[:, within].square().sum((-1, -2)).numpy()
        self.target_sum[rows] = target[:, within].sum(-2).numpy()
        self.at.add_reconstruction(replaced, target, n_active, error_squared)

    def losses(self) -> TextLosses | Fault:
        """The losses of the first *n_measured* sequences, or why there are none."""
        if self.fault is not None or self.target_sum is None:
            return Fault(problem=self.fault or "no batch was measured")
        first = slice(self.n_measured)
        return TextLosses(
            documents=self.documents[first],
            n_training_context_tokens=self.n_training,
            n_context_tokens=self.n_positions,
            increase_nats=self.increase[first],
            within=self.spans[True].span(first),
            beyond=self.spans[False].span(first),
            ce_ablated_nats=None if self.ablated is None else self.ablated[first],
            reconstructions=Reconstructions(
                n_tokens=self.n_replaced[first],
                n_active=self.n_active[first],
                max_active=self.max_active[first],
                error_squared=self.error_squared[first],
                norm_squared=self.norm_squared[first],
                target_sum=self.target_sum[first],
            ),
            ever_active=self.ever_active,
            by_position=self.at.by_position(),
        )


class AnswerSums(Sums[Losses]):
    """Accumulates losses of one SAE on sequences in which only the answers are scored."""

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores) -> None:
        """Add the scores of one batch."""
        raise NotImplementedError


class ItemSums(AnswerSums[ItemLosses]):
    """Accumulates the `ItemLosses` of one SAE."""

    def __init__(self, items: Sequences) -> None:
        n = len(items.rows)
        super().__init__(n)
        self.items = items.rows
        self.n_target = np.zeros(n, dtype=np.int64)
        self.n_correct = np.zeros((2, n), dtype=np.int64)  # clean, spliced
        self.ce_nats = np.zeros((2, n))
        self.rank = np.ones((2, n), dtype=np.int64)
        self.n_context = np.zeros(n, dtype=np.int64)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores) -> None:
        """Add the scores of one batch."""
        n = len(self.items)
        self.n_target += np.bincount(batch.row, minlength=n)
        np.maximum.at(self.n_context, batch.row, batch.position + 1)
        for i, scores in enumerate((clean, spliced)):
            self.n_correct[i] += np.bincount(batch.row, scores.correct, n).astype(np.int64)
            self.ce_nats[i] += np.bincount(batch.row, scores.ce_nats, n)
            np.maximum.at(self.rank[i], batch.row, scores.rank)

    def losses(self) -> ItemLosses | Fault:
        """The losses of the first *n_measured* items, or why there are none."""
        if self.fault is not None:
            return Fault(problem=self.fault)
        first = slice(self.n_measured)
        return ItemLosses(
            items=self.items[first],
            clean_correct=(self.n_correct[0] == self.n_target)[first],
            spliced_correct=(self.n_correct[1] == self.n_target)[first],
            clean_logprob_nats=-self.ce_nats[0, first],
            spliced_logprob_nats=-self.ce_nats[1, first],
            n_target_tokens=self.n_target[first],
            n_context_tokens=self.n_context[first],
            clean_rank=self.rank[0, first],
            spliced_rank=self.rank[1, first],
        )
