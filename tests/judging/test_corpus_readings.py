"""Losses -> estimates: what holds of every estimator, formulas by hand, coverage by simulation."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import builders
import numpy as np
import pytest
from builders import item_losses, reconstructions, sequences_of, span, text_losses
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t
from strategies import item_losses as any_item_losses
from strategies import text_losses as any_text_losses

from sae_checks import checks
from sae_checks.judging import answer_readings, corpus_readings
from sae_checks.judging.estimates import Estimate, NotFinite, NotMeasured

OF_TEXT = (
    (corpus_readings.ce_loss, checks.CE_LOSS),
    (corpus_readings.long_context, checks.LONG_CONTEXT),
    (corpus_readings.sparsity, checks.SPARSITY),
)
COUNTED = {"l0_max", "l0_max_of_k", "dead_latents", "replaced_tokens"}
"""Counts over what was measured: they have no interval to need two sequences for."""
NOT_FINITE = (math.nan, math.inf, -math.inf)


def named(readings):
    return {reading.measure: reading for reading in readings}


def reading(readings, measure):
    return named(readings)[measure]


def numbers(readings):
    """(value, low, high) of every estimate, by measure."""
    return {r.measure: (r.value, r.low, r.high) for r in readings if isinstance(r, Estimate)}


def assert_alike(readings, others, factor=1.0):
    """The same measures were measured, and their numbers are *factor* times the others'."""
    mine, theirs = numbers(readings), numbers(others)
    assert mine.keys() == theirs.keys()
    for measure, values in mine.items():
        scale = 1 + max(map(abs, values))
        assert values == pytest.approx([factor * x for x in theirs[measure]], rel=1e-9, abs=1e-9 * scale)


@given(losses=any_text_losses())
def test_every_measure_of_the_catalogue_is_read(losses):
    """One reading per measure, in the catalogue's order; estimates have its unit, ordered bounds, finite numbers."""
    for estimator, check in OF_TEXT:
        readings = estimator(losses)
        assert [r.measure for r in readings] == [m.name for m in check.measures]
        for r in readings:
            assert isinstance(r, Estimate | NotMeasured)
            if isinstance(r, Estimate):
                assert r.low <= r.value <= r.high
                assert math.isfinite(r.low)
                assert math.isfinite(r.high)
                assert r.unit == check.unit_of(r.measure)
                assert (1 if r.measure in COUNTED else 2) <= r.n <= len(losses.documents)
            else:
                assert r.reason


@given(any_item_losses())
def test_every_measure_of_lambada_is_read(losses):
    """The same for Lambada: ordered and finite, or a reason."""
    readings = answer_readings.lambada(losses)
    assert [r.measure for r in readings] == [m.name for m in checks.LAMBADA.measures]
    for r in readings:
        assert isinstance(r, Estimate | NotMeasured)
        if isinstance(r, Estimate):
            assert r.low <= r.value <= r.high
            assert math.isfinite(r.high)
            assert r.n == len(losses.items)


@given(losses=any_text_losses(n_least=1), seed=st.integers(0, 2**32))
def test_the_order_of_sequences_does_not_matter(losses, seed):
    """Permuting the sequences changes no reading."""
    order = np.random.default_rng(seed).permutation(len(losses.documents))
    for estimator, _ in OF_TEXT:
        assert_alike(estimator(sequences_of(losses, order)), estimator(losses))


@given(losses=any_item_losses(n_least=2), seed=st.integers(0, 2**32))
def test_the_order_of_items_does_not_matter(losses, seed):
    """Permuting the passages changes no reading."""
    order = np.random.default_rng(seed).permutation(len(losses.items))
    assert_alike(answer_readings.lambada(builders.rows_of(losses, order)), answer_readings.lambada(losses))


