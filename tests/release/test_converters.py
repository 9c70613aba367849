"""Releases that SAE Lens converts: described and loaded as SAE Lens does it, from one commit, and nothing run."""

import hashlib
import os
import pickle
from dataclasses import replace

import builders
import pytest
import stand_in_converted as stand_in
import torch
from hub_server import LoopbackHub, here
from huggingface_hub import constants
from stand_in_converted import write_sparsify

from sae_checks import errors
from sae_checks.commands import main
from sae_checks.release import converters, release
from sae_checks.release.hub import cached_path
from sae_checks.release.release import BrokenSae, Sae, resolve
from sae_checks.saes import loading

every_family = pytest.mark.parametrize("family", stand_in.FAMILIES, ids=lambda f: f"{f.conversion}-{f.sae_id}")
pickled_family = pytest.mark.parametrize(
    "family", [f for f in stand_in.FAMILIES if f.pickled], ids=lambda f: f"{f.conversion}"
)
CPU = torch.device("cpu")
INPUT = torch.randn(2, 5, stand_in.D_IN, generator=torch.Generator().manual_seed(5))


def given(family):
    """What the SAE is called with: the heads side by side where it reads them all."""
    return INPUT.unflatten(-1, (2, -1)) if family.hook.endswith("hook_z") else INPUT


@pytest.fixture(scope="module")
def corrected():
    """The registry, with the stand-ins' sizes laid over those that converters have in their source."""
    with converters.quiet():
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    with pytest.MonkeyPatch.context() as patch:
        for family in stand_in.FAMILIES:
            entry = get_pretrained_saes_directory()[family.release]
            overrides = {**(entry.config_overrides or {}), **family.corrected}
            patch.setattr(entry, "config_overrides", overrides)
        yield


@pytest.fixture
def hub(corrected, tmp_path):
    """A Hub on the loopback with all stand-ins, an empty cache, and this process's clients knowing nothing else."""
    with LoopbackHub() as served, here(served, tmp_path / "cache"):
        stand_in.stock(served)
        yield served


def described(family, revision=None, **asked):
    name = family.release if revision is None else f"{family.release}@{revision}"
    (sae,) = resolve(name, patterns=[family.sae_id], **{"allow_pickle": True, **asked}).saes
    assert isinstance(sae, Sae), sae.problem
    return sae


def as_sae_lens_has_it(family):
    """What `SAE.from_pretrained` makes of main."""
    from sae_lens import SAE

    with converters.quiet():
        return SAE.from_pretrained(family.release, family.sae_id)


@every_family
def test_it_is_described_and_loaded_as_sae_lens_does(hub, family):
    """Hook, sizes, architecture and context from the configuration alone; the same output for the same input."""
    sae = described(family)
    assert (sae.hook, sae.hook_out) == (family.hook, family.hook_out or family.hook)
    assert (sae.d_in, sae.d_out, sae.d_sae) == (stand_in.D_IN, stand_in.D_IN, stand_in.D_SAE)
    assert (sae.architecture, sae.n_training_context_tokens) == (family.architecture, family.context)
    assert not [path for _, path in hub.requests if path.endswith((".npz", ".pt", ".pth"))]

    expected = as_sae_lens_has_it(family)
    loaded, files = loading.load(sae, CPU)
    assert all(weight.dtype == torch.float32 for weight in loaded.state_dict().values())
    with torch.inference_mode():
        assert torch.equal(loaded(given(family)), expected(given(family)))
    at_commit = hub.repos["model", family.repo_id].commits[sae.remote.repo.commit]
    assert files
    for path, local in files.items():
        assert hashlib.sha256(local.read_bytes()).hexdigest() == at_commit[path].sha256
    weights = [path for path in family.files() if path.endswith((".npz", ".pt", ".pth", ".safetensors"))]
    assert {*weights} <= {*files}


@every_family
def test_what_is_pinned_is_what_is_loaded_also_offline(hub, family, monkeypatch):
    """Main moves on after the commit was pinned: the old weights are loaded, and once more with the Hub gone."""
    pinned = described(family)
    expected = as_sae_lens_has_it(family)(given(family))
    moved = dict.fromkeys(hub.repos["model", family.repo_id].commits[pinned.remote.repo.commit], b"moved on")
    hub.repos["model", family.repo_id].commit(moved)
    with torch.inference_mode():
        assert torch.equal(loading.load(pinned, CPU)[0](given(family)), expected)
        with hub.unreachable():
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            cached = described(family, revision=pinned.remote.repo.commit)
            assert torch.equal(loading.load(cached, CPU)[0](given(family)), expected)


