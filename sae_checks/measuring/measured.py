"""What was measured of one SAE, what of, and how that reads as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sae_checks.corpora.corpus import Corpus
from sae_checks.losses import ChoiceLosses, ChoiceText, Counts, ItemLosses, ItemText, TextLosses
from sae_checks.provenance import Provenance

N_CHARACTERS_SHOWN = 200
"""of a passage: enough to see what the answer follows from."""

Losses_co = TypeVar("Losses_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Generic[Losses_co]):
    """The losses of one SAE or stack, and what they were made of."""

    losses: Losses_co
    provenance: Provenance | None
    """of the whole plan, however few of its sequences were measured; None: only weights were looked at."""
    n: int
    """sequences, passages or queries that were measured: the first ones of the plan."""
    n_planned: int
    tokens_of: Callable[[int], Sequence[str]] = lambda _: ()
    """the tokens of one of the sequences, as text."""
    texts: tuple[ItemText, ...] = ()
    """of the items whose answer the splice lost or won."""
    choices: tuple[ChoiceText, ...] = ()
    """of the queries whose choice the splice lost or won."""


class StoppingRule(Protocol):
    """Decides, after each round of a pass, whether an SAE is measured further."""

    def needs_more(self, sae_id: str, measured: Measured[Any]) -> bool:
        """Whether a check of *sae_id* is still open, *measured* being what is known of it by now."""


def texts_of_flips(losses: ItemLosses, texts: tuple[str, ...]) -> tuple[ItemText, ...]:
    """The passages whose answer is right one way and wrong the other."""
    found = []
    for item in losses.items[losses.clean_correct != losses.spliced_correct].tolist():
        passage, _, answer = texts[item].rpartition(" ")
        found.append(ItemText(item=item, passage_end=passage[-N_CHARACTERS_SHOWN:], answer=answer))
    return tuple(found)


def flipped(losses: ChoiceLosses) -> list[int]:
    """The queries whose choice is right one way and wrong the other."""
    found: list[int] = losses.queries[losses.clean_correct != losses.spliced_correct].tolist()
    return found


def rows(losses: TextLosses | ItemLosses | ChoiceLosses) -> Counts:
    """Indices of the documents, passages or queries, in their files."""
    if isinstance(losses, TextLosses):
        return losses.documents
    return losses.items if isinstance(losses, ItemLosses) else losses.queries


def n_rows(of: Corpus) -> int:
    """Documents, passages or queries; each query is as many sequences as it has options."""
    rows = of.sequences.rows
    return 1 + int((rows[1:] != rows[:-1]).sum())
