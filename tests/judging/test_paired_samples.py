"""The sample behind a limited measure, from the losses to a record and back."""

import math
from dataclasses import replace

import builders
import numpy as np
import pytest
from hypothesis import given
from strategies import text_losses

from sae_checks.judging import answer_readings, corpus_readings, paired_samples
from sae_checks.judging.estimates import Estimate
from sae_checks.judging.paired_samples import PairedAnswers
from sae_checks.judging.samples import LogRoot, Ratio

SHA = "0" * 64


@given(text_losses(n_least=2, reaches_beyond=True))
def test_what_is_kept_is_the_measure(losses):
    """The two columns come to the estimate, whatever kind of sample was behind it: to float32's precision."""
    found = {
        ("ce_loss", "ce_increase"): corpus_readings.ce_loss(losses),
        ("long_context", "degradation"): corpus_readings.long_context(losses),
        ("sparsity", "explained_variance"): corpus_readings.sparsity(losses),
    }
    for (check, measure), readings in found.items():
        (estimate,) = (r for r in readings if r.measure == measure)
        sample = paired_samples.paired_sample(readings, builders.limit(check, measure), SHA)
        if isinstance(estimate, Estimate):
            scale = max(1.0, abs(estimate.value), *map(abs, sample.numerators))
            value = math.fsum(sample.numerators) / math.fsum(sample.denominators)
            assert value == pytest.approx(estimate.value, abs=1e-5 * scale)
            assert sample.measure == measure
        else:
            assert sample is None


def test_a_logarithm_is_kept_on_the_scale_of_its_measure():
    """The root of a ratio comes back as that root, not as its logarithm."""
    rng = np.random.default_rng(0)
    numerators, denominators = rng.uniform(1, 4, 40), rng.uniform(10, 20, 40)
    root = math.sqrt(numerators.sum() / denominators.sum())
    limit = builders.limit("propagation", "own_error")
    estimate = builders.estimate("own_error", root, n=40)
    sampled = replace(estimate, sample=LogRoot(of=Ratio(numerators=numerators, denominators=denominators)))
    sample = paired_samples.paired_sample([sampled], limit, SHA)
    assert math.fsum(sample.numerators) / math.fsum(sample.denominators) == pytest.approx(root, rel=1e-6)


def test_answers_are_kept_as_they_are():
    """The drop of each passage, and how long the list is."""
    losses = builders.item_losses([True, True, False, False], [True, False, True, False])
    found = paired_samples.paired_sample(
        answer_readings.lambada(losses, n_listed=9), builders.limit("lambada", "accuracy_drop"), SHA
    )
    assert found == PairedAnswers(
        measure="accuracy_drop", measures_version=1, fingerprint=SHA, answers=(0, 1, -1, 0), n_listed=9
    )


def test_nothing_is_kept_of_what_has_no_sample():
    """Nothing measured, counted, not limited, or beyond float32: None."""
    limit = builders.limit()
    assert paired_samples.paired_sample([], limit, SHA) is None
    assert paired_samples.paired_sample([builders.sampled("ce_increase", [0.1, 0.2])], None, SHA) is None
    assert paired_samples.paired_sample([builders.estimate("ce_increase", 0.1)], limit, SHA) is None
    assert paired_samples.paired_sample([builders.sampled("ce_increase", [1e300, 1.0])], limit, SHA) is None
    assert paired_samples.paired_sample([builders.sampled("ce_increase", [0.1, 0.2])], limit, SHA) is not None
