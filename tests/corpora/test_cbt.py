"""Children's Book Test: rows, the tokens of filled queries, and choices, by examples worked by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from builders import choice_losses, floats
from hypothesis import given
from hypothesis import strategies as st
from strategies import rates

from sae_checks import checks, errors
from sae_checks.corpora import cbt, files
from sae_checks.corpora.rows import Query
from sae_checks.corpora.sequences import Convention
from sae_checks.judging import answer_readings
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured
from sae_checks.losses import ItemLosses

ROW = {
    "sentences": ["The fox sat .", "It was `` old . ''"],
    "question": "The XXXXX slept .",
    "answer": "fox",
    "options": ["cow", "fox", "old hen"],
}
BOS = 0


class Words:
    """One token per written word, in order of first appearance; 0 is BOS, 1 is <unk>."""

    bos_token_id = eos_token_id = BOS
    all_special_ids = (BOS, 1)

    def __init__(self, *unknown):
        self.unknown = unknown
        self.ids = {}

    def __call__(self, text, **_):
        return {
            "input_ids": [1 if w in self.unknown else self.ids.setdefault(w, 2 + len(self.ids)) for w in text.split()]
        }

    def read(self, ids):
        names = {number: word for word, number in self.ids.items()} | {BOS: "<bos>", 1: "<unk>"}
        return " ".join(names[i] for i in ids)


class Letters(Words):
    """One token per letter."""

    def __call__(self, text, **_):
        return super().__call__(" ".join(text.replace(" ", "_")))


def queries(*rows):
    return [Query(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows]


def tokenised(*rows, tokenizer=None, bos=BOS, n_context=99, max_rows=9):
    convention = Convention(prepend_bos=bos is not None, special_tokens_kept=True, n_context_tokens=n_context)
    tokenizer = tokenizer or Words()
    return cbt.tokenise(queries(*rows), tokenizer, convention, bos=bos, max_rows=max_rows, seed=0)


def scored(found, tokenizer):
    """The words that are predicted, sequence by sequence."""
    return [tokenizer.read(t[1:][s[:-1]]) for t, s in zip(found.tokens, found.scored, strict=True)]


def parquet(path, rows):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.Table.from_pylist(rows), path)
    return path


def test_jsonl_and_parquet_give_the_same_queries(tmp_path):
    """As cam-cst/cbt has them; an option that is there twice counts once."""
    twice = {**ROW, "options": ["fox", "cow", "fox"]}
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ROW, twice)))
    found = files.read_queries(tmp_path / "c.jsonl")
    assert files.read_queries(parquet(tmp_path / "c.parquet", [ROW, twice])) == found
    assert [query.options for query in found] == [("cow", "fox", "old hen"), ("fox", "cow")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "hen"}, "line 2 does not have its answer among its options"),
        ({"answer": None}, "line 2 has no answer, or something else than text there"),
        ({"options": "fox"}, "line 2 has no options"),
        ({"options": ["fox", 3]}, "line 2 has no options"),
        ({"options": ["fox"]}, "line 2 has no choice"),
        ({"options": ["fox", " "]}, "line 2 has no choice"),
        ({"sentences": "The fox sat ."}, "line 2 has no sentences"),
        ({"question": "The fox slept ."}, "line 2 has a question without XXXXX"),
        ({"question": 3}, "line 2 has no question"),
    ],
)
def test_a_row_that_cannot_be_answered_is_refused(tmp_path, changes, words):
    """A UsageError that names the file and the row, before anything is loaded."""
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, **changes})))
    with pytest.raises(errors.UsageError, match=r"^--sae-cbt .*c\.jsonl") as caught:
        files.read_queries(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("c.jsonl", ""), ("c.txt", "a"), ("c.jsonl", "[1]"), ("c.jsonl", "no")])
def test_what_is_no_such_file_is_refused(tmp_path, name, content):
    """Empty, of another form, or of other rows."""
    (tmp_path / name).write_text(content)
    with pytest.raises(errors.UsageError, match="--sae-cbt "):
        files.read_queries(tmp_path / name)


def test_a_query_is_one_sequence_per_option_and_the_first_is_right():
    """The passage is written out and given; the whole filled query is scored, behind the gap, too."""
    tokenizer = Words()
    found = tokenised(ROW, tokenizer=tokenizer)
    whole = [tokenizer.read(t[:n]) for t, n in zip(found.tokens, found.lengths, strict=True)]
    assert whole == [f'<bos> The fox sat. It was "old." The {x} slept.' for x in ("fox", "cow", "old hen")]
    assert scored(found, tokenizer) == ["The fox slept.", "The cow slept.", "The old hen slept."]
    assert found.rows.tolist() == [0, 0, 0]


def test_every_option_stands_behind_the_same_tokens():
    """A long passage loses its beginning, after the BOS, so that the longest filled query fits: for all alike."""
    tokenizer = Words()
    found = tokenised(ROW, tokenizer=tokenizer, n_context=7)
    assert [tokenizer.read(t[:n]) for t, n in zip(found.tokens, found.lengths, strict=True)] == [
        '<bos> was "old." The fox slept.',
        '<bos> was "old." The cow slept.',
        '<bos> was "old." The old hen slept.',
    ]
    assert scored(found, tokenizer) == ["The fox slept.", "The cow slept.", "The old hen slept."]
    assert found.n_cut == 3
    without = tokenised(ROW, tokenizer=Words(), n_context=7, bos=None)
    assert without.lengths.tolist() == [6, 6, 7]


@pytest.mark.parametrize(("n_context", "bos"), [(4, BOS), (4, None)])
def test_a_query_that_fills_the_context_is_refused(n_context, bos):
    """With no room before it there is nothing to predict its first token from."""
    assert tokenised(ROW, n_context=5, bos=bos).lengths.max() == 5
    with pytest.raises(errors.MeasuringError, match="query 0 is longer than the context"):
        tokenised(ROW, n_context=n_context, bos=bos)


def test_tokens_that_begin_in_the_passage_are_scored():
    """Where the tokenizer joins passage and query, what follows the last token that all share is scored."""

    class Joining(Words):
        def __call__(self, text, **_):
            return super().__call__(text.replace('" The ', '"+The '))

    tokenizer = Joining()
    assert scored(tokenised(ROW, tokenizer=tokenizer), tokenizer) == [
        f'"old."+The {option} slept.' for option in ("fox", "cow", "old hen")
    ]


@given(st.lists(st.sampled_from(["fox", "cow", "hen", "old hen"]), min_size=2, unique=True), st.integers(20, 60))
def test_only_the_option_differs(options, n_context):
    """Letter by letter: the sequences of one query differ in the option alone, and all end the same way."""
    row = {**ROW, "answer": options[0], "options": sorted(options)}
    found = tokenised(row, tokenizer=Letters(), n_context=n_context)
    given_tokens = found.scored.argmax(1) + 1
    assert len({*given_tokens.tolist()}) == 1
    assert len({t[: given_tokens[0]].tobytes() for t in found.tokens}) == 1
    assert found.lengths.max() <= n_context
    for option, tokens, length, is_scored in zip(
        [options[0], *(o for o in sorted(options) if o != options[0])],
        found.tokens,
        found.lengths,
        found.scored,
        strict=True,
    ):
        assert is_scored.sum() == length - given_tokens[0] == len(f" The {option} slept.")
        assert (tokens[:1] == BOS).all()


def chosen(clean, rows, spliced=None):
    from sae_checks.measuring.choices import _choices

    n, unread = len(clean), np.zeros(len(clean), dtype=np.int64)
    return _choices(
        ItemLosses(
            items=np.array(rows),
            clean_correct=np.zeros(n, dtype=bool),
            spliced_correct=np.zeros(n, dtype=bool),
            clean_logprob_nats=floats(clean),
            spliced_logprob_nats=floats(clean if spliced is None else spliced),
            n_target_tokens=np.ones(n, dtype=np.int64),
            n_context_tokens=unread,
            clean_rank=unread,
            spliced_rank=unread,
        )
    )


def test_the_first_option_must_beat_all_others():
    """Three queries: right, wrong, and a tie, which is wrong; the number of options may differ."""
    found = chosen([-1, -2, -3, -5, -4, -7, -7], [8, 8, 8, 2, 2, 5, 5])
    assert found.queries.tolist() == [8, 2, 5]
    assert found.n_options.tolist() == [3, 2, 2]
    assert found.clean_correct.tolist() == [True, False, False]
    assert found.clean_chosen.tolist() == [0, 1, 1]
    sums = [math.exp(-1) + math.exp(-2) + math.exp(-3), math.exp(-5) + math.exp(-4), 2 * math.exp(-7)]
    expected = [math.log(math.exp(a) / s) for a, s in zip((-1, -5, -7), sums, strict=True)]
    assert found.clean_logprob_nats == pytest.approx(expected)


@given(st.lists(st.lists(rates, min_size=2, max_size=5), min_size=1, max_size=6), rates)
def test_a_choice_is_an_argmax_and_does_not_mind_a_shift(nats, shift):
    """As a loop finds it; and a constant per query, such as the passage's own probability, changes nothing."""
    rows = [i for i, of_query in enumerate(nats) for _ in of_query]
    flat = [-x for of_query in nats for x in of_query]
    found = chosen(flat, rows, [x - shift * (1 + r) for x, r in zip(flat, rows, strict=True)])
    assert found.clean_correct.tolist() == [of_query[0] < min(of_query[1:]) for of_query in nats]
    assert found.spliced_correct.tolist() == found.clean_correct.tolist()
    wrong = [0 if of_query[0] < min(of_query[1:]) else 1 + of_query[1:].index(min(of_query[1:])) for of_query in nats]
    assert found.clean_chosen.tolist() == wrong
    assert found.spliced_logprob_nats == pytest.approx(found.clean_logprob_nats, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [3, 4])
