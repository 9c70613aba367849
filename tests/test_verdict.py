"""Readings x limit -> what follows: the rules, their order, and what the reason says."""

import math
from itertools import product

import pytest
from builders import estimate, limit
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import estimates, finite, moderate

from sae_checks import checks, record, verdict
from sae_checks.stats import Estimate, NotFinite, NotMeasured

INCREASE = checks.CE_LOSS.measures[3]
DROP = limit("lambada", "accuracy_drop", value=0.1)


def judged(value, bound, *, kind="max", n=64, width=0.01, measure="ce_increase"):
    return verdict.judge(
        (estimate(measure, value, value - width, value + width, n),), limit(measure=measure, kind=kind, value=bound)
    )


def lambada(drop=0.02, *, clean_low=0.5, n=64):
    """The readings of Lambada with a clean accuracy whose interval starts at *clean_low*."""
    return (
        estimate("accuracy_clean", clean_low + 0.05, clean_low, clean_low + 0.1, n),
        estimate("accuracy_drop", drop, drop - 0.01, drop + 0.01, n),
    )


@given(moderate, st.sampled_from(["max", "min"]))
def test_a_value_on_the_limit_passes(value, kind):
    """Exactly on the limit is within it."""
    assert judged(value, value, kind=kind, measure="kl").outcome == "passed"


@given(moderate, moderate)
def test_the_value_decides(value, bound):
    """max passes what is not above it, min what is not below it, whatever the interval."""
    for width in (0.0, 1.0):
        most, least = (judged(value, bound, kind=kind, width=width, measure="kl") for kind in ("max", "min"))
        assert most.outcome == ("passed" if value <= bound else "failed")
        assert least.outcome == ("passed" if value >= bound else "failed")


@given(estimates(INCREASE), finite, finite, st.sampled_from(["max", "min"]))
def test_a_more_generous_limit_never_turns_a_pass_into_a_failure(measured, one, other, kind):
    """Outcomes are monotone in the limit."""
    strict, generous = sorted((one, other), reverse=kind == "min")
    outcomes = [verdict.judge((measured,), limit(kind=kind, value=bound)).outcome for bound in (strict, generous)]
    assert outcomes != ["passed", "failed"]
    assert ("inconclusive" in outcomes) == (outcomes == ["inconclusive"] * 2)


@given(moderate, moderate, st.floats(0, 10))
def test_an_interval_that_holds_the_limit_is_said(value, bound, width):
    """The reason says so exactly where low <= limit <= high, and the outcome is not changed by it."""
    found = judged(value, bound, width=width, measure="kl")
    assert ("the interval holds the limit" in found.reason) == (value - width <= bound <= value + width)


def test_the_reason_says_value_interval_n_and_limit():
    """One line that can be read aloud."""
    assert judged(0.05, 0.3).reason == (
        "ce_increase 0.05 [0.04, 0.06] nats/token (n = 64), limit ce_increase <= 0.3 nats/token"
    )


def test_the_limited_measure_decides_alone():
    """Other measures may be bad or not measured: they carry no limit."""
    readings = (
        estimate("ce_clean", 1e9),
        NotMeasured(measure="ce_recovered", reason="none"),
        estimate("ce_increase", 0.1),
    )
    found = verdict.judge(readings, limit())
    assert found.outcome == "passed"
    assert [e.measure for e in found.estimates] == ["ce_clean", "ce_increase"]
    assert found.limit == limit()


def test_nothing_finite_fails_before_everything_else():
    """A number that is not finite fails, even where another measure is limited, unmeasured, or too few."""
    bad = NotFinite(measure="kl", where="KL is nan in sequence 3")
    for other in (
        NotMeasured(measure="ce_increase", reason="none"),
        estimate("ce_increase", 0.1),
        estimate("ce_increase", 0.1, n=2),
    ):
        for readings in ((bad, other), (other, bad)):
            found = verdict.judge(readings, limit())
            assert (found.outcome, found.reason) == ("failed", "not finite: KL is nan in sequence 3")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_an_estimate_that_is_not_finite_fails(bad, field, kind):
    """Whatever the side of the limit: an infinity below a max is no pass."""
    numbers = {"value": 0.1, "low": 0.0, "high": 0.2, field: bad}
    found = verdict.judge((estimate("ce_increase", **numbers),), limit(kind=kind))
    assert found.outcome == "failed"
    assert found.reason.startswith("not finite: ce_increase is ")


