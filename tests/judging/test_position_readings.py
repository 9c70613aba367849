"""Losses by position: curves and the usable context, by hand and against the estimators of whole sequences."""

import math
from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import by_position, of_sequences, ratio_sums, span, text_losses
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t
from strategies import rates

from sae_checks import checks
from sae_checks.judging import estimates, position_readings, verdict
from sae_checks.judging.budget import Budget
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured
from sae_checks.judging.samples import Ratio

LIMIT = 0.1


def of(losses, measure):
    return next(curve for curve in position_readings.curves(losses) if curve.measure == measure)


def increase_curve(increases):
    return of(text_losses(span([]), of_positions=by_position(increases)), "ce_increase")


def test_a_curve_by_hand():
    """Mean and Student's t at every position that at least two sequences have."""
    increases = [[1.0, 2.0, 6.0], [0.5, 0.5], [4.0], []]
    curve = increase_curve(increases)
    assert (curve.position, curve.n_sequences, curve.unit) == ((0, 1), (3, 2), "nats/token")
    margin = t.ppf(0.975, 2) * np.std(increases[0], ddof=1) / math.sqrt(3)
    assert curve.value == pytest.approx((3, 0.5))
    assert curve.low == pytest.approx((3 - margin, 0.5))
    assert curve.high == pytest.approx((3 + margin, 0.5))


@given(st.lists(st.lists(rates, max_size=6), max_size=6))
def test_a_curve_is_ordered(increases):
    """Positions rise, bounds hold the value, nobody counts alone."""
    curve = increase_curve(increases)
    assert curve.position == tuple(i for i, here in enumerate(increases) if len(here) >= 2)
    assert curve.n_sequences == tuple(len(increases[i]) for i in curve.position)
    for low, value, high in zip(curve.low, curve.value, curve.high, strict=True):
        assert low <= value <= high


def test_a_position_that_is_not_finite_is_left_out():
    """The checks fail by name; the curve shows the rest."""
    assert increase_curve([[1.0, math.nan], [1.0, 2.0]]).position == (1,)


pairs = st.lists(st.tuples(rates, rates.map(lambda x: x + 0.25)), min_size=2, max_size=8)


@given(pairs)
def test_an_interval_at_a_position_is_that_of_a_ratio(of_sequences):
    """From five sums: the value and the interval that the ratio has with every sequence at hand."""
    band = position_readings._band(ratio_sums([of_sequences]))
    top, bottom = np.array(of_sequences).T
    whole = estimates.ratio_of("ce_increase", checks.CE_LOSS, top, bottom, Ratio(numerators=top, denominators=bottom))
    scale = 1 + abs(whole.value)
    assert band.value[0] == pytest.approx(whole.value, abs=1e-9)
    assert (band.high[0] - band.low[0]) ** 2 == pytest.approx((whole.high - whole.low) ** 2, rel=1e-6, abs=1e-9 * scale)


@given(pairs, st.sampled_from([0.25, 1024.0]))
def test_explained_variance_has_no_unit_at_a_position_either(of_sequences, c):
    """Error and spread in other units: the same share, and it is 1 minus the unexplained one."""
    found = []
    for factor in (1, c):
        scaled = ratio_sums([[(factor * a, factor * b) for a, b in of_sequences]])
        losses = text_losses(span([]), of_positions=replace(by_position(), unexplained=scaled))
        found.append(of(losses, "explained_variance"))
    one, other = found
    assert other.value == pytest.approx(one.value)
    assert one.value[0] == pytest.approx(1 - sum(a for a, _ in of_sequences) / sum(b for _, b in of_sequences))
    assert one.low[0] <= one.value[0] <= one.high[0]


def usable(increases, *, limit=LIMIT, n_training=16, n_context=64, least=None):
    """The readings, by measure, of sequences whose increase at each position is given."""
    at = np.full((len(increases), n_context), np.nan, dtype=np.float32)
    for row, of_sequence in zip(at, increases, strict=True):
        row[: len(of_sequence)] = of_sequence[:n_context]
    losses = text_losses(
        span([16] * len(increases)),
        of_positions=of_sequences(increases),
        n_training_context_tokens=n_training,
        n_context_tokens=n_context,
        increase=at,
    )
    readings = position_readings.usable_context(losses, limit, least)
    assert [r.measure for r in readings] == [m.name for m in checks.USABLE_CONTEXT.measures]
    return {r.measure: r for r in readings}


