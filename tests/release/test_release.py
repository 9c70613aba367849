"""A folder -> SAEs, from their configurations alone; what cannot be used is refused by name and the rest goes on."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from builders import (
    D_IN,
    D_SAE,
    MISSING,
    cfg,
    flat_cfg,
    header_bytes,
    weights,
    write_sae,
    write_sae_at_layer,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import HOSTILE

from sae_checks import errors
from sae_checks.release import release
from sae_checks.release.release import BrokenSae, Sae, resolve


def only(folder):
    """The one SAE of the release in *folder*."""
    (sae,) = resolve(str(folder)).saes
    return sae


def refused(folder, *words):
    """The reason why the one SAE in *folder* cannot be measured, which holds *words*."""
    sae = only(folder)
    assert isinstance(sae, BrokenSae)
    assert sae.problem.split("\n")[1].startswith("  expected: ")
    for word in words:
        assert word in sae.problem
    return sae.problem


def test_a_folder_of_one_sae(tmp_path):
    """cfg.json and weights in the folder itself: one SAE, called like the folder, described as it was saved."""
    folder = write_sae(tmp_path / "layer-two")
    found = resolve(str(folder))
    assert (found.name, found.source, found.revision) == ("layer-two", str(folder), None)
    assert (found.model, found.corpus, found.lambada) == (None, None, None)  # its SAE names its model
    assert found.saes == (
        Sae(
            sae_id="layer-two",
            weights=folder / "sae_weights.safetensors",
            remote=None,
            overrides={},
            hook="blocks.2.hook_resid_pre",
            hook_out="blocks.2.hook_resid_pre",
            head=None,
            depth=2.0,
            architecture="standard",
            d_in=D_IN,
            d_out=D_IN,
            d_sae=D_SAE,
            n_training_context_tokens=16,
            k=None,
            prepend_bos=True,
            model_name="tiny",
            model_revision=None,
            model_kwargs=(("center_writing_weights", True),),
            exclude_special_tokens=False,
            dataset_path=None,
        ),
    )


def test_a_tree_of_saes_in_order_of_their_layers(tmp_path):
    """Ids are paths from the folder; the order is by layer as a number, then by id."""
    for sae_id, layer in (("a/ten", 10), ("b/two", 2), ("a/two", 2), ("nine", 9)):
        write_sae_at_layer(tmp_path / sae_id, layer)
    found = resolve(str(tmp_path))
    assert found.sae_ids == ("a/two", "b/two", "nine", "a/ten")
    assert [sae.depth for sae in found.saes] == [2, 2, 9, 10]


def test_the_output_of_a_layer_is_the_input_of_the_next(tmp_path):
    """hook_resid_post of block 1 stands where hook_resid_pre of block 2 does."""
    write_sae(tmp_path / "post", metadata={"hook_name": "blocks.1.hook_resid_post"})
    assert only(tmp_path).depth == 2


def test_patterns_narrow_the_release(tmp_path):
    """Any of the patterns may match, the release keeps its order, and no match at all names what there is."""
    for layer in range(4):
        write_sae_at_layer(tmp_path / f"blocks.{layer}.hook_resid_pre", layer)
    assert resolve(str(tmp_path), patterns=["blocks.3.*", "blocks.1.*"]).sae_ids == (
        "blocks.1.hook_resid_pre",
        "blocks.3.hook_resid_pre",
    )
    assert len(resolve(str(tmp_path), patterns=["*"]).saes) == 4
    with pytest.raises(errors.UsageError, match=r"--sae-id blocks\.9") as caught:
        resolve(str(tmp_path), patterns=["blocks.9*"])
    assert "blocks.0.hook_resid_pre" in str(caught.value)


def test_a_folder_without_saes_is_refused(tmp_path):
    """An empty folder is an error of asking, never an empty release that passes."""
    with pytest.raises(errors.UsageError, match="no SAE in "):
        resolve(str(tmp_path))


def test_an_unknown_name_tells_the_nearest(tmp_path):
    """A mistyped folder or release name is answered with what it may have meant."""
    write_sae(tmp_path / "gpt2-small-saes")
    with pytest.raises(errors.UsageError, match="no SAE release") as caught:
        resolve(str(tmp_path / "gpt2-smal-saes"))
    assert f"--sae-release={errors.shown(tmp_path / 'gpt2-small-saes')}" in str(caught.value)
    with pytest.raises(errors.UsageError) as caught:
        resolve("demo-brokn")
    assert "--sae-release=demo-broken" in str(caught.value)


def test_a_name_that_cannot_be_a_folder_is_refused():
    """Too long a name, or the home folder of nobody: refused like any other unknown name."""
    for name in ("x" * 300, "x/" * 3000, "~no-such-user-here", "~no-such-user-here/saes"):
        with pytest.raises(errors.UsageError):
            resolve(name)


@given(st.text(min_size=1, max_size=30).filter(lambda name: "\0" not in name))
def test_any_unknown_name_is_refused(name):
    """No name raises anything but UsageError."""
    assume(not Path(name).is_dir() and name[0] != "~")
    with pytest.raises(errors.UsageError):
        resolve(name)


def test_one_broken_sae_leaves_the_others(tmp_path):
    """A broken SAE stands at the end of the release with its problem; the others are whole."""
    for layer in (0, 1):
        write_sae_at_layer(tmp_path / f"good-{layer}", layer)
    (write_sae(tmp_path / "bad") / "cfg.json").write_text("{", encoding="utf-8")
    found = resolve(str(tmp_path))
    assert found.sae_ids == ("good-0", "good-1", "bad")
    assert [type(sae) for sae in found.saes] == [Sae, Sae, BrokenSae]


def broken(folder, cases):
    """Assert that the SAE of each case, by its folder, is broken with these words in a message of four lines."""
    found = {sae.sae_id: sae for sae in resolve(str(folder)).saes}
    assert found.keys() == cases.keys()
    for sae_id, words in cases.items():
        assert isinstance(found[sae_id], BrokenSae), sae_id
        for word in words:
            assert word in found[sae_id].problem, (sae_id, found[sae_id].problem)


def test_a_malformed_cfg_is_refused(tmp_path):
    """What is not a JSON object is a broken SAE, whatever it is instead."""
    contents = [
        b"",
        b"{",
        b"words",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'"text"',
        b"null",
        b"7",
        b"[" * 100_000,
        b"1" * 10_000,
    ]
    for n, content in enumerate(contents):
        (write_sae(tmp_path / f"{n}") / "cfg.json").write_bytes(content)
    broken(tmp_path, {f"{n}": ["cfg.json cannot be used"] for n in range(len(contents))})


def test_a_huge_cfg_is_refused_unread(tmp_path):
    """A configuration of more than a megabyte is none."""
    write_sae(tmp_path / "sae", note="x" * 1_000_000)
    refused(tmp_path, "more than 1000000 bytes")


NORMS = ("expected_average_only_in", "constant_scalar_rescale", "covariance_whitening", "no such norm", True)

REFUSED = [
    *(
        ({key: value}, f"{key} is ")
        for key in ("d_in", "d_sae")
        for value in (MISSING, None, 0, -4, 4.0, "4", True, [4], {"n": 4}, float("nan"))
    ),
    *(
        ({"metadata": {"hook_name": value}}, "hook_name is ")
        for value in (MISSING, None, "", 3, ["blocks.2.hook_resid_pre"])
    ),
    *(
        (changes, f"{key} = ")
        for key, value in (
            *(("normalize_activations", norm) for norm in NORMS),
            ("hook_head_index", 0),
            ("hook_head_index", 3),
            ("seqpos_slice", [1, None]),
            ("seqpos_slice", [0, 128]),
            ("hook_head_index_out", 1),
            ("reshape_activations", "hook_z"),
        )
        for changes in ({key: value}, {"metadata": {key: value}, **({key: MISSING} if key in cfg() else {})})
    ),
    *(
        ({"metadata": {"model_from_pretrained_kwargs": kwargs}}, f"model_from_pretrained_kwargs{named}")
        for kwargs, named in (
            ("center_writing_weights", ""),
            ({"fold_ln": True, "checkpoint_index": 3}, ".checkpoint_index = 3"),
            *(({"revision": value}, ".revision") for value in ("", 3, ["main"], "../../refs", "a/../../b", "/etc")),
        )
    ),
    *(
        ({"architecture": architecture, "metadata": {"training_architecture": trained}}, f"trained as {trained}")
        for architecture, trained in (("standard", "jumprelu"), ("topk", "batchtopk"), ("jumprelu", "topk"))
    ),
    ({"written": cfg(architecture="topk")}, "k is 'None', not a positive whole number"),
    ({"written": flat_cfg(activation_fn_str="topk")}, "k is 'None', not a positive whole number"),
    ({"written": flat_cfg(hook_point_head_index=2)}, "hook_head_index = 2"),
]
"""Changes to a configuration, and what its message names: a size, a hook, a setting that would have to be ignored."""


def test_a_cfg_that_cannot_be_followed_is_refused(tmp_path):
    """By the key, on either level of the configuration."""
    for n, (changes, _) in enumerate(REFUSED):
        write_sae(tmp_path / f"{n}", **changes)
    broken(tmp_path, {f"{n}": [word] for n, (_, word) in enumerate(REFUSED)})


def test_an_unknown_hook_is_refused(tmp_path):
    """A hook that is not known is named with those that are."""
    write_sae(tmp_path / "sae", metadata={"hook_name": "blocks.2.hook_mlp_post"})
    refused(tmp_path, "blocks.2.hook_mlp_post", "hook_mlp_out")


def test_a_transcoder_writes_at_another_hook(tmp_path):
    """The hook that is written and its width are the transcoder's own; W_dec and b_dec must have that width."""
    names = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out"}
    folder = write_sae(tmp_path / "sae", architecture="transcoder", d_out=D_IN, metadata=names)
    sae = only(tmp_path)
    assert (sae.hook, sae.hook_out, sae.d_out) == (names["hook_name"], names["hook_name_out"], D_IN)
    cfg_file = folder / "cfg.json"
    cfg_file.write_text(cfg_file.read_text().replace(f'"d_out": {D_IN}', f'"d_out": {D_IN + 1}'))
    refused(tmp_path, "W_dec", str((D_SAE, D_IN + 1)))


