"""What is printed at the end of a run: the table, the complaints, the tally."""

from dataclasses import replace

import pytest
from builders import BUDGET, around, estimate, limit, sampled
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import results

from sae_checks import checks
from sae_checks.judging import verdict
from sae_checks.judging.position_readings import Curve
from sae_checks.judging.sequential import Decision
from sae_checks.record.results import Result
from sae_checks.report import terminal

TONES = {
    "passed": ("ok", "good"),
    "failed": ("FAILED", "bad"),
    "inconclusive": ("INCONCLUSIVE", "bad"),
    "not_measured": ("not measured", "warn"),
    "reported": ("reported", "plain"),
    "error": ("ERROR", "bad"),
}
any_results = st.lists(results(provenance=st.none()), max_size=6)
outcomes = pytest.mark.parametrize("outcome", TONES)


def result(sae_id="a", check="ce_loss", outcome="passed", *, reason="told", value=0.1, **rest):
    of_check = limit() if check == "ce_loss" else limit("sparsity", "explained_variance", "min", 0.5)
    of_check = rest.pop("limit", of_check)
    measured = (estimate("ce_clean", 3.0), estimate("ce_increase", value)) if check == "ce_loss" else ()
    return Result(sae_id=sae_id, check=check, outcome=outcome, reason=reason, limit=of_check, estimates=measured)


def words(line):
    return [piece.text.strip() for piece in line]


def test_a_row_per_sae_and_a_column_per_check():
    """SAEs in the order they came, checks in the catalogue's, and only those that are there."""
    rows = [result("b", "sparsity"), result("b"), result("a", value=0.25, outcome="failed")]
    head, *body = terminal.check_table(rows)
    assert words(head) == ["SAE", "CE loss (ce_increase)", "sparsity (explained_variance)"]
    assert [words(line) for line in body] == [["b", "0.1 ok", "ok"], ["a", "0.25 FAILED", ""]]


@given(any_results)
@settings(max_examples=25)
def test_the_table_is_aligned(rows):
    """Every line has the same pieces, and every column one width."""
    lines = terminal.check_table(rows)
    widths = [[len(piece.text) for piece in line] for line in lines]
    assert all(of_line == widths[0] for of_line in widths)
    assert len(lines) == 1 + len({row.sae_id for row in rows})


@outcomes
def test_an_outcome_has_its_word_and_tone(outcome):
    """Only passed is good; nothing that blocks a release looks like a pass."""
    _, line = terminal.check_table([result(outcome=outcome)])
    word, tone = TONES[outcome]
    assert words(line) == ["a", f"0.1 {word}"]
    assert [piece.tone for piece in line] == ["plain", tone]


def test_every_outcome_is_known():
    """A new outcome without a word would be an exception at the end of a run."""
    assert set(terminal._OUTCOMES) == set(verdict.Outcome.__args__) == set(TONES)


def test_a_result_without_its_measure_shows_no_number():
    """Nothing measured, or no limit: the word alone, never a number of another measure."""
    bare = Result(sae_id="a", check="ce_loss", outcome="error", reason="none", limit=None)
    head, line = terminal.check_table([bare])
    assert (words(head), words(line)) == (["SAE", "CE loss"], ["a", "ERROR"])
    _, line = terminal.check_table([result(limit=limit(measure="kl"))])
    assert words(line) == ["a", "ok"]


def test_a_table_of_nothing_is_a_head():
    """No result, no row."""
    assert [words(line) for line in terminal.check_table([])] == [["SAE"]]


def test_a_complaint_says_value_interval_limit_and_where():
    """All that is needed to look it up, from the verdict on."""
    of_check = limit(value=0.3, source="measured in May", where="own.toml [default.ce_loss]")
    found = verdict.judge((sampled("ce_increase", around(0.4, 0.05, 256)),), of_check, BUDGET)
    told = "\n".join(
        terminal.message_lines(result("blocks.2", outcome=found.outcome, reason=found.reason, limit=of_check))
    )
    for part in (
        "FAILED: ce_loss of blocks.2",
        "0.4 > 0.3 nats/token [0.3",
        "], n 16",
        "own.toml [default.ce_loss]",
        "measured in May",
    ):
        assert part in told


@outcomes
def test_a_complaint_keeps_every_line_of_its_reason(outcome):
    """A message of four parts stays one of four parts; only an error has no limit to look up."""
    lines = terminal.message_lines(result(outcome=outcome, reason="what\n  expected: a\n  got:      b\n  try:      c"))
    assert lines[0] == f"{TONES[outcome][0]}: ce_loss of a: what"
    assert lines[1:4] == ("  expected: a", "  got:      b", "  try:      c")
    assert len(lines) == (4 if outcome == "error" else 5)


