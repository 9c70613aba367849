"""
One clean pass shared by every SAE of a release -> losses, streamed in batches.

For each batch the untouched model runs once with captures, each SAE's splice resumes it behind its hook, and all of
them are scored together, chunk by chunk: no more than two chunks of logits are ever in memory, and the clean logits are
computed once however many SAEs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import Flags, Floats, ItemLosses, Reconstructions, TextLosses
from sae_checks.model.interface import CleanPass, LanguageModel, instead
from sae_checks.position_sums import PositionSums
from sae_checks.sae import Reconstructs
from sae_checks.scoring import Batch, Fault, Progress, Scores, SpanSums, batches, score
from sae_checks.splice import Splice, ablate, splice


def measure_text(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    sequences: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    ablates: bool = True,
) -> tuple[TextLosses | Fault, ...]:
    """
    What each of *saes* costs on *sequences*, in the order of *saes*.

    Batches hold sequences of like length; rows of the result stand in the order of *sequences*. *ablates*: also what
    zeros in place of the activation cost, which takes as long again.
    """
    n_ablated = max((n_within(sae, sequences) for sae in saes), default=0)
    sums = [_TextSums(sae, sequences, ablates=ablates) for sae in saes]
    for batch in batches(model, sequences, n_batch_tokens, progress):
        clean, splices = _spliced(model, saes, batch, sums)
        sound = [sae for sae, s in zip(saes, sums, strict=True) if s.fault is None and ablates]
        ablated = _ablated(model, sound, batch, clean, n_ablated)
        hidden = [clean.hidden, *(s.hidden for s in splices if s is not None), *ablated.values()]
        scores = iter(score(model, batch, hidden, ranks=False))
        clean_scores = next(scores)
        of_saes = [None if s is None else next(scores) for s in splices]
        of_ablations = {where: next(scores) for where in ablated}
        for sae, into, spliced, found in zip(saes, sums, splices, of_saes, strict=True):
            if spliced is not None and found is not None:
                into.add_scores(batch, clean_scores, found, of_ablations.get(_where(sae)))
                into.add_reconstruction(batch, spliced.splice)
    return tuple(s.losses() for s in sums)


def measure_items(
    model: LanguageModel, saes: Sequence[Reconstructs], items: Sequences, *, n_batch_tokens: int, progress: Progress
) -> tuple[ItemLosses | Fault, ...]:
    """What each of *saes* does to the answers of *items*, in the order of *saes*; only answers are scored."""
    sums = [ItemSums(items) for _ in saes]
    for batch in batches(model, items, n_batch_tokens, progress):
        clean, splices = _spliced(model, saes, batch, sums)
        scores = iter(score(model, batch, [clean.hidden, *(s.hidden for s in splices if s is not None)]))
        clean_scores = next(scores)
        for into, spliced in zip(sums, splices, strict=True):
            if spliced is not None:
                into.add_scores(batch, clean_scores, next(scores))
    return tuple(s.losses() for s in sums)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Spliced:
    splice: Splice
    hidden: torch.Tensor  # (batch, seq, d_model)


def _spliced(
    model: LanguageModel, saes: Sequence[Reconstructs], batch: Batch, sums: Sequence[_Sums]
) -> tuple[CleanPass, list[_Spliced | None]]:
    """The clean pass, and each SAE's; None for one that failed, now or before, with the reason kept in *sums*."""
    sound = [sae for sae, s in zip(saes, sums, strict=True) if s.fault is None]
    clean = model.clean(batch.tokens, {hook for sae in sound for hook in (sae.hook, sae.hook_out)})
    splices: list[_Spliced | None] = []
    for sae, into in zip(saes, sums, strict=True):
        if into.fault is not None:
            splices.append(None)
            continue
        try:
            made = splice(clean.activation(sae.hook), clean.activation(sae.hook_out), batch.replaced, sae)
            hidden = model.resume(clean, {sae.hook_out: instead(made.activation)})
            splices.append(_Spliced(splice=made, hidden=hidden))
        except (errors.SaeChecksError, RuntimeError) as problem:  # torch raises RuntimeError, out of memory included
            into.fault = str(problem)
            splices.append(None)
    return clean, splices


_Where = tuple[str, int | None]
"""A hook that is written, and where the part of it that is replaced begins."""


def _where(sae: Reconstructs) -> _Where:
    return sae.hook_out, sae.part.start


def _ablated(
    model: LanguageModel, saes: Sequence[Reconstructs], batch: Batch, clean: CleanPass, n_positions: int
) -> dict[_Where, torch.Tensor]:  # a dict: one pass for all SAEs that replace the same
    """Final hidden states with zeros where *saes* write, over the first *n_positions*; zeros behind, never scored."""
    found = {}
    beginning, replaced = clean.first(n_positions), batch.replaced[:, :n_positions]
    for sae in saes:
        if _where(sae) not in found:
            zeros = ablate(beginning.activation(sae.hook_out), replaced, sae.part)
            hidden = model.resume(beginning, {sae.hook_out: instead(zeros)})
            found[_where(sae)] = torch.nn.functional.pad(hidden, (0, 0, 0, batch.tokens.shape[1] - hidden.shape[1]))
    return found


def n_within(sae: Reconstructs, sequences: Sequences) -> int:
    """Positions of *sequences* that lie within the training context of *sae*; all of them where it is unknown."""
    n_positions = int(sequences.tokens.shape[1])
    return min(n_positions, sae.n_training_context_tokens or n_positions)


