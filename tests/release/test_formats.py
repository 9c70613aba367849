"""What SAE Lens's trainer and sparsify write to disk, by their own code or in their layout, described and loaded."""

import json

import builders
import pytest
import stand_in_converted as stand_in
import torch
from safetensors.torch import load_file, save_file

from sae_checks import errors
from sae_checks.release import converters, release
from sae_checks.release.registry import RegisteredRelease, RegisteredSae
from sae_checks.release.release import BrokenSae, Sae, resolve
from sae_checks.saes import loading

CPU = torch.device("cpu")
D_IN, D_SAE = 8, 16
X = torch.randn(3, 5, D_IN, generator=torch.Generator().manual_seed(2))
FACTOR = 2.5
HOOK = "blocks.2.hook_resid_pre"
TRAINED = ["standard", "gated", "topk", "abstopk", "jumprelu", "batchtopk", "matryoshka_batchtopk", "matching_pursuit"]


@pytest.fixture(scope="module", autouse=True)
def sae_lens():
    with converters.quiet():
        import sae_lens

    return sae_lens


def trainer_of(architecture, normalize_activations, sae_lens):
    """SAE Lens's trainer with a random SAE that it would train."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(3)
    sae_class, cfg_class = SAE_TRAINING_CLASS_REGISTRY[architecture]
    more = {"matryoshka_widths": [4, D_SAE]} if architecture.startswith("matryoshka") else {}
    more |= {"k": 3} if architecture.endswith("topk") else {}
    more |= {"decoder_init_norm": 1.0} if architecture == "matching_pursuit" else {}
    metadata = SAEMetadata(model_name="tiny", hook_name=HOOK, context_size=16, prepend_bos=True)
    cfg = cfg_class(d_in=D_IN, d_sae=D_SAE, normalize_activations=normalize_activations, metadata=metadata, **more)
    sae = sae_class(cfg)
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.randn_like(weight) if "threshold" not in name else torch.rand_like(weight))
        for name, buffer in sae.named_buffers():
            if name == "topk_threshold":
                buffer.fill_(1.5)
    return SAETrainer(
        SAETrainerConfig(total_training_samples=64, train_batch_size_samples=8, lr_end=0.0), sae, iter(())
    )


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_run_of_the_trainer_with_its_checkpoint(tmp_path, sae_lens, architecture):
    """
    A checkpoint, whose norm is not folded in yet, is the SAE that the run would have saved at that point.

    Both lie in one tree: the run's output and its checkpoint, each one SAE with its path for an id.
    """
    trainer = trainer_of(architecture, "expected_average_only_in", sae_lens)
    trainer.activation_scaler.scaling_factor = FACTOR
    trainer.save_checkpoint("4096", base_path=tmp_path / "checkpoints" / "a1b2")
    trainer.sae.fold_activation_norm_scaling_factor(FACTOR)  # both as the trainer does at its end
    trainer.activation_scaler.scaling_factor = None
    trainer.sae.save_inference_model(tmp_path / "output")
    trainer.save_checkpoint("final_8192", base_path=tmp_path / "checkpoints" / "a1b2")

    saes = {sae.sae_id: sae for sae in resolve(str(tmp_path)).saes}
    assert set(saes) == {"checkpoints/a1b2/4096", "checkpoints/a1b2/final_8192", "output"}
    assert {sae.sae_id: sae.norm_scaling_factor for sae in saes.values()} == {
        "checkpoints/a1b2/4096": FACTOR,
        "checkpoints/a1b2/final_8192": None,
        "output": None,
    }
    assert {(sae.hook, sae.d_sae, sae.n_training_context_tokens) for sae in saes.values()} == {(HOOK, D_SAE, 16)}
    with torch.inference_mode():
        outputs = {sae_id: loading.load(sae, CPU)[0](X) for sae_id, sae in saes.items()}
    assert not torch.allclose(outputs["output"], torch.zeros(()))
    torch.testing.assert_close(outputs["checkpoints/a1b2/4096"], outputs["output"])
    torch.testing.assert_close(outputs["checkpoints/a1b2/final_8192"], outputs["output"])


def test_the_factor_of_a_checkpoint_is_part_of_what_it_was_made_from(tmp_path, sae_lens):
    """A scaling that is folded in is hashed with the weights, by its file."""
    trainer = trainer_of("standard", "expected_average_only_in", sae_lens)
    trainer.activation_scaler.scaling_factor = FACTOR
    trainer.save_checkpoint("1", base_path=tmp_path)
    (sae,) = resolve(str(tmp_path / "1")).saes
    assert set(loading.load(sae, CPU)[1]) == {"sae_weights.safetensors", "activation_scaler.json"}


@pytest.mark.parametrize("factor", [None, 0.0, -1.0, "2", True, float("nan"), float("inf")], ids=repr)
def test_a_checkpoint_whose_factor_is_none_is_refused(tmp_path, sae_lens, factor):
    """Unfolded, and nothing or nonsense to fold: not measured at the wrong scale."""
    trainer = trainer_of("standard", "expected_average_only_in", sae_lens)
    trainer.save_checkpoint("1", base_path=tmp_path)
    (tmp_path / "1" / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    (sae,) = resolve(str(tmp_path / "1")).saes
    assert isinstance(sae, BrokenSae)
    assert "normalize_activations = " in sae.problem or "norm scaling factor is" in sae.problem


def test_a_factor_that_nothing_asks_for_is_refused(tmp_path):
    """Weights that would be folded a second time, or a configuration that lies: either way an error."""
    folder = builders.write_sae(tmp_path / "sae")
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": FACTOR}))
    (sae,) = resolve(str(folder)).saes
    assert isinstance(sae, BrokenSae)
    assert "activation_scaler.json holds a factor" in sae.problem


def test_a_whitened_checkpoint_is_refused(tmp_path, sae_lens):
    """Its statistics are not folded in until its training ends; until then it is refused by the key's name."""
    trainer_of("standard", "covariance_whitening", sae_lens).save_checkpoint("1", base_path=tmp_path)
    (sae,) = resolve(str(tmp_path / "1")).saes
    assert "normalize_activations = " in sae.problem
    assert "covariance_whitening" in sae.problem