def test_the_name_that_transformers_gives_a_place_counts(tmp_path):
    """SAE Lens calls the input of Gemma 3's MLP hook_mlp_in, which to TransformerLens lies before the norm."""
    module = "model.layers.2.pre_feedforward_layernorm.output"
    write_sae(tmp_path / "sae", metadata={"hook_name": "blocks.2.hook_mlp_in", "hf_hook_name": module})
    assert only(tmp_path).hook == "blocks.2.mlp.hook_in"


def test_one_head_of_hook_z(tmp_path):
    """A head is kept for hook_z and refused elsewhere."""
    write_sae(tmp_path / "z", metadata={"hook_name": "blocks.2.attn.hook_z", "hook_head_index": 3})
    assert only(tmp_path).head == 3


@pytest.mark.parametrize(("key", "shape"), [("d_sae", (10**15, D_IN)), ("d_in", (D_SAE, 10**15))])
def test_absurd_sizes_are_refused_without_allocating(tmp_path, key, shape):
    """cfg.json cannot ask for memory that the weights do not fill, whatever their header claims."""
    folder = write_sae(tmp_path / "sae", **{key: 10**15})
    refused(tmp_path, "weights cannot be used")
    for dtype in ("F32", "U64", "F8_E4M3", "F4"):
        header = {"W_dec": {"dtype": dtype, "shape": shape, "data_offsets": [0, 16]}}
        lie = header_bytes(json.dumps(header).encode(), 16)
        (folder / "sae_weights.safetensors").write_bytes(lie)
        refused(tmp_path, "weights cannot be used")


