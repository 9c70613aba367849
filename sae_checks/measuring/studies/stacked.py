"""The SAEs of a stack spliced together: the first, the first two, and so on. Each reads what the earlier ones wrote."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import StackItemLosses, StackLosses
from sae_checks.measuring.scoring import Batch, Fault, Scores, SpanSums, add_within, score
from sae_checks.measuring.sequence_sums import ItemSums, n_within
from sae_checks.model.interface import CleanPass, Edit, LanguageModel
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import splice


class _Stack:
    """A study of a stack, whose steps have one SAE, two SAEs and so on spliced."""

    n_epochs = 1

    def __init__(self, saes: Sequence[Reconstructs]) -> None:
        self._saes = saes
        self.hooks = frozenset(hook for sae in saes for hook in (sae.hook, sae.hook_out))

    def _scores(self, model: LanguageModel, batch: Batch, clean: CleanPass) -> list[Scores]:
        """Scores of the clean model, then of each step."""
        steps = [self._saes[:n] for n in range(1, len(self._saes) + 1)]
        resumed = [model.resume(clean, splicing_edits(saes, batch.replaced)) for saes in steps]
        return score(model, batch, [clean.hidden, *resumed])


class Stacked(_Stack):
    """The study of a stack on text."""

    def __init__(self, saes: Sequence[Reconstructs], sequences: Sequences) -> None:
        super().__init__(saes)
        self._n_within = min((n_within(sae, sequences) for sae in saes), default=sequences.tokens.shape[1])
        self._spans = [SpanSums(len(sequences.rows)) for _ in saes]

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:  # noqa: ARG002 -- one epoch
        add_within(self._spans, batch, self._scores(model, batch, clean), self._n_within)

    def losses(self) -> StackLosses:
        return StackLosses(
            sae_ids=tuple(sae.sae_id for sae in self._saes), steps=tuple(span.span() for span in self._spans)
        )


class StackedItems(_Stack):
    """The study of a stack on Lambada."""

    def __init__(self, saes: Sequence[Reconstructs], items: Sequences) -> None:
        super().__init__(saes)
        self._sums = [ItemSums(items) for _ in saes]

    def see(self, model: LanguageModel, batch: Batch, clean: CleanPass, epoch: int) -> None:  # noqa: ARG002 -- one epoch
        clean_scores, *step_scores = self._scores(model, batch, clean)
        for sums, scores in zip(self._sums, step_scores, strict=True):
            sums.add_scores(batch, clean_scores, scores)

    def losses(self) -> StackItemLosses:
        steps = [sums.losses() for sums in self._sums]
        return StackItemLosses(
            sae_ids=tuple(sae.sae_id for sae in self._saes),
            steps=tuple(step for step in steps if not isinstance(step, Fault)),
        )


def splicing_edits(saes: Sequence[Reconstructs], replaced: torch.Tensor) -> dict[str, Edit]:  # a dict: by hook
    """The edits that splice all of *saes*; of two at one hook, the later one gets what the earlier one wrote."""
    edits: dict[str, Edit] = {}
    for sae in saes:
        read: list[torch.Tensor] = []  # a transcoder's input, captured before its output is spliced
        if sae.hook != sae.hook_out:
            edits[sae.hook] = _chain(edits.get(sae.hook), _capturing(read))
        edits[sae.hook_out] = _chain(edits.get(sae.hook_out), _splicing(sae, read, replaced))
    return edits


def _capturing(into: list[torch.Tensor]) -> Edit:
    def capture(activation: torch.Tensor) -> torch.Tensor:
        into[:] = [activation]
        return activation

    return capture


def _splicing(sae: Reconstructs, read: list[torch.Tensor], replaced: torch.Tensor) -> Edit:
    def edit(activation: torch.Tensor) -> torch.Tensor:
        return splice(read[0] if read else activation, activation, replaced, sae).activation

    return edit


def _chain(first: Edit | None, second: Edit) -> Edit:
    return second if first is None else lambda activation: second(first(activation))
