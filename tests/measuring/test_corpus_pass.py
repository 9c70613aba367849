"""Splicing and measuring against plain transformers, and what must not change a number."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_checks.corpora.sequences import Convention, TokenRow, build
from sae_checks.judging import corpus_readings, position_readings
from sae_checks.judging.estimates import NotFinite
from sae_checks.measuring import corpus_pass
from sae_checks.measuring.position_sums import _Spread


def quiet(*_):
    """No progress line."""


def of(readings, name):
    return next(r for r in readings if r.measure == name)


def text_losses(model, saes, sequences, n_batch_tokens=64):
    return corpus_pass.measure_text(model, saes, sequences, n_batch_tokens=n_batch_tokens, progress=quiet)


def plain_ce(model, sequences, sae, n_within):
    """CE and KL per sequence by whole passes of plain transformers, one sequence at a time, no padding."""
    rows = []
    for tokens, length in zip(sequences.tokens, sequences.lengths, strict=True):
        ids = torch.from_numpy(tokens[:length])[None]

        def change(x):
            spliced = sae.reconstruct(x).output
            return torch.cat([x[:, :1], spliced[:, 1:]], 1)  # BOS stays

        def zero(x):
            return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], 1)

        clean, spliced, ablated = (
            torch.log_softmax(tiny.plain_logits(model._model, ids, *how)[0, 1:-1], -1)
            for how in ((), (sae.hook, change), (sae.hook, zero))
        )
        targets = ids[0, 2:, None]
        within = np.arange(1, length - 1) < n_within
        ce = [-p.gather(-1, targets)[:, 0].double().numpy() for p in (clean, spliced, ablated)]
        kl = (clean.exp() * (clean - spliced)).sum(-1).double().numpy()
        rows.append([within.sum(), *(x[within].sum() for x in (*ce, kl)), *(x[~within].sum() for x in ce[:2])])
    return np.array(rows).T


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@pytest.mark.parametrize("hook", [tiny.HOOKS[0], tiny.HOOKS[2], tiny.HOOKS[-1]])
def test_text_losses_equal_plain_transformers(tiny_models, family, hook):
    """Counts, CE clean, spliced and ablated, and KL are those of a ten-line computation on the same tokens."""
    model, sequences, sae = tiny_models[family], tiny.sequences(), tiny.random_sae(hook)
    (losses,) = text_losses(model, [sae], sequences)
    n, clean, spliced, ablated, kl, clean_beyond, spliced_beyond = plain_ce(model, sequences, sae, 8)
    assert np.array_equal(losses.within.n_tokens, n)
    for got, expected in (
        (losses.within.ce_clean_nats, clean),
        (losses.within.ce_spliced_nats, spliced),
        (losses.ce_ablated_nats, ablated),
        (losses.within.kl_nats, kl),
        (losses.beyond.ce_clean_nats, clean_beyond),
        (losses.beyond.ce_spliced_nats, spliced_beyond),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(losses.within.n_tokens + losses.beyond.n_tokens, sequences.lengths - 2)


def test_reconstruction_sums_equal_a_direct_computation(tiny_models):
    """L0 and explained variance are those of all replaced activations within the training context taken together."""
    model, sequences = tiny_models["gpt2"], tiny.sequences()
    sae = tiny.random_sae(tiny.HOOKS[1])
    (losses,) = text_losses(model, [sae], sequences)
    x = torch.cat(
        [
            model.clean(torch.from_numpy(t[:n])[None], [sae.hook]).activation(sae.hook)[0, 1:8]
            for t, n in zip(sequences.tokens, sequences.lengths, strict=True)
        ]
    )
    made = sae.reconstruct(x)
    expected = 1 - (x - made.output).square().sum() / (x - x.mean(0)).square().sum()
    readings = corpus_readings.sparsity(losses)
    assert of(readings, "explained_variance").value == pytest.approx(float(expected), rel=1e-4)
    assert of(readings, "l0").value == pytest.approx(float(made.n_active.float().mean()), rel=1e-6)
    assert of(readings, "l0_max").value == int(made.n_active.max())
    assert of(readings, "replaced_tokens").value == len(x)


@pytest.mark.parametrize("n_batch_tokens", [1, 60, 400])
def test_dead_latents_are_those_no_counted_token_wakes(tiny_models, n_batch_tokens):
    """Special tokens, padding and positions beyond the training context wake nobody; batches change nothing."""
    sequences, model = tiny.sequences(), tiny_models["gpt2"]

    class Wakes(tiny.LinearSae):
        """Latent p is active at position p alone, and latent 30 wherever the input is padding or BOS."""

        def reconstruct(self, x):
            made = super().reconstruct(x)
            active = torch.zeros(*x.shape[:2], 31, dtype=torch.bool)
            at = torch.arange(x.shape[1])
            active[:, at, at] = True
            active[:, 0, 30] = True
            return dataclasses.replace(made, active=active)

    good = tiny.identity_sae(tiny.HOOKS[1])
    sae = Wakes(tiny.HOOKS[1], encoder=good.encoder, decoder=good.decoder)
    (losses,) = text_losses(model, [sae], sequences, n_batch_tokens=n_batch_tokens)
    assert np.flatnonzero(losses.ever_active).tolist() == [1, 2, 3, 4, 5, 6, 7]  # 8 is beyond the training context
    assert of(corpus_readings.sparsity(losses), "dead_latents").value == pytest.approx(24 / 31)
    sae.n_training_context_tokens = None
    (losses,) = text_losses(model, [sae], sequences, n_batch_tokens=n_batch_tokens)
    assert np.flatnonzero(losses.ever_active).tolist() == list(range(1, 24))


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_an_exact_reconstruction_costs_nothing(tiny_models, family):
    """The identity SAE raises the loss by less than 1e-5 nats at every hook, and explains everything."""
    model = tiny_models[family]
    for losses in text_losses(model, [tiny.identity_sae(hook) for hook in tiny.HOOKS], tiny.sequences()):
        readings = corpus_readings.ce_loss(losses)
        assert abs(of(readings, "ce_increase").value) < 1e-5
        assert abs(of(readings, "kl").value) < 1e-5
        assert of(corpus_readings.sparsity(losses), "explained_variance").value == pytest.approx(1, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(n_batch_tokens=st.integers(1, 400), order=st.permutations(range(4)), n_kept=st.integers(1, 4))
def test_numbers_do_not_depend_on_batches_or_company(tiny_models, n_batch_tokens, order, n_kept):
    """Batch size, the order of SAEs and the presence of other SAEs leave every row as it was."""
    model, sequences = tiny_models["llama"], tiny.sequences()
    saes = [tiny.random_sae(hook, seed=i, sae_id=str(i)) for i, hook in enumerate(tiny.HOOKS)]
    expected = text_losses(model, saes, sequences, n_batch_tokens=1)
    chosen = list(order)[:n_kept]
    got = text_losses(model, [saes[i] for i in chosen], sequences, n_batch_tokens=n_batch_tokens)
    for i, losses in zip(chosen, got, strict=True):
        for name in ("ce_clean_nats", "ce_spliced_nats", "kl_nats"):
            for span in ("within", "beyond"):
                a, b = (getattr(getattr(x, span), name) for x in (losses, expected[i]))
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(
            losses.reconstructions.error_squared, expected[i].reconstructions.error_squared, rtol=1e-4
        )
        for a, b in zip(position_readings.curves(losses), position_readings.curves(expected[i]), strict=True):
            assert (a.measure, a.position, a.n_sequences) == (b.measure, b.position, b.n_sequences)
            for column in ("value", "low", "high"):
                np.testing.assert_allclose(getattr(a, column), getattr(b, column), rtol=1e-3, atol=1e-4)


def test_positions_add_up_to_sequences(tiny_models):
    """The curve by position and the rows by sequence are two views of the same increases."""
    (losses,) = text_losses(tiny_models["gpt2"], [tiny.random_sae(tiny.HOOKS[0])], tiny.sequences())
    spans = (losses.within, losses.beyond)
    total = sum((s.ce_spliced_nats - s.ce_clean_nats).sum() for s in spans)
    assert losses.by_position.ce_increase.numerator.sum() == pytest.approx(total, rel=1e-9)
    assert losses.by_position.kl.numerator.sum() == pytest.approx(sum(s.kl_nats.sum() for s in spans), rel=1e-9)
    assert losses.by_position.ce_increase.n.sum() == sum(s.n_tokens.sum() for s in spans)
    assert losses.by_position.ce_increase.n[0] == 0  # the prediction made from BOS is not scored


def test_every_position_equals_a_direct_computation(tiny_models):
    """KL, L0 and explained variance at each position, and the running increase, from plain passes one by one."""
    model, sequences, sae = tiny_models["gpt2"], tiny.sequences(), tiny.random_sae(tiny.HOOKS[1])
    at = {p: [] for p in range(tiny.N_CONTEXT)}
    increases, kls = [], []
    for row, length in zip(sequences.tokens, sequences.lengths, strict=True):
        ids = torch.from_numpy(row[:length])[None]
        x = model.clean(ids, [sae.hook]).activation(sae.hook)[0]
        made = sae.reconstruct(x)
        for p in range(1, length):
            at[p].append((x[p].double(), made.output[p].double(), int(made.n_active[p])))
        clean, spliced = (
            torch.log_softmax(tiny.plain_logits(model._model, ids, *how)[0, 1:-1], -1).double()
            for how in ((), (sae.hook, lambda x: torch.cat([x[:, :1], sae.reconstruct(x).output[:, 1:]], 1)))
        )
        increases.append((clean - spliced).gather(-1, ids[0, 2:, None])[:, 0].numpy())
        kls.append((clean.exp() * (clean - spliced)).sum(-1).numpy())
    (losses,) = text_losses(model, [sae], sequences)
    found = {
        curve.measure: dict(zip(curve.position, curve.value, strict=True)) for curve in position_readings.curves(losses)
    }
    running = losses.by_position.running_increase
    for p in range(1, tiny.N_CONTEXT - 1):
        reach = [(i[:p].mean(), kl[p - 1], i[p - 1]) for i, kl in zip(increases, kls, strict=True) if len(i) >= p]
        mean_so_far, kl, increase = np.mean(reach, axis=0)
        assert running.numerator[p] / running.denominator[p] == pytest.approx(mean_so_far, abs=1e-5)
        x, x_hat = (torch.stack([row[i] for row in at[p]]) for i in (0, 1))
        explained = 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
        assert found["ce_increase"][p] == pytest.approx(increase, abs=1e-5)
        assert found["kl"][p] == pytest.approx(kl, abs=1e-5)
        assert found["l0"][p] == pytest.approx(np.mean([row[2] for row in at[p]]))
        assert found["explained_variance"][p] == pytest.approx(float(explained), rel=1e-4)


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 8)), seed=st.integers(0, 2**32))
def test_shares_of_the_spread_add_up_however_the_batches_fall(cuts, seed):
    """At every position the shares come to the sum of squares about the final mean, and batches do not change one."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(100, 1, (9, 5, 3)))  # far from zero: nothing may cancel
    counted = torch.from_numpy(rng.random((9, 5)) < 0.7)
    x = torch.where(counted[..., None], x, 0)
    whole = _Spread(5).shares(x, counted)
    in_batches = _Spread(5)
    batches = np.split(np.arange(9), sorted(cuts))
    shares = torch.cat([in_batches.shares(x[rows], counted[rows]) for rows in batches])
    assert torch.allclose(shares[counted], whole[counted])
    for p in range(5):
        there = x[counted[:, p], p]
        direct = (there - there.mean(0)).square().sum()
        assert float(whole[counted[:, p], p].sum()) == pytest.approx(float(direct), rel=1e-9, abs=1e-9)


