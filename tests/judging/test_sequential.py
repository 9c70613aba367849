"""Sequential limits: the boundary, what a decision may depend on, its error rates, and mutants of the rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import BUDGET, limit
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import differences, increases, rates

from sae_checks.comparing.resampled_error_rates import ToPass, ratio_error_rates
from sae_checks.judging import bounds, sequential
from sae_checks.judging.budget import ALPHA, Budget
from sae_checks.judging.limits import WORST_DIFFERENCE
from sae_checks.judging.samples import Difference, ExplainedVariance, LogRoot, Ratio

N_REPLICATIONS = 2000
FEW = 4 * math.sqrt(ALPHA * (1 - ALPHA) / N_REPLICATIONS)
"""Four standard errors of a rate of ALPHA."""
SHAPES = [
    ("lognormal", 0.3),
    ("lognormal", 0.6),
    ("lognormal", 1.0),
    ("lognormal", 1.5),
    ("gamma", 0.3),
    ("gamma", 1.0),
    ("gamma", 1.5),
    ("contaminated", 0.3),
]


def simulated(shape, cv, mean, *, n=256, seed=0):
    return increases(shape, cv, mean, n=n, n_replications=N_REPLICATIONS, seed=seed)


def test_signed_differences_keep_their_promise():
    """Differences of two SAEs, better or worse by chance, one in twenty by five margins: at the margin itself."""
    for n in (64, 256):
        plan = Budget(n_planned=n, n_most=n, n_checks=31)
        for name, noise in differences(n=n, n_replications=N_REPLICATIONS, seed=3):
            found = ratio_error_rates(noise, plan, ToPass(guard=WORST_DIFFERENCE - 1))
            assert found.passed <= ALPHA + FEW, name


@st.composite
def ratios(draw, n_most=96):
    """Sums and counts of sequences whose increases are skewed, as they are; a bet or the bounds decide a pass."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(2, n_most))
    denominators = rng.integers(draw(st.sampled_from([20, 128])), 129, n).astype(float)
    per_token = draw(st.sampled_from([0.1, 0.3, 1.0])) * rng.lognormal(0, draw(st.sampled_from([0.1, 0.6, 1.2])), n)
    return Ratio(
        numerators=per_token * denominators,
        denominators=denominators,
        ideal_value=0.0,
        largest_denominator=draw(st.sampled_from([None, 128.0])),
    )


def decided(sample, bound=0.3, kind="max", budget=BUDGET):
    return sequential.decide(sample, limit(value=bound, kind=kind), budget)


limits = st.floats(0.01, 3.0)
kinds = st.sampled_from(["max", "min"])


@pytest.mark.parametrize(
    ("alpha", "n", "expected"),
    [(0.05, n, b) for n, b in ((16, 3.71), (32, 3.01), (64, 2.84), (128, 2.83), (256, 2.88))]
    + [(0.05 / 65, n, b) for n, b in ((16, 6.71), (32, 4.79), (64, 4.37), (128, 4.25), (256, 4.23))],
)
def test_the_boundary(alpha, n, expected):
    """The standard errors that a mean may stray, for a plan of 256."""
    assert float(bounds.boundary(np.asarray(n), alpha, 64)) == pytest.approx(expected, abs=0.005)


def test_the_boundary_is_infinite_before_anything_can_be_said():
    """Eight sequences tell nothing of the tails."""
    assert np.isinf(bounds.boundary(np.asarray(8), 0.05, 64))


@given(st.integers(1, 300), st.integers(0, 40))
def test_looks_are_every_eight_and_at_the_end(n, n_without_value):
    """The last look is at all there can be, never at what happens to be there: that depends on how it was measured."""
    ended = Budget(n_planned=256, n_most=n + n_without_value, n_checks=1)
    looks = list(ended.looks(n, n_without_value=n_without_value))
    assert looks == sorted({*range(8, n + 1, 8)} | ({n} if n >= 8 else set()))
    running = replace(ended, n_most=n + n_without_value + 1)
    assert list(running.looks(n, n_without_value=n_without_value)) == [*range(8, n + 1, 8)]