def test_a_failure_that_is_not_finite_can_be_recorded():
    """What a verdict keeps fits into strict JSON: a failed check must not lose the whole record."""
    readings = (estimate("kl", math.nan, math.nan, math.nan), estimate("ce_increase", 0.1))
    found = verdict.judge(readings, limit())
    result = record.Result(
        sae_id="a",
        check="ce_loss",
        outcome=found.outcome,
        reason=found.reason,
        limit=found.limit,
        estimates=found.estimates,
    )
    assert record.unpack(record.pack(result)) == result


@pytest.mark.parametrize(
    ("value", "width", "n", "outcome"),
    [
        (-0.05, 0.01, 64, "failed"),
        (-0.05, 0.045, 64, "passed"),  # the interval reaches into the tolerance
        (-0.05, 0.01, 7, "inconclusive"),
        (-1e-5, 1e-6, 64, "passed"),  # an exact reconstruction, rounding and all
        (-0.009, 0.0, 64, "passed"),
        (-0.011, 0.0, 64, "failed"),
    ],
)
def test_a_splice_that_helps_is_no_pass(value, width, n, outcome):
    """In aggregate CE(spliced) >= CE(clean): an interval wholly below it, by more than a tolerance, fails."""
    found = judged(value, 0.3, width=width, n=n)
    assert found.outcome == outcome
    assert ("predicts better with the splice" in found.reason) == (outcome == "failed")


SPARSE = limit("sparsity", "explained_variance", "min", 0.5)


@pytest.mark.parametrize(
    ("measure", "numbers", "outcome"),
    [
        ("l0_max_of_k", (1.0, 1.0, 1.0, 1), "inconclusive"),
        ("l0_max_of_k", (1.0, 1.0, 1.0), "passed"),
        ("l0_max_of_k", (1.01, 1.01, 1.01), "failed"),
        ("l0_max_of_k", (1.01, 1.01, 1.01, 1), "failed"),  # counted: one token is enough
        ("l0_ratio", (1.1, 1.0, 1.2), "passed"),
        ("l0_ratio", (2.1, 1.9, 2.3), "passed"),
        ("l0_ratio", (2.5, 2.1, 2.9), "failed"),
        ("l0_ratio", (0.4, 0.3, 0.49), "failed"),
        ("l0_ratio", (2.5, 2.1, 2.9, 7), "inconclusive"),
    ],
)
def test_an_sae_that_is_run_as_something_else_is_no_pass(measure, numbers, outcome):
    """More active latents than k, or an L0 far from the recorded one, fails however much variance is explained."""
    suspicious = estimate(measure, *numbers)
    explained = estimate("explained_variance", 0.99, n=suspicious.n)
    found = verdict.judge((suspicious, explained), SPARSE)
    assert found.outcome == outcome
    if outcome == "failed":
        assert measure in found.reason


def test_what_was_not_measured_is_not_judged():
    """The reason is that of the reading."""
    found = verdict.judge((NotMeasured(measure="ce_increase", reason="no token was scored"),), limit())
    assert (found.outcome, found.reason, found.estimates) == ("not_measured", "no token was scored", ())


@given(st.integers(0, 20), st.sampled_from([0.0, 0.3, 9.0]))
def test_too_few_are_inconclusive(n, value):
    """Fewer than N_LEAST sequences decide nothing, neither a pass nor a failure."""
    outcome = judged(value, 0.3, n=n).outcome
    assert (outcome == "inconclusive") == (n < verdict.N_LEAST)


def test_too_few_are_said():
    """Value, n and limit are said of an inconclusive check too."""
    reason = judged(0.05, 0.3, n=7).reason
    for word in ("0.05 [0.04, 0.06]", "n = 7", "fewer than 8", "<= 0.3"):
        assert word in reason


@pytest.mark.parametrize(("clean_low", "outcome"), [(0.2, "passed"), (0.1999, "not_measured"), (0.0, "not_measured")])
def test_a_drop_is_judged_only_where_it_could_exceed_the_limit(clean_low, outcome):
    """The clean accuracy, at its lower end, must be at least twice the limit."""
    found = verdict.judge(lambada(clean_low=clean_low), DROP)
    assert found.outcome == outcome
    assert ("clean accuracy too low" in found.reason) == (outcome == "not_measured")


