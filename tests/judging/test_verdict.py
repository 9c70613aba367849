"""Readings x limit -> what follows: the rules, their order, and what the reason says."""

import dataclasses
import math
from dataclasses import replace
from itertools import product

import pytest
from builders import BUDGET, around, estimate, limit, sampled
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import estimates, finite, moderate

from sae_checks import checks
from sae_checks.judging import verdict
from sae_checks.judging.budget import N_LEAST, Budget
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured
from sae_checks.record import record
from sae_checks.record.results import Result

INCREASE = checks.CE_LOSS.measures[3]
DROP = limit("lambada", "accuracy_drop", value=0.1)


def judge(readings, of_check, budget=BUDGET):
    return verdict.judge(readings, of_check, budget)


def judged(value, bound, *, kind="max", n=256, width=0.01, measure="ce_increase"):
    """The verdict on a sample whose values lie *width* on either side of *value*."""
    return judge((sampled(measure, around(value, width, n)),), limit(measure=measure, kind=kind, value=bound))


def counted(value, bound, *, kind="max", n=64):
    """The verdict on a number that was counted: there is no sample behind it."""
    return judge((estimate("l0_max", value, n=n),), limit("sparsity", "l0_max", kind, bound))


def lambada(drop=0.02, *, clean_low=0.5, n=64):
    """The readings of Lambada with a clean accuracy whose interval starts at *clean_low*."""
    return (
        estimate("accuracy_clean", clean_low + 0.05, clean_low, clean_low + 0.1, n),
        estimate("accuracy_drop", drop, drop - 0.01, drop + 0.01, n),
    )


@given(moderate, moderate)
def test_a_counted_value_decides(value, bound):
    """What is no estimate from a sample: max passes what is not above it, min what is not below it."""
    most, least = (counted(value, bound, kind=kind) for kind in ("max", "min"))
    assert most.outcome == ("passed" if value <= bound else "failed")
    assert least.outcome == ("passed" if value >= bound else "failed")
    assert most.decision is None
    assert counted(value, value, kind="max").outcome == counted(value, value, kind="min").outcome == "passed"


@given(estimates(INCREASE), finite, finite, st.sampled_from(["max", "min"]))
def test_a_more_generous_limit_never_turns_a_pass_into_a_failure(measured, one, other, kind):
    """Outcomes are monotone in the limit."""
    strict, generous = sorted((one, other), reverse=kind == "min")
    outcomes = [judge((measured,), limit(kind=kind, value=bound)).outcome for bound in (strict, generous)]
    assert outcomes != ["passed", "failed"]
    assert ("inconclusive" in outcomes) == (outcomes == ["inconclusive"] * 2)


@pytest.mark.parametrize(
    ("value", "outcome", "missing"),
    [
        (0.1, "passed", ""),
        (0.6, "failed", ""),
        (0.29, "inconclusive", "the interval contains the limit; about "),
        (0.31, "inconclusive", "the interval contains the limit; about "),
        (0.3, "inconclusive", "the value is too close to the limit"),
    ],
)
def test_the_sample_decides(value, outcome, missing):
    """Only an end of the interval on the limit's far side decides; near it more would be needed, and it is said."""
    found = judged(value, 0.3, width=0.125)
    assert found.outcome == found.decision.outcome == outcome, found.reason
    assert missing in found.reason


def test_the_reason_says_value_limit_interval_and_n():
    """One line that can be read aloud, value and limit first: what the look that decided saw, and nothing else."""
    found = judged(0.05, 0.3)
    assert found.decision.n_used == 32
    low, high = found.decision.low, found.decision.high
    assert found.reason == f"0.05 <= 0.3 nats/token [{low:.3g}, {high:.3g}], n 32 of 256"
    assert judged(0.6, 0.3).reason.startswith("0.6 > 0.3 nats/token [0.")
    assert judged(0.6, 0.3, kind="min").reason.startswith("0.6 >= 0.3 nats/token [0.")


def test_the_value_that_is_shown_is_that_of_the_look_that_decided():
    """The first look that decides is final, whatever the later values are; they stay in the estimates."""
    values = [*around(0.1, 0.01, 64), *around(0.5, 0.01, 192)]
    found = judge((sampled("ce_increase", values),), limit(value=0.3))
    assert (found.outcome, found.judged.n, found.estimates[0].n) == ("passed", 32, 256)
    assert found.judged.high < 0.3 < found.estimates[0].value
    assert "0.4" not in found.reason


