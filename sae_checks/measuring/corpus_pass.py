"""
Measures losses of many SAEs in one clean pass, batch by batch.

For each batch the clean model runs once and captures the hooks. Each SAE is spliced in, and the model resumes behind
its hook. All final hidden states are scored together in chunks, so the clean logits are computed once, and at most two
chunks of logits are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ItemLosses, TextLosses
from sae_checks.measuring.clean_text import CleanText
from sae_checks.measuring.scoring import Batch, Fault, Progress, batches, score
from sae_checks.measuring.sequence_sums import AnswerSums, ItemSums, Sums, TextSums, n_within
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice, ablate, splice

Losses = TypeVar("Losses")


class Watch(Protocol):
    """Is called with the clean pass over the first sequences, also when all SAEs have left."""

    @property
    def hooks(self) -> Collection[str]:
        """Hooks that the clean pass must capture."""

    @property
    def n_sequences(self) -> int:
        """Number of sequences, from the first on; a round must end there."""

    def see(self, batch: Batch, clean: CleanPass) -> None:
        """Take the clean pass over one *batch*."""


def text_rounds(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    sequences: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    ends: Sequence[int],
    watch: Watch | None = None,
    clean_text: CleanText | None = None,
    ablates: bool = True,
) -> Iterator[list[TextSums]]:
    """
    Measure the losses of each SAE on text, round by round, and yield the sums of all SAEs after each round.

    The caller sets `is_decided` of an SAE that is measured no further. The pass ends when no SAE is active. Batches
    never span a round, so an SAE that leaves cannot change another's numbers.

    Args:
        model: the language model.
        saes: the SAEs to splice, one at a time.
        sequences: the text; batches hold sequences of similar length.
        n_batch_tokens: tokens per forward pass, at most.
        progress: called after each batch.
        ends: numbers of sequences after which a round ends, in rising order; the last is the number of all sequences.
        watch: is called with the clean pass over the first sequences.
        clean_text: is given the clean model's scores until the caller marks it as read.
        ablates: also measure zero ablation; takes as long as the splice.
    """
    n_ablated = max((n_within(sae, sequences) for sae in saes), default=0)
    sums = [TextSums(sae, sequences, ablates=ablates) for sae in saes]
    for part in _rounds(sequences, sums, ends, progress, n_watched=0 if watch is None else watch.n_sequences):
        watched = frozenset(watch.hooks) if watch is not None and part.stop <= watch.n_sequences else frozenset()
        reads_text = clean_text is not None and not clean_text.is_read
        for batch in batches(model, sequences, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums, watched)
            active = [sae for sae, s in zip(saes, sums, strict=True) if s.is_active]
            ablated = _ablated(model, active, batch, clean, n_ablated) if ablates else {}
            hidden = [clean.hidden, *(s.hidden for s in splices if s is not None), *ablated.values()]
            scores = iter(score(model, batch, hidden, ranks=False, entropies=reads_text) if active else ())
            clean_scores = next(scores, None)
            if reads_text and clean_text is not None and clean_scores is not None:
                clean_text.add(clean_scores)
            spliced_scores = [None if s is None else next(scores) for s in splices]
            ablated_scores = {target: next(scores) for target in ablated}
            for sae, of_sae, spliced, found in zip(saes, sums, splices, spliced_scores, strict=True):
                if spliced is not None and found is not None and clean_scores is not None:
                    of_sae.add_scores(batch, clean_scores, found, ablated_scores.get(_target(sae)))
                    of_sae.add_reconstruction(batch, spliced.splice)
            if watched and watch is not None:
                watch.see(batch, clean)
        yield sums


def item_rounds(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    items: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    ends: Sequence[int],
    sums_of: Callable[[Sequences], AnswerSums[Losses]],
) -> Iterator[list[AnswerSums[Losses]]]:
    """
    Measure the losses of each SAE on the answers of *items*, round by round; otherwise like `text_rounds`.

    *sums_of* makes the sums of one SAE.
    """
    sums = [sums_of(items) for _ in saes]
    for part in _rounds(items, sums, ends, progress, n_watched=0):
        for batch in batches(model, items, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums)
            scores = iter(score(model, batch, [clean.hidden, *(s.hidden for s in splices if s is not None)]))
            clean_scores = next(scores)
            for of_sae, spliced in zip(sums, splices, strict=True):
                if spliced is not None:
                    of_sae.add_scores(batch, clean_scores, next(scores))
        yield sums


def measure_text(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    sequences: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    ablates: bool = True,
) -> tuple[TextLosses | Fault, ...]:
    """Measure the losses of *saes*, in their order, on all of *sequences*: `text_rounds` with a single round."""
    ends = (len(sequences.rows),)
    return _all_losses(
        text_rounds(
            model, saes, sequences, n_batch_tokens=n_batch_tokens, progress=progress, ends=ends, ablates=ablates
        )
    )


def measure_items(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    items: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
) -> tuple[ItemLosses | Fault, ...]:
    """Measure the losses of *saes*, in their order, on all answers of *items*: `item_rounds` with a single round."""
    ends = (len(items.rows),)
    return _all_losses(
        item_rounds(model, saes, items, n_batch_tokens=n_batch_tokens, progress=progress, ends=ends, sums_of=ItemSums)
    )


def _all_losses(rounds: Iterator[Sequence[Sums[Losses]]]) -> tuple[Losses | Fault, ...]:
    """The losses of each SAE after the only one of *rounds*."""
    (sums,) = rounds
    return tuple(of_sae.losses() for of_sae in sums)


def _rounds(
    sequences: Sequences, sums: Sequence[Sums[Any]], ends: Sequence[int], progress: Progress, *, n_watched: int
) -> Iterator[slice]:
    """Yield each round that still has active SAEs, or is among the first *n_watched* sequences."""
    for start, end in zip((0, *ends), ends, strict=False):
        if start >= n_watched and not any(of_sae.is_active for of_sae in sums):
            n_done = int(sequences.lengths[:start].sum())
            progress(n_done, n_done)
            return
        for of_sae in sums:
            if of_sae.is_active:
                of_sae.n_measured = end  # WHY: `losses` is called after the round
        yield slice(start, end)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Spliced:
    """One SAE, spliced into one batch."""

    splice: Splice
    hidden: torch.Tensor  # (batch, seq, d_model), final


def _spliced(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    batch: Batch,
    sums: Sequence[Sums[Losses]],
    watched: Collection[str] = (),
) -> tuple[CleanPass, list[_Spliced | None]]:
    """Run the clean pass and splice each SAE; None: the SAE is not active. *sums* keep the reason of a failure."""
    active = [sae for sae, s in zip(saes, sums, strict=True) if s.is_active]
    clean = model.clean(batch.tokens, {*watched, *(hook for sae in active for hook in (sae.hook, sae.hook_out))})
    splices: list[_Spliced | None] = []
    for sae, of_sae in zip(saes, sums, strict=True):
        if not of_sae.is_active:
            splices.append(None)
            continue
        try:
            made = splice(clean.activation(sae.hook), clean.activation(sae.hook_out), batch.replaced, sae)
            hidden = model.resume(clean, {sae.hook_out: replace_with(made.activation)})
            splices.append(_Spliced(splice=made, hidden=hidden))
        except (
            errors.SaeChecksError,
            RuntimeError,
        ) as problem:  # WHY: torch raises RuntimeError, out of memory included
            of_sae.fault = str(problem)
            splices.append(None)
    return clean, splices


_Target = tuple[str, int | None]
"""hook that an SAE writes, and the index at which its head begins; None: it writes the whole activation."""


def _target(sae: Reconstructs) -> _Target:
    """The part of an activation that *sae* replaces."""
    return sae.hook_out, sae.head_slice.start


def _ablated(
    model: LanguageModel, saes: Sequence[Reconstructs], batch: Batch, clean: CleanPass, n_positions: int
) -> dict[_Target, torch.Tensor]:  # WHY a dict: SAEs that replace the same share an ablation
    """
    Ablate what each of *saes* replaces, and return the final hidden states (batch, seq, d_model).

    Only the first *n_positions* are run. The hidden states of later positions are zeros, and are never used.
    """
    found = {}
    beginning, replaced = clean.first(n_positions), batch.replaced[:, :n_positions]
    for sae in saes:
        if _target(sae) not in found:
            zeros = ablate(beginning.activation(sae.hook_out), replaced, sae.head_slice)
            hidden = model.resume(beginning, {sae.hook_out: replace_with(zeros)})
            found[_target(sae)] = torch.nn.functional.pad(hidden, (0, 0, 0, batch.tokens.shape[1] - hidden.shape[1]))
    return found
