"""The bet with a cap: its capital, its promise under the cap, what it names, and mutants of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import BUDGET, limit, sampled
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from simulated import increases, rates

from sae_checks.judging import betting, sequential, verdict
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.capped_bet import CappedBet
from sae_checks.judging.samples import Ratio

N_REPLICATIONS = 2000
FEW = 4 * math.sqrt(ALPHA * (1 - ALPHA) / N_REPLICATIONS)
"""Four standard errors of a rate of ALPHA."""
SIZES = ((256, 5), (64, 5), (32, 3))
"""(sequences of the plan, times the limit that one may cost)."""


def costs(values, **changes):
    """A sample of the mean of *values*, which a bet decides."""
    values = np.asarray(values, dtype=float)
    ratio = Ratio(numerators=values, denominators=np.ones(len(values)), ideal_value=0.0, largest_denominator=1.0)
    return replace(ratio, **changes)


def plan(n):
    return Budget(n_planned=n, n_most=n, n_checks=31)


def decided(sample, bound=0.3, budget=BUDGET, **changes):
    return sequential.decide(sample, replace(limit(value=bound), **changes), budget)


def drawn(shape, cv, mean, n, worst):
    """(replications, n) costs with that mean, cut off at *worst* limits."""
    if shape == "two-point":  # the hardest: nothing, or as much as is allowed
        rng = np.random.default_rng(6)
        return worst * (rng.random((N_REPLICATIONS, n)) < mean / worst).astype(float)
    values = increases(shape, cv, mean, n=n, n_replications=N_REPLICATIONS, seed=6)
    factor = optimize.brentq(lambda k: np.minimum(k * values, worst).mean() - mean, 0.5, 10)
    return np.minimum(factor * values, worst)


@settings(max_examples=40)
@given(st.lists(st.floats(-2, 4), min_size=1, max_size=40), st.sampled_from([3.0, 5.0, 8.0]))
def test_the_capital_is_that_of_a_plain_loop(excesses, worst):
    """Eight purses, each staked on every sequence; past the cap all is lost."""
    purses, is_lost = [1.0 / 8] * 8, False
    shares = [0.1 * (0.95 / 0.1) ** (j / 7) for j in range(8)]
    for i, excess in enumerate(excesses):
        is_lost |= excess > worst - 1
        purses = [purse * (1 - share / (worst - 1) * excess) for purse, share in zip(purses, shares, strict=True)]
        found = betting.log_capital_on_costs(np.array(excesses), worst)[i]
        assert found == (-math.inf if is_lost else pytest.approx(math.log(sum(purses)), abs=1e-9))


@pytest.mark.parametrize(("n", "worst"), SIZES)
@pytest.mark.parametrize(("shape", "cv"), [("lognormal", 0.6), ("lognormal", 1.5), ("gamma", 1.0), ("two-point", 0)])
def test_a_bad_sae_seldom_passes(n, worst, shape, cv):
    """At the limit itself, whenever it stops and at any size, as long as no sequence costs more than the cap."""
    assert rates(drawn(shape, cv, 1.0, n, worst), plan(n), bets=True).passed <= ALPHA + FEW


@pytest.mark.parametrize(("n", "worst"), SIZES)
def test_half_the_limit_passes(n, worst):
    """With a fraction of the budget, and in the smallest plan with nearly all of it."""
    for cv in (0.3, 0.6):
        assert rates(drawn("lognormal", cv, 0.5, n, worst), plan(n), bets=True).passed >= 0.95
    assert rates(drawn("lognormal", 0.6, 0.5, n, worst), plan(n), bets=True).n_mean <= 50


def test_rare_large_costs_do_not_pass():
    """One sequence in twenty costs ten times the others: the unguarded t-mixture passed 39 % of plans of 64."""
    for n, _ in SIZES:
        values = increases("contaminated", 0.3, 1.0, n=n, n_replications=N_REPLICATIONS, seed=4)
        assert rates(values, plan(n), bets=True).passed <= ALPHA + FEW


@pytest.mark.parametrize(("n", "n_used"), [(256, 24), (64, 24), (32, 16)])
def test_the_fewest_sequences(n, n_used):
    """What costs nothing passes at the first look with enough of them; another `worst` needs others."""
    budget = plan(n)
    assert decided(costs(np.zeros(n)), budget=budget).n_used == n_used
    assert decided(costs(np.zeros(n_used - 8)), budget=replace(budget, n_most=n_used - 8)).outcome == "inconclusive"
    assert decided(costs(np.zeros(n)), budget=budget, worst=2.0).n_used == 8


def test_a_sequence_beyond_the_cap_blocks_the_pass_and_is_named():
    """Whatever the rest costs; a larger `worst` lets it pass, and what follows a decision changes nothing."""
    values = np.full(256, 0.03)
    values[5] = 1.6
    found = decided(costs(values))
    assert (found.outcome, found.costliest, found.n_used, found.n_needed) == ("inconclusive", 5, 256, None)
    assert found.costliest_times == pytest.approx(1.6 / 0.3)
    assert decided(costs(values), worst=8.0).outcome == "passed"
    late = np.full(256, 0.03)
    late[200] = 1.6
    assert decided(costs(late)).outcome == "passed"
    reading = sampled("ce_increase", values)
    of_rows = replace(reading, sample=costs(values, rows=np.arange(256) + 7))
    assert (
        "sequence 12 costs 5.33 times the limit, and a pass allows 5"
        in verdict.judge((of_rows,), limit(value=0.3), BUDGET).reason
    )


def test_a_short_sequence_counts_by_its_length():
    """Ten times the limit per token on a twentieth of the context is no ten times the limit."""
    values, lengths = np.full(64, 0.03), np.full(64, 1.0)
    values[3], lengths[3] = 0.15, 0.05
    sample = costs(values, denominators=lengths)
    assert decided(sample).outcome == "passed"
    assert decided(sample).costliest_times == pytest.approx(1 + (0.15 - 0.3 * 0.05) / 0.3)


def test_a_failure_is_that_of_the_bounds():
    """A bet decides a pass alone: failures and the ends of their intervals are as without one."""
    values = increases("lognormal", 0.6, 0.6, n=256, n_replications=1, seed=5)[0]
    found, plain = (decided(costs(values, largest_denominator=most)) for most in (1.0, None))
    assert found.outcome == "failed"
    assert replace(found, costliest=None, costliest_times=None) == plain


def test_what_has_no_known_unit_or_a_sign_does_not_bet():
    """Ratios of variances, logarithms, and a limit on being better than exact."""
    sample = costs(np.zeros(64))
    for without in (replace(sample, largest_denominator=None), replace(sample, is_log=True)):
        assert CappedBet.of(without, limit(), BUDGET) is None
    for other in (limit(kind="min", value=-0.01), limit(value=0.0), limit(value=-1.0)):
        assert CappedBet.of(sample, other, BUDGET) is None
    assert CappedBet.of(sample, limit(), BUDGET) is not None


@given(st.lists(st.floats(-0.2, 1.0), min_size=8, max_size=64), st.floats(0.05, 1.0))
@settings(max_examples=60)
def test_the_upper_end_is_the_least_limit_that_passes(values, bound):
    """Just above it the same values pass at that look, just below they do not, and it is above their mean."""
    bet = CappedBet.of(costs(values), limit(value=bound), BUDGET)
    end, has_passed = bet.upper_bound(len(values)), bool(bet.passes()[-1])
    if end is None:
        assert not has_passed
        return
    assert (end <= bound) == has_passed
    assert end >= max(float(np.mean(values)), 0) - 1e-12
    for factor in (1 + 1e-9, 1 - 1e-9) if end > 0 else ():
        assert CappedBet.of(costs(values), limit(value=end * factor), BUDGET).passes()[-1] == (factor > 1)


@given(st.lists(st.floats(0, 1.0), min_size=8, max_size=64), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_more_generous_limit_passes_what_a_strict_one_does(values, one, other):
    """Costs of at least nothing: the limits that pass are all above one number."""
    strict, generous = (CappedBet.of(costs(values), limit(value=at), BUDGET).passes() for at in sorted((one, other)))
    assert (generous | ~strict).all()


def test_how_many_would_pass_is_said():
    """About as many as it takes."""
    values = increases("lognormal", 0.3, 0.21, n=256, n_replications=1, seed=3)[0]
    at_first = decided(costs(values[:32]))
    assert at_first.outcome == "inconclusive"
    assert 0.5 <= at_first.n_needed / decided(costs(values)).n_used <= 2


def keeps_its_promises():
    """What every mutant must break."""
    for n, worst in SIZES[1:]:
        rare = increases("contaminated", 0.3, 1.0, n=n, n_replications=N_REPLICATIONS, seed=6)
        for values in (rare, drawn("lognormal", 1.5, 1.0, n, worst), drawn("two-point", 0, 1.0, n, worst)):
            assert rates(values, plan(n), bets=True).passed <= ALPHA + FEW
        assert rates(drawn("lognormal", 0.3, 0.5, n, worst), plan(n), bets=True).passed >= 0.98
    assert decided(costs(np.r_[np.full(9, 1.6), np.zeros(247)])).outcome == "inconclusive"
    assert decided(costs(np.zeros(64))).n_used == 24


CAPITAL = betting.log_capital_on_costs
MUTANTS = {
    "no cap": lambda x, worst: CAPITAL(np.minimum(x, worst - 1), worst),
    "floored at nothing, and going on": lambda x, worst: (
        np.logaddexp.reduce(
            np.cumsum(np.log(np.maximum(1 - betting.BETS / (worst - 1) * x[..., None], 1e-3)), axis=-2), axis=-1
        )
        - math.log(8)
    ),
    "bets for a lower cap": lambda x, worst: CAPITAL(np.minimum(x, (worst - 1) / 2), 1 + (worst - 1) / 2),
    "bets for a higher cap": lambda x, worst: CAPITAL(x, 2 * worst),
    "the best bet alone": lambda x, worst: np.cumsum(betting.gains(np.minimum(x, worst - 1), worst), axis=-2).max(-1),
    "twice the level": lambda x, worst: CAPITAL(x, worst) + math.log(2),
}


def test_the_bet_itself_keeps_its_promises():
    """The control: without it a mutant that dies says nothing."""
    keeps_its_promises()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_bet_does_not(mutant, monkeypatch):
    """Every part of the bet is there for a reason that the tests see."""
    monkeypatch.setattr(betting, "log_capital_on_costs", MUTANTS[mutant])
    with pytest.raises(AssertionError):
        keeps_its_promises()