def registered(monkeypatch, folder, factor, cfg):
    """A registered release in SAE Lens's own format, as if the Hub had served *folder*."""
    from sae_checks.release import hub

    written = builders.flat_cfg(d_in=D_IN, d_sae=D_SAE, **cfg)
    builders.write_sae(folder / "a", written=written, tensors=builders.weights(d_in=D_IN, d_sae=D_SAE))
    weights = {**{n: stand_in.numbers(*t.shape) for n, t in load_file(folder / "a/sae_weights.safetensors").items()}}
    save_file(weights, folder / "a/sae_weights.safetensors")
    files = tuple(
        hub.HubFile(path=f"a/{name}", n_bytes=1, blob=None) for name in ("cfg.json", "sae_weights.safetensors")
    )
    repo = hub.HubRepo(repo_id="org/saes", kind="model", commit="c" * 40, files=files, offline=False)
    monkeypatch.setattr(hub, "pin", lambda *_, **__: repo)
    monkeypatch.setattr(hub, "fetch", lambda _, path, **__: folder / path)
    sae = RegisteredSae(sae_id="a", path="a", norm_scaling_factor=factor)
    entry = RegisteredRelease(name="r", repo_id="org/saes", model="gpt2", conversion=None, saes=(sae,), overrides={})
    monkeypatch.setattr(release.registry, "lookup", lambda _: entry)
    (found,) = resolve("r").saes
    return found, weights


