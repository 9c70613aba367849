"""
One clean pass shared by every SAE of a release -> losses, streamed in batches.

For each batch the untouched model runs once with captures, each SAE's splice resumes it behind its hook, and all of
them are scored together, chunk by chunk: no more than two chunks of logits are ever in memory, and the clean logits are
computed once however many SAEs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ItemLosses, TextLosses
from sae_checks.measuring.scoring import Batch, Fault, Progress, batches, score
from sae_checks.measuring.sequence_sums import AnswerSums, ItemSums, Sums, TextSums, n_within
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice, ablate, splice

Losses = TypeVar("Losses")


class Watch(Protocol):
    """Sees the clean pass of the first sequences, whoever has left by then."""

    @property
    def hooks(self) -> Collection[str]:
        """Hooks that it wants captured."""

    @property
    def n_sequences(self) -> int:
        """How many sequences it sees; a round ends there."""

    def see(self, batch: Batch, clean: CleanPass) -> None:
        """One batch of them."""


def text_rounds(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    sequences: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    ends: Sequence[int],
    watch: Watch | None = None,
    ablates: bool = True,
) -> Iterator[list[TextSums]]:
    """
    Measure what each SAE costs on text, round by round; yield the sums of all SAEs after each round.

    Whoever iterates sets `is_decided` of an SAE that is measured no further; the pass ends when no SAE is active.
    Batches never span a round, so an SAE that leaves cannot change another's numbers.

    Args:
        model: the language model.
        saes: the SAEs to splice, one at a time.
        sequences: the text; batches hold sequences of like length.
        n_batch_tokens: tokens per forward pass, at most.
        progress: called after each batch.
        ends: numbers of sequences at which a round ends, rising; the last is that of all.
        watch: sees the clean pass of the first sequences, whichever SAEs have left.
        ablates: also measure zero ablation; takes as long as the splice.
    """
    n_ablated = max((n_within(sae, sequences) for sae in saes), default=0)
    sums = [TextSums(sae, sequences, ablates=ablates) for sae in saes]
    for part in _rounds(sequences, sums, ends, progress, n_watched=0 if watch is None else watch.n_sequences):
        watched = frozenset(watch.hooks) if watch is not None and part.stop <= watch.n_sequences else frozenset()
        for batch in batches(model, sequences, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums, watched)
            sound = [sae for sae, s in zip(saes, sums, strict=True) if s.is_active]
            ablated = _ablated(model, sound, batch, clean, n_ablated) if ablates else {}
            hidden = [clean.hidden, *(s.hidden for s in splices if s is not None), *ablated.values()]
            scores = iter(score(model, batch, hidden, ranks=False) if sound else ())
            clean_scores = next(scores, None)
            of_saes = [None if s is None else next(scores) for s in splices]
            of_ablations = {where: next(scores) for where in ablated}
            for sae, into, spliced, found in zip(saes, sums, splices, of_saes, strict=True):
                if spliced is not None and found is not None and clean_scores is not None:
                    into.add_scores(batch, clean_scores, found, of_ablations.get(_where(sae)))
                    into.add_reconstruction(batch, spliced.splice)
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
    Measure what each SAE does to the answers of *items*, round by round; arguments as in `text_rounds`.

    Only answers are scored. *sums_of* makes the sums of one SAE.
    """
    sums = [sums_of(items) for _ in saes]
    for part in _rounds(items, sums, ends, progress, n_watched=0):
        for batch in batches(model, items, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums)
            scores = iter(score(model, batch, [clean.hidden, *(s.hidden for s in splices if s is not None)]))
            clean_scores = next(scores)
            for into, spliced in zip(sums, splices, strict=True):
                if spliced is not None:
                    into.add_scores(batch, clean_scores, next(scores))
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
    """What each of *saes* costs on all of *sequences*, in the order of *saes*: `text_rounds` in one round."""
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
    """What each of *saes* does to the answers of all *items*, in the order of *saes*: `item_rounds` in one round."""
    ends = (len(items.rows),)
    return _all_losses(
        item_rounds(model, saes, items, n_batch_tokens=n_batch_tokens, progress=progress, ends=ends, sums_of=ItemSums)
    )


def _all_losses(rounds: Iterator[Sequence[Sums[Losses]]]) -> tuple[Losses | Fault, ...]:
    (sums,) = rounds
    return tuple(one.losses() for one in sums)


def _rounds(
    sequences: Sequences, sums: Sequence[Sums[Any]], ends: Sequence[int], progress: Progress, *, n_watched: int
) -> Iterator[slice]:
    """Yield each round that still has active SAEs, or belongs to the *n_watched* first sequences."""
    for start, end in zip((0, *ends), ends, strict=False):
        if start >= n_watched and not any(one.is_active for one in sums):
            n_done = int(sequences.lengths[:start].sum())
            progress(n_done, n_done)
            return
        for one in sums:
            if one.is_active:
                one.n_measured = end  # of which `losses` speaks when the round has ended
        yield slice(start, end)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Spliced:
    splice: Splice
    hidden: torch.Tensor  # (batch, seq, d_model)


def _spliced(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    batch: Batch,
    sums: Sequence[Sums[Losses]],
    watched: Collection[str] = (),
) -> tuple[CleanPass, list[_Spliced | None]]:
    """The clean pass, and each SAE's; None for one that has left or failed, now or before: *sums* keep the reason."""
    sound = [sae for sae, s in zip(saes, sums, strict=True) if s.is_active]
    clean = model.clean(batch.tokens, {*watched, *(hook for sae in sound for hook in (sae.hook, sae.hook_out))})
    splices: list[_Spliced | None] = []
    for sae, into in zip(saes, sums, strict=True):
        if not into.is_active:
            splices.append(None)
            continue
        try:
            made = splice(clean.activation(sae.hook), clean.activation(sae.hook_out), batch.replaced, sae)
            hidden = model.resume(clean, {sae.hook_out: replace_with(made.activation)})
            splices.append(_Spliced(splice=made, hidden=hidden))
        except (errors.SaeChecksError, RuntimeError) as problem:  # torch raises RuntimeError, out of memory included
            into.fault = str(problem)
            splices.append(None)
    return clean, splices


_Where = tuple[str, int | None]
"""A hook that is written, and where the part of it that is replaced begins."""


def _where(sae: Reconstructs) -> _Where:
    return sae.hook_out, sae.head_slice.start


def _ablated(
    model: LanguageModel, saes: Sequence[Reconstructs], batch: Batch, clean: CleanPass, n_positions: int
) -> dict[_Where, torch.Tensor]:  # a dict: one pass for all SAEs that replace the same
    """Final hidden states with zeros where *saes* write, over the first *n_positions*; zeros behind, never scored."""
    found = {}
    beginning, replaced = clean.first(n_positions), batch.replaced[:, :n_positions]
    for sae in saes:
        if _where(sae) not in found:
            zeros = ablate(beginning.activation(sae.hook_out), replaced, sae.head_slice)
            hidden = model.resume(beginning, {sae.hook_out: replace_with(zeros)})
            found[_where(sae)] = torch.nn.functional.pad(hidden, (0, 0, 0, batch.tokens.shape[1] - hidden.shape[1]))
    return found
