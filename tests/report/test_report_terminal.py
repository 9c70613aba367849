"""The last lines of a run: what is not green, what to type next, the verdict; and the messages of single checks."""

from dataclasses import replace
from pathlib import Path

import pytest
from builders import BUDGET, around, estimate, limit, sampled
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import results

from sae_checks import checks
from sae_checks.diagnosis import Diagnosis
from sae_checks.judging import verdict
from sae_checks.record.results import Result
from sae_checks.report import beside_limit, terminal
from sae_checks.report.terminal_tables import RED, text_of

any_results = st.lists(results(provenance=st.none()), max_size=6)
widths = pytest.mark.parametrize("n_columns", [40, 80, 120, 200])
HEADS = {"failed": "FAILED", "inconclusive": "INCONCLUSIVE"}


def result(sae_id="a", check="ce_loss", outcome="passed", *, value=0.1, **rest):
    named = checks.named(check)
    measure = "ce_increase" if check == "ce_loss" else named.measures[-1].name
    given = {"reason": "so", "limit": limit(check, measure, value=0.3), "estimates": (estimate(measure, value),)}
    return Result(sae_id=sae_id, check=check, outcome=outcome, **{**given, **rest})


def lines(rows, verdict="failed", n_columns=80, **rest):
    return [text_of(line) for line in terminal.last_lines("demo", rows, verdict, n_columns=n_columns, **rest)]


RUN = [
    result("l0_100", outcome="failed", value=0.51, diagnosis=Diagnosis(sentence="the decoder is 1.6 times too long")),
    result("l0_25", outcome="failed", value=0.31),
    result("l0_25", "lambada"),
    result("l0_82", outcome="inconclusive", value=0.29),
    result("sound"),
    result("sound", "lambada", "reported"),
    result("all of resid", "stacked", "failed", value=9.0),
]


def test_the_last_lines_of_a_red_run():
    """The worst first, ids in natural order, SAEs before stacks; value and limit; diagnosis; next; the verdict last."""
    assert lines(RUN, n_columns=120, page=Path("out/report/index.html")) == [
        "l0_25   ce_loss 0.31 > 0.3",
        "l0_100   ce_loss 0.51 > 0.3",
        "  the decoder is 1.6 times too long",
        "l0_82   ce_loss 0.29 ≤ 0.3?",
        "all of resid   stacked 9 > 0.3",
        "next: open out/report/index.html   or   pytest ... --sae-explain=l0_25",
        "demo: FAILED   2 of 4 SAEs and 1 stack   (2 ok, 3 failed, 1 undecided, 1 reported)",
    ]


@widths
def test_l0_that_is_not_the_recorded_one_is_one_line(n_columns):
    """Of any number of SAEs; what does not fit is counted. No verdict changes."""
    ratios = [estimate("l0_ratio", 1.4, low=1.39, high=1.41)]
    rows = [
        result(f"blocks.{i}.x", "sparsity", estimates=(*ratios, estimate("explained_variance", 0.1))) for i in "0123"
    ]
    first, last = lines(rows, "passed", n_columns)
    assert first.startswith("warning: L0 / recorded L0   ")
    assert ("blocks.3.x 1.4" in first) == (n_columns >= 120)
    assert last.startswith("demo: PASSED")


def test_more_failed_checks_are_worse():
    """An SAE with more failed checks comes first; of its checks the one farthest beyond its limit."""
    rows = [
        result("b", outcome="failed", value=9.0),
        result("c", outcome="failed", value=0.31),
        result("c", "lambada", "failed", value=0.6),
    ]
    assert lines(rows)[:2] == ["c   lambada 0.6 > 0.3   ce_loss 0.31 > 0.3", "b   ce_loss 9 > 0.3"]


def test_a_green_run_is_one_line():
    """Nothing but the verdict and the count, in which speed items have their own word."""
    rows = [result("a"), result("a", "lambada"), result("b")]
    assert lines(rows, "passed", n_timed=2) == ["demo: PASSED   2 SAEs   (3 ok, 2 timed)"]


@pytest.mark.parametrize(
    ("verdict", "words", "tone"),
    [("passed", "PASSED", "good"), ("failed", "FAILED", "bad"), ("not_decided", "NOT DECIDED", "warn")],
)
def test_the_verdict_has_its_colour(verdict, words, tone):
    """Green, red or yellow, on the last line."""
    *_, last = terminal.last_lines("demo", [result()], verdict, n_columns=80)
    assert (last[0].text, last[0].tone) == (f"demo: {words}", tone)