@pytest.mark.parametrize("value", ["expected_average_only_in", True], ids=repr)
def test_the_registrys_factor_is_folded_in(monkeypatch, tmp_path, value):
    """As `from_pretrained` does: the SAE on x is the SAE as saved on the scaled x, scaled back."""
    sae, weights = registered(monkeypatch, tmp_path, FACTOR, {"normalize_activations": value})
    assert sae.norm_scaling_factor == FACTOR
    with torch.inference_mode():
        got = loading.load(sae, CPU)[0](X)
    latents = ((X * FACTOR - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()
    torch.testing.assert_close(got, (latents @ weights["W_dec"] + weights["b_dec"]) / FACTOR)


def test_a_factor_of_the_registry_that_the_configuration_does_not_ask_for_is_not_used(monkeypatch, tmp_path):
    """SAE Lens folds only where normalize_activations says so, and so does this."""
    sae, _ = registered(monkeypatch, tmp_path, FACTOR, {"normalize_activations": "none"})
    assert isinstance(sae, Sae)
    assert sae.norm_scaling_factor is None


def test_a_registered_norm_without_a_factor_is_refused(monkeypatch, tmp_path):
    """SAE Lens would warn, and run it at the wrong scale."""
    sae, _ = registered(monkeypatch, tmp_path, None, {"normalize_activations": "expected_average_only_in"})
    assert isinstance(sae, BrokenSae)
    assert "normalize_activations = " in sae.problem


@pytest.mark.parametrize("n_latents", [0, D_SAE])
def test_an_sae_of_sparsify_is_what_sparsify_makes_of_it(tmp_path, n_latents):
    """Independent of both: b_dec off the input, the k largest of relu(linear), the decoder's rows, b_dec."""
    run = {"model": "EleutherAI/pythia-70m", "ctx_len": 64}
    tensors = stand_in.write_sparsify(tmp_path / "run" / "layers.3", run=run, num_latents=n_latents)
    (sae,) = resolve(str(tmp_path / "run")).saes
    assert (sae.hook, sae.d_in, sae.d_sae) == ("blocks.3.hook_resid_post", D_IN, D_SAE)
    assert (sae.architecture, sae.model_name) == ("topk", "EleutherAI/pythia-70m")
    assert (sae.n_training_context_tokens, sae.prepend_bos) == (64, None)
    loaded, files = loading.load(sae, CPU)
    assert set(files) == {"sae.safetensors"}
    pre = ((X - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]).relu()
    values, indices = pre.topk(3)
    expected = (tensors["W_dec"][indices] * values[..., None]).sum(-2) + tensors["b_dec"]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(X), expected)


def test_what_a_run_of_sparsify_does_not_tell_is_unknown(tmp_path):
    """SAE Lens guesses the model from a folder's name and 2048 tokens; neither is taken for knowledge."""
    stand_in.write_sparsify(tmp_path / "pythia-70m" / "layers.3")
    (sae,) = resolve(str(tmp_path / "pythia-70m")).saes
    assert (sae.model_name, sae.n_training_context_tokens) == ("", None)


@pytest.mark.parametrize(
    ("place", "entries", "word"),
    [
        ("layers.3.mlp", {}, "hook 'layers.3.mlp' is not known"),
        ("embed_tokens", {}, "hook 'embed_tokens' is not known"),
        ("h.3", {}, "hook 'h.3' is not known"),
        ("layers.3", {"transcode": True}, "transcode = True"),
        ("layers.3", {"skip_connection": True}, "skip_connection = True"),
        ("layers.3", {"signed": True}, "signed = True"),
        ("layers.3", {"activation": "groupmax"}, "activation = groupmax"),
        ("layers.3", {"d_in": "8"}, "d_in is '8'"),
        ("layers.3", {"num_latents": 2 * D_SAE}, "asks for (32, 8)"),
    ],
)
def test_what_sae_lens_would_read_as_something_else_is_refused(tmp_path, place, entries, word):
    """The place, the architecture or the size is another than SAE Lens takes it for: an error by its name."""
    stand_in.write_sparsify(tmp_path / place, **entries)
    (sae,) = resolve(str(tmp_path)).saes
    assert isinstance(sae, BrokenSae)
    assert word in sae.problem


def test_a_damaged_file_is_an_sae_in_error(tmp_path, sae_lens):
    """Weights that are not finite are refused whatever saved them."""
    trainer = trainer_of("topk", "none", sae_lens)
    with torch.no_grad():
        trainer.sae.b_dec[0] = float("nan")
    trainer.save_checkpoint("1", base_path=tmp_path)
    (sae,) = resolve(str(tmp_path / "1")).saes
    with pytest.raises(errors.SaeError, match="not finite"):
        loading.load(sae, CPU)