@pytest.mark.parametrize("n", [1, 9])
def test_sequences_without_tokens_do_not_count(n):
    """A sequence of which nothing was scored or replaced changes no reading, nor the n behind it."""
    rng = np.random.default_rng(n)
    n_tokens = rng.integers(1, 9, n)
    of_span = span(n_tokens, n_tokens * rng.random(n), n_tokens * rng.random(n), n_tokens * rng.random(n))
    x = [rng.normal(0, 1, (k, 3)) for k in n_tokens]
    x_hat = [of_sequence / 2 for of_sequence in x]
    whole = reconstructions(x, x_hat, n_tokens)
    losses = text_losses(of_span, of_span, ablated=n_tokens * (4 + rng.random(n)), of_reconstructing=whole)
    nothing = reconstructions([np.zeros((0, 3))], [np.zeros((0, 3))])
    empty = text_losses(span([0]), ablated=[0], of_reconstructing=nothing)
    for estimator, _ in OF_TEXT:
        with_empty, without = estimator(_joined(losses, empty)), estimator(losses)
        said = [(type(r), getattr(r, "n", None)) for r in without]
        assert [(type(r), getattr(r, "n", None)) for r in with_empty] == said
        assert_alike(with_empty, without)


def _joined(losses, more):
    """The sequences of *losses*, then those of *more*."""

    def joined(a, b):
        names = a.__dataclass_fields__
        return replace(a, **{name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in names})

    return replace(
        losses,
        documents=np.concatenate([losses.documents, more.documents]),
        within=joined(losses.within, more.within),
        beyond=joined(losses.beyond, more.beyond),
        ce_ablated_nats=np.concatenate([losses.ce_ablated_nats, more.ce_ablated_nats]),
        reconstructions=joined(losses.reconstructions, more.reconstructions),
    )


def _scaled(losses, c):
    def of(noun):
        nats = ("ce_clean_nats", "ce_spliced_nats", "kl_nats")
        return replace(noun, **{name: c * getattr(noun, name) for name in nats})

    return replace(
        losses, within=of(losses.within), beyond=of(losses.beyond), ce_ablated_nats=c * losses.ce_ablated_nats
    )


