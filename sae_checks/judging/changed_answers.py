"""Losses and texts of items -> examples of answers and choices that the splice changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sae_checks.errors import shown
from sae_checks.losses import ChoiceLosses, ChoiceText, Flags, Floats, ItemLosses, ItemText

N_MOST = 10
"""examples each way."""
Way = Literal["lost", "won"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedAnswer:
    """A passage whose answer is right either with the splice or without it."""

    item: int
    """index in its file."""
    way: Way
    passage_end: str
    """the last characters before the answer, with escapes for what cannot be printed."""
    answer: str
    probability_clean: float
    """of the whole answer."""
    probability_spliced: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedChoice:
    """A query whose right option is chosen either with the splice or without it."""

    query: int
    """index in its file."""
    way: Way
    passage_end: str
    """the last characters of the passage, before the question."""
    question: str
    """with XXXXX where an option belongs."""
    answer: str
    instead: str
    """the wrong option that is chosen: with the splice for a lost choice, without it for a won one."""
    probability_clean: float
    """of the answer among the options."""
    probability_spliced: float


def changed_answers(losses: ItemLosses, texts: Iterable[ItemText]) -> tuple[ChangedAnswer, ...]:
    """Examples of lost answers, then of won ones; those whose probability changed most come first."""
    text_of = {text.item: text for text in texts}
    clean, spliced = (np.exp(nats) for nats in (losses.clean_logprob_nats, losses.spliced_logprob_nats))
    return tuple(
        ChangedAnswer(
            item=int(losses.items[row]),
            way=way,
            passage_end=shown(text_of[int(losses.items[row])].passage_end, n_most=2000),
            answer=shown(text_of[int(losses.items[row])].answer),
            probability_clean=min(1.0, float(clean[row])),
            probability_spliced=min(1.0, float(spliced[row])),
        )
        for row, way in _flipped(
            losses.clean_correct, losses.spliced_correct, clean - spliced, np.isin(losses.items, list(text_of))
        )
    )


def changed_choices(losses: ChoiceLosses, texts: Iterable[ChoiceText]) -> tuple[ChangedChoice, ...]:
    """Examples of lost choices, then of won ones; those whose probability changed most come first."""
    text_of = {text.query: text for text in texts}
    clean, spliced = (np.exp(nats) for nats in (losses.clean_logprob_nats, losses.spliced_logprob_nats))
    found = []
    for row, way in _flipped(
        losses.clean_correct, losses.spliced_correct, clean - spliced, np.isin(losses.queries, list(text_of))
    ):
        text = text_of[int(losses.queries[row])]
        chosen = losses.spliced_chosen if way == "lost" else losses.clean_chosen
        found.append(
            ChangedChoice(
                query=text.query,
                way=way,
                passage_end=shown(text.passage_end, n_most=2000),
                question=shown(text.question, n_most=2000),
                answer=shown(text.options[0]),
                instead=shown(text.options[int(chosen[row])]),
                probability_clean=min(1.0, float(clean[row])),
                probability_spliced=min(1.0, float(spliced[row])),
            )
        )
    return tuple(found)


def _flipped(clean_correct: Flags, spliced_correct: Flags, moved: Floats, is_known: Flags) -> Iterator[tuple[int, Way]]:
    """(row, way) of what was lost, then of what was won, N_MOST of each, the most *moved* first."""
    usable = np.isfinite(moved) & is_known  # WHY: JSON has no NaN, and the check has failed on it
    ways: tuple[tuple[Way, bool], ...] = (("lost", True), ("won", False))
    for way, was_right in ways:
        rows = np.flatnonzero((clean_correct == was_right) & (spliced_correct != was_right) & usable)
        for row in rows[np.argsort(-abs(moved[rows]), kind="stable")][:N_MOST].tolist():
            yield row, way