def test_special_tokens_are_kept_or_replaced_as_asked(tiny_models):
    """A SAE that destroys BOS is harmless where special tokens are kept, and costs where they are replaced."""
    hook = tiny.HOOKS[1]

    class BreaksBos(tiny.LinearSae):
        def reconstruct(self, x):
            made = super().reconstruct(x)
            return dataclasses.replace(made, output=torch.cat([made.output[:, :1] * -9, made.output[:, 1:]], 1))

    good = tiny.identity_sae(hook)
    sae = BreaksBos(hook, encoder=good.encoder, decoder=good.decoder)
    model = tiny_models["gpt2"]
    (kept,) = text_losses(model, [sae], tiny.sequences(keep=True))
    (replaced,) = text_losses(model, [sae], tiny.sequences(keep=False))
    assert abs(of(corpus_readings.ce_loss(kept), "ce_increase").value) < 1e-5
    assert of(corpus_readings.ce_loss(replaced), "ce_increase").value > 0.01
    assert replaced.by_position.ce_increase.n[0] == 6


def test_centred_saes_read_centred_residuals(tiny_models):
    """With centring the SAE sees mean-free vectors, and an exact one still costs nothing in a LayerNorm model."""
    model = tiny_models["gpt2"]
    seen = []

    class Spy(tiny.LinearSae):
        def reconstruct(self, x):
            seen.append(x)
            return super().reconstruct(x)

    good = tiny.identity_sae(tiny.HOOKS[1])
    sae = Spy(tiny.HOOKS[1], encoder=good.encoder, decoder=good.decoder, center=True)
    (losses,) = text_losses(model, [sae], tiny.sequences())
    assert max(float(x.mean(-1).abs().max()) for x in seen) < 1e-5
    assert abs(of(corpus_readings.ce_loss(losses), "ce_increase").value) < 1e-4
    assert (
        float(
            model.clean(torch.from_numpy(tiny.sequences().tokens), [sae.hook]).activation(sae.hook).mean(-1).abs().max()
        )
        > 0.05
    )