def test_settings_that_ask_for_nothing_are_taken(tmp_path):
    """The same keys with a value that changes nothing, or that SAE Lens applies itself, are no obstacle."""
    settings = [
        ("normalize_activations", "none"),
        ("normalize_activations", "layer_norm"),
        ("normalize_activations", "constant_norm_rescale"),
        ("normalize_activations", MISSING),
        ("hook_head_index", None),
        ("seqpos_slice", None),
        ("seqpos_slice", [None]),
        ("seqpos_slice", [None, None]),
        ("hook_name_out", None),
        ("hook_name_out", "blocks.2.hook_resid_pre"),
        ("hook_name_out", "blocks.3.hook_resid_pre"),
        ("reshape_activations", "none"),
        ("training_architecture", "standard"),
        ("training_architecture", "of one's own"),
    ]
    for n, (key, value) in enumerate(settings):
        write_sae(tmp_path / f"{n}", **{key: value})
    write_sae(tmp_path / "jumprelu", architecture="jumprelu", metadata={"training_architecture": "batchtopk"})
    write_sae(tmp_path / "temporal", architecture="temporal", normalize_activations="constant_scalar_rescale")
    assert [type(sae) for sae in resolve(str(tmp_path)).saes] == [Sae] * (len(settings) + 2)


def field_of(folder, field, cases):
    """Assert what *field* of the SAE is for each value in the metadata of its configuration."""
    for n, (metadata, expected) in enumerate(cases):
        write_sae(folder / f"{n}", metadata=metadata)
        assert getattr(only(folder / f"{n}"), field) is expected, metadata