@given(losses=any_text_losses(n_least=2), c=st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_losses_scales_nats_and_leaves_fractions(losses, c):
    """In other units of loss every estimate in nats is in other units; the recovered fraction has none."""
    for estimator in (corpus_readings.ce_loss, corpus_readings.long_context):
        readings, scaled = named(estimator(losses)), named(estimator(_scaled(losses, c)))
        nats = [m for m, r in readings.items() if getattr(r, "unit", None) == "nats/token"]
        assert_alike([scaled[m] for m in nats], [readings[m] for m in nats], factor=c)
        rest = [m for m in readings if m not in nats]
        assert_alike([scaled[m] for m in rest], [readings[m] for m in rest])


@pytest.mark.parametrize("n", [0, 1])
def test_no_interval_from_fewer_than_two_sequences(n):
    """Without at least two sequences nothing but counts is estimated, and no arithmetic warning is raised."""
    x = [np.arange(6.0).reshape(3, 2)] * n
    of_span = span([5] * n, [3] * n, [4] * n, [1] * n)
    losses = text_losses(of_span, of_span, ablated=[9] * n, of_reconstructing=reconstructions(x, x))
    for estimator, check in OF_TEXT:
        readings = named(estimator(losses))
        assert len(readings) == len(check.measures)
        assert all(isinstance(r, NotMeasured) or (n and measure in COUNTED) for measure, r in readings.items())


def test_nothing_scored_is_not_measured():
    """Sequences of special tokens alone: no measure, a reason each, no arithmetic warning."""
    nothing = [np.zeros((0, 2))] * 4
    losses = text_losses(span([0] * 4), span([0] * 4), of_reconstructing=reconstructions(nothing, nothing))
    for estimator, _ in OF_TEXT:
        assert {type(r) for r in estimator(losses)} == {NotMeasured}


@given(losses=any_text_losses(n_least=2))
def test_an_identical_splice_costs_exactly_nothing(losses):
    """Spliced equal to clean: the increase is 0 and the recovered fraction 1, both without rounding, kl 0 stays 0."""
    within = replace(losses.within, ce_spliced_nats=losses.within.ce_clean_nats, kl_nats=0 * losses.within.kl_nats)
    readings = named(corpus_readings.ce_loss(replace(losses, within=within)))
    for measure, exact in (("ce_increase", 0), ("kl", 0), ("ce_recovered", 1)):
        if isinstance(readings[measure], Estimate):
            assert (readings[measure].value, readings[measure].low, readings[measure].high) == (exact,) * 3


def test_an_identical_splice_is_measured():
    """The property above is not empty: with a costly ablation all three are estimates."""
    clean = [10.0, 30.0, 21.0]
    losses = text_losses(span([5, 9, 7], clean, clean), ablated=[40.0, 80.0, 60.0])
    readings = named(corpus_readings.ce_loss(losses))
    assert [readings[m].value for m in ("ce_increase", "kl", "ce_recovered")] == [0, 0, 1]


def _ratio(sums, n_tokens):
    """sum / sum, in exact fractions."""
    return sum(map(Fraction, sums.tolist())) / sum(n_tokens.tolist())


@given(losses=any_text_losses(n_least=2))
def test_values_are_means_per_token(losses):
    """Every mean is the sum over tokens over the number of tokens, never a mean of sequences' means."""
    within = losses.within
    readings = named(corpus_readings.ce_loss(losses))
    of_measure = {
        "ce_clean": within.ce_clean_nats,
        "ce_spliced": within.ce_spliced_nats,
        "ce_ablated": losses.ce_ablated_nats,
        "ce_increase": within.ce_spliced_nats - within.ce_clean_nats,
        "kl": within.kl_nats,
    }
    for measure, sums in of_measure.items():
        if isinstance(readings[measure], Estimate):
            assert readings[measure].value == pytest.approx(float(_ratio(sums, within.n_tokens)), rel=1e-12)
    if isinstance(readings["ce_recovered"], Estimate):
        ablated, spliced, clean = losses.ce_ablated_nats, within.ce_spliced_nats, within.ce_clean_nats
        expected = (ablated.sum() - spliced.sum()) / (ablated.sum() - clean.sum())
        assert readings["ce_recovered"].value == pytest.approx(expected, rel=1e-12)


def test_a_mean_and_its_interval_by_hand():
    """Three sequences of unequal length: the ratio of sums, and Student's t on the linearised ratio."""
    losses = text_losses(span([2, 4, 6], [0, 0, 0], [1, 4, 3]))
    found = reading(corpus_readings.ce_loss(losses), "ce_increase")
    residuals = [1 - 2 * 8 / 12, 4 - 4 * 8 / 12, 3 - 6 * 8 / 12]
    error = math.sqrt(sum(r * r for r in residuals) / 2 / 3) / 4
    assert found.value == pytest.approx(8 / 12)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 2) * error)
    assert found.value - found.low == pytest.approx(t.ppf(0.975, 2) * error)
    assert found.n == 3


def test_an_ablation_that_costs_nothing_recovers_nothing():
    """With nothing lost there is no fraction of it: not measured, while the rest is."""
    losses = text_losses(span([5, 5, 5], [9, 10, 11], [10, 10, 12]), ablated=[9, 10, 11])
    readings = named(corpus_readings.ce_loss(losses))
    assert isinstance(readings["ce_recovered"], NotMeasured)
    assert isinstance(readings["ce_increase"], Estimate)


@given(losses=any_text_losses(n_least=2, reaches_beyond=True))
def test_degradation_is_the_increase_beyond_less_the_increase_within(losses):
    """The three measures agree with each other, over the same sequences."""
    within, beyond, degradation = corpus_readings.long_context(losses)
    assert degradation.value == pytest.approx(beyond.value - within.value, rel=1e-9, abs=1e-9)
    assert within.n == beyond.n == degradation.n == len(losses.documents)


@given(losses=any_text_losses(n_least=2, reaches_beyond=True))
def test_sequences_that_end_within_do_not_move_the_degradation(losses):
    """Only sequences that reach beyond are compared: short ones would mix other documents in."""
    n = len(losses.documents)
    short = sequences_of(losses, np.arange(n))
    short = replace(short, beyond=span([0] * n), within=replace(short.within, ce_spliced_nats=np.full(n, 1e3)))
    assert_alike(corpus_readings.long_context(_joined(losses, short)), corpus_readings.long_context(losses))