@widths
@given(any_results, st.sampled_from(["passed", "failed", "not_decided"]))
@settings(max_examples=20)
def test_no_line_is_wider_than_the_terminal(n_columns, rows, verdict):
    """Whatever the names, values and reasons; and the verdict is on the last line."""
    found = lines(rows, verdict, n_columns)
    assert max(map(len, found)) <= n_columns
    assert terminal._WORDS[verdict][0] in found[-1]


def test_many_red_saes_are_counted():
    """15 are shown, each on a line; -v shows all."""
    rows = [
        result(f"l0_{i}", c, "failed", value=9.0) for i in range(40) for c in ("ce_loss", "lambada", "cbt", "golden")
    ]
    found = lines(rows, n_columns=60)
    assert len(found) < 20
    assert found[0].startswith("l0_0   ")
    assert "and 25 more; -v shows them" in found
    assert found[-1].startswith("demo: FAILED")
    assert any(line.startswith("l0_39 ") for line in lines(rows, shows_all=True))


def test_a_value_within_its_limit_does_not_explain_a_failure():
    """Evidence of a loading error is told by its reason; so are errors, once for all checks with the same."""
    rows = [
        result(outcome="failed", value=-1.0, reason="the model predicts better with the splice"),
        result("b", outcome="error", reason="no weights", estimates=()),
        result("b", "cbt", "error", reason="no weights", estimates=()),
    ]
    found = lines(rows)
    assert found[:4] == ["b", "  ce_loss, cbt: no weights", "a", "  ce_loss: the model predicts better with the splice"]


def test_an_undecided_check_names_the_option_that_settles_it():
    """Taken from its reason."""
    rows = [result(outcome="inconclusive", reason="too close\n  try:      --sae-sequences=512")]
    assert any("pytest ... --sae-sequences=512" in line for line in lines(rows, "not_decided"))


@pytest.mark.parametrize(
    ("value", "of", "shown"),
    [
        (0.51, limit(value=0.3), "0.51 > 0.3"),
        (0.3, limit(value=0.3), "0.3 ≤ 0.3"),
        (0.30001, limit(value=0.3), "0.30001 > 0.3"),
        (0.4, limit(kind="min", value=0.9), "0.4 < 0.9"),
        (5.0, replace(limit(value=4.0), floor=1.0), "5 > 4"),
        (0.5, replace(limit(value=4.0), floor=1.0), "0.5 < 1"),
        (float("nan"), limit(value=0.3), "nan > 0.3"),
    ],
)
def test_value_beside_its_limit(value, of, shown):
    """The sign is true, and the two are told apart by as many digits as that takes."""
    assert beside_limit.beside_limit(result(value=value, limit=of)) == shown
    assert beside_limit.beside_limit(result(value=value, limit=None)) == ""


def test_a_message_says_value_interval_limit_and_where():
    """All that is needed to look it up, from the verdict on."""
    of_check = limit(value=0.3, source="measured in May", where="own.toml [default.ce_loss]")
    found = verdict.judge((sampled("ce_increase", around(0.4, 0.05, 256)),), of_check, BUDGET)
    told = "\n".join(
        terminal.message_lines(result("blocks.2", outcome=found.outcome, reason=found.reason, limit=of_check))
    )
    for part in (
        "FAILED: ce_loss 0.4 > 0.3 nats/token [0.3",
        "(blocks.2)",
        "own.toml [default.ce_loss]",
        "measured in May",
    ):
        assert part in told


@pytest.mark.parametrize("outcome", RED)
def test_a_message_keeps_every_line_of_its_reason(outcome):
    """A message of four parts stays one of four parts; only an error has no limit to look up."""
    shown = terminal.message_lines(result(outcome=outcome, reason="what\n  expected: a\n  got:      b\n  try:      c"))
    assert shown[0] == ("ERROR: ce_loss of a: what" if outcome == "error" else f"{HEADS[outcome]}: ce_loss what (a)")
    assert shown[1:4] == ("  expected: a", "  got:      b", "  try:      c")
    assert len(shown) == (4 if outcome == "error" else 5)


def test_a_message_without_a_reason_is_still_one():
    """An empty reason is no exception at the end of a run."""
    assert terminal.message_lines(result(outcome="error", reason="")) == ("ERROR: ce_loss of a: ",)


def test_the_same_error_is_told_once():
    """A model that cannot be loaded is one message, not one for each check; of many failures ten are shown."""
    rows = [result(sae_id, c, "error", reason="no model") for sae_id in "ab" for c in ("ce_loss", "cbt")]
    assert terminal.messages(rows) == ("ERROR: 4 checks of 2 SAEs: no model",)
    many = [result(f"l0_{i}", outcome="failed") for i in range(12)]
    assert terminal.messages(many)[-1] == "and 2 more; -v shows them"
    assert len(terminal.messages(many, shows_all=True)) == 24
