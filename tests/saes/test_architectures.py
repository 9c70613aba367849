"""Every architecture that SAE Lens 6.54 saves, and every hook, against computations that know nothing of ours."""

import json

import architectures
import pytest
import tiny
import torch
import transformers
from architectures import ARCHITECTURES, MLP_IN, MLP_OUT, TRANSCODERS, test_every_architecture_of_sae_lens_is_here
from builders import with_weights
from safetensors.torch import load_file, save_file

from sae_checks import errors
from sae_checks.judging import corpus_readings
from sae_checks.judging.estimates import Estimate
from sae_checks.measuring import corpus_pass, diagnosing
from sae_checks.release import release
from sae_checks.release.configuration import BrokenSae
from sae_checks.saes import loading
from sae_checks.saes.latents import contributions, removal_effects, without

CPU = torch.device("cpu")
__all__ = ["test_every_architecture_of_sae_lens_is_here"]


@pytest.fixture(scope="module")
def model():
    """GPT-2 with a ReLU in its MLP: that MLP is itself an exact transcoder."""
    torch.manual_seed(1)
    config = tiny.FAMILIES["gpt2"]()
    config.activation_function = "relu"
    raw = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in raw.named_parameters():
        if "ln" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return tiny.HuggingFaceModel(raw.eval(), tiny.NoTokenizer(), source="relu")


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    """By architecture and state, an SAE that went through SAE Lens's files and this package's reading and loading."""
    mlp = model._model.transformer.h[1].mlp
    states = {"exact": {}, "noisy": {"noise": 0.1}, "dead": {"dead": True}}
    found = {}
    for architecture in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(architecture)
        for state, how in states.items():
            architectures.write(folder / state, architecture, mlp, **how)
        for described in release.resolve(str(folder)).saes:
            assert not isinstance(described, BrokenSae), described.problem
            found[architecture, described.sae_id] = with_weights(described)
    return found