@pickled_family
def test_pickles_are_refused_unless_they_are_asked_for(hub, family):
    """Before anything is fetched, with the option's name; and again where a converter asks for a file."""
    with pytest.raises(errors.UsageError, match="--sae-allow-pickle"):
        resolve(family.release, patterns=[family.sae_id])
    assert hub.requests == []
    with pytest.raises(errors.SaeError, match="--sae-allow-pickle"):
        loading.load(replace(described(family), allow_pickle=False), CPU)


class Hostile:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pickled_family
def test_a_hostile_pickle_is_never_run(hub, family, tmp_path, monkeypatch):
    """Also where pickles are allowed: not through torch, whose default the environment can change, nor NumPy."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    harm = tmp_path / "harm"
    files = dict(family.files())
    for path in files:
        if path.endswith((".pt", ".pth")):
            files[path] = stand_in.pickled({"W_enc": Hostile(harm)})
        elif path.endswith(".npz"):
            files[path] = stand_in.npz_of_objects(Hostile(harm))
    hub.repos["model", family.repo_id].commit(files)
    with pytest.raises(errors.SaeError, match="weights cannot be used"):
        loading.load(described(family), CPU)
    assert not harm.exists()
    pickle.loads(pickle.dumps(Hostile(harm)))
    assert harm.exists()  # it would have been seen


def test_nothing_beside_the_pinned_repository_is_in_reach(hub):
    """Whatever else a converter asks of the network is an error, and SAE Lens is as it was afterwards."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    family = stand_in.FAMILIES[2]
    repo = described(family).remote.repo
    before = dict(vars(loaders))
    asked = len(hub.requests)
    with converters.confined(repo, allow_pickle=True):
        for reach in (
            lambda: loaders.hf_hub_download("org/other", "config.json"),
            lambda: loaders.hf_hub_download(repo.repo_id, "README.md", revision="main"),
            lambda: loaders.get_safetensors_tensor_shapes("org/other", "a.safetensors"),
            lambda: loaders.requests.get(hub.endpoint),
            lambda: loaders.hf_hub_url(repo.repo_id, "README.md"),
            loaders.build_hf_headers,
        ):
            with pytest.raises(PermissionError):
                reach()
        with pytest.raises(loaders.EntryNotFoundError):
            loaders.hf_hub_download(repo.repo_id, "no such file")
    assert len(hub.requests) == asked
    assert vars(loaders) == before


def test_describing_a_gemma_3_release_fetches_headers_alone(hub):
    """The shapes of its tensors come from the first bytes of each file, at the pinned commit."""
    sae = described(stand_in.FAMILIES[2])
    of_weights = [path for method, path in hub.requests if method == "GET" and path.endswith("params.safetensors")]
    assert of_weights
    assert all(sae.remote.repo.commit in path for path in of_weights)
    assert not cached_path(sae.remote.repo, "resid_post/layer_17_width_16k_l0_big/params.safetensors").exists()


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(hub, entry):
    """A weight that is not finite makes the SAE an error, whoever converted it."""
    family = next(f for f in stand_in.FAMILIES if f.conversion == "mwhanna_transcoder")
    files = dict(family.files())
    tensors = {**stand_in.gemma_arrays(), "W_enc": stand_in.numbers(stand_in.D_SAE, stand_in.D_IN)}
    del tensors["threshold"]
    tensors["b_enc"][1] = entry
    files["layer_0.safetensors"] = stand_in.save(tensors)
    hub.repos["model", family.repo_id].commit(files)
    with pytest.raises(errors.SaeError, match="not finite"):
        loading.load(described(family), CPU)


