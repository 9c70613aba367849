"""Error rates resampled from what was measured: as simulated where the shape is known, and said where they are high."""

from dataclasses import replace

import numpy as np
import pytest
from builders import BUDGET, limit
from hypothesis import given
from hypothesis import strategies as st
from simulated import increases

from sae_checks.comparing import resampled_error_rates
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.paired_samples import PairedAnswers, PairedRatio

FEW = Budget(n_planned=48, n_most=48, n_checks=31)


def ratio(values, denominators=100.0, ideal_value=0.0):
    values = np.asarray(values)
    return PairedRatio(
        measure="ce_increase",
        measures_version=1,
        fingerprint="0" * 64,
        numerators=tuple(values * denominators),
        denominators=(denominators,) * len(values),
        ideal_value=ideal_value,
    )


def answers(lost, won, n):
    values = (1,) * lost + (-1,) * won + (0,) * (n - lost - won)
    return PairedAnswers(
        measure="accuracy_drop", measures_version=1, fingerprint="0" * 64, answers=values, n_listed=None
    )


@pytest.mark.parametrize("cv", [0.3, 0.6, 1.0])
def test_tame_values_are_judged_as_promised(cv):
    """A sample of 256 of the simulated shapes: the nominal level, and four standard errors."""
    values = increases("lognormal", cv, 0.1, n=256, n_replications=1, seed=0)[0]
    found = resampled_error_rates.rates_at_limit(ratio(values), limit(value=0.3), BUDGET)
    assert found.is_as_promised
    assert found.passed <= ALPHA + 4 * np.sqrt(ALPHA * (1 - ALPHA) / resampled_error_rates.N_RESAMPLES)
    assert found.n_mean <= 256


def test_a_tail_that_a_smoke_run_cannot_see_is_told():
    """One sequence in twenty that costs ten times as much: a plan of 48 has no guard, and one of 256 has."""
    values = increases("contaminated", 0.1, 0.1, n=256, n_replications=1, seed=0)[0]
    found, guarded = (
        resampled_error_rates.rates_at_limit(ratio(values), limit(value=0.15), plan) for plan in (FEW, BUDGET)
    )
    assert not found.is_as_promised
    assert found.passed > 0.2
    assert guarded.passed < found.passed


def test_a_bet_is_resampled_as_a_bet():
    """Few pass at the limit even in a small plan, and none where a sequence costs more than the cap."""
    values = increases("contaminated", 0.1, 0.1, n=256, n_replications=1, seed=0)[0]
    sample = replace(ratio(values), largest_denominator=100.0)
    assert resampled_error_rates.rates_at_limit(sample, limit(value=0.15), FEW).passed < 0.05


def test_without_a_best_there_is_no_guard():
    """As the rule has it: what has no exact value has no five times the way to it."""
    values = increases("contaminated", 0.1, 0.1, n=256, n_replications=1, seed=0)[0]
    with_ideal, without = (
        resampled_error_rates.rates_at_limit(ratio(values, ideal_value=ideal_value), limit(value=0.15), BUDGET)
        for ideal_value in (0.0, None)
    )
    assert without.passed > with_ideal.passed


@pytest.mark.parametrize(
    ("kind", "bound", "lost", "won"), [("max", 0.1, 20, 5), ("max", 0.05, 0, 0), ("min", -0.1, 3, 9)]
)
def test_answers_are_judged_as_promised(kind, bound, lost, won):
    """Betting is exact: few drops that are beyond the limit pass, however few answers flipped in the sample."""
    plan = Budget(n_planned=600, n_most=600, n_checks=31)
    found = resampled_error_rates.rates_at_limit(
        answers(lost, won, 600), limit("lambada", "accuracy_drop", kind, bound), plan
    )
    assert found.is_as_promised
    assert found.failed <= ALPHA


def test_what_does_not_vary_or_cannot_be_lost_has_no_rates():
    """A constant is at the limit or not; nobody loses more answers than there are."""
    assert resampled_error_rates.rates_at_limit(ratio([0.1] * 40), limit(value=0.3), BUDGET) is None
    assert (
        resampled_error_rates.rates_at_limit(answers(0, 30, 40), limit("lambada", "accuracy_drop", value=0.5), BUDGET)
        is None
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 8.0]))
def test_the_unit_of_loss_does_not_matter(seed, c):
    """Values, limit and ideal value in other units: the same resamples, the same rates."""
    values = np.random.default_rng(seed).lognormal(-2, 0.6, 40)
    plan = replace(FEW, n_planned=32, n_most=32)
    found, scaled = (
        resampled_error_rates.rates_at_limit(ratio(values * k), limit(value=0.25 * k), plan, n_resamples=50)
        for k in (1.0, c)
    )
    assert (found.passed, found.failed, found.n_mean) == (scaled.passed, scaled.failed, scaled.n_mean)