@pytest.mark.parametrize(
    ("n_training", "n_context", "n_beyond", "word"),
    [(None, 32, 4, "unknown"), (32, 32, 0, "no room"), (64, 32, 0, "no room"), (16, 32, 0, "no document is longer")],
)
def test_without_anything_beyond_no_measure_is_made(n_training, n_context, n_beyond, word):
    """An unknown training context, no room, or no long document: every measure says why, none is 0."""
    losses = text_losses(
        span([4] * 9, [4] * 9, [5] * 9),
        span([n_beyond] * 9),
        n_training_context_tokens=n_training,
        n_context_tokens=n_context,
    )
    readings = corpus_readings.long_context(losses)
    assert [type(r) for r in readings] == [NotMeasured] * 3
    assert all(word in r.reason for r in readings)


def test_beyond_alone_cannot_degrade():
    """Sequences that are scored beyond the training context only (special tokens within) give no number by 0 / 0."""
    losses = text_losses(span([0] * 9), span([4] * 9, [4] * 9, [5] * 9))
    degradation = reading(corpus_readings.long_context(losses), "degradation")
    assert isinstance(degradation, NotMeasured)


def _arrays(seed, lengths=(3, 7, 1, 12, 5), d_in=4):
    """Activations whose mean is not zero, per sequence, with correlated noise."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(3, 1, (n, d_in)) * np.arange(1, d_in + 1) for n in lengths]
    return x, [of_sequence + rng.normal(0, 0.7, of_sequence.shape) for of_sequence in x]


def _sparsity(x, x_hat, n_active=None):
    of_reconstructing = reconstructions(x, x_hat, n_active)
    return named(corpus_readings.sparsity(text_losses(span([1] * len(x)), of_reconstructing=of_reconstructing)))


@given(st.integers(0, 2**32))
def test_explained_variance_is_the_direct_formula(seed):
    """1 - |x - x^|^2 / |x - mean x|^2 over all tokens at once, though only sums per sequence are kept."""
    x, x_hat = _arrays(seed)
    all_x, all_hat = np.concatenate(x), np.concatenate(x_hat)
    direct = 1 - ((all_x - all_hat) ** 2).sum() / ((all_x - all_x.mean(axis=0)) ** 2).sum()
    assert _sparsity(x, x_hat)["explained_variance"].value == pytest.approx(direct, rel=1e-9)


@given(st.integers(0, 2**32))
def test_a_perfect_reconstruction_explains_everything(seed):
    """x^ = x: exactly 1, with an interval that is a point."""
    x, _ = _arrays(seed)
    found = _sparsity(x, x)["explained_variance"]
    assert (found.value, found.low, found.high) == (1, 1, 1)


@given(st.integers(0, 2**32), st.sampled_from([1e-6, 0.5, 1e6]))
def test_explained_variance_has_no_unit(seed, c):
    """Scaling x and x^ together changes nothing."""
    x, x_hat = _arrays(seed)
    scaled = _sparsity([c * a for a in x], [c * a for a in x_hat])
    assert_alike(scaled.values(), _sparsity(x, x_hat).values())


def test_activations_that_do_not_vary_have_no_variance_to_explain():
    """A constant stream: not measured, neither 0 nor 1 nor NaN."""
    x = [np.full((n, 3), 2.5) for n in (3, 4, 5)]
    assert isinstance(_sparsity(x, x)["explained_variance"], NotMeasured)


def test_l0_is_active_latents_per_token():
    """All active latents over all tokens, not the mean of the sequences' means."""
    x, x_hat = _arrays(0, lengths=(2, 8))
    found = _sparsity(x, x_hat, n_active=[10, 120])["l0"]
    assert (found.value, found.unit, found.n) == (13, "latents/token", 2)


