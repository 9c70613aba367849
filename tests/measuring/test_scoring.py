"""Losses of a batch, chunk by chunk in memory that is used again, against whole log-softmaxes."""

import numpy as np
import pytest
import tiny
import torch

from sae_checks.measuring import scoring
from sae_checks.measuring.scoring import batches, score


@pytest.fixture(scope="module", params=["gpt2", "gemma2", "hooked gpt2", "hooked gemma2"])
def model(request):
    """In both backends, with and without a cap on the logits."""
    family = request.param.removeprefix("hooked ")
    return tiny.hooked(family) if "hooked" in request.param else tiny.model(family)


def batch_of(model):
    return next(batches(model, tiny.sequences(), 1000, lambda *_: None))


def hidden_of(model, batch, n):
    """The clean hidden states and *n* disturbed ones."""
    clean = model.clean(batch.tokens, [tiny.HOOKS[0]]).hidden
    generator = torch.Generator().manual_seed(0)
    return [clean, *(clean + 0.3 * torch.randn(clean.shape, generator=generator) for _ in range(n))]


def plainly(model, batch, hidden):
    """(ce, kl, rank, correct) of each of *hidden*, from float64 log-probabilities that are all kept."""
    with torch.no_grad():
        log_p = [torch.log_softmax(model.logits(h).double(), -1)[batch.scored] for h in hidden]
    targets = batch.targets[:, None]
    for of_one in log_p:
        of_target = of_one.gather(-1, targets)
        kl = (log_p[0].exp() * (log_p[0] - of_one)).sum(-1)
        rank = 1 + (of_one > of_target).sum(-1)
        yield -of_target[:, 0].numpy(), kl.numpy(), rank.numpy(), (of_one.argmax(-1) == batch.targets).numpy()


@pytest.mark.parametrize("n_logits", [1, 40 * 33, 1 << 24])
def test_scores_are_those_of_whole_log_softmaxes(model, monkeypatch, n_logits):
    """Cross-entropy to 1e-5 nats, KL to 1e-5, ranks exactly, in chunks of any size."""
    monkeypatch.setattr(scoring, "N_LOGITS_PER_CHUNK", n_logits)
    batch = batch_of(model)
    hidden = hidden_of(model, batch, 2)
    for got, (ce, kl, rank, correct) in zip(score(model, batch, hidden), plainly(model, batch, hidden), strict=True):
        assert got.ce_nats == pytest.approx(ce, abs=1e-5)
        assert got.kl_nats == pytest.approx(kl, abs=1e-5)
        assert np.array_equal(got.rank, rank)
        assert np.array_equal(got.correct, correct)


def test_without_ranks_the_losses_are_the_same(model):
    """And there are no ranks, rather than wrong ones."""
    batch = batch_of(model)
    hidden = hidden_of(model, batch, 2)
    for got, expected in zip(score(model, batch, hidden, ranks=False), score(model, batch, hidden), strict=True):
        assert np.array_equal(got.ce_nats, expected.ce_nats)
        assert np.array_equal(got.kl_nats, expected.kl_nats)
        assert (len(got.rank), len(got.correct)) == (0, 0)
        assert len(expected.rank) == len(batch.targets)


def test_entropies_are_those_of_the_clean_model(model):
    """To 1e-4 nats and nats squared; other models have none, nor has the clean one unless asked."""
    batch = batch_of(model)
    hidden = hidden_of(model, batch, 1)
    clean, other = score(model, batch, hidden, ranks=False, entropies=True)
    with torch.no_grad():
        log_p = torch.log_softmax(model.logits(hidden[0]).double(), -1)[batch.scored]
    entropy = -(log_p.exp() * log_p).sum(-1)
    assert clean.entropy_nats == pytest.approx(entropy.numpy(), abs=1e-4)
    variance = (log_p.exp() * log_p.square()).sum(-1) - entropy.square()
    assert clean.surprise_variance == pytest.approx(variance.numpy(), abs=1e-4)
    assert len(other.entropy_nats) == len(other.surprise_variance) == 0
    assert [len(each.entropy_nats) for each in score(model, batch, hidden)] == [0, 0]
    for asked, plain in zip((clean, other), score(model, batch, hidden), strict=True):
        assert np.array_equal(asked.ce_nats, plain.ce_nats)
        assert np.array_equal(asked.kl_nats, plain.kl_nats)


def test_nothing_changed_has_no_divergence(model):
    """KL(p, p) is 0, not nearly 0."""
    batch = batch_of(model)
    clean = hidden_of(model, batch, 0)[0]
    of_clean, of_same = score(model, batch, [clean, clean.clone()])
    assert not of_same.kl_nats.any()
    assert np.array_equal(of_clean.ce_nats, of_same.ce_nats)


def test_what_is_not_a_number_is_seen(model):
    """A NaN in one hidden state is one in its losses and in no other's."""
    batch = batch_of(model)
    clean, broken = hidden_of(model, batch, 1)
    at = tuple(index[0] for index in batch.scored.nonzero(as_tuple=True))
    broken[at][0] = float("nan")
    _, got = score(model, batch, [clean, broken], ranks=False)
    assert np.isnan(got.ce_nats).tolist() == [True] + [False] * (len(got.ce_nats) - 1)
    assert np.isnan(got.kl_nats).tolist() == np.isnan(got.ce_nats).tolist()


@pytest.mark.parametrize("device", ["cpu", "an accelerator"])
def test_log_softmax_in_place(device):
    """One kernel on the CPU, two operations elsewhere: the same numbers in the same memory."""

    class Elsewhere(torch.Tensor):
        """Says that it lies on another device."""

        @property
        def device(self):
            return type("Device", (), {"type": device})()

    logits = 30 * torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    expected = torch.log_softmax(logits.double(), -1)
    got = scoring.log_softmax_(logits.as_subclass(Elsewhere))
    assert got.data_ptr() == logits.data_ptr()
    assert torch.allclose(logits.double(), expected, atol=1e-5)


@pytest.mark.parametrize(("n_logits", "n_rows"), [(50257, 320), (256_000, 64), (40, 419_424), (1 << 30, 32)])
def test_chunks_fill_what_they_may(n_logits, n_rows):
    """64 MiB of float32, and never fewer rows than a product needs."""
    assert scoring.n_rows_per_chunk(n_logits) == n_rows


@pytest.mark.parametrize("leading", [(6,), (2, 3)])
def test_logits_are_written_where_asked(model, leading):
    """With and without a place of the caller's, of one batch or of rows."""
    hidden = torch.randn(*leading, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    expected = model.logits(hidden)
    out = torch.full((*leading, model.n_logits), 7.0)
    assert model.logits(hidden, out=out) is out
    assert torch.equal(out, expected)
    assert expected.shape == (*leading, tiny.N_VOCABULARY)
