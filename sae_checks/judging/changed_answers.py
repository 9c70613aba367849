"""Examples of the answers and choices that changed with the splice, with their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sae_checks.errors import shown
from sae_checks.fields import Count, Share
from sae_checks.losses import ChoiceLosses, ChoiceText, Flags, Floats, ItemLosses, ItemText

N_MOST = 10
"""Examples of lost answers, and of won ones."""
Change = Literal["lost", "won"]
"""lost: right without the splice and wrong with it; won: the other way round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedAnswer:
    """A Lambada passage whose answer the splice lost or won."""

    item_index: Count
    """index of the passage in its file."""
    change: Change
    """lost: right without the splice and wrong with it; won: the other way round."""
    passage_end: str
    """the last characters before the answer, unprintable ones escaped."""
    answer: str
    probability_clean: Share
    """of the whole answer."""
    probability_spliced: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedChoice:
    """A query of the Children's Book Test whose right option the splice lost or won."""

    query_index: Count
    """index of the query in its file."""
    change: Change
    """lost: right without the splice and wrong with it; won: the other way round."""
    passage_end: str
    """the last characters of the passage, before the question; unprintable ones escaped."""
    question: str
    """with XXXXX for the gap."""
    answer: str
    chosen_instead: str
    """the wrong option that was chosen: with the splice where the answer was lost, without it where it was won."""
    probability_clean: Share
    """of the answer among the options."""
    probability_spliced: Share


def changed_answers(losses: ItemLosses, texts: Iterable[ItemText]) -> tuple[ChangedAnswer, ...]:
    """
    Passages whose answer the splice lost, then those it won; of each at most N_MOST, the largest change first.

    Args:
        losses: (n_items,) of every passage that was scored.
        texts: of these passages; a passage without a text gives no example.
    """
    text_of = {text.item: text for text in texts}
    clean, spliced = (np.exp(nats) for nats in (losses.clean_logprob_nats, losses.spliced_logprob_nats))
    return tuple(
        ChangedAnswer(
            item_index=int(losses.items[row]),
            change=change,
            passage_end=shown(text_of[int(losses.items[row])].passage_end, n_most=2000),
            answer=shown(text_of[int(losses.items[row])].answer),
            probability_clean=min(1.0, float(clean[row])),
            probability_spliced=min(1.0, float(spliced[row])),
        )
        for row, change in _changed(
            losses.clean_correct, losses.spliced_correct, clean - spliced, np.isin(losses.items, list(text_of))
        )
    )


def changed_choices(losses: ChoiceLosses, texts: Iterable[ChoiceText]) -> tuple[ChangedChoice, ...]:
    """Queries whose right option the splice lost, then those it won; order, number and arguments as above."""
    text_of = {text.query: text for text in texts}
    clean, spliced = (np.exp(nats) for nats in (losses.clean_logprob_nats, losses.spliced_logprob_nats))
    found = []
    for row, change in _changed(
        losses.clean_correct, losses.spliced_correct, clean - spliced, np.isin(losses.queries, list(text_of))
    ):
        text = text_of[int(losses.queries[row])]
        chosen = losses.spliced_chosen if change == "lost" else losses.clean_chosen
        found.append(
            ChangedChoice(
                query_index=text.query,
                change=change,
                passage_end=shown(text.passage_end, n_most=2000),
                question=shown(text.question, n_most=2000),
                answer=shown(text.options[0]),
                chosen_instead=shown(text.options[int(chosen[row])]),
                probability_clean=min(1.0, float(clean[row])),
                probability_spliced=min(1.0, float(spliced[row])),
            )
        )
    return tuple(found)


def _changed(
    clean_correct: Flags, spliced_correct: Flags, moved: Floats, is_known: Flags
) -> Iterator[tuple[int, Change]]:
    """Rows of lost and then of won answers, N_MOST of each, those with the largest abs(*moved*) first."""
    usable = np.isfinite(moved) & is_known  # a NaN has failed the check, and is no JSON
    changes: tuple[tuple[Change, bool], ...] = (("lost", True), ("won", False))
    for change, was_right in changes:
        rows = np.flatnonzero((clean_correct == was_right) & (spliced_correct != was_right) & usable)
        for row in rows[np.argsort(-abs(moved[rows]), kind="stable")][:N_MOST].tolist():
            yield row, change