def test_what_is_kept_of_an_estimate_is_not_its_sample():
    """Verdicts are kept for the whole session, samples are as large as what was measured."""
    assert [e.sample for e in judged(0.05, 0.3).estimates] == [None]


def test_the_limited_measure_decides_alone():
    """Other measures may be bad or not measured: they carry no limit."""
    readings = (
        estimate("ce_clean", 1e9),
        NotMeasured(measure="ce_recovered", reason="none"),
        estimate("ce_increase", 0.1),
    )
    found = judge(readings, limit())
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
            found = judge(readings, limit())
            assert (found.outcome, found.reason) == ("failed", "not finite: KL is nan in sequence 3")


def test_an_estimate_that_is_not_finite_fails():
    """Whatever the side of the limit: an infinity below a max is no pass."""
    for bad, field, kind in product((math.nan, math.inf, -math.inf), ("value", "low", "high"), ("max", "min")):
        numbers = {"value": 0.1, "low": 0.0, "high": 0.2, field: bad}
        found = judge((estimate("ce_increase", **numbers),), limit(kind=kind))
        assert found.outcome == "failed"
        assert found.reason.startswith("not finite: ce_increase is ")


def test_a_failure_that_is_not_finite_can_be_recorded():
    """What a verdict keeps fits into strict JSON: a failed check must not lose the whole record."""
    readings = (estimate("kl", math.nan, math.nan, math.nan), estimate("ce_increase", 0.1))
    found = judge(readings, limit())
    result = Result(
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
        (-0.05, 0.3, 256, "passed"),  # the interval reaches into the tolerance
        (-0.05, 0.01, 7, "inconclusive"),
        (-1e-5, 1e-6, 64, "passed"),  # an exact reconstruction, rounding and all
        (-0.009, 0.0, 64, "passed"),
        (-0.011, 0.0, 64, "failed"),
    ],
)
def test_a_splice_that_helps_is_no_pass(value, width, n, outcome):
    """In aggregate CE(spliced) >= CE(clean): an interval wholly below it, by more than a tolerance, fails."""
    increase = sampled("ce_increase", around(value, width, n))
    found = judge((increase,), limit(value=0.3), replace(BUDGET, n_most=n))
    assert found.outcome == outcome, found.reason
    assert ("predicts better with the splice" in found.reason) == (outcome == "failed")


SPARSE = limit("sparsity", "explained_variance", "min", 0.5)


@pytest.mark.parametrize(("value", "n", "outcome"), [(1.0, 64, "passed"), (1.01, 64, "failed"), (1.01, 1, "failed")])
def test_more_active_latents_than_k_are_no_pass(value, n, outcome):
    """Counted: one token is enough, however much variance is explained."""
    explained = sampled("explained_variance", around(0.99, 0.001, n), ideal_value=1.0)
    found = judge((estimate("l0_max_of_k", value, value, value, n), explained), SPARSE)
    assert found.outcome == outcome, found.reason
    assert ("l0_max_of_k" in found.reason) == (outcome == "failed")


@pytest.mark.parametrize(
    ("ratio", "width", "n", "outcome"),
    [
        (1.1, 0.1, 64, "passed"),
        (2.1, 0.5, 64, "passed"),  # it may be 2
        (2.5, 0.1, 64, "failed"),
        (0.4, 0.05, 64, "failed"),
        (2.5, 0.1, 7, "inconclusive"),
    ],
)
def test_an_l0_far_from_the_recorded_one_is_no_pass(ratio, width, n, outcome):
    """It tells an SAE that is run as something else, however much variance is explained."""
    readings = readings_of(around(ratio, width, n), around(0.99, 0.001, n))
    found = judge(readings, SPARSE, replace(BUDGET, n_most=n))
    assert found.outcome == outcome, found.reason
    assert ("l0_ratio" in found.reason) == (outcome == "failed")


def test_what_cannot_be_right_is_asked_to_the_end():
    """A pass waits until it is told whether the measurement can be right, so that it does not depend on its length."""
    explained, ratio = around(0.99, 0.001, 256), [*around(2.0, 1.0, 48), *([9.0] * 208)]
    of_look = {}
    for n in (48, 256):
        of_look[n] = judge(readings_of(ratio[:n], explained[:n]), SPARSE)
    assert of_look[48].outcome == "inconclusive"
    assert "undecided whether this is plausible" in of_look[48].reason
    assert of_look[256].outcome == "failed"
    at_end = judge(readings_of(ratio[:48], explained[:48]), SPARSE, replace(BUDGET, n_most=48))
    assert at_end.outcome == "passed"


