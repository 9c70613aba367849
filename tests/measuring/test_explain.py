"""Explanations: what was made bad is named, and each number is that of a plain loop that undoes one thing at a time."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from judged import judge
from safetensors.torch import load_file, save_file
from tiny import BOS, D_MODEL, N_CONTEXT, identity_sae

from sae_checks import checks, errors
from sae_checks.explanation import LEAST_NATS
from sae_checks.measuring import corpus_pass, explaining
from sae_checks.measuring.local import LocalExecutor
from sae_checks.measuring.studies import explain as study
from sae_checks.measuring.studies import single_latents as singles
from sae_checks.plan.options import Options
from sae_checks.release import release
from sae_checks.run.settle import settle
from sae_checks.saes.sae import Reconstruction

HOOK = tiny.HOOKS[1]


class Opened(torch.nn.Module):
    """The encode and decode of a LinearSae, for what takes latents out."""

    def __init__(self, sae):
        super().__init__()
        self.sae = sae

    def encode(self, x):
        return torch.relu(x @ self.sae.encoder)

    def decode(self, latents):
        return latents @ self.sae.decoder


def opened(sae):
    sae.module = Opened(sae)
    return sae


class Decodes:
    """Stands for a tokenizer: each token reads as its number."""

    all_special_ids = (BOS,)

    def decode(self, ids, **_):
        return "".join(f" {i}" for i in ids)


class WrongAt:
    """Exact, but at one position."""

    sae_id = hook = hook_out = HOOK
    head_slice = slice(0, None)
    n_training_context_tokens = N_CONTEXT
    center = False

    def __init__(self, position):
        self.position = position

    def reconstruct(self, x):
        output = x.clone()
        if x.shape[1] > self.position:
            output[:, self.position] += 8 * torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(1))
        return Reconstruction(output=output, n_active=torch.ones(x.shape[:2], dtype=torch.long))


@pytest.fixture(scope="module")
def model():
    found = tiny.model("gpt2")
    found.tokenizer = Decodes()
    return found


def explained(model, sae, *, sequences=None, n_batch_tokens=96):
    """The explanation of *sae* in the documents that it costs most, of what was measured of it, and what was told."""
    sequences = tiny.sequences() if sequences is None else sequences
    (losses,) = corpus_pass.measure_text(model, [sae], sequences, n_batch_tokens=64, progress=lambda *_: None)
    within = np.nan_to_num(losses.increase_nats[:, : losses.n_training_context_tokens])
    worst = losses.documents[np.argsort(-within.mean(1))]
    told = []
    found = explaining.explanation(
        model,
        sae,
        sequences,
        losses,
        worst.tolist(),
        n_batch_tokens=n_batch_tokens,
        progress=lambda *n: told.append(n),
    )
    return found, losses, told


def probe(model, sae, predicted=(7, 12), n_batch_tokens=50):
    sequences = tiny.sequences()
    sequence = study.OneSequence(
        document=0,
        tokens=torch.from_numpy(sequences.tokens[:1, : max(predicted) + 1]),
        replaced=torch.from_numpy(sequences.replaced[:1, : max(predicted) + 1]),
        texts=[str(i) for i in range(max(predicted) + 1)],
        predicted=predicted,
    )
    return study._Probe(model, sae, sequence, n_batch_tokens, lambda _: None)


def plain_nats(model, tokens, predicted, sae, change):
    """A whole pass of plain transformers with *sae* at every position but BOS, and with *change* of what it writes."""

    def spliced(x):
        own = sae.head_slice
        output = sae.reconstruct(x[..., own]).output
        written = change(x[..., own], output)
        return (
            torch.cat([x[..., : own.start or 0], torch.cat([x[:, :1, own], written[:, 1:]], 1)], -1)
            if (own.stop is None)
            else torch.cat([torch.cat([x[:, :1, own], written[:, 1:]], 1), x[..., own.stop :]], -1)
        )

    log_p = torch.log_softmax(tiny.plain_logits(model._model, tokens, sae.hook, spliced)[0], -1)
    return torch.tensor([-float(log_p[p - 1, tokens[0, p]]) for p in predicted])


SPLICED = {
    "residual stream": lambda: opened(tiny.random_sae(HOOK, context=N_CONTEXT)),
    "one head": lambda: opened(
        tiny.random_sae("blocks.1.attn.hook_z", d=D_MODEL // 2, head_slice=slice(0, D_MODEL // 2), context=N_CONTEXT)
    ),
}


@pytest.mark.parametrize("sae", SPLICED.values(), ids=SPLICED)
def test_putting_back_is_that_of_a_plain_loop(model, sae):
    """Every position, with whole passes of plain transformers, one at a time."""
    sae, predicted = sae(), (7, 12)
    one = probe(model, sae, predicted)
    positions, recovered = one.unsplice_each()
    tokens = one.sequence.tokens
    assert positions == list(range(1, 12))  # not BOS, and nothing behind what predicts
    spliced = plain_nats(model, tokens, predicted, sae, lambda _, output: output)
    assert one.spliced_nats == pytest.approx(spliced, abs=1e-5)
    for position, of_one in zip(positions, recovered, strict=True):

        def back(x, output, position=position):
            return torch.cat([output[:, :position], x[:, position : position + 1], output[:, position + 1 :]], 1)

        expected = spliced - plain_nats(model, tokens, predicted, sae, back)
        assert of_one == pytest.approx(expected, abs=1e-5 * max(1.0, float(spliced.max())))  # of a loss in float32
    assert recovered[7:, 0] == pytest.approx(torch.zeros(4), abs=1e-5)  # what comes behind a prediction is not in it
    assert recovered.abs().max() > 0.05


@pytest.mark.parametrize("sae", SPLICED.values(), ids=SPLICED)
def test_taking_out_is_that_of_a_plain_loop(model, sae):
    """Every active latent at one position, and all of them, decoded anew by hand."""
    sae, predicted, position = sae(), (7, 12), 5
    one = probe(model, sae, predicted)
    single, recovered = one._leave_out_each(position)
    tokens = one.sequence.tokens
    spliced = plain_nats(model, tokens, predicted, sae, lambda _, output: output)
    active = torch.nonzero(sae.module.encode(one.x)[0, position])[:, 0].tolist()
    assert sorted(single.latents.tolist()) == active
    assert single.n_active == len(active) > 3
    for latents, of_one in zip([active, *([int(k)] for k in single.latents)], recovered, strict=True):

        def without(x, output, latents=latents):
            kept = sae.module.encode(x)
            kept[0, position, latents] = 0
            return sae.module.decode(kept)

        expected = spliced - plain_nats(model, tokens, predicted, sae, without)
        assert of_one == pytest.approx(expected, abs=1e-5 * max(1.0, float(spliced.max())))  # of a loss in float32
    assert recovered.abs().max() > 0.01


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gemma2", "qwen3"])
def test_every_backend_finds_the_same(family):
    """Of other families, too: TransformerLens and transformers put back and take out alike."""
    sae = SPLICED["residual stream"]()
    one, other = (probe(made, sae) for made in (tiny.model(family), tiny.hooked(family)))
    scale = max(1.0, float(one.spliced_nats.max()))
    assert torch.allclose(one.unsplice_each()[1], other.unsplice_each()[1], atol=1e-4 * scale)
    # but for all latents at once: of a residual stream of zeros their norms' epsilons make different things
    assert torch.allclose(one._leave_out_each(5)[1][1:], other._leave_out_each(5)[1][1:], atol=1e-4 * scale)
    assert one.unsplice_each()[1].abs().max() > 0.01


def test_batches_do_not_matter(model):
    """One variant at a time, some, or all at once."""
    sae = SPLICED["residual stream"]()
    (one, *others) = (probe(model, sae, n_batch_tokens=n) for n in (1, 30, 10**6))
    for other in others:
        assert torch.allclose(one.unsplice_each()[1], other.unsplice_each()[1], atol=1e-5)
        assert torch.allclose(one._leave_out_each(4)[1], other._leave_out_each(4)[1], atol=1e-5)


@pytest.mark.parametrize("latent", [187, 374])
def test_the_one_harmful_latent_is_named_first(tmp_path, latent):
    """An SAE of the demo whose decoder writes a large wrong direction for one latent: it heads every list."""
    (described,) = (s for s in release.resolve("demo").saes if s.sae_id == "blocks.2.hook_resid_pre")
    demo, folder = release.resolve("demo"), tmp_path / "saes" / "bad"
    shutil.copytree(described.weights.parent, folder)
    weights = load_file(described.weights)
    wrong = torch.randn(weights["W_dec"].shape[1], generator=torch.Generator().manual_seed(latent))
    weights["W_dec"][latent] = 40 * weights["W_dec"][latent].norm() * wrong / wrong.norm()
    save_file(weights, folder / described.weights.name)
    asked = settle(
        Options(
            release=str(folder.parent),
            model=str(demo.model),
            corpus=str(demo.corpus),
            n_sequences=24,
            device="cpu",
            explain=("b*",),
        )
    )
    result = judge(LocalExecutor(asked.plan), asked, "bad", checks.CE_LOSS)
    assert [token.document_index for token in result.explanation.tokens[::2]] == [
        w.document_index for w in result.worst_sequences[:3]
    ]
    for token in result.explanation.tokens:
        assert token.increase_nats > 3
        first = token.restored_positions[0]
        assert first.ablated_latents[0].latent_index == latent
        assert first.ablated_latents[0].recovered_nats > 0.7 * first.recovered_nats > 0.7
        assert first.ablated_latents[0].norm_share > 0.5
        assert all(
            other.recovered_nats < first.ablated_latents[0].recovered_nats for other in first.ablated_latents[1:]
        )


@pytest.mark.parametrize("position", [2, 6, 11])
def test_the_one_wrong_position_is_found(model, position):
    """An error at one position alone: it is the only source, and putting it back recovers all."""
    found, losses, _ = explained(model, WrongAt(position))
    assert found.tokens
    for token in found.tokens:
        assert token.position > position
        (source,) = token.restored_positions
        assert source.position == position
        assert source.recovered_nats == pytest.approx(token.increase_nats, rel=2e-3)
        assert source.why_no_latents == "it has no latents that can be decoded one without another"
        assert (source.n_active_latents, source.ablated_latents) == (None, ())
        row = losses.documents.tolist().index(token.document_index)
        assert token.increase_nats == pytest.approx(losses.increase_nats[row, token.position - 1], rel=1e-3)


@pytest.mark.parametrize(("scale", "ratio", "cosine"), [(0.25, 0.25, 1), (-2, 2, -1), (0, 0, None)])
def test_a_wrong_scale_shows_in_length_and_cosine(model, scale, ratio, cosine):
    """A reconstruction that is too short by a factor points the right way; one of nothing points nowhere."""
    sae = opened(identity_sae(HOOK, context=N_CONTEXT))
    sae.decoder = scale * sae.decoder
    found, _, _ = explained(model, sae)
    sources = [source for token in found.tokens for source in token.restored_positions]
    assert sources
    for source in sources:
        assert (source.norm_ratio, source.cosine) == (ratio, cosine)


def test_of_an_exact_sae_there_is_nothing_to_tell(model):
    """Which is said, and nothing is run for it."""
    found, _, told = explained(model, opened(identity_sae(HOOK)))
    assert (found.tokens, found.why_none) == ((), explaining.NOTHING_COSTS)
    assert told == []


def test_the_worst_predictions_within_the_training_context_are_told(model):
    """As the losses have them: the sequences given first, of each the two that cost most, with what they read."""
    sae = opened(tiny.random_sae(HOOK, scale=0.6, context=8))
    sequences = tiny.sequences()
    found, losses, told = explained(model, sae, sequences=sequences)
    within = np.nan_to_num(losses.increase_nats[:, :8], nan=-np.inf)
    documents = list(dict.fromkeys(token.document_index for token in found.tokens))
    assert len(documents) == explaining.N_SEQUENCES
    for token in found.tokens:
        best = (1 + np.argsort(-within[token.document_index])[: explaining.N_PREDICTIONS]).tolist()
        assert token.position in best
        ids = sequences.tokens[token.document_index]
        assert token.token == f" {ids[token.position]}"
        assert token.preceding_text == "".join(f" {i}" for i in ids[: token.position][-study.N_TOKENS_BEFORE :])
        assert token.n_restored_positions == token.position - 1  # all but BOS
        nats = np.log(token.probability_clean / token.probability_spliced)
        assert nats == pytest.approx(token.increase_nats, abs=2e-3)
        if token.spliced_top_token is not None:
            assert token.spliced_top_token != token.token
            assert token.spliced_top_probability > token.probability_spliced
        ranked = [source.recovered_nats for source in token.restored_positions]
        assert ranked == sorted(ranked, reverse=True)
        assert all(nats >= LEAST_NATS for nats in ranked)
        assert [source.n_active_latents is not None for source in token.restored_positions] == [True, True, False][
            : len(ranked)
        ]
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert [n for n, _ in told] == sorted(n for n, _ in told)


@pytest.mark.parametrize("problem", [RuntimeError("out of memory"), errors.MeasuringError("the hook fired twice")])
def test_what_cannot_be_explained_says_so(model, problem):
    """Torch's errors and ours: a verdict does not hang on its explanation."""

    class Fails(WrongAt):
        has_been_measured = False

        def reconstruct(self, x):
            if self.has_been_measured:
                raise problem
            return super().reconstruct(x)

    sae = Fails(3)
    sequences = tiny.sequences()
    (losses,) = corpus_pass.measure_text(model, [sae], sequences, n_batch_tokens=64, progress=lambda *_: None)
    sae.has_been_measured = True
    found = explaining.explanation(model, sae, sequences, losses, [0], n_batch_tokens=64, progress=lambda *_: None)
    assert found.tokens == ()
    assert found.why_none == f"it could not be explained: {problem}"