def tokens(increases, **kwargs):
    return usable(increases, **kwargs)["usable_context_tokens"].value


def test_an_exact_reconstruction_is_usable_as_far_as_one_looks():
    """No increase anywhere: every context that was measured, with an interval that is a point."""
    found = usable([[0.0] * 64] * 9)
    for measure in ("usable_context_tokens", "measured_context_tokens"):
        assert (found[measure].low, found[measure].value, found[measure].high) == (64, 64, 64)
    assert (found["usable_context"].value, found["usable_context"].n) == (4, 9)


def test_the_usable_context_by_hand():
    """0.05 within 16 tokens and 0.25 beyond: the mean over 21 tokens is 0.0976, over 22 it is above 0.1."""
    assert tokens([[0.05] * 16 + [0.25] * 48] * 9) == 21


def test_an_sae_that_is_bad_from_the_middle_of_its_context_on_is_not_usable_up_to_its_end():
    """Within the limit over the first half alone: fewer tokens than it was trained on, and so below the gate."""
    found = usable([[0.0] * 8 + [0.5] * 56] * 9)
    assert found["usable_context_tokens"].value == 10  # 2 * 0.5 / 10 is the limit
    assert found["usable_context"].high < 1


def test_an_sae_that_is_bad_from_the_start_is_usable_nowhere():
    """0 tokens, as a number: it was measured."""
    assert tokens([[0.5] * 64] * 9) == 0


def test_dear_first_tokens_do_not_count_against_it():
    """The limit is one on a mean over the training context: what the first token alone costs is not compared."""
    assert tokens([[1.0] + [0.0] * 63] * 9) == 64


def test_coming_back_beyond_the_training_context_does_not_count():
    """The first departure beyond the training context is the end, whatever comes later."""
    assert tokens([[0.0] * 16 + [9.0] + [0.0] * 47] * 9, limit=0.2) == 16


def test_short_documents_do_not_thin_out_what_long_ones_show():
    """A hundred documents that end with the training context move nothing beyond it."""
    long = [[0.0] * 17 + [9.0] * 47] * 9
    assert tokens([*long, *[[0.0] * 17] * 100]) == tokens(long) == 17


def test_a_single_long_document_does_not_extend_it():
    """Positions that fewer than eight sequences have are not looked at."""
    found = usable([*[[0.0] * 20] * 9, [0.0] * 64])
    assert found["measured_context_tokens"].value == found["usable_context_tokens"].value == 20


def test_few_documents_are_measured_and_said():
    """Two that reach the training context's end give a number whose n is 2, for the verdict to refuse."""
    assert usable([[0.0] * 30] * 2)["usable_context"].n == 2


of_64ths = st.integers(-8, 32).map(lambda k: k / 64)
sequences = st.lists(st.lists(of_64ths, min_size=17, max_size=24), min_size=2, max_size=10)


@given(sequences, st.sampled_from([0.05, 0.1, 0.2]), st.sampled_from([0.25, 4.0]))
def test_the_usable_context_has_no_unit_of_loss_and_grows_with_the_limit(increases, limit, c):
    """Loss and limit in other units change nothing; a wider limit never shortens it; low <= value <= high."""
    found, scaled = (usable([[k * x for x in s] for s in increases], limit=k * limit) for k in (1, c))
    assert [r.value for r in scaled.values()] == [r.value for r in found.values()]
    assert tokens(increases, limit=2 * limit) >= found["usable_context_tokens"].value
    for r in found.values():
        assert r.low <= r.value <= r.high
    assert found["usable_context_tokens"].high <= found["measured_context_tokens"].value
    assert found["usable_context"].value == found["usable_context_tokens"].value / 16


@given(sequences, st.randoms(use_true_random=False))
def test_the_order_of_sequences_does_not_move_the_usable_context(increases, random):
    """Permuted sequences: the same readings."""
    permuted = random.sample(increases, len(increases))
    assert [r.value for r in usable(permuted).values()] == [r.value for r in usable(increases).values()]


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"n_training": None}, "unknown"),
        ({"n_context": 16}, "no room"),
        ({"n_training": 40}, "fewer than two documents reach position 39"),
        ({"limit": None}, "a maximal ce_increase"),
    ],
)
def test_without_a_context_or_a_limit_it_is_not_measured(kwargs, word):
    """Every measure says why, none is 0."""
    found = usable([[0.0] * 20] * 9, **kwargs)
    assert [type(r) for r in found.values()] == [NotMeasured] * 3
    assert all(word in r.reason for r in found.values())