def measured(model, one):
    (losses,) = corpus_pass.measure_text(model, [one], tiny.sequences(), n_batch_tokens=64, progress=lambda *_: None)
    assert not isinstance(losses, corpus_pass.Fault), losses
    return {r.measure: r for r in (*corpus_readings.ce_loss(losses), *corpus_readings.sparsity(losses))}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reconstruction_is_sae_lens_own(loaded, architecture):
    """encode and decode give what calling SAE Lens's SAE gives, and as many active latents as its encode."""
    one = loaded[architecture, "noisy"]
    x = torch.randn(3, 9, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    made = one.reconstruct(x)
    with torch.no_grad():
        assert torch.allclose(made.output, one._sae(x), atol=1e-6)
        latents = one._sae.encode(x)
        dense = latents.to_dense() if latents.is_sparse else latents
    assert torch.equal(made.n_active, (dense != 0).sum(-1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_controls_of_every_architecture(model, loaded, architecture):
    """Exact it costs nothing and explains everything; with its decoder at zero it costs much and explains nothing."""
    exact, dead = (measured(model, loaded[architecture, state]) for state in ("exact", "dead"))
    assert abs(exact["ce_increase"].value) < 1e-5
    assert exact["explained_variance"].value > 1 - 1e-6
    assert 0 < exact["l0"].value <= loaded[architecture, "exact"]._sae.cfg.d_sae
    assert dead["kl"].value > 0.05  # of a random model the loss may go either way
    assert dead["explained_variance"].value < 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_splice_of_every_architecture_agrees_with_plain_transformers(model, loaded, architecture):
    """Clean and spliced CE equal whole passes of plain transformers in which SAE Lens's own forward is hooked in."""
    one = loaded[architecture, "noisy"]
    clean, spliced = 0.0, 0.0
    sequences = tiny.sequences()
    for tokens, length in zip(sequences.tokens, sequences.lengths, strict=True):
        ids = torch.from_numpy(tokens[:length])[None]
        targets = ids[0, 2:9, None]  # predictions from after BOS to the end of the training context of 8
        for is_spliced in (False, True):
            log_p = torch.log_softmax(_plain_logits(model._model, ids, one if is_spliced else None)[0], -1)
            loss = -float(log_p[1 : 1 + len(targets)].gather(-1, targets).sum())
            clean, spliced = (clean, spliced + loss) if is_spliced else (clean + loss, spliced)
    found = measured(model, one)
    n = sum(min(int(length) - 2, 7) for length in sequences.lengths)
    assert found["ce_clean"].value == pytest.approx(clean / n, abs=1e-5)
    assert found["ce_spliced"].value == pytest.approx(spliced / n, abs=1e-5)
    assert abs(found["ce_increase"].value) > 1e-3


def _plain_logits(raw, ids, one):
    """The model with *one* in place at every position but BOS, by PyTorch hooks that know nothing of this package."""
    if one is None:
        return tiny.plain_logits(raw, ids)

    def instead(written, made):
        return torch.cat([written[:, :1], made[:, 1:]], 1)

    if one.hook == one.hook_out:
        return tiny.plain_logits(raw, ids, one.hook, lambda x: instead(x, one._sae(x)))
    assert (one.hook, one.hook_out) == (MLP_IN, MLP_OUT)
    handle = raw.transformer.h[1].mlp.register_forward_hook(lambda _, args, output: instead(output, one._sae(args[0])))
    try:
        return tiny.plain_logits(raw, ids)
    finally:
        handle.remove()


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_a_transcoder_keeps_what_it_skips(model, loaded, architecture):
    """What a skip transcoder adds beside its latents is in the reconstruction, and only there."""
    one = loaded[architecture, "noisy"]
    x = torch.randn(2, 5, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        beside = one.reconstruct(x).output - one._sae.decode(one._sae.encode(x))
    assert (beside.abs().max() > 0.1) == ("skip" in architecture)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_every_hook_has_its_controls_in_both_backends(tiny_models, hooked_models, family):
    """At every hook the identity costs nothing, and a disturbed SAE the same in both backends, to 1e-4 nats."""
    hooks = tiny.hooks_of(family)
    losses = {}
    for backend, models in (("transformers", tiny_models), ("transformer_lens", hooked_models)):
        model = models[family]
        widths = [model.width("an SAE", hook) for hook in hooks]
        saes = [
            make(h, d=d) for make in (tiny.identity_sae, tiny.random_sae) for h, d in zip(hooks, widths, strict=True)
        ]
        losses[backend] = [
            {r.measure: r.value for r in corpus_readings.ce_loss(one) if isinstance(r, Estimate)}
            for one in corpus_pass.measure_text(
                model, saes, tiny.sequences(), n_batch_tokens=64, progress=lambda *_: None
            )
        ]
    n = len(hooks)
    for ours, theirs in zip(losses["transformers"], losses["transformer_lens"], strict=True):
        for name in ("ce_clean", "ce_spliced", "ce_increase", "ce_ablated", "kl"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name
    assert max(abs(one["ce_increase"]) for one in losses["transformers"][:n]) < 1e-4
    assert min(abs(one["ce_increase"]) for one in losses["transformers"][n:]) > 1e-4


@pytest.mark.parametrize("head", [0, 1])
def test_one_head_is_replaced_and_ablated_alone(tiny_models, head):
    """An SAE of one head sees that head alone, and everything else of hook_z stays as it was."""
    model, hook = tiny_models["gpt2"], "blocks.1.attn.hook_z"
    part = slice(8 * head, 8 * head + 8)
    one = tiny.random_sae(hook, d=8, head_slice=part)
    sequences = tiny.sequences(lengths=(9,))
    (losses,) = corpus_pass.measure_text(model, [one], sequences, n_batch_tokens=64, progress=lambda *_: None)

    def head_alone(change):
        def edit(z):
            changed = z.clone()
            changed[:, 1:, part] = change(z[:, 1:, part])
            return changed

        return edit

    ids = torch.from_numpy(sequences.tokens)
    for change, nats in (
        (lambda z: one.reconstruct(z).output, losses.within.ce_spliced_nats),
        (torch.zeros_like, losses.ce_ablated_nats),
    ):
        log_p = torch.log_softmax(tiny.plain_logits(model._model, ids, hook, head_alone(change))[0, 1:8], -1)
        assert float(nats[0]) == pytest.approx(-float(log_p.gather(-1, ids[0, 2:9, None]).sum()), abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_and_bias_add_up_to_the_reconstruction(loaded, architecture):
    """At the SAE's own scale of each token; where they do not, that is said."""
    one = loaded[architecture, "noisy"]
    x = torch.randn(2, 5, tiny.D_MODEL, generator=torch.Generator().manual_seed(1))
    output = one.reconstruct(x).output
    found = contributions(one, x, output)
    assert not isinstance(found, str), found
    summed = found.bias.flatten(0, 1).clone()
    summed.index_add_(0, found.position, found.factor[:, None] * found.decoder[found.latent])
    assert torch.allclose(summed.view_as(output), output, atol=1e-4)
    error, counted = torch.randn(x.shape), torch.ones(2, 5, dtype=torch.bool)
    error = error[..., : output.shape[-1]]
    latent = int(found.latent[0])
    fewer = without(found, output, torch.tensor([latent]))
    expected = (error + output - fewer).square().sum() - error.square().sum()
    assert float(removal_effects(found, error, counted)[latent]) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_diagnosed(model, loaded, architecture):
    """A dead one fits nowhere; of a disturbed one every correction is measured, of a transcoder at its target."""

    def diagnosed(state):
        one = loaded[architecture, state]
        return diagnosing.diagnosis(
            model, one, [], tiny.sequences(), copies=None, n_batch_tokens=64, progress=lambda *_: None
        )

    noisy = diagnosed("noisy")
    assert None not in (noisy.explained_variance, noisy.with_length, noisy.with_bias, noisy.harmful_mass)
    assert noisy.n_places > 0
    assert "explains 0.00 of the variance" in diagnosed("dead").sentence


def _refused(folder, architecture, change, **cfg):
    """The message about an SAE of *architecture* whose tensors *change* has rewritten, with *cfg* in its cfg.json."""
    mlp = torch.nn.Module()
    mlp.c_fc, mlp.c_proj = (transformers.pytorch_utils.Conv1D(tiny.D_MODEL, tiny.D_MODEL) for _ in range(2))
    path = architectures.write(folder / architecture, architecture, mlp) / "sae_weights.safetensors"
    written = path.with_name("cfg.json")
    written.write_text(json.dumps({**json.loads(written.read_text()), **cfg}))
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    (described,) = release.resolve(str(folder)).saes
    if isinstance(described, BrokenSae):
        return described.problem
    try:
        loading.load(described, CPU)
    except errors.SaeError as problem:
        return str(problem)
    return "none"


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("jumprelu", lambda w: w.pop("threshold"), "a jumprelu SAE needs threshold, which its weights lack"),
        ("standard", lambda w: w.update(scale=w["b_enc"] + 1), "a standard SAE has no scale"),
        ("standard", lambda w: w.update(bias=w.pop("b_enc")), "its tensors have other names than SAE Lens's"),
        ("standard", lambda w: w.update(b_enc=w["b_enc"].to(torch.complex64)), "b_enc holds no floating-point numbers"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, architecture, change, message):
    """Missing, unknown, under another name, or complex: each has its own words."""
    assert message in _refused(tmp_path, architecture, change)


@pytest.mark.parametrize(("is_rescaled", "message"), [(True, "zero in row 3 of W_dec"), (False, "none")])
def test_a_zero_decoder_row_that_is_divided_by_is_named(tmp_path, is_rescaled, message):
    """A TopK SAE with rescaling gives nothing but NaN then; without rescaling the row is harmless."""
    found = _refused(tmp_path, "topk", lambda w: w["W_dec"][3].zero_(), rescale_acts_by_decoder_norm=is_rescaled)
    assert message in found