def test_a_query_that_is_not_finite_is_named(bad, place):
    """In the right option or another: nothing is chosen, and the query is said."""
    nats = [-1.0, -2, -3, -1, -2, -3]
    nats[place] = bad
    readings = answer_readings.cbt(chosen([-1.0, -2, -3, -1, -2, -3], [4, 4, 4, 7, 7, 7], nats))
    assert all(isinstance(r, NotFinite) and "spliced log-probability of query 7 is " in r.where for r in readings)


def test_readings_by_hand():
    """Shares, the paired drop, chance as the mean of one in so many, and the fall of the answer's log-probability."""
    losses = choice_losses(
        [True, True, False, True], [True, False, False, True], [-1.0] * 4, [-1, -3, -1.5, -1.5], n_options=[2, 4, 4, 2]
    )
    found = {r.measure: r for r in answer_readings.cbt(losses)}
    assert [found[m].value for m in ("choice_accuracy_clean", "choice_accuracy_spliced", "choice_accuracy_drop")] == [
        0.75,
        0.5,
        0.25,
    ]
    assert (found["chance"].value, found["chance"].low, found["chance"].high) == (0.375, 0.375, 0.375)
    assert found["answer_logprob_drop"].value == pytest.approx(0.75)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), rates, rates), min_size=2, max_size=30))