def test_what_the_cfg_does_not_say_is_not_guessed(tmp_path):
    """Residuals are as they are, the training context and the BOS unknown."""
    kwargs = ({}, None, {"center_writing_weights": False})
    field_of(
        tmp_path / "a", "center_writing_weights", [({"model_from_pretrained_kwargs": each}, False) for each in kwargs]
    )
    contexts = (MISSING, None, "16", 0, -1, True, 16.0)
    field_of(tmp_path / "b", "n_training_context_tokens", [({"context_size": value}, None) for value in contexts])
    said = ((MISSING, None), ("yes", None), (1, None), (True, True), (False, False))
    field_of(tmp_path / "c", "prepend_bos", [({"prepend_bos": value}, expected) for value, expected in said])


def test_the_revision_of_the_model_is_kept(tmp_path):
    """An SAE that was trained on one revision of a model says so, and the plan pins that one."""
    write_sae(tmp_path / "sae", metadata={"model_from_pretrained_kwargs": {"revision": "step1000"}})
    assert only(tmp_path).model_revision == "step1000"


def test_a_flat_cfg_of_earlier_sae_lens_is_read(tmp_path):
    """All on one level, hook_point for the hook, a BOS unless said otherwise."""
    write_sae(tmp_path / "sae", written=flat_cfg())
    sae = only(tmp_path)
    assert (sae.hook, sae.depth) == ("blocks.2.hook_resid_pre", 2)
    assert (sae.n_training_context_tokens, sae.model_name) == (16, "tiny")
    assert sae.prepend_bos is True


