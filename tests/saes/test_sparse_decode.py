"""The fast way through an SAE is the plain one, and is taken where it can be."""

import importlib
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_checks.measuring import corpus_pass
from sae_checks.saes import sparse_decode
from sae_checks.saes.sae import LoadedSae
from sae_checks.saes.splice import splice

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the imports of SAE Lens's own dependencies are not what is tested here
    from sae_lens import registry

D_SAE, HOOK = 192, "blocks.1.hook_resid_pre"
FAST = ("standard", "gated", "topk", "abstopk", "jumprelu", "transcoder", "jumprelu_transcoder")
SLOW = ("matching_pursuit", "temporal", "skip_transcoder", "jumprelu_skip_transcoder")


def made(architecture, *, seed=0, bias=-2.0, **changed):
    """A random SAE of SAE Lens's; the lower *bias* the fewer latents are active."""
    sae_class, cfg_class = registry.SAE_CLASS_REGISTRY[architecture]
    d_out = {"d_out": tiny.D_MODEL, "apply_b_dec_to_input": False} if "transcoder" in architecture else {}
    own = {"k": 5} if "topk" in architecture else {}
    metadata = {"hook_name": HOOK, "hook_name_out": HOOK, "model_name": "tiny"}
    cfg = {"architecture": architecture, "d_in": tiny.D_MODEL, "d_sae": D_SAE, "device": "cpu", "metadata": metadata}
    sae = sae_class(cfg_class.from_dict({**cfg, **d_out, **own, **changed}))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sae.named_parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.1)
        if name in ("b_enc", "b_gate"):
            weight.data += bias
        if name == "threshold":
            weight.data.abs_()
    return sae


def loaded(sae):
    described = SimpleNamespace(sae_id=HOOK, hook=HOOK, hook_out=HOOK, n_training_context_tokens=8)
    return LoadedSae(described, sae, files={}, center=False, head_slice=slice(0, None))


def x_of(seed, shape=(3, 7)):
    return torch.randn(*shape, tiny.D_MODEL, generator=torch.Generator().manual_seed(seed))


def dense(active, shape):
    return active.to_dense().view(*shape, -1) if active.is_sparse else active


@pytest.mark.parametrize("architecture", FAST)
@pytest.mark.parametrize("bias", [-3.0, -1.0, 0.0, 1.0])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), n_latents=st.sampled_from([1, D_SAE * 40, 1 << 20]))
def test_the_fast_way_is_the_plain_one(architecture, bias, seed, n_latents):
    """Whatever is active, and in chunks of any size: the same output, counts and latents."""
    ready, x = loaded(made(architecture, seed=seed, bias=bias)), x_of(seed)
    assert sparse_decode.is_supported(ready._sae, x.device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_decode, "N_LATENTS_PER_CHUNK", n_latents)
        patch.setattr(sparse_decode, "MIN_ROWS", 2)
        got = ready.reconstruct(x)
    plain = ready.reconstruct_densely(x)
    assert torch.allclose(got.output, plain.output, atol=1e-5)
    assert torch.equal(got.n_active, plain.n_active)
    assert torch.equal(dense(got.active, x.shape[:-1]), plain.active)


def test_few_latents_are_told_from_many():
    """By their share alone: below a sixteenth the decoder's rows are gathered, above the whole is multiplied."""
    x = x_of(0, (1, 40))
    few, many = (loaded(made("standard", bias=bias)).reconstruct(x) for bias in (-3.0, 0.0))
    assert 0 < few.n_active.sum() <= sparse_decode.SPARSE_SHARE * 40 * D_SAE < many.n_active.sum()
    assert (few.active.is_sparse, many.active.is_sparse) == (True, False)