@given(ratios(), limits, kinds)
@settings(max_examples=60)
def test_a_verdict_depends_on_nothing_behind_it(sample, bound, kind):
    """Cut off where it was decided, or measured on, the decision is the same to the last digit."""
    found = decided(sample, bound, kind)
    n = found.n_used
    assert (
        decided(replace(sample, numerators=sample.numerators[:n], denominators=sample.denominators[:n]), bound, kind)
        == found
    )
    if found.outcome != "inconclusive":
        longer = replace(
            sample,
            numerators=np.r_[sample.numerators, 1e6, -1e6],
            denominators=np.r_[sample.denominators, 1, 1],
        )
        assert decided(longer, bound, kind) == found


def test_every_sample_is_stable_in_its_prefixes():
    """What later sequences hold is never seen: not in a mean, a ratio, or a linearisation."""
    rng = np.random.default_rng(0)
    n, d = 64, 3
    one, other = (
        Ratio(numerators=rng.gamma(2, 1, n), denominators=rng.integers(1, 9, n).astype(float)) for _ in range(2)
    )
    sums = rng.normal(1, 1, (n, d))
    explained = ExplainedVariance(
        error_squared=rng.gamma(1, 1, n),
        norm_squared=(sums**2).sum(axis=1) + 9,
        sum=sums,
        n_tokens=np.ones(n, dtype=np.int64),
    )
    for sample in (one, explained, Difference(of=one, less=other), Difference(of=explained, less=one), LogRoot(of=one)):
        for k in (8, 40):
            numerators, denominators = sample.first(k)
            assert len(numerators) == len(denominators) == len(sample.each(k)) == k
            assert not np.array_equal(numerators, sample.first(k + 1)[0])
    cut = ExplainedVariance(
        error_squared=explained.error_squared[:8],
        norm_squared=explained.norm_squared[:8],
        sum=sums[:8],
        n_tokens=explained.n_tokens[:8],
    )
    assert np.array_equal(cut.first(8), explained.first(8))
    cut = Difference(of=Ratio(numerators=one.numerators[:8], denominators=one.denominators[:8]), less=other)
    assert np.array_equal(cut.first(8), Difference(of=one, less=other).first(8))
    cut = LogRoot(of=Ratio(numerators=one.numerators[:8], denominators=one.denominators[:8]), over=other)
    assert np.array_equal(cut.first(8), LogRoot(of=one, over=other).first(8))


@given(ratios(), limits, kinds)
@settings(max_examples=60)
def test_interval_and_verdict_agree(sample, bound, kind):
    """L <= value <= U, PASS exactly where U is below the limit, FAIL exactly where L is above it."""
    found = decided(sample, bound, kind, replace(BUDGET, n_most=sample.n))
    low, high = (-math.inf if found.low is None else found.low), (math.inf if found.high is None else found.high)
    assert low <= found.value <= high
    is_pass, is_fail = (high < bound, low > bound) if kind == "max" else (low > bound, high < bound)
    if found.costliest is not None or found.n_used >= BUDGET.n_least_to_pass:
        assert (found.outcome == "passed") == is_pass
    assert (found.outcome == "failed") == is_fail
    assert (found.n_needed is None) or found.outcome == "inconclusive"


@given(ratios(), limits, st.floats(1e-3, 1e3), kinds)
def test_units_do_not_matter(sample, bound, factor, kind):
    """Nats or bits, tokens or kilotokens: value and limit scaled together give the same verdict at the same look."""
    budget = replace(BUDGET, n_most=sample.n)
    plain = decided(sample, bound, kind, budget)
    scaled = decided(replace(sample, numerators=sample.numerators * factor), bound * factor, kind, budget)
    largest = None if sample.largest_denominator is None else sample.largest_denominator * factor
    denser = replace(sample, denominators=sample.denominators * factor, largest_denominator=largest)
    per_tokens = decided(denser, bound / factor, kind, budget)
    for other in (scaled, per_tokens):
        assert (other.outcome, other.n_used) == (plain.outcome, plain.n_used)
        assert other.skewness == pytest.approx(plain.skewness, abs=1e-6)
    assert scaled.value == pytest.approx(plain.value * factor)


