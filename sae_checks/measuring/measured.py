"""Losses of one SAE or stack, with their provenance and the texts that the report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sae_checks.corpora.corpus import Corpus
from sae_checks.losses import ChoiceLosses, ChoiceText, Counts, ItemLosses, ItemText, TextLosses
from sae_checks.provenance import Provenance

N_CHARACTERS_SHOWN = 200
"""length of the end of a passage that is kept; enough to see what the answer follows from."""

Losses_co = TypeVar("Losses_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses_co]):
    """The losses of one SAE or stack, measured by one kind of pass or by a study."""

    losses: Losses_co
    provenance: Provenance | None
    """of the whole plan, also if only its first sequences are measured; None: only weights were compared."""
    n: int
    """number of sequences, passages or queries measured: the first ones of the plan."""
    n_planned: int
    """number of sequences, passages or queries in the plan."""
    tokens_of: Callable[[int], Sequence[str]] = lambda _: ()
    """the tokens of the sequence with this index, as texts."""
    texts: tuple[ItemText, ...] = ()
    """of the passages that only the clean or only the spliced model answers rightly."""
    choices: tuple[ChoiceText, ...] = ()
    """of the queries that only the clean or only the spliced model answers rightly."""


class StoppingRule(Protocol):
    """Decides after each round of a pass whether an SAE is measured further."""

    def needs_more(self, sae_id: str, measured: Measured[Any]) -> bool:
        """Whether a check of *sae_id* is still open, by what is *measured* so far."""


def changed_answer_texts(losses: ItemLosses, texts: tuple[str, ...]) -> tuple[ItemText, ...]:
    """The texts of the passages that only the clean or only the spliced model answers rightly."""
    found = []
    for item in losses.items[losses.clean_correct != losses.spliced_correct].tolist():
        passage, _, answer = texts[item].rpartition(" ")
        found.append(ItemText(item=item, passage_end=passage[-N_CHARACTERS_SHOWN:], answer=answer))
    return tuple(found)


def changed_queries(losses: ChoiceLosses) -> list[int]:
    """Indices of the queries that only the clean or only the spliced model answers rightly."""
    found: list[int] = losses.queries[losses.clean_correct != losses.spliced_correct].tolist()
    return found


def item_indices(losses: TextLosses | ItemLosses | ChoiceLosses) -> Counts:
    """Indices of the measured documents, passages or queries in their files, (n_items,)."""
    if isinstance(losses, TextLosses):
        return losses.documents
    return losses.items if isinstance(losses, ItemLosses) else losses.queries


def n_items(planned: Corpus) -> int:
    """Number of documents, passages or queries in a corpus. A query has a sequence for each of its options."""
    rows = planned.sequences.rows
    return 1 + int((rows[1:] != rows[:-1]).sum())