def test_the_k_of_a_topk_sae(tmp_path):
    """Of every layout that SAE Lens takes for TopK; other architectures have none."""
    for n, (written, expected) in enumerate(
        [
            (cfg(architecture="topk", k=3), 3),
            (cfg(architecture="abstopk", k=3), 3),
            (flat_cfg(activation_fn_str="topk", activation_fn_kwargs={"k": 3}), 3),
            (flat_cfg(architecture="topk", activation_fn="topk", activation_fn_kwargs={"k": 3}), 3),
            (cfg(architecture="jumprelu", k=3), None),  # once a BatchTopK SAE: it has its k on average alone
            (cfg(), None),
            (flat_cfg(activation_fn_str="relu"), None),
        ]
    ):
        assert only(write_sae(tmp_path / f"{n}", written=written)).k == expected


def test_a_flat_cfg_may_say_that_there_was_no_bos(tmp_path):
    """What an old configuration says of the BOS is believed."""
    write_sae(tmp_path / "sae", written=flat_cfg(prepend_bos=False))
    assert only(tmp_path).prepend_bos is False


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(any_json)
def test_any_value_in_a_cfg_is_read_or_refused(tmp_path_factory, value):
    """Whatever JSON stands where SAE Lens writes something else, the result is an SAE or a broken one."""
    folder = tmp_path_factory.mktemp("any")
    usual = cfg()
    for key in usual:
        write_sae(folder / key, written={**usual, key: value})
    for key in usual["metadata"]:
        write_sae(folder / "metadata" / key, metadata={key: value})
    found = resolve(str(folder))
    assert len(found.saes) == len(usual) + len(usual["metadata"])
    assert all(isinstance(sae, Sae | BrokenSae) for sae in found.saes)


class _Trap:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "name", ["sae_weights.pt", "sae.pth", "weights.pkl", "pytorch_model.bin", "last.ckpt", "w.npz"]
)
def test_a_pickle_is_refused_and_never_loaded(tmp_path, name):
    """Only a pickle is present: it is named, and the code in it does not run."""
    trace = tmp_path / "the-code-ran"
    folder = write_sae(tmp_path / "release" / "sae")
    (folder / "sae_weights.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Trap(trace)))
    refused(tmp_path / "release", "pickle", name)
    assert not trace.exists()
    pickle.loads((folder / name).read_bytes())
    assert trace.exists()  # the trap works: it would have told


def test_missing_weights_are_refused(tmp_path):
    """A configuration alone is no SAE."""
    (write_sae(tmp_path / "sae") / "sae_weights.safetensors").unlink()
    refused(tmp_path, "no sae_weights.safetensors")


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    """Cut in its length, header or data, or with a header that is none: this SAE alone is broken."""
    whole = (write_sae(tmp_path / "whole") / "sae_weights.safetensors").read_bytes()
    headers = (b"garbage!", b"null", b'{"W_dec": {"dtype": "F32", "shape": [1e999]}}')
    contents = [*(whole[:n] for n in (0, 7, 8, 100, -1)), *map(header_bytes, headers)]
    for n, content in enumerate(contents):
        (write_sae(tmp_path / "broken" / f"{n}") / "sae_weights.safetensors").write_bytes(content)
    broken(tmp_path / "broken", {f"{n}": ["weights cannot be used"] for n in range(len(contents))})


def test_weights_of_other_shapes_than_the_cfg_says_are_refused(tmp_path):
    """A tensor that disagrees with d_in and d_sae is named with both shapes."""
    shapes = [("W_dec", (D_SAE, D_IN + 1)), ("W_dec", (D_IN, D_SAE)), ("W_enc", (D_SAE, D_IN)), ("b_dec", (D_SAE,))]
    for n, (name, shape) in enumerate(shapes):
        write_sae(tmp_path / f"{n}", tensors={**weights(), name: np.zeros(shape, np.float32)})
    broken(tmp_path, {f"{n}": [name, str(shape)] for n, (name, shape) in enumerate(shapes)})


def test_weights_without_a_decoder_are_refused(tmp_path):
    """No W_dec, no reconstruction; the names that there are may say why."""
    write_sae(tmp_path / "sae", tensors={"decoder.weight": weights()["W_dec"]})
    refused(tmp_path, "its tensors have other names than SAE Lens's: there is no W_dec", "decoder.weight")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.bool_, np.uint8])