def test_what_is_not_finite_is_left_out(model):
    """It has failed its check by name; a record has no NaN."""
    sae = opened(identity_sae(HOOK, context=N_CONTEXT))
    one = probe(model, sae)
    sae.decoder = sae.decoder * float("nan")
    found = study.explain(model, sae, one.sequence, n_batch_tokens=99, reads=lambda *_: "", progress=lambda _: None)
    assert found == ()
    nothing = explaining.explanation(
        model,
        sae,
        tiny.sequences(),
        SimpleNamespace(increase_nats=np.zeros((6, N_CONTEXT)), n_training_context_tokens=None),
        [],  # no sequence has a finite mean
        n_batch_tokens=99,
        progress=lambda *_: None,
    )
    assert (nothing.tokens, nothing.why_none) == ((), explaining.NOT_FINITE)


def test_of_many_latents_those_that_write_most_are_tried(monkeypatch):
    """And how many there are is told beside."""
    sae = opened(identity_sae(HOOK))
    x = torch.arange(1.0, 1 + D_MODEL).expand(1, 3, -1)
    monkeypatch.setattr(singles, "MAX_LATENTS", 4)
    found = singles.single_latents(sae, x, sae.reconstruct(x).output, 1)
    assert found.latents.tolist() == [15, 14, 13, 12]
    assert found.n_active == D_MODEL
    assert found.norm_shares == pytest.approx(torch.tensor([16.0, 15, 14, 13]) / x[0, 0].norm())
    assert torch.equal(found.without_any, torch.zeros(D_MODEL))
    nothing = singles.single_latents(sae, 0 * x, 0 * x, 1)
    assert (nothing.n_active, len(nothing.latents), nothing.without.shape) == (0, 0, (0, D_MODEL))