@given(ratios(), limits, st.floats(-5, 5), kinds)
def test_where_zero_lies_does_not_matter(sample, bound, shift, kind):
    """Value, limit and ideal value moved together give the same verdict."""
    budget = replace(BUDGET, n_most=sample.n)
    plain = decided(sample, bound, kind, budget)
    moved = replace(sample, numerators=sample.numerators + shift * sample.denominators, ideal_value=shift)
    found = decided(moved, bound + shift, kind, budget)
    assert (found.outcome, found.n_used) == (plain.outcome, plain.n_used)
    assert found.value == pytest.approx(plain.value + shift, abs=1e-6)


@given(ratios(), limits, limits)
@settings(max_examples=60)
def test_a_more_generous_limit_passes_no_later(sample, one, other):
    """Monotone in the limit: what passes under a strict one passes, and what fails under a generous one fails."""
    budget = replace(BUDGET, n_most=sample.n)
    strict, generous = (decided(sample, bound, "max", budget) for bound in sorted((one, other)))
    if strict.outcome == "passed":
        assert (generous.outcome, generous.n_used <= strict.n_used) == ("passed", True)
    if generous.outcome == "failed":
        assert (strict.outcome, strict.n_used <= generous.n_used) == ("failed", True)


@given(ratios(), limits, st.integers(2, 500))
def test_more_checks_never_fail_earlier(sample, bound, n_checks):
    """A smaller share of the false alarms is a later failure, or none; passes are as early as before."""
    one, many = (decided(sample, bound, budget=replace(BUDGET, n_most=sample.n, n_checks=m)) for m in (1, n_checks))
    if many.outcome == "failed":
        assert (one.outcome, one.n_used <= many.n_used) == ("failed", True)
    if many.outcome == "passed":
        assert (one.outcome == "failed") or one == replace(many, low=one.low)


def test_an_extension_moves_no_bound():
    """A plan of 256 extended to 1024 says of its first 256 what it said before, and goes on from there."""
    values = increases("lognormal", 0.6, 0.94, n=1024, n_replications=1, seed=6)[0]
    few = decided(Ratio(numerators=values[:256], denominators=np.ones(256), ideal_value=0.0), 1.0)
    extended = replace(BUDGET, n_most=1024)
    many = Ratio(numerators=values, denominators=np.ones(1024), ideal_value=0.0)
    assert few.outcome == "inconclusive"
    assert decided(
        Ratio(numerators=values[:256], denominators=np.ones(256), ideal_value=0.0), 1.0, budget=extended
    ) == replace(few, n_most=1024)
    found = decided(many, 1.0, budget=extended)
    assert (found.outcome, found.n_used > 256) == ("passed", True)
    assert few.n_needed > 256


def test_a_denominator_that_may_be_zero_decides_nothing():
    """Where the mean of the denominators may be negative, the badness says nothing about the ratio."""
    denominators = np.where(np.arange(64) % 2, 10.0, -9.5)
    sample = Ratio(numerators=np.full(64, -5.0), denominators=denominators, has_positive_denominators=False)
    assert decided(sample).outcome == "inconclusive"
    assert decided(replace(sample, denominators=np.abs(denominators))).outcome == "passed"


def test_a_sequence_five_times_the_limit_is_expected_before_a_pass():
    """Equal values seem certain; a plan of 64 and more passes only what one bad sequence would not undo."""
    values = Ratio(numerators=np.full(256, 0.28), denominators=np.ones(256), ideal_value=0.0)
    assert decided(values).n_used > 200
    for unguarded in (replace(values, ideal_value=None), values):
        plan = BUDGET if unguarded.ideal_value is None else Budget(n_planned=63, n_most=63, n_checks=31)
        assert decided(unguarded, budget=plan).n_used <= 32
    assert (
        decided(replace(values, ideal_value=0.3)).outcome == "passed"
    )  # a limit that is no worse than exact has no worst