def test_a_nan_is_kept_and_named(tiny_models):
    """A reconstruction that is NaN in one sequence makes the reading say which, and no mean is formed over it."""
    sequences = tiny.sequences()

    class SometimesNan(tiny.LinearSae):
        def reconstruct(self, x):
            made = super().reconstruct(x)
            return dataclasses.replace(
                made, output=torch.where(x.sum(-1, keepdim=True) > threshold, torch.nan, made.output)
            )

    model, hook = tiny_models["gpt2"], tiny.HOOKS[1]
    sums = [
        float(model.clean(torch.from_numpy(t[:n])[None], [hook]).activation(hook)[0, 1:].sum(-1).max())
        for t, n in zip(sequences.tokens, sequences.lengths, strict=True)
    ]
    worst = int(np.argmax(sums))
    threshold = sum(sorted(sums)[-2:]) / 2
    good = tiny.identity_sae(hook)
    (losses,) = text_losses(model, [SometimesNan(hook, encoder=good.encoder, decoder=good.decoder)], sequences)
    for readings in (corpus_readings.ce_loss(losses), corpus_readings.long_context(losses)):
        assert all(isinstance(r, NotFinite) for r in readings)
        assert f"sequence {worst} (document {worst}" in readings[0].where


def test_one_failing_sae_leaves_the_others(tiny_models):
    """An SAE that fails in some batch is a fault with its reason; the other SAEs have the numbers they have alone."""

    class Fails(tiny.LinearSae):
        def reconstruct(self, _):
            raise RuntimeError("out of memory, say")

    good = [tiny.random_sae(hook) for hook in tiny.HOOKS[:2]]
    bad = Fails(tiny.HOOKS[1], encoder=good[0].encoder, decoder=good[0].decoder)
    model, sequences = tiny_models["gpt2"], tiny.sequences()
    first, fault, second = text_losses(model, [good[0], bad, good[1]], sequences)
    assert isinstance(fault, corpus_pass.Fault)
    assert "out of memory, say" in fault.problem
    for got, alone in zip((first, second), text_losses(model, good, sequences), strict=True):
        np.testing.assert_allclose(got.within.ce_spliced_nats, alone.within.ce_spliced_nats, rtol=1e-6)


