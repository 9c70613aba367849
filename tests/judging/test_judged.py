"""The value that is shown: its interval never contradicts the outcome, as numbers and as text."""

from dataclasses import replace

import numpy as np
import pytest
from builders import BUDGET, around, estimate, limit, sampled
from hypothesis import given
from hypothesis import strategies as st
from showing import contradiction

from sae_checks import checks
from sae_checks.judging import verdict
from sae_checks.judging.estimates import counted, share_of
from sae_checks.judging.judged import JudgedValue
from sae_checks.record.results import Result

lists = st.lists(st.floats(-2, 5), min_size=8, max_size=80) | st.tuples(
    st.floats(-1, 4), st.floats(0, 2), st.integers(2, 96)
).map(lambda of: around(*of))


@given(lists, lists, st.floats(-0.5, 3), st.sampled_from(["max", "min", "range"]))
def test_what_is_shown_agrees_with_the_outcome(values, ratios, bound, kind):
    """Whatever the sample and the limit, a range and evidence of a loading error included."""
    readings = (sampled("l0_ratio", ratios), sampled("explained_variance", values))
    of_check = limit("sparsity", "explained_variance", "min" if kind == "min" else "max", bound)
    of_check = replace(of_check, floor=bound - 0.5) if kind == "range" else of_check
    found = verdict.judge(readings, of_check, replace(BUDGET, n_most=max(len(values), len(ratios))))
    assert contradiction(found) is None
    assert contradiction(found, as_text=True) is None


def test_each_end_of_a_range_is_shown_by_the_decision_that_tested_it():
    """The bound against a failure is further out than that for a pass: near both ends only the latter is inside."""
    of_check = replace(limit("random_error", "kl_ratio_isotropic", value=2.0), floor=1.0)
    of_widths = [
        verdict.judge((sampled("kl_ratio_isotropic", around(1.5, width, 256)),), of_check, BUDGET)
        for width in np.linspace(0.5, 1.5, 21)
    ]
    assert [contradiction(found) for found in of_widths] == [None] * 21
    assert {found.outcome for found in of_widths if found.judged.n > 32} >= {"passed"}


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40))
def test_a_value_that_decides_by_itself_shows_no_other(value, bound, n):
    """Counted, or with an interval that only describes, such as that of dead latents."""
    for low in (value, 0.0):
        readings = (replace(counted("dead_latents", checks.SPARSITY, value, n), low=low),)
        assert contradiction(verdict.judge(readings, limit("sparsity", "dead_latents", "max", bound), BUDGET)) is None


@pytest.mark.parametrize(("n_true", "n_listed", "words"), [(40, 40, "exact: all 40 passages"), (40, 80, "], n ")])
def test_the_whole_list_is_exact(n_true, n_listed, words):
    """Every passage of the list was measured: there is nothing left to estimate."""
    flags = np.arange(40) < n_true
    of_check = limit("lambada", "accuracy_drop", "max", 1.5)
    reading = replace(share_of("accuracy_drop", flags, n_listed), unit="fraction")
    found = verdict.judge((estimate("accuracy_clean", 9.0), reading), of_check, replace(BUDGET, n_most=40))
    assert words in found.reason


def test_nothing_that_varies_is_not_the_whole_list():
    """An exact SAE has an interval of width 0 over a sample; that is no exact value."""
    found = verdict.judge((sampled("ce_increase", [0.0] * 64, ideal_value=None),), limit(value=0.3), BUDGET)
    assert found.reason == "0 <= 0.3 nats/token [0, 0], n 32 of 256"


def test_counted_values_say_what_they_were_counted_in():
    """No interval, but how many."""
    found = verdict.judge((estimate("l0_max", 3.0, 3.0, 3.0, 64),), limit("sparsity", "l0_max", "max", 4.0), BUDGET)
    assert found.reason == "3 <= 4 latents/token, counted in 64 sequences"


@pytest.mark.parametrize(
    ("value", "bound", "words"),
    [
        (0.30004, 0.3, "0.30004 > 0.3"),
        (0.3, 0.3, "0.3 <= 0.3"),
        (2.0612, 0.0282, "2.06 > 0.0282"),
        (1e-9, 0, "1e-09 > 0"),
    ],
)
def test_as_many_digits_as_tell_value_and_limit(value, bound, words):
    """Three, or more where the rounded value would lie on the other side of the limit."""
    found = JudgedValue(measure="kl", value=value, low=None, high=None, unit="nats/token", n=9)
    assert found.against(limit(value=bound), "ce_loss") == f"{words} nats/token, n 9"


def test_evidence_of_a_loading_error_is_shown_with_its_own_limit():
    """The limited measure is as good as it may be; what failed the check is said instead."""
    explained = sampled("explained_variance", around(0.99, 0.001, 64))
    of_check = limit("sparsity", "explained_variance", "min", 0.5)
    found = verdict.judge((sampled("l0_ratio", around(4.0, 0.1, 64)), explained), of_check, BUDGET)
    assert found.reason.startswith("l0_ratio 4 > 2 ")
    assert (found.judged.measure, found.judged.bound.value) == ("l0_ratio", 2.0)
    assert contradiction(found) is None


def test_a_result_of_an_earlier_version_shows_what_its_decision_saw():
    """A record without the value has the decision; where that is missing, the interval unless it contradicts."""
    of_check = limit(value=0.3)
    found = verdict.judge((sampled("ce_increase", [*around(0.1, 0.01, 64), *around(0.9, 0.1, 192)]),), of_check, BUDGET)
    old = Result(
        sae_id="a",
        check="ce_loss",
        outcome=found.outcome,
        reason="",
        limit=of_check,
        estimates=found.estimates,
        decision=found.decision,
    )
    assert old.judged == found.judged
    without = replace(old, decision=None, judged=None)
    assert (without.judged.value, without.judged.low, without.judged.high) == (found.estimates[0].value, None, None)