def readings_of(ratio, explained):
    return (sampled("l0_ratio", ratio, ideal_value=None), sampled("explained_variance", explained, ideal_value=1.0))


def test_what_was_not_measured_is_not_judged():
    """The reason is that of the reading."""
    found = judge((NotMeasured(measure="ce_increase", reason="no token was scored"),), limit())
    assert (found.outcome, found.reason, found.estimates) == ("not_measured", "no token was scored", ())


@pytest.mark.parametrize(
    ("n", "n_planned", "good", "bad"),
    [
        (7, 256, "inconclusive", "inconclusive"),
        (8, 64, "inconclusive", "inconclusive"),
        (16, 32, "passed", "failed"),
        (16, 64, "inconclusive", "failed"),
        (24, 64, "passed", "failed"),
        (8, 256, "inconclusive", "inconclusive"),
        (31, 256, "inconclusive", "failed"),
        (32, 256, "passed", "failed"),
    ],
)
def test_a_verdict_takes_so_many(n, n_planned, good, bad):
    """A pass takes 32 sequences, 24 in a plan of 64, 16 in one of 32; nothing is decided below 8."""
    budget = Budget(n_planned=n_planned, n_most=n, n_checks=31)
    for value, outcome in ((0.05, good), (9.0, bad)):
        found = judge((sampled("ce_increase", around(value, 0.01, n)),), limit(value=0.3), budget)
        assert found.outcome == outcome, found.reason


@given(st.integers(0, 20), st.sampled_from([0.0, 0.3, 9.0]))
def test_too_few_counted_are_inconclusive(n, value):
    """Fewer than N_LEAST sequences decide nothing, neither a pass nor a failure."""
    assert (counted(value, 0.3, n=n).outcome == "inconclusive") == (n < N_LEAST)


def test_too_few_are_said():
    """Value, n, limit and what is missing are said of an inconclusive check too."""
    for n, missing in ((7, "fewer than 8 decide nothing"), (24, "fewer than 32 cannot pass")):
        reason = judged(0.05, 0.3, n=n).reason
        for word in ("0.0", f"n {n}", missing, "<= 0.3"):
            assert word in reason


def test_a_drop_is_judged_only_where_it_could_exceed_the_limit():
    """The clean accuracy, at its lower end, must be at least twice the limit."""
    for clean_low, drop, outcome in (
        (0.2, 0.1, "passed"),
        (0.2, 0.11, "failed"),
        (0.1999, 0.02, "not_measured"),
        (0.0, 0.02, "not_measured"),
    ):
        found = judge(lambada(drop, clean_low=clean_low), DROP)
        assert found.outcome == outcome
        assert ("clean accuracy too low" in found.reason) == (outcome == "not_measured")


def test_a_drop_over_some_passages_needs_room_on_those():
    """The clean accuracy that counts is that of the same passages."""
    for clean_low, outcome in ((0.2, "passed"), (0.1, "not_measured")):
        readings = (
            estimate("accuracy_clean", 0.9),
            estimate("accuracy_clean_beyond", clean_low + 0.05, clean_low, clean_low + 0.1),
            estimate("accuracy_drop_beyond", 0.02),
        )
        assert judge(readings, limit("lambada", "accuracy_drop_beyond", value=0.1)).outcome == outcome


def test_a_drop_of_choices_needs_room_above_chance():
    """Of ten options one is guessed rightly in ten: what guessing gets cannot be lost."""
    for clean_low, outcome in ((0.301, "passed"), (0.299, "not_measured")):
        readings = (
            estimate("choice_accuracy_clean", clean_low + 0.05, clean_low, clean_low + 0.1),
            estimate("chance", 0.1, 0.1, 0.1),
            estimate("choice_accuracy_drop", 0.02, 0.01, 0.03),
        )
        for rows in (readings, readings[::-1]):
            found = judge(rows, limit("cbt", "choice_accuracy_drop", value=0.1))
            assert found.outcome == outcome
            assert ("above chance, 0.1" in found.reason) == (outcome == "not_measured")


def test_no_room_to_fail_comes_before_too_few():
    """A model that cannot do the task is not helped by more passages."""
    assert judge(lambada(clean_low=0.0, n=2), DROP).outcome == "not_measured"
    assert judge(lambada(clean_low=0.5, n=2), DROP).outcome == "inconclusive"