@given(st.lists(st.integers(0, 200), min_size=2, max_size=6), st.integers(1, 300), st.floats(0.5, 400))
def test_l0_is_compared_with_the_record_and_with_k(n_active, k, recorded):
    """L0 over what is recorded, interval and all; the most on any token over k; what is not known is not measured."""
    x, x_hat = _arrays(0, lengths=[4] * len(n_active))
    losses = text_losses(span([1] * len(x)), of_reconstructing=reconstructions(x, x_hat, n_active))
    told, silent = (
        named(corpus_readings.sparsity(losses, **known))
        for known in ({"recorded_l0": recorded, "k": k}, {"recorded_l0": 0.0})
    )
    assert told["l0_ratio"].value * recorded == pytest.approx(told["l0"].value)
    assert told["l0_ratio"].high * recorded == pytest.approx(told["l0"].high)
    assert (told["l0_max"].value, told["l0_max_of_k"].value) == (max(n_active), max(n_active) / k)
    assert told["replaced_tokens"].value == 4 * len(x)
    for measure in ("l0_ratio", "l0_max_of_k"):
        assert isinstance(silent[measure], NotMeasured)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_dead_latents_are_an_upper_bound(seen):
    """The share that was never active, with 0 below it: more text can only wake latents."""
    x, x_hat = _arrays(0)
    losses = text_losses(
        span([1] * len(x)), of_reconstructing=reconstructions(x, x_hat), ever_active=np.array(seen, dtype=np.bool_)
    )
    found = reading(corpus_readings.sparsity(losses), "dead_latents")
    assert found.value == found.high == pytest.approx(seen.count(False) / len(seen))
    assert found.low == 0


def test_an_sae_that_does_not_tell_has_no_dead_latents():
    """Not measured, never 0."""
    x, x_hat = _arrays(0)
    assert isinstance(_sparsity(x, x_hat)["dead_latents"], NotMeasured)


def test_a_loss_that_is_not_finite_is_named():
    """One NaN or infinity anywhere in the text pass: no number of it is given, the sequence and document are."""
    fields = ("ce_clean_nats", "ce_spliced_nats", "kl_nats")
    for bad, row, place, field in product(NOT_FINITE, (0, 2), ("within", "beyond"), fields):
        losses = text_losses(span([4] * 3), span([4] * 3))
        getattr(getattr(losses, place), field)[row] = bad
        for readings in (corpus_readings.ce_loss(losses), corpus_readings.long_context(losses)):
            assert {type(r) for r in readings} == {NotFinite}
            assert all(f"sequence {row} (document {100 + row} " in r.where and str(bad) in r.where for r in readings)
    losses = text_losses(span([4] * 3), span([4] * 3))
    losses.ce_ablated_nats[1] = math.nan
    assert all(isinstance(r, NotFinite) and "sequence 1 " in r.where for r in corpus_readings.ce_loss(losses))


def test_a_reconstruction_that_is_not_finite_is_named():
    """One NaN or infinity in any sum over activations: no number is given, the sequence is."""
    x, x_hat = _arrays(0)
    for bad, field in product(NOT_FINITE, ("error_squared", "norm_squared", "target_sum")):
        of_reconstructing = reconstructions(x, x_hat)
        getattr(of_reconstructing, field)[2] = bad
        readings = corpus_readings.sparsity(text_losses(span([1] * len(x)), of_reconstructing=of_reconstructing))
        assert all(isinstance(r, NotFinite) and "sequence 2 (document 102 " in r.where for r in readings)


def test_a_passage_that_is_not_finite_is_named():
    """The item's place in its file is said."""
    for bad, field in product(NOT_FINITE, ("clean_logprob_nats", "spliced_logprob_nats")):
        losses = item_losses([True] * 9, [True] * 9)
        getattr(losses, field)[4] = bad
        readings = answer_readings.lambada(losses)
        assert all(isinstance(r, NotFinite) and "item 104 " in r.where for r in readings)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_an_identical_splice_drops_nothing_with_an_honest_interval(right):
    """No answer flips: drop 0, and still an interval of positive width on both sides."""
    drop = reading(answer_readings.lambada(item_losses(right, right)), "accuracy_drop")
    assert drop.low < drop.value == 0 < drop.high


