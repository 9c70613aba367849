"""
One clean pass shared by every SAE of a release -> losses, streamed in batches.

For each batch the untouched model runs once with captures, each SAE's splice resumes it behind its hook, and all of
them are scored together, chunk by chunk: no more than two chunks of logits are ever in memory, and the clean logits are
computed once however many SAEs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from sae_checks import errors
from sae_checks.corpora.sequences import Sequences
from sae_checks.losses import ItemLosses, TextLosses
from sae_checks.measuring.scoring import Batch, Fault, Progress, batches, score
from sae_checks.measuring.sequence_sums import ItemSums, Sums, TextSums, n_within
from sae_checks.model.interface import CleanPass, LanguageModel, replace_with
from sae_checks.saes.sae import Reconstructs
from sae_checks.saes.splice import Splice, ablate, splice

Losses = TypeVar("Losses")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounds(Generic[Losses]):
    """Where a pass pauses, and which SAEs go on. Batches end with the rounds, so that nobody's leaving changes them."""

    ends: tuple[int, ...]
    """numbers of sequences, rising; the last is that of all."""
    goes_on: Callable[[int, Losses], bool]
    """Told (place of the SAE, what is known of it by now) after every round but the last."""


class Watch(Protocol):
    """Sees the clean pass of the first sequences, whoever has left by then."""

    hooks: Collection[str]
    """that it wants captured."""
    n_sequences: int
    """at which a round ends."""

    def see(self, batch: Batch, clean: CleanPass) -> None:
        """One batch of them."""


def measure_text(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    sequences: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    rounds: Rounds[TextLosses] | None = None,
    watch: Watch | None = None,
    ablates: bool = True,
) -> tuple[TextLosses | Fault, ...]:
    """
    What each of *saes* costs on *sequences*, in the order of *saes*.

    Batches hold sequences of like length; rows of the result stand in the order of *sequences*, and are as many as were
    measured of that SAE. *ablates*: also what zeros in place of the activation cost, which takes as long again.
    """
    n_ablated = max((n_within(sae, sequences) for sae in saes), default=0)
    sums = [TextSums(sae, sequences, ablates=ablates) for sae in saes]
    for part in _parts(sequences, sums, rounds, watch, progress):
        watched = frozenset(watch.hooks) if watch is not None and part.stop <= watch.n_sequences else frozenset()
        for batch in batches(model, sequences, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums, watched)
            sound = [sae for sae, s in zip(saes, sums, strict=True) if s.is_at_it]
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
    return tuple(s.losses() for s in sums)


def measure_items(
    model: LanguageModel,
    saes: Sequence[Reconstructs],
    items: Sequences,
    *,
    n_batch_tokens: int,
    progress: Progress,
    rounds: Rounds[ItemLosses] | None = None,
) -> tuple[ItemLosses | Fault, ...]:
    """What each of *saes* does to the answers of *items*, in the order of *saes*; only answers are scored."""
    sums = [ItemSums(items) for _ in saes]
    for part in _parts(items, sums, rounds, None, progress):
        for batch in batches(model, items, n_batch_tokens, progress, part=part):
            clean, splices = _spliced(model, saes, batch, sums)
            scores = iter(score(model, batch, [clean.hidden, *(s.hidden for s in splices if s is not None)]))
            clean_scores = next(scores)
            for into, spliced in zip(sums, splices, strict=True):
                if spliced is not None:
                    into.add_scores(batch, clean_scores, next(scores))
    return tuple(s.losses() for s in sums)


def _parts(
    sequences: Sequences,
    sums: Sequence[Sums[Losses]],
    rounds: Rounds[Losses] | None,
    watch: Watch | None,
    progress: Progress,
) -> Iterator[slice]:
    """The rounds that there is somebody to measure in; between them SAEs leave, and with the last all is done."""
    ends = (len(sequences.rows),) if rounds is None else rounds.ends
    n_watched = 0 if watch is None else watch.n_sequences
    for start, end in zip((0, *ends), ends, strict=False):
        if start >= n_watched and not any(s.is_at_it for s in sums):
            n_done = int(sequences.lengths[:start].sum())
            progress(n_done, n_done)
            return
        yield slice(start, end)
        for i, one in enumerate(sums):
            if one.is_at_it:
                one.n_measured = end
                if rounds is not None and end != ends[-1]:
                    found = one.losses()
                    one.has_left = not isinstance(found, Fault) and not rounds.goes_on(i, found)


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
    sound = [sae for sae, s in zip(saes, sums, strict=True) if s.is_at_it]
    clean = model.clean(batch.tokens, {*watched, *(hook for sae in sound for hook in (sae.hook, sae.hook_out))})
    splices: list[_Spliced | None] = []
    for sae, into in zip(saes, sums, strict=True):
        if not into.is_at_it:
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
