"""The SAEs of a stack in one pass, first one, then two, ... : each reads what the earlier ones left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import StackItemLosses, StackLosses
from sae_checks.measuring.scoring import Batch, Fault, Scores, SpanSums, score
from sae_checks.measuring.sequence_sums import ItemSums
from sae_checks.model.interface import CleanPass, Edit, LanguageModel
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import splice

Made = TypeVar("Made")


class _Steps:
    """A stack, and what is scored when its first SAEs are in place."""

    n_looks = 1

    def __init__(self, saes: Sequence[Reconstructs]) -> None:
        self._saes = saes
        self.hooks = frozenset(hook for sae in saes for hook in (sae.hook, sae.hook_out))

    def _scores(self, model: LanguageModel, batch: Batch, clean: CleanPass) -> list[Scores]:
        """The clean model's, then one for each number of SAEs."""
        steps = [self._saes[:n] for n in range(1, len(self._saes) + 1)]
        resumed = [model.resume(clean, edits_of(saes, batch.replaced)) for saes in steps]
        return score(model, batch, [clean.hidden, *resumed])


class Stacked(_Steps):
    """The loss of a stack on text."""

    def __init__(self, saes: Sequence[Reconstructs], sequences: Sequences) -> None:
        super().__init__(saes)
        n_sequences, n_positions = sequences.tokens.shape
        self._n_within = min([n_positions, *(s.n_training_context_tokens or n_positions for s in saes)])
        self._spans = [SpanSums(n_sequences) for _ in saes]

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:  # noqa: ARG002 -- one look
        of_clean, *of_steps = self._scores(model, batch, clean)
        chosen = batch.position < self._n_within
        for span, found in zip(self._spans, of_steps, strict=True):
            span.add(batch.row[chosen], of_clean.ce_nats[chosen], found.ce_nats[chosen], found.kl_nats[chosen])

    def losses(self) -> StackLosses:
        return StackLosses(
            sae_ids=tuple(sae.sae_id for sae in self._saes), steps=tuple(span.span() for span in self._spans)
        )


class StackedItems(_Steps):
    """The answers of a stack on Lambada."""

    def __init__(self, saes: Sequence[Reconstructs], items: Sequences) -> None:
        super().__init__(saes)
        self._sums = [ItemSums(items) for _ in saes]

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, look: int) -> None:  # noqa: ARG002 -- one look
        of_clean, *of_steps = self._scores(model, batch, clean)
        for sums, found in zip(self._sums, of_steps, strict=True):
            sums.add_scores(batch, of_clean, found)

    def losses(self) -> StackItemLosses:
        steps = [sums.losses() for sums in self._sums]
        return StackItemLosses(
            sae_ids=tuple(sae.sae_id for sae in self._saes),
            steps=tuple(step for step in steps if not isinstance(step, Fault)),
        )


def edits_of(saes: Sequence[Reconstructs], replaced: torch.Tensor) -> dict[str, Edit]:
    """The edits that put every one of *saes* in its place; of two at one hook the later sees what the earlier made."""
    edits: dict[str, Edit] = {}
    for sae in saes:
        read: list[torch.Tensor] = []
        if sae.hook != sae.hook_out:
            edits[sae.hook] = _after(edits.get(sae.hook), _keeping(read))
        edits[sae.hook_out] = _after(edits.get(sae.hook_out), _splicing(sae, read, replaced))
    return edits


def _keeping(into: list[torch.Tensor]) -> Edit:
    def keep(carried: torch.Tensor) -> torch.Tensor:
        into[:] = [carried]
        return carried

    return keep


def _splicing(sae: Reconstructs, read: list[torch.Tensor], replaced: torch.Tensor) -> Edit:
    def put(carried: torch.Tensor) -> torch.Tensor:
        return splice(read[0] if read else carried, carried, replaced, sae).activation

    return put


def _after(first: Edit | None, then: Edit) -> Edit:
    return then if first is None else lambda carried: then(first(carried))