@given(any_item_losses(n_least=1))
def test_swapping_clean_and_spliced_negates_the_drop(losses):
    """The drop from b to a is minus the drop from a to b, bounds and all."""
    swapped = item_losses(losses.spliced_correct, losses.clean_correct)
    there, back = (reading(answer_readings.lambada(x), "accuracy_drop") for x in (losses, swapped))
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)


@given(any_item_losses(n_least=1))
def test_the_drop_is_the_difference_of_the_accuracies(losses):
    """clean - spliced, each the share of right answers."""
    readings = named(answer_readings.lambada(losses))
    assert readings["accuracy_clean"].value == losses.clean_correct.mean()
    assert readings["accuracy_spliced"].value == losses.spliced_correct.mean()
    expected = readings["accuracy_clean"].value - readings["accuracy_spliced"].value
    assert readings["accuracy_drop"].value == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_has_the_exact_interval(k_of_n):
    """Clopper and Pearson's interval, as scipy computes it."""
    k, n = k_of_n
    right = np.arange(n) < k
    accuracy = reading(answer_readings.lambada(item_losses(right, right)), "accuracy_clean")
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert accuracy.value == k / n
    assert (accuracy.low, accuracy.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400))
def test_the_drop_joins_two_exact_intervals(lost, won, same):
    """Answers lost and answers won, each with its exact interval at half the error."""
    n = lost + won + same
    clean = np.arange(n) < lost
    spliced = (np.arange(n) >= lost) & (np.arange(n) < lost + won)
    drop = reading(answer_readings.lambada(item_losses(clean, spliced)), "accuracy_drop")
    of_lost, of_won = (binomtest(k, n).proportion_ci(0.975, method="exact") for k in (lost, won))
    assert drop.value == pytest.approx((lost - won) / n)
    assert (drop.low, drop.high) == pytest.approx((of_lost.low - of_won.high, of_lost.high - of_won.low), abs=1e-9)


def test_perplexity_by_hand():
    """exp of minus the mean over passages of the word's log-probability, and the ratio of the two."""
    clean, spliced = np.log([0.5, 0.25, 0.125]), np.log([0.25, 0.25, 0.0625])
    readings = named(answer_readings.lambada(item_losses([True] * 3, [True] * 3, clean, spliced)))
    assert readings["perplexity_clean"].value == pytest.approx(4)
    assert readings["perplexity_spliced"].value == pytest.approx(2 ** (8 / 3))
    assert readings["perplexity_ratio"].value == pytest.approx(2 ** (2 / 3))
    nats = -clean
    margin = t.ppf(0.975, 2) * nats.std(ddof=1) / math.sqrt(3)
    found = readings["perplexity_clean"]
    assert (found.low, found.high) == pytest.approx((4 * math.exp(-margin), 4 * math.exp(margin)))


def test_an_enormous_perplexity_is_not_measured():
    """What overflows float64 is no number and no infinity."""
    losses = item_losses([True] * 3, [False] * 3, None, [-1e6, -2e6, -3e6])
    readings = named(answer_readings.lambada(losses))
    assert isinstance(readings["perplexity_spliced"], NotMeasured)
    assert isinstance(readings["perplexity_ratio"], NotMeasured)
    assert isinstance(readings["perplexity_clean"], Estimate)


def test_no_item_and_one_item():
    """No item: nothing measured. One item: shares have exact intervals, perplexities have none."""
    assert {type(r) for r in answer_readings.lambada(item_losses([], []))} == {NotMeasured}
    one = named(answer_readings.lambada(item_losses([True], [False])))
    measured = {m for m, r in one.items() if isinstance(r, Estimate)}
    assert measured == {"accuracy_clean", "accuracy_spliced", "accuracy_drop", "answers_lost", "answers_won"}
    assert one["accuracy_drop"].low < 0 < one["accuracy_drop"].value == one["accuracy_drop"].high == 1


