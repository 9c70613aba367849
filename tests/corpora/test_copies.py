"""Copies of texts and items count once: whatever is repeated, the same tokens are measured in the same order."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import BOS, WordTokenizer
from simulated import increases, rates

from sae_checks.corpora import cbt, lambada, pretokenised, text
from sae_checks.corpora.copies import N_RUN_TOKENS, SeenItems, SeenTexts, beginning, end, find
from sae_checks.corpora.rows import Pretokenised, Query
from sae_checks.corpora.sequences import Convention, encode, seeded_order
from sae_checks.judging.budget import ALPHA, Budget

N_CONTEXT = 48
WORDS = [f"w{i}" for i in range(500)]


def prose(rng, n_words):
    return " ".join(rng.choices(WORDS, k=n_words))


def repeated(rows, n, *, side_by_side):
    """Each of *rows* *n* times, in pairs or the whole file again and again."""
    return [row for row in rows for _ in range(n)] if side_by_side else [*rows] * n


def tokenised(how, rows, *, n_most=10_000, seed=3):
    """The tokens of *rows* by a tokenizer that has met all words before."""
    tokenizer = WordTokenizer()
    encode(tokenizer, " ".join([*WORDS, "."]))
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=N_CONTEXT)
    return how.tokenise(rows, tokenizer, convention, bos=BOS, max_rows=n_most, seed=seed)


def documents(rng, n=12):
    return [prose(rng, rng.randint(2, 2 * N_CONTEXT)) for _ in range(n)]


def ids(rng, n=12):
    return [
        Pretokenised(ids=tuple(rng.randint(2, 400) for _ in range(rng.randint(2, 60))), text=None) for _ in range(n)
    ]


def passages(rng, n=12):
    return documents(rng, n)


def queries(rng, n=12):
    return [
        Query(
            sentences=tuple(prose(rng, 6) for _ in range(rng.randint(1, 12))),
            question=f"{prose(rng, 2)} XXXXX .",
            answer="w1",
            options=("w0", "w1", "w2 w3"),
        )
        for _ in range(n)
    ]


KINDS = {"text": (text, documents), "ids": (text, ids), "lambada": (lambada, passages), "cbt": (cbt, queries)}


@given(
    st.integers(0, 2**32), st.sampled_from(sorted(KINDS)), st.sampled_from([2, 4, 8]), st.booleans(), st.integers(1, 15)
)
def test_repeating_everything_changes_nothing(seed, kind, n, side_by_side, n_most):
    """The fingerprint is that of the file without copies, so every value is, too; the number of distinct rows stays."""
    how, rows_of = KINDS[kind]
    rows = rows_of(random.Random(seed))
    once = tokenised(how, rows, n_most=n_most)
    again = repeated(rows, n, side_by_side=side_by_side)
    found = tokenised(how, again, n_most=n_most)
    assert found.fingerprint == once.fingerprint
    assert [again[i] for i in found.rows] == [rows[i] for i in once.rows]
    assert len(again) - found.n_copies == len(rows) - once.n_copies == len(rows)


def _beyond_the_context(row, rng):
    """A copy of *row* that differs only where it is cut off."""
    more = prose(rng, 5)
    if isinstance(row, Query):
        return replace(row, sentences=(more, *row.sentences))
    if isinstance(row, Pretokenised):
        return Pretokenised(ids=(*row.ids, *(rng.randint(2, 400) for _ in range(5))), text=None)
    return row, more


@given(st.integers(0, 2**32), st.sampled_from(sorted(KINDS)), st.sampled_from([2, 4, 8]), st.integers(1, 15))
def test_copies_that_differ_beyond_the_context_change_nothing(seed, kind, n, n_most):
    """A text is cut at its end, a passage at its beginning: what lies there makes no other observation."""
    rng = random.Random(seed)
    rows = {
        "text": lambda: [prose(rng, 60) for _ in range(9)],
        "ids": lambda: [Pretokenised(ids=tuple(rng.randint(2, 400) for _ in range(60)), text=None) for _ in range(9)],
        "lambada": lambda: [prose(rng, 60) for _ in range(9)],
        "cbt": lambda: [replace(q, sentences=tuple(prose(rng, 6) for _ in range(9))) for q in queries(rng, 9)],
    }[kind]()

    def copy(row):
        if kind == "text":
            return f"{row} {prose(rng, 5)}"
        if kind == "lambada":
            return f"{prose(rng, 5)} {row}"
        return _beyond_the_context(row, rng)

    how = KINDS[kind][0]
    once = tokenised(how, rows, n_most=n_most)
    found = tokenised(how, [each for row in rows for each in (row, *(copy(row) for _ in range(n - 1)))], n_most=n_most)
    assert found.fingerprint == once.fingerprint


def test_a_file_without_copies_is_measured_in_the_order_of_hashes():
    """Nothing is left out, and the order is that of `seeded_order` alone."""
    rows = documents(random.Random(0), 40)
    found = tokenised(text, rows)
    assert found.rows.tolist() == seeded_order(rows, 3)
    assert found.n_copies == 0


def test_what_shares_more_than_half_of_its_tokens_is_a_copy():
    """A longer head or tail of its own, a shifted chunk of the same text: one observation; a quotation is none."""
    rng = random.Random(1)
    one, other = ([rng.randint(2, 500) for _ in range(120)] for _ in range(2))
    assert not _is_kept(one, [*one[:100], *other[:20]])
    assert not _is_kept(one, [*other[:20], *one[:100]])
    assert not _is_kept(one, one[30:])
    assert _is_kept(one, [*one[:60], *other[:60]])
    assert _is_kept(one, one[:60])
    assert not _is_kept(one[:40], [*one[:40], *other[:30]])
    assert _is_kept(one[: N_RUN_TOKENS - 1], one[:40])
    assert not _is_kept(one[:5], one[:5])
    assert _is_kept(one[:5], one[:6])
    assert not _is_kept([7] * 90, [7] * 100)


def _is_kept(first, second):
    seen = SeenTexts()
    assert seen.add(first)
    return seen.add(second)


def test_an_item_is_a_copy_only_of_an_equal_one():
    """Same prompt and same answer; another answer to the same prompt is another item."""
    seen = SeenItems()
    assert [seen.add(row) for row in ([1, 5, 6], [1, 5, 7], [2, 5, 6], [1, 5, 6])] == [True, True, True, False]
    same_prompt = [f"{'w5 ' * 40}w1", f"{'w5 ' * 40}w2", f"{'w5 ' * 40}w1"]
    assert tokenised(lambada, same_prompt).n_copies == 1


def test_options_in_another_order_make_no_other_query():
    """Passage, question and answer are the same, so the query is."""
    (query,) = queries(random.Random(0), 1)
    assert tokenised(cbt, [query, replace(query, options=query.options[::-1])]).n_copies == 1
    assert tokenised(cbt, [query, replace(query, answer="w0")]).n_copies == 0


def test_only_what_may_be_a_copy_is_tokenised():
    """Texts that begin differently are not, however many there are."""
    asked = []
    texts = [*documents(random.Random(0), 50), "the same", "the same"]
    found = find([beginning(each) for each in texts], lambda i: asked.append(i) or [i], SeenTexts)
    assert (asked, found) == ([50, 51], frozenset())


def test_case_and_spaces_do_not_hide_a_copy():
    """An uncased tokenizer makes them the same tokens."""
    assert beginning("  Once upon\n a TIME") == beginning("once upon a time") == end("ONCE  upon a time ")


def test_copies_change_nothing_for_other_packed_rows():
    """Which rows of a packed file are used depends on their neighbours; a copy between them is passed over."""
    rng = random.Random(2)
    rows = [
        Pretokenised(ids=tuple(BOS if rng.random() < 0.1 else rng.randint(2, 400) for _ in range(20)), text=None)
        for _ in range(200)
    ]
    once = [row.ids for row in pretokenised.unpacked(rows, WordTokenizer())]
    assert 0 < sum(map(bool, once)) < len(once)
    doubled = pretokenised.unpacked(repeated(rows, 2, side_by_side=True), WordTokenizer())
    assert [row.ids for row in doubled] == [ids for ids in once for _ in range(2)]
    assert [row.ids for row in pretokenised.unpacked([*rows, *rows], WordTokenizer())] == once * 2


@pytest.mark.parametrize("n_planned", [64, 256])
def test_copies_do_not_let_a_bad_sae_pass(n_planned):
    """
    At the limit at most 5 % pass, with each document eight times as with each once.

    Copies that count lie side by side: with each document 2, 4 and 8 times 5, 18 and 38 % passed of simulated runs of
    256 sequences, and 13, 34 and 53 % of 64. The second half of the test sees that.
    """
    rng = random.Random(4)
    texts = [prose(rng, 40) for _ in range(n_planned)]
    plan = Budget(n_planned=n_planned, n_most=n_planned, n_checks=31)
    of_document = increases("lognormal", 0.6, 1.0, n=n_planned, n_replications=1000, seed=5)
    copied = [index for index in range(n_planned) for _ in range(8)]
    found = tokenised(text, [texts[index] for index in copied], n_most=n_planned).rows
    assert found.size == n_planned
    few = 4 * np.sqrt(ALPHA * (1 - ALPHA) / 1000)
    assert rates(of_document[:, [copied[i] for i in found]], plan).passed <= ALPHA + few
    counted = seeded_order([texts[index] for index in copied], 3)[:n_planned]
    # without the guard, which a plan of 64 has now and which hides much of it
    assert rates(of_document[:, [copied[i] for i in counted]], plan, guards=False).passed > 0.25