def test_a_loss_that_is_not_finite_gives_no_usable_context():
    """NaN is no increase within a limit."""
    losses = text_losses(span([16] * 9), of_positions=of_sequences([[0.0] * 20] * 9))
    losses.within.ce_spliced_nats[3] = math.nan
    assert [type(r) for r in position_readings.usable_context(losses, LIMIT)] == [NotFinite] * 3


def test_the_interval_of_the_usable_context_holds_the_crossings_of_its_band():
    """Sequences that differ: low is where the upper end of the running mean crosses, high where the lower one does."""
    rng = np.random.default_rng(0)
    increases = [[*(scale * 0.08 * np.arange(64) / 16)] for scale in rng.uniform(0.5, 1.5, 12)]
    found = usable(increases)["usable_context_tokens"]
    running = np.array([np.cumsum(s) / np.arange(1, 65) for s in increases])
    margin = t.ppf(0.975, 11) * running.std(axis=0, ddof=1) / math.sqrt(12)
    mean = running.mean(axis=0)
    expected = [int((curve <= LIMIT).sum()) for curve in (mean + margin, mean, mean - margin)]
    assert [found.low, found.value, found.high] == expected
    assert isinstance(found, Estimate)
    assert found.low < found.value < found.high


def verdict_on(increases, least=1.0, *, limit=LIMIT, n_most=None):
    readings = tuple(usable(increases, limit=limit, least=least).values())
    n = len(increases)
    asked = builders.limit("usable_context", "usable_context", "min", least)
    return verdict.judge(readings, asked, Budget(n_planned=n_most or n, n_most=n_most or n, n_checks=31))


@given(sequences, st.sampled_from([0.5, 1.0, 1.0625]))
def test_what_is_tested_is_the_mean_increase_up_to_where_the_limit_asks(increases, least):
    """As sums per sequence, of those that are so long; their ratio is the curve's value there."""
    found = usable(increases, least=least)["usable_context"]
    n_positions = round(16 * least)
    assert found.proxy.value == LIMIT
    tested = found.sample
    assert tested.n == len(increases)
    expected = [sum(of_sequence[:n_positions]) for of_sequence in increases]
    assert tested.numerators == pytest.approx(expected, abs=1e-6)
    assert (tested.denominators == n_positions).all()
    is_within = tested.numerators.sum() / tested.denominators.sum() <= LIMIT
    if least == 1 and abs(tested.numerators.sum() / tested.denominators.sum() - LIMIT) > 1e-6:
        assert (found.value >= least) == is_within


def varied(mean, n, *, spread=0.3, length=40):
    """Sequences of one increase each at all positions, whose mean is *mean*."""
    scale = np.linspace(1 - spread, 1 + spread, n)
    return [[mean * s] * length for s in np.random.default_rng(1).permutation(scale)]


@pytest.mark.parametrize(
    ("mean", "outcome"), [(0.0, "passed"), (0.05, "passed"), (0.15, "failed"), (0.099, "inconclusive")]
)
def test_the_usable_context_is_decided_on_sequences(mean, outcome):
    """An exact SAE passes, one of half again the limit fails, and near it nothing is said."""
    found = verdict_on(varied(mean, 64))
    assert found.outcome == outcome, found.reason
    assert found.decision.measure == "running_increase"
    assert "tested by running_increase" in found.reason
    assert "fraction of training context" in found.reason.partition("tested by")[0]
    assert (found.judged.low, found.judged.high) == (None, None)


def test_the_verdict_on_the_usable_context_is_that_of_its_first_look():
    """More sequences of the same order change neither the look nor the outcome."""
    increases = varied(0.05, 96)
    early = verdict_on(increases[:48], n_most=96)
    late = verdict_on(increases)
    assert early.is_final
    assert (early.outcome, early.decision.n_used) == (late.outcome, late.decision.n_used)


def test_a_usable_context_that_few_documents_can_tell_is_decided_by_its_value():
    """Twice the training context, which one document has: there is nothing to test, and no verdict before the end."""
    found = verdict_on([*[[0.0] * 20] * 9, [0.0] * 64], least=2.0)
    assert (found.decision, found.is_final) == (None, False)
    assert found.outcome == "failed"  # the longest context that was looked at is 20