def test_a_norm_without_a_factor_is_refused(hub, monkeypatch):
    """SAE Lens only warns where its registry knows no factor, and the SAE would run at the wrong scale."""
    family = next(f for f in stand_in.FAMILIES if f.conversion == "llama_scope")
    real = release.registry.lookup

    def forgetful(name):
        entry = real(name)
        return replace(entry, saes=tuple(replace(sae, norm_scaling_factor=None) for sae in entry.saes))

    monkeypatch.setattr(release.registry, "lookup", forgetful)
    (sae,) = resolve(family.release, patterns=[family.sae_id]).saes
    assert isinstance(sae, BrokenSae)
    assert "normalize_activations = " in sae.problem


def test_a_file_that_is_missing_is_one_sae_in_error(hub):
    """The others of the release are described; the message names the converter and the file."""
    family = next(f for f in stand_in.FAMILIES if f.conversion == "llama_scope")
    saes = {sae.sae_id: sae for sae in resolve(family.release, patterns=["l0r_8x", "l1r_8x"]).saes}
    assert isinstance(saes["l0r_8x"], Sae)
    assert "converter llama_scope cannot read it" in saes["l1r_8x"].problem
    assert "L1R-8x/hyperparams.json" in saes["l1r_8x"].problem


def test_a_cross_layer_transcoder_is_refused_by_name(hub):
    """SAE Lens loads its layers for finding latents and warns that they do not reconstruct."""
    hub.model("mntss/clt-gemma-2-2b-2.5M", {"config.yaml": b"model_name: google/gemma-2-2b\n"})
    found = resolve("mntss-gemma-2-2b-2.5m-clt-as-per-layer", patterns=["layer_0", "layer_1"])
    assert all("cross-layer transcoder" in sae.problem for sae in found.saes)


def test_listing_needs_no_leave_for_pickles(hub, capsys):
    """`sae-checks list` reads configurations, so it describes releases of pickles, too."""
    family = stand_in.FAMILIES[0]
    assert main.main(["list", family.release, "--sae-id", family.sae_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith(family.sae_id)]
    assert {family.sae_id, family.hook, "jumprelu"} < {*line.split()}
    assert "gemma-2-2b" in "\n".join(lines)


def put(hub, repo_id, folder):
    hub.model(repo_id, {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def test_one_sae_in_the_top_folder_of_a_repository(hub, tmp_path):
    """Its id is the repository's name, and it loads."""
    builders.write_sae(tmp_path)
    put(hub, "somebody/one", tmp_path)
    (sae,) = resolve("somebody/one").saes
    assert sae.sae_id == "somebody/one"
    assert set(loading.load(sae, CPU)[1]) == {"sae_weights.safetensors"}


def test_a_checkpoint_on_the_hub_is_loaded_with_its_factor(hub, tmp_path):
    """The file beside the weights that holds the factor is fetched, and hashed with them."""
    written = {**builders.cfg(normalize_activations="expected_average_only_in"), "decoder_init_norm": 0.1}
    folder = builders.write_sae(tmp_path / "checkpoints" / "4096", written=written)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.5, "has_whitening": false}')
    put(hub, "somebody/run", tmp_path)
    (sae,) = resolve("somebody/run").saes
    assert (sae.sae_id, sae.format, sae.norm_scaling_factor) == ("checkpoints/4096", "checkpoint", 2.5)
    assert set(loading.load(sae, CPU)[1]) == {"sae_weights.safetensors", "activation_scaler.json"}


def test_saes_of_sparsify_on_the_hub(hub, tmp_path):
    """Found by their cfg.json; what the run's config.json above them tells is known, and they load."""
    write_sparsify(tmp_path / "run" / "layers.3", run={"model": "gpt2", "ctx_len": 64})
    put(hub, "somebody/sparsify", tmp_path)
    (sae,) = resolve("somebody/sparsify").saes
    assert (sae.sae_id, sae.format, sae.hook) == ("run/layers.3", "sparsify", "blocks.3.hook_resid_post")
    assert (sae.model_name, sae.n_training_context_tokens) == ("gpt2", 64)
    assert set(loading.load(sae, CPU)[1]) == {"sae.safetensors"}


def test_a_hook_before_the_first_block_is_refused_by_name(hub):
    """Gemma Scope's SAEs of the embedding read no place that can be spliced."""
    (sae,) = resolve("gemma-scope-2b-pt-res", patterns=["embedding/width_4k/average_l0_6"], allow_pickle=True).saes
    assert isinstance(sae, BrokenSae)
    assert "hook 'hook_embed' is not known" in sae.problem