class _Sums:
    """What is known of one SAE so far."""

    def __init__(self) -> None:
        self.fault: str | None = None


class _TextSums(_Sums):
    """Sums of one SAE over the text batches seen."""

    def __init__(self, sae: Reconstructs, sequences: Sequences, *, ablates: bool = True) -> None:
        super().__init__()
        self.n_within = n_within(sae, sequences)
        self.n_training = sae.n_training_context_tokens
        self.documents = sequences.rows
        n, n_positions = sequences.tokens.shape
        self.spans = {is_within: SpanSums(n) for is_within in (True, False)}
        self.ablated = np.zeros(n) if ablates else None
        self.n_replaced, self.n_active, self.n_active_most = (np.zeros(n, dtype=np.int64) for _ in range(3))
        self.seen_active: Flags | None = None  # (d_sae,), known with the first batch, if at all
        self.error_squared, self.norm_squared = np.zeros(n), np.zeros(n)
        self.sum: Floats | None = None  # (n, d_out), known with the first batch
        self.n_positions = n_positions
        self.at = PositionSums(n_positions)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores, ablated: Scores | None) -> None:
        is_within = batch.position < self.n_within
        for key, span in self.spans.items():
            chosen = is_within == key
            span.add(batch.row[chosen], clean.ce_nats[chosen], spliced.ce_nats[chosen], spliced.kl_nats[chosen])
        if self.ablated is not None and ablated is not None:
            self.ablated += np.bincount(batch.row[is_within], ablated.ce_nats[is_within], len(self.ablated))
        increase = spliced.ce_nats.astype(np.float64) - clean.ce_nats
        self.at.add_scores(batch.scored.cpu().numpy(), increase, spliced.kl_nats)

    def add_reconstruction(self, batch: Batch, made: Splice) -> None:
        replaced = batch.replaced.cpu()  # (batch, seq)
        target = torch.where(replaced[..., None], made.target.cpu().double(), 0)  # (batch, seq, d_out)
        n_active = torch.where(replaced, made.n_active.cpu(), 0)
        error_squared = torch.where(replaced, made.error_squared.cpu().double(), 0)
        rows, within = batch.sequences, slice(self.n_within)
        if self.sum is None:
            self.sum = np.zeros((len(self.n_replaced), target.shape[-1]))
        self.n_replaced[rows] = replaced[:, within].sum(-1).numpy()
        self.n_active[rows] = n_active[:, within].sum(-1).numpy()
        self.n_active_most[rows] = n_active[:, within].amax(-1).numpy()
        if made.seen_active is not None:
            seen = made.seen_active.cpu().numpy()
            self.seen_active = seen if self.seen_active is None else self.seen_active | seen
        self.error_squared[rows] = error_squared[:, within].sum(-1).numpy()
        self.norm_squared[rows] = target[:, within].square().sum((-1, -2)).numpy()
        self.sum[rows] = target[:, within].sum(-2).numpy()
        self.at.add_reconstruction(replaced, target, n_active, error_squared)

    def losses(self) -> TextLosses | Fault:
        if self.fault is not None or self.sum is None:
            return Fault(problem=self.fault or "no batch was measured")
        return TextLosses(
            documents=self.documents,
            n_training_context_tokens=self.n_training,
            n_context_tokens=self.n_positions,
            within=self.spans[True].span(),
            beyond=self.spans[False].span(),
            ce_ablated_nats=self.ablated,
            reconstructions=Reconstructions(
                n_tokens=self.n_replaced,
                n_active=self.n_active,
                n_active_most=self.n_active_most,
                error_squared=self.error_squared,
                norm_squared=self.norm_squared,
                sum=self.sum,
            ),
            seen_active=self.seen_active,
            by_position=self.at.by_position(),
        )


class ItemSums(_Sums):
    """Answers of one SAE over the batches seen."""

    def __init__(self, items: Sequences) -> None:
        super().__init__()
        self.items = items.rows
        n = len(items.rows)
        self.n_target = np.zeros(n, dtype=np.int64)
        self.n_correct = np.zeros((2, n), dtype=np.int64)  # clean, spliced
        self.ce_nats = np.zeros((2, n))
        self.rank = np.ones((2, n), dtype=np.int64)
        self.n_context = np.zeros(n, dtype=np.int64)

    def add_scores(self, batch: Batch, clean: Scores, spliced: Scores) -> None:
        n = len(self.items)
        self.n_target += np.bincount(batch.row, minlength=n)
        np.maximum.at(self.n_context, batch.row, batch.position + 1)
        for i, scores in enumerate((clean, spliced)):
            self.n_correct[i] += np.bincount(batch.row, scores.correct, n).astype(np.int64)
            self.ce_nats[i] += np.bincount(batch.row, scores.ce_nats, n)
            np.maximum.at(self.rank[i], batch.row, scores.rank)

    def losses(self) -> ItemLosses | Fault:
        if self.fault is not None:
            return Fault(problem=self.fault)
        return ItemLosses(
            items=self.items,
            clean_correct=self.n_correct[0] == self.n_target,
            spliced_correct=self.n_correct[1] == self.n_target,
            clean_logprob_nats=-self.ce_nats[0],
            spliced_logprob_nats=-self.ce_nats[1],
            n_target_tokens=self.n_target,
            n_context_tokens=self.n_context,
            clean_rank=self.rank[0],
            spliced_rank=self.rank[1],
        )
