"""Which answers and choices changed: found, ordered, and fit to be shown."""

import math

import numpy as np
import pytest
from builders import choice_losses, item_losses
from hypothesis import given
from hypothesis import strategies as st
from strategies import HOSTILE, rates
from strategies import item_losses as any_item_losses

from sae_checks.corpora import cbt
from sae_checks.corpora.rows import Query
from sae_checks.judging import changed_answers
from sae_checks.losses import ChoiceText, ItemText


def texts_of(losses, passage_end="then he went to the"):
    return [ItemText(item=int(i), passage_end=passage_end, answer=f"word{i}") for i in losses.items]


@given(any_item_losses())
def test_flips_are_the_answers_that_changed(losses):
    """Each is right one way and wrong the other; lost before won, the most moved first, at most ten each way."""
    found = changed_answers.changed_answers(losses, texts_of(losses))
    lost, won = losses.clean_correct & ~losses.spliced_correct, ~losses.clean_correct & losses.spliced_correct
    for way, rows in (("lost", lost), ("won", won)):
        of_way = [flip for flip in found if flip.change == way]
        assert len(of_way) == min(10, rows.sum())
        assert {flip.item_index for flip in of_way} <= set(losses.items[rows].tolist())
        moved = [abs(flip.probability_clean - flip.probability_spliced) for flip in of_way]
        assert moved == sorted(moved, reverse=True)
        assert all(flip.answer == f"word{flip.item_index}" for flip in of_way)
    assert [flip.change for flip in found] == sorted(flip.change for flip in found)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_text_of_a_flip_is_fit_to_be_shown(hostile):
    """Passages are strangers' texts: one printable line, and not a long one."""
    losses = item_losses([True], [False])
    (flip,) = changed_answers.changed_answers(losses, [ItemText(item=100, passage_end=hostile, answer=hostile)])
    for text, n_most in ((flip.passage_end, 2000), (flip.answer, 120)):
        assert text.isprintable()
        assert len(text) <= n_most


def test_a_flip_of_no_probability_is_left_out():
    """A NaN fails the check by name and must not keep the record from being written."""
    losses = item_losses([True] * 2, [False] * 2, None, [math.nan, -1.0])
    assert [flip.item_index for flip in changed_answers.changed_answers(losses, texts_of(losses))] == [101]


def choice_texts_of(losses, text="so they went on"):
    return [
        ChoiceText(query=int(q), passage_end=text, question=text, options=tuple(f"{i} of {q}" for i in range(n)))
        for q, n in zip(losses.queries, losses.n_options, strict=True)
    ]


@st.composite
def any_choices(draw):
    """Queries with a choice each, clean and spliced, among two to five options."""
    rows = draw(st.lists(st.tuples(st.integers(2, 5), st.integers(0, 4), st.integers(0, 4), rates, rates), max_size=40))
    n_options, clean, spliced, was, became = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 5
    chosen = tuple([min(c, n - 1) for c, n in zip(of, n_options, strict=True)] for of in (clean, spliced))
    right = [[c == 0 for c in of] for of in chosen]
    logprobs = [[-x for x in of] for of in (was, became)]
    return choice_losses(*right, *logprobs, n_options=n_options, chosen=chosen)


@given(any_choices())
def test_flips_of_choices_are_the_choices_that_changed(losses):
    """As a loop counts them; with the option that was chosen instead, by the side that was wrong."""
    found = changed_answers.changed_choices(losses, choice_texts_of(losses))
    place = {int(query): i for i, query in enumerate(losses.queries)}
    for way in ("lost", "won"):
        rows = [
            int(query)
            for query, c, s in zip(losses.queries, losses.clean_correct, losses.spliced_correct, strict=True)
            if (c and not s if way == "lost" else s and not c)
        ]
        of_way = [flip for flip in found if flip.change == way]
        assert len(of_way) == min(10, len(rows))
        assert {flip.query_index for flip in of_way} <= set(rows)
        moved = [abs(flip.probability_clean - flip.probability_spliced) for flip in of_way]
        assert moved == sorted(moved, reverse=True)
        for flip in of_way:
            wrong = losses.spliced_chosen if way == "lost" else losses.clean_chosen
            assert flip.answer == f"0 of {flip.query_index}"
            assert flip.chosen_instead == f"{wrong[place[flip.query_index]]} of {flip.query_index}" != flip.answer
    assert [flip.change for flip in found] == sorted(flip.change for flip in found)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_text_of_a_choice_is_fit_to_be_shown(hostile):
    """Passages, questions and options are strangers' texts: one printable line each, and not a long one."""
    losses = choice_losses([True], [False], n_options=[2])
    text = ChoiceText(query=100, passage_end=hostile, question=hostile, options=(hostile, hostile))
    (flip,) = changed_answers.changed_choices(losses, [text])
    for shown, n_most in (
        (flip.passage_end, 2000),
        (flip.question, 2000),
        (flip.answer, 120),
        (flip.chosen_instead, 120),
    ):
        assert shown.isprintable()
        assert len(shown) <= n_most


def test_a_choice_of_no_probability_or_no_text_is_left_out():
    """A NaN fails the check by name and must not keep the record from being written."""
    losses = choice_losses([True] * 3, [False] * 3, None, [math.nan, -1.0, -1.0])
    assert [flip.query_index for flip in changed_answers.changed_choices(losses, choice_texts_of(losses)[:2])] == [101]


def test_texts_of_queries_are_written_out_with_the_options_as_measured():
    """The passage's end without the treebank's spaces, the gap where it was, the right option first, once."""
    query = Query(
        sentences=("word " * 60, "It was `` old . ''"),
        question="The XXXXX slept .",
        answer="fox",
        options=("cow", "fox", "old hen"),
    )
    (text,) = cbt.choice_texts([query, query], np.array([1]))
    assert text.query == 1
    assert text.passage_end.endswith('word It was "old."')
    assert len(text.passage_end) == cbt.N_CHARACTERS_SHOWN
    assert text.question == "The XXXXX slept."
    assert text.options == ("fox", "cow", "old hen")