def test_probability_and_rank_by_hand():
    """Means over passages of the word's probability and of 1 / rank."""
    clean, spliced = np.log([0.5, 0.25, 0.75]), np.log([0.25, 0.25, 0.1])
    losses = item_losses([True] * 3, [True] * 3, clean, spliced, ranks=([1, 2, 4], [1, 1, 10]))
    readings = named(answer_readings.lambada(losses))
    assert readings["probability_clean"].value == pytest.approx(0.5)
    assert readings["probability_spliced"].value == pytest.approx(0.2)
    assert readings["reciprocal_rank_clean"].value == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert readings["reciprocal_rank_spliced"].value == pytest.approx(0.7)
    margin = t.ppf(0.975, 2) * np.std([0.25, 0.25, 0.1], ddof=1) / math.sqrt(3)
    found = readings["probability_spliced"]
    assert (found.low, found.high) == pytest.approx((max(0, 0.2 - margin), 0.2 + margin))


@given(losses=any_item_losses(n_least=1), n_training=st.integers(1, 40))
def test_lengths_and_flips_add_up_to_the_drop(losses, n_training):
    """Within and beyond, weighted by their passages, and lost less won are all the drop; fractions stay fractions."""
    readings = named(answer_readings.lambada(losses, n_training_context_tokens=n_training))
    drop = readings["accuracy_drop"].value
    assert readings["answers_lost"].value - readings["answers_won"].value == pytest.approx(drop)
    parts = [readings[f"accuracy_drop_{place}"] for place in ("within", "beyond")]
    measured = [r for r in parts if isinstance(r, Estimate)]
    assert sum(r.n for r in measured) == len(losses.items)
    assert sum(r.n * r.value for r in measured) == pytest.approx(drop * len(losses.items))
    assert all("passage is" in r.reason for r in parts if isinstance(r, NotMeasured))
    for measure in ("probability_clean", "probability_spliced", "reciprocal_rank_clean", "reciprocal_rank_spliced"):
        if isinstance(readings[measure], Estimate):
            assert 0 <= readings[measure].low <= readings[measure].value <= readings[measure].high <= 1


def test_a_passage_as_long_as_the_training_context_is_within_it():
    """Its last prediction is made at the last position that the SAE was trained on."""
    losses = item_losses([True] * 4, [True, True, False, False], n_context_tokens=[15, 16, 16, 17])
    readings = named(answer_readings.lambada(losses, n_training_context_tokens=16))
    within, beyond = (readings[f"accuracy_drop_{place}"] for place in ("within", "beyond"))
    assert (within.value, within.n, beyond.value, beyond.n) == (pytest.approx(1 / 3), 3, 1, 1)
    unknown = named(answer_readings.lambada(losses))["accuracy_drop_within"]
    assert isinstance(unknown, NotMeasured)


N_RUNS = 2000


def test_the_interval_of_a_mean_covers_it():
    """64 sequences of varying length with skewed increases: the truth lies in at least 92 % of 2000 intervals."""
    rng = np.random.default_rng(0)
    n_tokens = rng.integers(8, 128, (N_RUNS, 64))
    rate = 0.05 * rng.lognormal(-0.18, 0.6, (N_RUNS, 64))  # mean 0.05 nats/token, CV 0.66, whatever the length
    zeros, covered = np.zeros(64), 0
    for of_run, tokens in zip(rate, n_tokens, strict=True):
        found = reading(corpus_readings.ce_loss(text_losses(span(tokens, zeros, of_run * tokens))), "ce_increase")
        covered += found.low <= 0.05 <= found.high
    assert 0.92 <= covered / N_RUNS <= 0.98  # 0.933 in 40,000 runs; 0.006 is one standard error of 2000


@pytest.mark.parametrize(("p_lost", "p_won"), [(0.04, 0.02), (0.01, 0.0)])
def test_the_interval_of_a_drop_covers_it(p_lost, p_won):
    """200 passages, few answers lost and fewer won: the truth lies in at least 95 % of 2000 intervals."""
    uniform = np.random.default_rng(1).random((N_RUNS, 200))
    covered = 0
    for of_run in uniform:
        losses = item_losses(of_run < p_lost, of_run > 1 - p_won)
        drop = reading(answer_readings.lambada(losses), "accuracy_drop")
        covered += drop.low <= p_lost - p_won <= drop.high
    assert covered / N_RUNS >= 0.95
