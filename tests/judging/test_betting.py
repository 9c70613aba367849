"""Exact betting: what it may never do, and how seldom it does what it should not, on answers drawn at random."""

import math

import numpy as np
import pytest
from builders import limit
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.judging import betting, sequential
from sae_checks.judging.budget import ALPHA, N_LEAST, Budget
from sae_checks.judging.samples import Answers

N_REPLICATIONS = 1000
FEW = 4 * math.sqrt(ALPHA * (1 - ALPHA) / N_REPLICATIONS)
"""Four standard errors of a rate of ALPHA."""
LOOKS = [n for n in range(8, 601) if n % 8 == 0]
drops = st.lists(st.sampled_from([-1, 0, 0, 0, 1]), min_size=1, max_size=60).map(np.array)
bounds = st.floats(-0.9, 0.9)


def budget(n, n_checks=31):
    return Budget(n_planned=n, n_most=n, n_checks=n_checks)


def decided(values, bound, n_listed=None, *, kind="max", n_checks=31):
    of_check = limit("lambada", "accuracy_drop", kind, bound)
    return sequential.decide(
        Answers(values=np.asarray(values), n_listed=n_listed), of_check, budget(len(values), n_checks)
    )


def drawn(mean, n, *, n_discordant=0.1, seed=0, n_listed=None):
    """(replications, n) of -1, 0 and 1 with that mean; those of a list of *n_listed* have it exactly."""
    rng = np.random.default_rng(seed)
    share = max(n_discordant, abs(mean))
    lost = (share + mean) / 2
    if n_listed is None:
        u = rng.random((N_REPLICATIONS, n))
        return (u < lost).astype(np.int64) - (u > 1 - (share - lost))
    n_lost, n_won = round(lost * n_listed), round((share - lost) * n_listed)
    whole = np.r_[np.ones(n_lost), -np.ones(n_won), np.zeros(n_listed - n_lost - n_won)].astype(np.int64)
    return rng.permuted(np.tile(whole, (N_REPLICATIONS, 1)), axis=1)[:, :n]


def rate(values, bound, alpha, n_listed=None):
    """Share of replications in which the capital is once, at a look, so large as to reject at *alpha*."""
    capital = betting.log_capital(values, bound, n_listed)
    return float((capital[:, np.array(LOOKS[: values.shape[1] // 8]) - 1] >= -math.log(alpha)).any(axis=1).mean())


@pytest.mark.parametrize("bound", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("n_listed", [None, 700])
def test_a_bad_sae_seldom_passes_and_a_good_one_seldom_fails(bound, n_listed):
    """At the limit itself: no more than ALPHA and ALPHA / m of the replications, whenever they stop."""
    values = drawn(bound, 600, n_discordant=0.12, seed=1, n_listed=n_listed)
    assert rate(values, bound, ALPHA, n_listed) <= ALPHA + FEW
    assert rate(-values, -bound, ALPHA / 31, n_listed) <= ALPHA / 31 + FEW


@pytest.mark.parametrize("n_listed", [None, 5153])
def test_clear_cases_are_decided(n_listed):
    """With half and with twice the drop that is allowed, of 600 passages."""
    assert rate(drawn(0.05, 600, n_discordant=0.06, seed=2, n_listed=n_listed), 0.10, ALPHA, n_listed) > 0.9
    assert rate(-drawn(0.20, 600, n_discordant=0.25, seed=3, n_listed=n_listed), -0.10, ALPHA / 31, n_listed) > 0.9


@pytest.mark.parametrize("bound", [0.02, 0.05, 0.1, 0.3])
def test_silence_is_no_proof(bound):
    """Without a single flip a pass takes about ln(20) / limit items: a plug-in variance would pass at once."""
    found = decided(np.zeros(1000, dtype=np.int64), bound)
    assert found.outcome == "passed"
    assert math.log(1 / ALPHA) / -math.log1p(-bound) <= found.n_used <= 8 + 2.2 * math.log(1 / ALPHA) / bound


@given(drops, bounds, st.sampled_from(["max", "min"]))
def test_the_end_of_the_list_decides_exactly(values, bound, kind):
    """Once the whole list is measured nothing is left to be uncertain of, on the limit too."""
    found = decided(values, bound, len(values), kind=kind)
    of_check = limit("lambada", "accuracy_drop", kind, bound)
    if len(values) < N_LEAST:
        assert found.outcome == "inconclusive"
    else:
        assert found.outcome == ("passed" if of_check.allows(int(values.sum()) / len(values)) else "failed")
    on_it = decided(values, int(values.sum()) / len(values), len(values), kind=kind)
    assert on_it.outcome == ("passed" if len(values) >= N_LEAST else "inconclusive")


@given(drops, bounds, st.sampled_from([None, 60, 200]))
def test_an_early_verdict_is_that_of_the_whole_list_or_earlier(values, bound, n_listed):
    """The capital after an item does not depend on what comes behind it."""
    whole = betting.log_capital(values, bound, n_listed)
    for n in range(1, len(values) + 1):
        assert np.array_equal(betting.log_capital(values[:n], bound, n_listed), whole[:n])


@given(drops, bounds, bounds, st.sampled_from([None, 100]))
def test_the_capital_is_monotone_in_the_limit(values, one, other, n_listed):
    """What speaks against a strict limit's far side speaks no less against a generous one's."""
    strict, generous = sorted((one, other))
    low, high = (betting.log_capital(values, bound, n_listed) for bound in (strict, generous))
    assert (low <= high + 1e-9).all()


@given(drops, bounds, st.sampled_from([None, 80]), st.sampled_from(["max", "min"]))
def test_interval_and_verdict_agree(values, bound, n_listed, kind):
    """PASS exactly where the interval's bad end is on the good side, FAIL where its good end is on the bad one."""
    found = decided(values, bound, n_listed, kind=kind)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    if len(values) >= N_LEAST:
        sign = 1 if kind == "max" else -1
        bad, good = (found.high, found.low) if kind == "max" else (found.low, found.high)
        assert found.outcome != "passed" or sign * (bound - bad) >= -1e-9
        assert found.outcome != "failed" or sign * (good - bound) >= -1e-9


@given(drops, bounds, st.integers(2, 500))
def test_more_checks_never_fail_earlier(values, bound, n_checks):
    """A smaller share of the false alarms is a later failure, or none."""
    few, many = (decided(values, bound, n_checks=m) for m in (1, n_checks))
    if many.outcome == "failed":
        assert few.outcome == "failed"
        assert few.n_used <= many.n_used


@given(drops, bounds)
def test_a_floor_is_a_ceiling_turned_over(values, bound):
    """min and max are one rule."""
    floor, ceiling = decided(-values, -bound, kind="min"), decided(values, bound)
    assert (floor.outcome, floor.n_used) == (ceiling.outcome, ceiling.n_used)
    assert (floor.low, floor.high) == (-ceiling.high, -ceiling.low)


@given(drops)
def test_limits_at_the_ends_of_the_scale_are_no_accident(values):
    """A drop of 1 is always allowed, and one of -1 hardly ever: no division by zero, no NaN."""
    for bound in (-2.0, -1.0, 1.0, 2.0):
        capital = betting.log_capital(values, bound, None)
        assert not np.isnan(capital).any()
        assert decided(values, bound).outcome in ("passed", "inconclusive" if bound > 0 else "failed", "inconclusive")
