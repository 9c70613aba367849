"""The table of checks: what an inconclusive check asks for."""

import re

import pytest
from builders import limit
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.judging.sequential import Decision
from sae_checks.plan import flags, options
from sae_checks.run.table import ROWS, what_settles

PLANNED = [row for row in ROWS if row.measured_by not in ("golden", "weights")]


def decision(n_needed, *, n_most=256):
    return Decision(
        outcome="inconclusive",
        measure=limit().measure,
        n_used=n_most,
        n_most=n_most,
        value=0.3,
        low=0.2,
        high=0.4,
        worst=1.0,
        skewness=0.0,
        n_needed=n_needed,
    )


@pytest.mark.parametrize("row", PLANNED, ids=lambda row: row.check.name)
@given(n=st.integers(1, 100_000))
def test_the_option_that_settles_plans_enough(row, n):
    """What the line says one can type, and with it at least so many are planned, and hardly more."""
    asked = options.Options(release="demo")
    planned = row.n_planned(asked)
    flag, value = re.fullmatch(
        r"\n  try:      (--[a-z-]+)=(\d+)", what_settles(row, decision(n, n_most=planned), asked)
    ).groups()
    key = flag.removeprefix("--").replace("-", "_")
    more = row.n_planned(options.parse({**flags.defaults(), key: value}))
    wanted = max(n, planned + 1, 32)
    assert wanted <= more < wanted + 5


def test_a_text_that_is_too_short_is_to_be_longer():
    """More sequences of it there are none."""
    row = PLANNED[0]
    asked = options.Options(release="demo")
    line = what_settles(row, decision(400, n_most=100), asked)
    assert line == "\n  try:      --sae-corpus=FILE with at least 400 rows, and --sae-sequences=400"


def test_what_nothing_settles_asks_for_nothing():
    """A value at the limit, or a check without a test."""
    asked = options.Options(release="demo")
    assert what_settles(PLANNED[0], decision(None), asked) == what_settles(PLANNED[0], None, asked) == ""