def test_weights_that_are_no_real_numbers_are_refused(tmp_path, dtype):
    """Whole numbers wait for a scale that nothing here knows."""
    write_sae(tmp_path / "sae", tensors={**weights(), "W_enc": weights()["W_enc"].astype(dtype)})
    refused(tmp_path, "W_enc holds no floating-point numbers")


def test_names_with_control_characters_are_escaped(tmp_path):
    """The release's name and an SAE's id are printable, whatever the folders are called."""
    n_written = 0
    for n, name in enumerate(name for name in HOSTILE if "\0" not in name and "/" not in name and len(name) < 100):
        try:
            write_sae(tmp_path / f"{n}" / name / name)
        except (OSError, UnicodeEncodeError):
            continue  # this file system has no such name
        found = resolve(str(tmp_path / f"{n}" / name))
        assert found.sae_ids == (errors.shown(name),)
        assert found.name.isprintable()
        n_written += 1
    assert n_written > 3


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_a_cfg_are_escaped(tmp_path, name):
    """No text of a configuration adds a line or a control character, in an SAE or in the reason why it is broken."""
    write_sae(tmp_path / "read", architecture=name, metadata={"model_name": name})
    for key in ("hook_name", "hook_name_out", "seqpos_slice", "hook_head_index"):
        write_sae(tmp_path / key, metadata={key: name})
    write_sae(tmp_path / "norm", normalize_activations=name)
    write_sae(tmp_path / "size", d_in=name)
    write_sae(tmp_path / "value", metadata={"model_from_pretrained_kwargs": {"revision": name}})
    write_sae(tmp_path / "key", metadata={"model_from_pretrained_kwargs": {name: 1}})
    read, *broken_ones = resolve(str(tmp_path)).saes
    assert read.model_name.isprintable()
    assert read.architecture.isprintable()
    for sae in broken_ones:
        lines = sae.problem.split("\n")
        assert (sae.sae_id, len(lines)) == (sae.sae_id, 4)
        assert (sae.sae_id, [line for line in lines if not line.isprintable()]) == (sae.sae_id, [])


@pytest.mark.parametrize(
    "names",
    [("deep/" * 30 + "first", "deep/" * 30 + "other"), ("esc\x1b", "esc\\x1b")],
    ids=["alike for 150 characters", "alike once escaped"],
)
def test_no_two_saes_share_an_id(tmp_path, names):
    """Verdicts are kept by id: two SAEs of one id would hide one behind the other."""
    for name in names:
        write_sae(tmp_path / name)
    try:
        sae_ids = resolve(str(tmp_path)).sae_ids
    except errors.UsageError:
        return  # refusing such a release is right too
    assert len(set(sae_ids)) == 2


def test_the_demo_is_whole():
    """`demo` brings SAEs, a model and both corpora, and all of its SAEs can be read."""
    found = resolve("demo")
    assert found.source == "embedded"
    assert found.saes
    assert all(isinstance(sae, Sae) for sae in found.saes)
    assert found.model.is_dir()
    assert found.corpus.is_file()
    assert found.lambada.is_file()
    assert found.cbt.is_file()


def test_the_broken_demo_differs_in_one_sae():
    """`demo-broken` is `demo` with one SAE damaged, in the same place and under the same id."""
    whole, broken = resolve("demo"), resolve("demo-broken")
    assert broken.sae_ids == whole.sae_ids
    assert [a.sae_id for a, b in zip(whole.saes, broken.saes, strict=True) if a != b] == ["blocks.2.hook_resid_pre"]


def test_a_hash_is_that_of_the_bytes(tmp_path):
    """sha256 of the file as any other tool gives it."""
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert release.sha256_of(tmp_path / "abc") == expected