def test_a_complaint_without_a_reason_is_still_one():
    """An empty reason is no exception at the end of a run."""
    assert terminal.message_lines(result(outcome="error", reason="")) == ("ERROR: ce_loss of a: ",)


def test_the_tally_counts_every_outcome():
    """In a fixed order, in words, none that is zero."""
    rows = [result(outcome=o) for o in ("failed", "passed", "not_measured", "passed", "error", "inconclusive")]
    assert terminal.outcome_counts(rows) == "2 passed, 1 failed, 1 inconclusive, 1 not measured, 1 error"
    assert terminal.outcome_counts([]) == ""


@given(any_results)
@settings(max_examples=25)
def test_the_tally_adds_up(rows):
    """Every result is counted once."""
    counted = [int(part.split()[0]) for part in terminal.outcome_counts(rows).split(", ") if part]
    assert sum(counted) == len(rows)


def test_every_check_has_a_title():
    """Columns are told apart."""
    titles = [check.title for check in checks.CHECKS]
    assert len(set(titles)) == len(titles)
    assert all(titles)


def drawn(sae_id, positions, values):
    curve = Curve(
        measure="ce_increase",
        unit="nats/token",
        position=tuple(positions),
        value=tuple(values),
        low=tuple(values),
        high=tuple(values),
        n_sequences=(9,) * len(positions),
    )
    return Result(
        sae_id=sae_id, check="long_context", outcome="passed", reason="", limit=None, curves=(curve,), estimates=()
    )


def test_the_increase_is_shown_by_octaves():
    """Means over 0-15, 16-31, 32-63: a row per SAE, empty where it has no position; without a curve nothing."""
    short, long = drawn("a", range(1, 20), [1.0] * 15 + [3.0] * 4), drawn("b", [15, 16, 40, 60], [0.5, 0.25, 2.0, 4.0])
    assert [words(line) for line in terminal.octave_table([result(), short, long])] == [
        ["CE increase at positions", "0-15", "16-31", "32-63"],
        ["a", "1", "3", ""],
        ["b", "0.5", "0.25", "3"],
    ]
    assert terminal.octave_table([result()]) == ()


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(-64, 64)), unique_by=lambda point: point[0], max_size=20))
@settings(max_examples=25)
def test_smoothing_takes_every_point_once(points):
    """Each position falls into the octave that holds it; octaves' means lie between their points."""
    positions, values = zip(*sorted(points), strict=True) if points else ((), ())
    smooth = terminal.octave_means(drawn("a", positions, values).curves[0])
    assert set(smooth) == {next(o for o in smooth if o[0] <= p <= o[1]) for p in positions}
    for (first, last), mean in smooth.items():
        there = [v for p, v in zip(positions, values, strict=True) if first <= p <= last]
        assert min(there) <= mean <= max(there)


def decided(n_used, n_most, outcome="passed"):
    of = {"value": 0.1, "low": 0.0, "high": 0.2, "worst": 1.0, "skewness": 0.0, "n_needed": None}
    made = Decision(outcome=outcome, measure="ce_increase", n_used=n_used, n_most=n_most, **of)
    return replace(result(outcome=outcome), decision=made)


def test_early_verdicts_are_counted():
    """Those before the last look, and the median share; a check without a sequential verdict is none of them."""
    rows = [decided(32, 256), decided(64, 256), decided(256, 256), result(outcome="reported")]
    assert terminal.early_stops(rows).startswith("2 of 3 sequential verdicts came early, half of all within 25% of")
    assert terminal.early_stops([result(outcome="error")]) == ""


@pytest.mark.parametrize(
    ("outcomes", "is_green", "word"),
    [
        (("passed", "reported"), True, "PASSED"),
        (("passed", "inconclusive"), True, "PASSED"),
        (("inconclusive", "failed", "error"), False, "FAILED"),
        (("inconclusive", "error"), False, "ERROR"),
        (("passed", "inconclusive"), False, "INCONCLUSIVE"),
        (("not_measured",), False, "NOT JUDGED"),
    ],
)
def test_the_run_has_one_word(outcomes, is_green, word):
    """The worst of its checks, and green only where pytest is."""
    rows = [result(outcome=outcome) for outcome in outcomes]
    assert terminal.closing_line("demo", rows, is_green=is_green) == f"demo: {word}"
