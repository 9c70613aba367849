"""The table of checks: what an inconclusive check asks for."""

import re
from dataclasses import replace

import pytest
from builders import limit
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.judging.sequential import Decision
from sae_checks.judging.verdict import Verdict
from sae_checks.plan import flags, options
from sae_checks.record.results import Result
from sae_checks.run.table import ROWS, what_settles, what_settles_comparison

DEMO = options.Options(release="demo")
PLANNED = [row for row in ROWS if row.measured_by not in ("golden", "weights")]


def undecided(n_needed, *, n_used=256, outcome="inconclusive"):
    """A verdict on *n_used* values that asks for *n_needed*."""
    decision = Decision(
        outcome=outcome,
        measure=limit().measure,
        n_used=n_used,
        n_most=n_used,
        value=0.3,
        low=0.2,
        high=0.4,
        worst=1.0,
        skewness=0.0,
        n_needed=n_needed,
    )
    return Verdict(
        outcome=outcome, reason="", limit=limit(), estimates=(), decision=decision, judged=None, is_final=False
    )


@pytest.mark.parametrize("row", PLANNED, ids=lambda row: row.check.name)
@given(n=st.integers(1, 100_000))
def test_the_option_that_settles_plans_enough(row, n):
    """What the line says one can type, and with it at least so many are planned, and hardly more."""
    asked = options.Options(release="demo")
    planned = row.n_planned(asked)
    flag, value = re.fullmatch(
        r"\n  try:      (--[a-z-]+)=(\d+)", what_settles(row, undecided(n), planned, asked)
    ).groups()
    key = flag.removeprefix("--").replace("-", "_")
    more = row.n_planned(options.parse({**flags.defaults(), key: value}))
    wanted = max(n, planned + 1, 32)
    assert wanted <= more < wanted + 5


def test_a_text_that_is_too_short_is_to_be_longer():
    """More sequences of it there are none."""
    line = what_settles(PLANNED[0], undecided(400), 100, DEMO)
    assert line == "\n  try:      --sae-corpus=FILE with at least 400 rows, and --sae-sequences=400"


def test_an_inconclusive_check_always_has_something_to_type():
    """More sequences, or where no number of them would do another limit; without a decision, enough for one."""
    for n_needed in (None, 10**9):
        line = what_settles(PLANNED[0], undecided(n_needed), 256, DEMO)
        assert line.startswith("\n  try:      --sae-thresholds=FILE ")
        against = what_settles_comparison(PLANNED[0], compared(n_needed), DEMO)
        assert against.startswith("\n  try:      --sae-thresholds=FILE ")
    counted = replace(undecided(None), decision=None)
    for few in (counted, undecided(None, n_used=7)):
        assert what_settles(PLANNED[0], few, 7, DEMO).endswith("=FILE with at least 32 rows, and --sae-sequences=32")
    assert what_settles_comparison(PLANNED[0], compared(300), DEMO) == (
        "\n  try:      --sae-profile=full --sae-sequences=300 in both runs"
    )


def test_a_decided_check_asks_for_nothing():
    """Neither does its comparison with the baseline."""
    for outcome in ("passed", "failed", "not_measured"):
        assert what_settles(PLANNED[0], undecided(None, outcome=outcome), 256, DEMO) == ""
        assert what_settles_comparison(PLANNED[0], replace(compared(None), outcome=outcome), DEMO) == ""


def compared(n_needed):
    """An inconclusive comparison."""
    return Result(
        sae_id="a-ce_loss",
        check="no_regression",
        outcome="inconclusive",
        reason="",
        limit=limit(),
        decision=undecided(n_needed).decision,
    )