def by_hand(module, x, latents, position):
    """(d_out,) the forward pass at *position* with *latents* there set to zero, all of the sequence decoded anew."""
    output = module(x)

    def decoded(latents):  # encoded each time: some decode by the norm of what was encoded last
        encoded = module.encode(x)
        dense = (encoded.to_dense() if encoded.is_sparse else encoded).clone()
        dense[0, position, latents] = 0
        return module.decode(dense)

    return (output + decoded(latents) - decoded([]))[0, position]


def assert_single_latents(one, x, position):
    with torch.no_grad():
        found = singles.single_latents(one, x, one.reconstruct(x).output, position)
        assert not isinstance(found, str), found
        assert len(found.latents) == found.n_active > 0
        for latent, without in zip(found.latents, found.without, strict=True):
            assert torch.allclose(without, by_hand(one.module, x, [int(latent)], position), atol=1e-5)
        assert torch.allclose(found.without_any, by_hand(one.module, x, found.latents, position), atol=1e-5)


def test_every_architecture_gives_up_single_latents(tmp_path):
    """What is added besides, by a skip or a prediction, stays; as decoding the whole sequence by hand has it."""
    import architectures
    import transformers

    from sae_checks.saes import sae

    torch.manual_seed(1)
    config = tiny.FAMILIES["gpt2"]()
    config.activation_function = "relu"
    mlp = transformers.AutoModelForCausalLM.from_config(config).transformer.h[1].mlp
    x = torch.randn(1, 6, D_MODEL, generator=torch.Generator().manual_seed(0))
    for architecture in architectures.ARCHITECTURES:
        architectures.write(tmp_path / architecture / "it", architecture, mlp, noise=0.1)
        (described,) = release.resolve(str(tmp_path / architecture)).saes
        one = sae.load(described, device=torch.device("cpu"), center=False, head_slice=slice(0, None))
        assert_single_latents(one, x, 4)


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_norms_of_the_input_are_those_of_the_position(norm):
    """Where decoding goes by the norm of what was encoded, it is that of the position that a latent is taken out of."""
    import architectures  # it imports SAE Lens without its dependencies' warnings

    kind, config = architectures.registry.SAE_CLASS_REGISTRY["standard"]
    torch.manual_seed(0)
    module = kind(config(d_in=8, d_sae=24, normalize_activations=norm, device="cpu"))
    torch.nn.init.normal_(module.W_enc)
    torch.nn.init.normal_(module.W_dec)
    x = torch.randn(1, 5, 8) * torch.arange(1.0, 6)[None, :, None]
    one = SimpleNamespace(module=module.requires_grad_(False), reconstruct=lambda x: SimpleNamespace(output=module(x)))
    assert_single_latents(one, x, 3)


def test_latents_that_hang_on_other_positions_are_not_guessed():
    """A stateful decode whose latents are other ones without the rest of the sequence: that is said."""

    class Mixed(torch.nn.Module):
        def encode(self, x):
            self.scale = x.norm()  # over all positions
            return x

        def decode(self, latents):
            return latents * self.scale

    one = SimpleNamespace(module=Mixed())
    x = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    assert singles.single_latents(one, x, x, 2) == "its decoding of a latent depends on other positions"


def test_dataclasses_are_rounded_like_other_examples(model):
    """Four significant digits in all that is kept."""
    sae = opened(tiny.random_sae(HOOK, scale=0.6, context=8))
    found, _, _ = explained(model, sae)
    for token in found.tokens:
        for source in token.restored_positions:
            for latent in source.ablated_latents:
                again = replace(latent, recovered_nats=study.rounded(latent.recovered_nats))
                assert again == latent