def test_other_limits_need_no_room():
    """The rule is of a maximal drop alone: a floor for it, or a limit on accuracy, is judged as any other."""
    low = lambada(clean_low=0.0)
    assert judge(low, limit("lambada", "accuracy_drop", "min", -1)).outcome == "passed"
    assert judge(low, limit("lambada", "accuracy_clean", "min", 0.01)).outcome == "passed"


@given(st.sampled_from(checks.CE_LOSS.measures).flatmap(estimates))
def test_a_spoken_estimate_has_all_its_parts(measured):
    """Measure, unit and n are in the words, and the words are one line."""
    words = verdict.describe(measured)
    for part in (measured.measure, measured.unit, f"n = {measured.n}"):
        assert part in words
    assert "\n" not in words


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
    forth, back = (judge(rows, bound) for rows in (readings, readings[::-1]))
    assert (forth.outcome, forth.reason) == (back.outcome, back.reason)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(0.5, "failed"), (1.5, "passed"), (2.5, "failed"), (1.0, "inconclusive"), (2.0, "inconclusive")],
)
def test_a_range_is_kept_between_both_its_ends(value, outcome):
    """Outside of either end it fails, on one it is not decided, and the reason names the range where it is kept."""
    readings = (sampled("kl_ratio_isotropic", around(value, 0.05, 256)),)
    of_check = dataclasses.replace(limit("random_error", "kl_ratio_isotropic", value=2.0), floor=1.0)
    found = judge(readings, of_check)
    assert found.outcome == outcome
    assert found.limit == of_check
    assert ("in 1 to 2 ratio" in found.reason) == (outcome == "passed")


def judged_by(l0, dead, *, n=64):
    """The verdict by one limit on l0_max (20) and one on dead_latents (0.1), both counted."""
    readings = (estimate("l0_max", l0, n=n), dead)
    limits = (limit("sparsity", "l0_max", value=20), limit("sparsity", "dead_latents", value=0.1))
    return verdict.judge_all(readings, limits, BUDGET)


@pytest.mark.parametrize(
    ("l0", "dead", "outcome", "measure"),
    [
        (19, 0.05, "passed", "l0_max"),
        (21, 0.05, "failed", "l0_max"),
        (19, 0.5, "failed", "dead_latents"),
        (21, 0.5, "failed", "l0_max"),
    ],
)
def test_the_worst_of_several_limits_decides(l0, dead, outcome, measure):
    """Its measure, value and limit are those of the verdict, and the reason names every measure that broke."""
    found = judged_by(l0, estimate("dead_latents", dead))
    assert (found.outcome, found.limit.measure, found.judged.measure) == (outcome, measure, measure)
    assert found.reason.startswith(f"{measure} ")
    assert ("; dead_latents 0.5 > 0.1" in found.reason) == (l0 > 20 and dead > 0.1)
    assert [other.limit.measure for other in found.others] == [m for m in ("l0_max", "dead_latents") if m != measure]


@pytest.mark.parametrize(
    ("is_final", "l0", "outcome"),
    [(True, 19, "passed"), (True, 21, "failed"), (False, 19, "not_measured"), (False, 21, "failed")],
)
def test_a_measure_that_an_sae_does_not_have_decides_nothing(is_final, l0, outcome):
    """One that only this sample does not have leaves the check without a verdict; a failure stands."""
    found = judged_by(l0, NotMeasured(measure="dead_latents", reason="it has no latents", is_final=is_final))
    assert found.outcome == outcome
    if outcome != "not_measured":
        assert [(other.outcome, other.reason) for other in found.others] == [("not_measured", "it has no latents")]


def test_one_failure_is_final_whatever_else_is_open():
    """More of the corpus cannot mend it; what has not failed waits for all limits."""
    bad = sampled("ce_increase", around(1.0, 0.01, 64))
    open_ = sampled("kl", around(0.3, 0.3, 64))
    limits = (limit(measure="ce_increase", value=0.3), limit(measure="kl", value=0.3))
    failed = verdict.judge_all((bad, open_), limits, BUDGET)
    assert (failed.outcome, failed.is_final, failed.others[0].outcome) == ("failed", True, "inconclusive")
    good = sampled("ce_increase", around(0.01, 0.001, 64))
    waiting = verdict.judge_all((good, open_), limits, BUDGET)
    assert (waiting.outcome, waiting.is_final, waiting.limit.measure) == ("inconclusive", False, "kl")