@pytest.mark.parametrize(("clean_low", "outcome"), [(0.2, "passed"), (0.1, "not_measured")])
def test_a_drop_over_some_passages_needs_room_on_those(clean_low, outcome):
    """The clean accuracy that counts is that of the same passages."""
    readings = (
        estimate("accuracy_clean", 0.9),
        estimate("accuracy_clean_beyond", clean_low + 0.05, clean_low, clean_low + 0.1),
        estimate("accuracy_drop_beyond", 0.02),
    )
    assert verdict.judge(readings, limit("lambada", "accuracy_drop_beyond", value=0.1)).outcome == outcome


@pytest.mark.parametrize(("clean_low", "outcome"), [(0.301, "passed"), (0.299, "not_measured"), (0.2, "not_measured")])
def test_a_drop_of_choices_needs_room_above_chance(clean_low, outcome):
    """Of ten options one is guessed rightly in ten: what guessing gets cannot be lost."""
    readings = (
        estimate("choice_accuracy_clean", clean_low + 0.05, clean_low, clean_low + 0.1),
        estimate("chance", 0.1, 0.1, 0.1),
        estimate("choice_accuracy_drop", 0.02, 0.01, 0.03),
    )
    for rows in (readings, readings[::-1]):
        found = verdict.judge(rows, limit("cbt", "choice_accuracy_drop", value=0.1))
        assert found.outcome == outcome
        assert ("above chance, 0.1" in found.reason) == (outcome == "not_measured")


def test_no_room_to_fail_comes_before_too_few():
    """A model that cannot do the task is not helped by more passages."""
    assert verdict.judge(lambada(clean_low=0.0, n=2), DROP).outcome == "not_measured"
    assert verdict.judge(lambada(clean_low=0.5, n=2), DROP).outcome == "inconclusive"


def test_other_limits_need_no_room():
    """The rule is of a maximal drop alone: a floor for it, or a limit on accuracy, is judged as any other."""
    low = lambada(clean_low=0.0)
    assert verdict.judge(low, limit("lambada", "accuracy_drop", "min", -1)).outcome == "passed"
    assert verdict.judge(low, limit("lambada", "accuracy_clean", "min", 0.01)).outcome == "passed"


def test_a_drop_beyond_the_limit_fails():
    """With room to fail, it fails."""
    assert verdict.judge(lambada(drop=0.11), DROP).outcome == "failed"
    assert verdict.judge(lambada(drop=0.1), DROP).outcome == "passed"


@given(st.sampled_from(checks.CE_LOSS.measures).flatmap(estimates))
def test_a_spoken_estimate_has_all_its_parts(measured):
    """Measure, unit and n are in the words, and the words are one line."""
    words = verdict.spoken(measured)
    for part in (measured.measure, measured.unit, f"n = {measured.n}"):
        assert part in words
    assert "\n" not in words


def test_only_passing_takes_a_good_value_of_enough_that_is_finite():
    """Over a grid of all rules at once: passed means every rule was satisfied."""
    for value, n, kl, bound in product((0.1, 0.5, math.nan), (7, 8), (0.0, math.inf), (0.3, 0.5)):
        found = verdict.judge((estimate("ce_increase", value, n=n), estimate("kl", kl)), limit(value=bound))
        good = value <= bound and n >= 8 and kl == 0
        assert (found.outcome == "passed") == good


@given(
    st.lists(st.sampled_from(checks.LAMBADA.measures), unique=True, min_size=1).flatmap(
        lambda measures: st.tuples(*map(estimates, measures))
    )
)
def test_a_verdict_is_a_function_of_its_readings(readings):
    """The same readings in another order give the same outcome and reason."""
    assume(all(isinstance(r, Estimate) for r in readings))
    measure = min(r.measure for r in readings)
    bound = limit("lambada", measure, "min", 0.0)
    forth, back = (verdict.judge(rows, bound) for rows in (readings, readings[::-1]))
    assert (forth.outcome, forth.reason) == (back.outcome, back.reason)