def items(n_given, lengths, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        TokenRow(row=i, tokens=[tiny.BOS, *rng.integers(2, tiny.N_VOCABULARY, n - 1)], n_given=g, was_cut=False)
        for i, (n, g) in enumerate(zip(lengths, n_given, strict=True))
    ]
    convention = Convention(prepend_bos=True, special_tokens_kept=True, n_context_tokens=tiny.N_CONTEXT)
    return build(rows, convention, [tiny.BOS], score_special=True)


def test_item_losses_equal_plain_transformers(tiny_models):
    """An item is right when every token of its answer is the argmax; its log-probability is the sum over them."""
    model, sae = tiny_models["gpt2"], tiny.random_sae(tiny.HOOKS[1])
    made = items(n_given=(5, 8, 3, 10), lengths=(6, 10, 4, 13))
    # make two answers right: write the model's own greedy continuation into them
    for row in (0, 2):
        n = made.lengths[row]
        logits = tiny.plain_logits(model._model, torch.from_numpy(made.tokens[row : row + 1, : n - 1]))
        made.tokens[row, n - 1] = int(logits[0, -1].argmax())
    (losses,) = corpus_pass.measure_items(model, [sae], made, n_batch_tokens=20, progress=quiet)
    for row, given_tokens in enumerate((5, 8, 3, 10)):
        ids = torch.from_numpy(made.tokens[row : row + 1, : made.lengths[row]])

        def change(x):
            return torch.cat([x[:, :1], sae.reconstruct(x).output[:, 1:]], 1)

        for how, correct, logprob, rank in (
            ((), losses.clean_correct, losses.clean_logprob_nats, losses.clean_rank),
            ((sae.hook, change), losses.spliced_correct, losses.spliced_logprob_nats, losses.spliced_rank),
        ):
            logits = tiny.plain_logits(model._model, ids, *how)[0]
            targets = ids[0, given_tokens:]
            predicted = logits[given_tokens - 1 : -1]
            assert bool(correct[row]) == bool((predicted.argmax(-1) == targets).all())
            expected = float(torch.log_softmax(predicted, -1).gather(-1, targets[:, None]).sum())
            assert float(logprob[row]) == pytest.approx(expected, abs=1e-4)
            places = [row.tolist().index(t) for row, t in zip(predicted.argsort(-1, True), targets, strict=True)]
            assert rank[row] == 1 + max(places)
            assert (rank[row] == 1) == bool(correct[row])
        assert losses.n_target_tokens[row] == len(targets)
        assert losses.n_context_tokens[row] == ids.shape[1] - 1  # all but the last token predict
    assert list(losses.clean_correct[[0, 2]]) == [True, True]