def test_a_logarithm_is_decided_on_the_measures_own_scale():
    """Perplexity ratios and roots: limits and intervals are exponentiated, verdicts are those of the logarithm."""
    nats = np.random.default_rng(0).normal(0.05, 0.02, 256)
    log = Ratio(numerators=nats, denominators=np.ones(256), is_log=True, ideal_value=0.0)
    plain = decided(replace(log, is_log=False), math.log(1.1))
    found = decided(log, 1.1)
    assert (found.outcome, found.n_used) == (plain.outcome, plain.n_used) == ("passed", plain.n_used)
    assert found.high == pytest.approx(math.exp(plain.high))
    assert decided(log, -1.0).outcome == decided(log, 0.0).outcome == "failed"


@pytest.mark.parametrize(("shape", "cv"), SHAPES)
def test_a_bad_sae_seldom_passes_and_a_good_one_seldom_fails(shape, cv):
    """At the limit itself, whenever they stop: no more than ALPHA of the replications pass, and ALPHA / m fail."""
    found = rates(simulated(shape, cv, 1.0), BUDGET)
    assert found.passed <= ALPHA + FEW
    assert found.failed <= ALPHA / 31 + FEW
    assert rates(simulated(shape, cv, 1.0), replace(BUDGET, n_checks=1)).failed <= ALPHA + FEW


@pytest.mark.parametrize(("shape", "cv"), [("lognormal", 0.3), ("lognormal", 0.6), ("gamma", 0.6), ("lognormal", 1.0)])
def test_clear_cases_are_decided_early(shape, cv):
    """Half and twice the limit are told apart from it, with a fraction of the budget on average."""
    half, twice = (rates(simulated(shape, cv, mean, seed=1), BUDGET) for mean in (0.5, 2.0))
    assert half.passed >= 0.99
    assert twice.failed >= 0.99
    assert max(half.n_mean, twice.n_mean) <= 256 / 4


def test_a_smoke_run_keeps_its_promise():
    """64 sequences, with the guard or, where no value is exact, without it; what is rare needs the guard."""
    smoke = Budget(n_planned=64, n_most=64, n_checks=31)
    for guards in (True, False):
        for shape, cv in (("lognormal", 0.6), ("gamma", 1.0)):
            assert rates(simulated(shape, cv, 1.0, n=64), smoke, guards=guards).passed <= ALPHA + FEW
        assert rates(simulated("lognormal", 0.6, 0.5, n=64), smoke, guards=guards).passed >= 0.95
    of_rare = simulated("contaminated", 0.3, 1.0, n=64)
    assert rates(of_rare, smoke).passed <= ALPHA + FEW
    assert rates(of_rare, smoke, guards=False).passed > 5 * ALPHA


def test_a_difference_of_ratios_keeps_its_promise():
    """Two ratios of the same sequences, of unequal lengths and correlated with them, at the limit of the difference."""
    rng = np.random.default_rng(7)
    n_passed = n_failed = 0
    for _ in range(300):
        length = rng.integers(8, 128, 96).astype(float)
        cost = rng.lognormal(-0.18, 0.6, 96)
        earlier = Ratio(numerators=0.1 * cost * 64, denominators=np.full(96, 64.0))
        later = Ratio(numerators=(0.1 * cost + 0.3 * rng.gamma(2, 0.5, 96)) * length, denominators=length)
        sample = Difference(of=later, less=earlier, ideal_value=0.0)
        found = decided(sample, 0.3, budget=Budget(n_planned=96, n_most=96, n_checks=1))
        n_passed, n_failed = n_passed + (found.outcome == "passed"), n_failed + (found.outcome == "failed")
    few = 300 * ALPHA + 4 * math.sqrt(300 * ALPHA * (1 - ALPHA))
    assert max(n_passed, n_failed) <= few


