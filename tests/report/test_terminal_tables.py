"""The tables at the end of a run: one row per SAE, or per check of many SAEs, in any width."""

import pytest
from builders import estimate, limit
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import results

from sae_checks import checks
from sae_checks.judging import verdict
from sae_checks.judging.estimates import Estimate
from sae_checks.record.results import Result
from sae_checks.report import terminal_tables
from sae_checks.report.terminal_tables import text_of

any_results = st.lists(results(provenance=st.none()), max_size=40)
widths = pytest.mark.parametrize("n_columns", [40, 80, 120, 200])


def result(sae_id="a", check="ce_loss", outcome="passed", *, value=0.1, limit_value=0.3, **rest):
    measure = "ce_increase" if check == "ce_loss" else checks.named(check).measures[-1].name
    of = limit(check, measure, value=limit_value)
    given = {"reason": "so", "limit": of, "estimates": (estimate(measure, value),)}
    return Result(sae_id=sae_id, check=check, outcome=outcome, **{**given, **rest})


def table(rows, n_columns=80, **rest):
    return [text_of(line) for line in terminal_tables.tables(rows, n_columns=n_columns, **rest)]


def test_a_row_per_sae_and_a_column_per_check():
    """SAEs in the order they came, checks in the catalogue's, the limits below their names, a sign with each value."""
    rows = [
        result("b", "lambada", value=-0.01),
        result("b", value=0.02),
        result("a", outcome="failed", value=0.51),
        result("a", "lambada", "inconclusive", value=0.29),
    ]
    assert table(rows) == [
        "SAE    ce      lambada",
        "limit  ≤ 0.3   ≤ 0.3",
        "b      ✓ 0.02  ✓ −0.01",  # noqa: RUF001 -- the minus sign
        "a      ✕ 0.51  ? 0.29",
    ]


def test_limits_that_differ_stand_beside_what_is_red():
    """There is no common limit to put below the name of the check."""
    rows = [result("a"), result("b", outcome="failed", value=0.51, limit_value=0.5)]
    assert table(rows) == ["SAE  ce", "a    ✓ 0.1", "b    ✕ 0.51 > 0.5"]


def test_columns_without_a_value_are_a_reason():
    """A check that was measured nowhere has no column; why is said once."""
    rows = [result(sae_id, "cbt", "not_measured", reason="no text was given", estimates=()) for sae_id in "ab"]
    assert table([result("a"), result("b"), *rows])[-1] == "not measured: cbt: no text was given"
    assert "cbt" not in table([result("a"), result("b"), *rows])[0]


def test_green_columns_go_first():
    """Where the table is too wide, only what is red somewhere is shown; -v shows all; a green table is never cut."""
    names = [check.name for check in checks.CHECKS if check.of == "sae"]
    rows = [result("blocks.2.hook_resid_pre", name, "failed" if name == "cbt" else "passed") for name in names]
    first, *_, last = table(rows)
    assert first.split() == ["SAE", "cbt"]
    assert last.endswith("-v shows them")
    green = [result("blocks.2.hook_resid_pre", name) for name in names]
    for shown in (table(rows, shows_all=True), table(green)):
        heads = [head for line in shown if line.startswith("SAE ") for head in line.split()[1:]]
        assert heads == [checks.named(name).short for name in names]


@widths
@pytest.mark.parametrize("n_saes", [3, 26])
@pytest.mark.parametrize("shows_all", [False, True])
def test_no_line_is_wider_than_the_terminal(n_columns, n_saes, shows_all):
    """With ids longer than the terminal, too."""
    outcomes = ("passed", "failed", "inconclusive", "error", "reported", "not_measured")
    rows = [
        result(f"layer_{i}/width_16k/average_l0_{2**i}", check.name, outcomes[(i + k) % 6], value=10.0**-k)
        for i in range(n_saes)
        for k, check in enumerate(checks.CHECKS)
    ]
    found = table(rows, n_columns, shows_all=shows_all)
    assert max(map(len, found)) <= n_columns
    assert len(found) < 60 or shows_all or n_columns == 40


@widths
@given(any_results, st.booleans())
@settings(max_examples=20)
def test_any_results_fit(n_columns, rows, shows_all):
    """Whatever the names, values and reasons."""
    assert max(map(len, table(rows, n_columns, shows_all=shows_all)), default=0) <= n_columns


def test_beyond_fifteen_saes_the_checks_are_the_rows():
    """Counts, and the worst SAE with its value and limit; all SAEs under -v."""
    rows = [result(f"l0_{i}", value=0.01 * i, outcome="failed" if i > 30 else "passed") for i in range(40)]
    assert table(rows) == ["check    ok  failed  worst       SAE", "ce_loss  31  9       0.39 > 0.3  l0_39"]
    assert len(table(rows, shows_all=True)) == 42


def test_stacks_have_a_table_of_their_own():
    """Their checks are no empty columns of the SAEs' table."""
    assert table([result(), result("all of resid", "stacked", value=0.2)])[3:] == [
        "stack         stacked",
        "limit         ≤ 0.3",
        "all of resid  ✓ 0.2",
    ]


def comparison(name, outcome, difference, reason="so"):
    found = (("before", 1.0), ("after", 1 + difference), ("difference", difference))
    made = (Estimate(measure=m, value=v, low=v, high=v, unit="nats/token", n=9) for m, v in found)
    return Result(
        sae_id=name,
        check=checks.NO_REGRESSION.name,
        outcome=outcome,
        reason=reason,
        limit=limit(checks.NO_REGRESSION.name, "difference", value=0.1),
        estimates=tuple(made),
    )


def test_of_comparisons_only_what_is_worse_is_shown():
    """Regressions first, then what is worse within its margin; the others are a count."""
    rows = [
        comparison("a-cbt", "passed", 0.0),
        comparison("a-ce_loss", "passed", 0.05, "worse, but within the margin: difference 0.05"),
        comparison("b-ce_loss", "failed", 0.5),
    ]
    assert table(rows, 120) == [
        "against the baseline  before  after  difference  margin  verdict",
        "b-ce_loss             1       1.5    0.5         0.1     failed",
        "a-ce_loss             1       1.05   0.05        0.1     worse, but within the margin",
        "1 more comparisons with the baseline; -v shows them",
    ]
    assert len(table(rows, 120, shows_all=True)) == 4


def test_every_outcome_has_a_tone():
    """Only passed is good; nothing that blocks a release looks like a pass."""
    assert set(terminal_tables.TONES) == set(verdict.Outcome.__args__)
    assert [outcome for outcome, tone in terminal_tables.TONES.items() if tone == "good"] == ["passed"]


def test_every_check_has_its_own_head():
    """Columns of one table are told apart."""
    for kind in ("sae", "stack"):
        heads = [check.short for check in checks.CHECKS if check.of == kind]
        assert len(set(heads)) == len(heads)
        assert all(heads)
