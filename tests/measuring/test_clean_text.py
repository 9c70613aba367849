"""Warnings of a text's clean loss: what is sampled from the model, too probable, or hardly a task is named."""

import numpy as np
import pytest

from sae_checks.measuring.clean_text import CleanText
from sae_checks.measuring.scoring import Scores

N_TOKENS, N_LOGITS = 2000, 50


def scores(*, temperature=1.0, sharpness=1.0, n_tokens=N_TOKENS, seed=0):
    """The model's scores of tokens drawn from its predictions at *temperature*."""
    rng = np.random.default_rng(seed)
    logits = sharpness * 2 * rng.standard_normal((n_tokens, N_LOGITS))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(log_p)
    tokens = (log_p / temperature + rng.gumbel(size=p.shape)).argmax(-1)
    entropy = -(p * log_p).sum(-1)
    none = np.zeros(0)
    return Scores(
        ce_nats=-log_p[np.arange(n_tokens), tokens].astype(np.float32),
        kl_nats=np.zeros(n_tokens, dtype=np.float32),
        correct=none.astype(bool),
        rank=none.astype(np.int64),
        entropy_nats=entropy.astype(np.float32),
        surprise_variance=((p * log_p**2).sum(-1) - entropy**2).astype(np.float32),
    )


def warnings(*of_batches, n_logits=N_LOGITS):
    text = CleanText()
    for each in of_batches:
        text.add(each)
    return list(text.warnings(n_logits))


@pytest.mark.parametrize("seed", range(5))
def test_text_sampled_from_the_model_is_named(seed):
    """Also batch by batch; the loss and the entropy are told."""
    (found,) = warnings(scores(seed=seed), scores(seed=seed + 50))
    assert "as probable as what the model would write" in found


def test_text_sampled_at_a_low_temperature_is_named():
    """It is more probable than what the model would write."""
    (found,) = warnings(scores(temperature=0.5))
    assert "more probable than what the model would write" in found


def test_text_that_the_model_does_not_write_is_not_named():
    """Text of another source costs more than the model expects."""
    assert warnings(scores(temperature=1.2)) == []


def test_too_few_tokens_tell_nothing():
    """Of 20 tokens nothing can be said, and of none either."""
    assert warnings(scores(n_tokens=20)) == []
    assert warnings() == []


def test_a_text_that_is_hardly_a_task_is_named():
    """Below 1 nat, by a model of a large vocabulary; a small one has such losses on ordinary text."""
    easy = scores(sharpness=5.0)
    assert "hardly errs" in warnings(easy, n_logits=50_000)[0]
    assert "hardly errs" not in "".join(warnings(easy))


def test_what_is_not_a_number_warns_of_nothing():
    """A model whose loss is NaN is refused by its checks."""
    broken = scores()
    broken.ce_nats[3] = np.nan
    assert warnings(broken) == []