def test_chunks_of_both_kinds_together():
    """A chunk with few active latents beside one with many."""
    sae = made("standard", bias=-3.0)
    x = torch.cat([x_of(0, (1, 4)), 4 * x_of(1, (1, 4))], 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_decode, "N_LATENTS_PER_CHUNK", 4 * D_SAE)
        patch.setattr(sparse_decode, "MIN_ROWS", 1)
        ready = loaded(sae)
        kinds = {sparse_decode.reconstruct_rows(sae, rows).active.is_sparse for rows in x[0].split(4)}
        got = ready.reconstruct(x)
    assert kinds == {True, False}
    assert torch.equal(got.active, ready.reconstruct_densely(x).active)


@pytest.mark.parametrize("architecture", SLOW)
def test_what_is_not_row_by_row_goes_the_plain_way(architecture):
    """A temporal SAE looks back, a skip transcoder adds what no latent holds, matching pursuit counts its rounds."""
    sae_class, _ = registry.SAE_CLASS_REGISTRY[architecture]
    assert not sparse_decode.is_supported(sae_class.__new__(sae_class), torch.device("cpu"))


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        ("standard", {"normalize_activations": "layer_norm"}),
        ("standard", {"normalize_activations": "constant_norm_rescale"}),
        ("jumprelu", {"reshape_activations": "hook_z"}),
        ("topk", {"rescale_acts_by_decoder_norm": True}),
    ],
)
def test_norms_and_heads_go_the_plain_way(architecture, changed):
    """What is kept of the input between encode and decode would be that of the last chunk."""
    sae = made(architecture)
    assert sparse_decode.is_supported(sae, torch.device("cpu"))
    for name, value in changed.items():
        setattr(sae.cfg, name, value)
    assert not sparse_decode.is_supported(sae, torch.device("cpu"))


def test_no_accelerator_goes_the_fast_way():
    """What has not been tried there is not done there."""
    assert not sparse_decode.is_supported(made("standard"), torch.device("cuda"))


@pytest.mark.parametrize("architecture", FAST)
def test_what_is_not_a_number_stays_none(architecture):
    """A NaN in the input is one in the output: it must not drop out with the latents that are not active."""
    x = x_of(0)
    x[1, 2, 3] = float("nan")
    ready = loaded(made(architecture))
    got, plain = ready.reconstruct(x).output, ready.reconstruct_densely(x).output
    assert plain[1, 2].isnan().all()
    assert torch.equal(got.isnan(), plain.isnan())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n_within=st.sampled_from([None, 1, 4, 30]))
def test_the_latents_seen_are_the_same(seed, n_within):
    """Reduced from indices or from flags, over replaced tokens within the training context."""
    sae = made("standard", seed=seed, bias=-3.0)
    fast, plain = loaded(sae), loaded(sae)
    fast.n_training_context_tokens = plain.n_training_context_tokens = n_within
    plain.reconstruct = plain.reconstruct_densely
    x = x_of(seed)
    replaced = torch.rand(x.shape[:-1], generator=torch.Generator().manual_seed(seed)) < 0.5
    got, expected = (splice(x, x, replaced, one) for one in (fast, plain))
    assert fast.reconstruct(x).active.is_sparse
    assert torch.equal(got.ever_active, expected.ever_active)


def test_the_loss_is_the_same():
    """To 1e-5 nats in every sequence."""
    model = tiny.model("gpt2")
    fast, plain = (loaded(made("standard", bias=-3.0)) for _ in range(2))
    plain.reconstruct = plain.reconstruct_densely
    got, expected = corpus_pass.measure_text(
        model, [fast, plain], tiny.sequences(), n_batch_tokens=64, progress=lambda *_: None
    )
    assert np.abs(expected.within.ce_spliced_nats - expected.within.ce_clean_nats).max() > 0.01
    assert got.within.ce_spliced_nats == pytest.approx(expected.within.ce_spliced_nats, abs=1e-5)
    assert got.reconstructions.error_squared == pytest.approx(expected.reconstructions.error_squared, rel=1e-5)
    assert np.array_equal(got.ever_active, expected.ever_active)


@pytest.mark.parametrize("name", sorted(sparse_decode.SUPPORTED_CLASSES))
def test_the_known_classes_are_there(name):
    """A class that SAE Lens has renamed would quietly be run the slow way."""
    module, _, of_class = name.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), of_class), type)