def test_the_simulation_is_that_of_the_rule():
    """The vectorised rule and `decide` agree in every one of some replications."""
    values = increases("lognormal", 1.0, 0.8, n=256, n_replications=12, seed=3)
    for row in values:
        found = decided(Ratio(numerators=row, denominators=np.ones(256), ideal_value=0.0), 1.0)
        vectorised = rates(row[None], BUDGET)
        assert (vectorised.passed, vectorised.failed) == (found.outcome == "passed", found.outcome == "failed")
        assert vectorised.n_mean == found.n_used


def keeps_its_promises():
    """What every mutant must break."""
    assert float(bounds.boundary(np.asarray(256), 0.05, BUDGET.n_tightest)) == pytest.approx(2.88, abs=0.005)
    for shape, cv in (("lognormal", 1.0), ("gamma", 1.5)):
        values = simulated(shape, cv, 1.0, seed=2)
        found = rates(values, BUDGET)
        assert found.passed <= ALPHA + FEW
        assert rates(values, replace(BUDGET, n_checks=1)).failed <= ALPHA + FEW
        assert found.failed <= ALPHA / 31 + 4 * math.sqrt(ALPHA / 31 / N_REPLICATIONS)
    smoke = Budget(n_planned=64, n_most=64, n_checks=31)
    assert rates(simulated("lognormal", 1.0, 1.0, n=64, seed=2), smoke, guards=False).passed <= ALPHA + FEW
    assert rates(simulated("lognormal", 0.05, 0.9, seed=3), BUDGET).n_mean > 128
    assert rates(simulated("lognormal", 0.6, 0.5, seed=1), BUDGET).passed >= 0.99
    assert rates(simulated("lognormal", 0.6, 2.0, seed=1), BUDGET).failed >= 0.99


def _fixed_n(n, alpha, _n_tightest):
    return np.full(np.shape(n), -float(np.sqrt(2) * _erfcinv(alpha)))


def _erfcinv(alpha):
    from scipy.special import ndtri

    return float(ndtri(alpha)) / math.sqrt(2)


def _ended_backwards(of, below, above):
    lower, upper = ENDS(replace(of, skewness=-of.skewness), below, above)
    return lower, upper


ENDS, BOUNDARY = bounds.interval_ends, bounds.boundary
MUTANTS = {
    "no skewness": ("_hall", lambda y, _slant: y),
    "skewness the wrong way round": ("interval_ends", _ended_backwards),
    "a boundary for one look": ("boundary", _fixed_n),
    "twice the level": ("boundary", lambda n, alpha, n_tightest: BOUNDARY(n, 2 * alpha, n_tightest)),
    "half the level": ("boundary", lambda n, alpha, n_tightest: BOUNDARY(n, alpha / 2, n_tightest)),
    "tightest too early": ("boundary", lambda n, alpha, n_tightest: BOUNDARY(n, alpha, n_tightest / 8)),
    "no correction for many checks": ("lower_bound", lambda of, budget: LOWER(of, replace(budget, n_checks=1))),
    "standard deviation of the mean twice divided": (
        "interval_ends",
        lambda of, b, a: ENDS(replace(of, n=of.n**1.2), b, a),
    ),
    "never passes": ("upper_bound", lambda of, _budget, _worst: of.mean + np.inf),
    "never fails": ("lower_bound", lambda of, _budget: of.mean - np.inf),
    "no guard": ("with_added_value", lambda of, _value: of),
}
LOWER = bounds.lower_bound


def test_the_rule_itself_keeps_its_promises():
    """The control: without it a mutant that dies says nothing."""
    keeps_its_promises()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_rule_does_not(mutant, monkeypatch):
    """Every part of the rule is there for a reason that the tests see."""
    name, change = MUTANTS[mutant]
    monkeypatch.setattr(bounds, name, change)
    with pytest.raises(AssertionError):
        keeps_its_promises()