def test_every_measure_is_read(rows):
    """One reading per measure in the catalogue's order, with its unit; bounds are ordered, and swapping negates."""
    clean, spliced, was, became = (list(column) for column in zip(*rows, strict=True))
    losses = choice_losses(clean, spliced, [-x for x in was], [-x for x in became])
    back = choice_losses(spliced, clean, [-x for x in became], [-x for x in was])
    readings, swapped = answer_readings.cbt(losses), answer_readings.cbt(back)
    assert [r.measure for r in readings] == [m.name for m in checks.CBT.measures]
    for r, other in zip(readings, swapped, strict=True):
        assert isinstance(r, Estimate)
        assert r.unit == checks.CBT.unit_of(r.measure)
        assert r.low <= r.value <= r.high
        if r.measure.endswith("drop"):
            assert other.value == pytest.approx(-r.value)


def test_no_query_measures_nothing():
    """And one query has shares, but no interval for a mean."""
    assert {type(r) for r in answer_readings.cbt(choice_losses([], []))} == {NotMeasured}
    one = {r.measure: r for r in answer_readings.cbt(choice_losses([True], [False]))}
    assert isinstance(one["answer_logprob_drop"], NotMeasured)
    assert isinstance(one["choice_accuracy_drop"], Estimate)


@pytest.mark.parametrize(
    ("asked", "on_hub", "offline", "source"),
    [
        (None, True, False, "cam-cst/cbt@c:CN:test"),
        (":NE", True, False, "cam-cst/cbt@c:NE:test"),
        (":NE", False, False, "cam-cst/cbt@c:NE:test"),
        (":NE:validation", True, False, "cam-cst/cbt@c:NE:validation"),
        ("org/own:x", True, False, "org/own@c:x:test"),
        ("own.parquet", True, True, "own.parquet"),
        (None, False, False, None),
        (None, True, True, None),
    ],
)
def test_where_the_queries_come_from(monkeypatch, asked, on_hub, offline, source):
    """Common nouns by default where the release is of the Hub; other configurations by a colon; offline no default."""
    from sae_checks.plan import corpus_source, plan
    from sae_checks.release import hub

    def pin(repo_id, *, kind, revision):
        return hub.HubRepo(repo_id=repo_id, kind=kind, commit="c", files=(), offline=offline)

    monkeypatch.setattr(hub, "pin", pin)
    monkeypatch.setattr(hub, "is_offline", lambda: offline)
    release = SimpleNamespace(revision="c" if on_hub else None)
    found = plan._find_corpus(asked, None, corpus_source.CBT, release)
    assert (None if found is None else found.pinned().name) == source