@settings(max_examples=10, deadline=None)
@given(n_batch_tokens=st.integers(1, 200))
def test_items_do_not_depend_on_batches(tiny_models, n_batch_tokens):
    """Batch size leaves every answer as it was."""
    model, sae = tiny_models["qwen3"], tiny.random_sae(tiny.HOOKS[2])
    made = items(n_given=(5, 8, 3, 10, 2), lengths=(6, 10, 4, 13, 24))
    (alone,) = corpus_pass.measure_items(model, [sae], made, n_batch_tokens=1, progress=quiet)
    (got,) = corpus_pass.measure_items(model, [sae], made, n_batch_tokens=n_batch_tokens, progress=quiet)
    np.testing.assert_allclose(got.spliced_logprob_nats, alone.spliced_logprob_nats, rtol=2e-5, atol=2e-5)
    assert np.array_equal(got.spliced_correct, alone.spliced_correct)
    assert np.array_equal(got.spliced_rank, alone.spliced_rank)
    assert np.array_equal(got.n_context_tokens, alone.n_context_tokens)


def test_progress_counts_every_token(tiny_models):
    """The last word of the progress is that all tokens are done."""
    told = []
    sequences = tiny.sequences()
    corpus_pass.measure_text(
        tiny_models["gpt2"],
        [tiny.identity_sae(tiny.HOOKS[0])],
        sequences,
        n_batch_tokens=30,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (sequences.lengths.sum(), sequences.lengths.sum())
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_silent_hook_is_the_error_of_its_sae_alone():
    """Where a block is passed over its hook never fires: that SAE is not measured, and the others are."""
    model = tiny.model("llama")
    model._model.config.num_hidden_layers = 2  # LlamaModel runs layers[:num_hidden_layers]
    silent, sound = tiny.identity_sae("blocks.2.hook_resid_post"), tiny.identity_sae(tiny.HOOKS[1])
    faulty, good = corpus_pass.measure_text(
        model, [silent, sound], tiny.sequences(), n_batch_tokens=64, progress=lambda *_: None
    )
    assert isinstance(faulty, corpus_pass.Fault)
    assert "fired 0 times" in faulty.problem
    assert good.within.ce_spliced_nats == pytest.approx(good.within.ce_clean_nats, abs=1e-4)
