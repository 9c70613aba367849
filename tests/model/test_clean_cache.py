"""Clean passes kept between runs: to the bit what the model computes, and never another computation's."""

import json
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import strategies  # noqa: F401 -- its hypothesis profile
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sae_checks.measuring import corpus_pass
from sae_checks.model import clean_cache, numerics
from sae_checks.model.clean_cache import CachedModel, CleanCacheWarning
from sae_checks.model.interface import instead

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ("gpt2", "llama", "gemma2")


class Counted:
    """A model that counts its clean passes, by hooks."""

    def __init__(self, model):
        self._counted, self.asked = model, []

    def __getattr__(self, name):
        return getattr(self._counted, name)

    def clean(self, tokens, hooks):
        if hooks != ():  # the probe's
            self.asked.append(frozenset(hooks))
        return self._counted.clean(tokens, hooks)


@pytest.fixture(autouse=True, scope="module")
def understood(tiny_models, hooked_models):
    """As in a run, every model is asked for its widths before anything else."""
    for models in (tiny_models, hooked_models):
        for family, model in models.items():
            for hook in tiny.hooks_of(family):
                model.width("an SAE", hook)


@pytest.fixture
def tokens():
    return torch.from_numpy(tiny.sequences(lengths=(20, 20, 20)).tokens)


@pytest.fixture
def model(tiny_models):
    return Counted(tiny_models["gpt2"])


def files(folder):
    return sorted(Path(folder).rglob("*.safetensors"))


def assert_same(got, expected):
    """To the bit, in shape, type and order in memory; and the same tensors are the same."""
    assert torch.equal(got.tokens, expected.tokens)
    assert got.captured.keys() == expected.captured.keys()
    assert got.boundaries.keys() == expected.boundaries.keys()
    pairs = [(got.hidden, expected.hidden)]
    pairs += [(got.boundaries[n], expected.boundaries[n]) for n in expected.boundaries]
    for hook, fired in expected.captured.items():
        pairs += zip(got.captured[hook], fired, strict=True)
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8))
        assert ours.data_ptr() % 64 == 0  # where torch lays what it computes


@pytest.mark.parametrize("backend", ["tiny_models", "hooked_models"])
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_stored_pass_is_the_computed_one(request, backend, family, tokens, tmp_path):
    """Every hook of every family, in both backends; and what is resumed from it is the same to the bit."""
    model = request.getfixturevalue(backend)[family]
    hooks = tiny.hooks_of(family)
    CachedModel(model, tmp_path).clean(tokens, hooks)
    counted = Counted(model)
    stored, computed = CachedModel(counted, tmp_path).clean(tokens, hooks), model.clean(tokens, hooks)
    assert counted.asked == []
    assert_same(stored, computed)
    for hook in hooks:
        ours, theirs = (model.resume(clean, {hook: torch.sin}) for clean in (stored, computed))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", ["tiny_models", "hooked_models"])
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_hook_that_only_looks_changes_nothing(request, backend, family, tokens):
    """What the cache gives of a pass with more hooks is the pass with fewer: those it takes for harmless are."""
    model = request.getfixturevalue(backend)[family]
    hooks = [hook for hook in tiny.hooks_of(family) if not clean_cache._disturbs(hook)]
    assert len(hooks) >= 7
    for some in (hooks[:1], hooks[2:5]):
        assert_same(clean_cache._of_hooks(model.clean(tokens, hooks), some), model.clean(tokens, some))


def test_a_hook_that_does_more_than_look_is_told_apart(tiny_models, tokens, tmp_path):
    """GPT-2 with the norm's hook differs in its last bits from GPT-2 without: each is its own entry."""
    model, hook, other = tiny_models["gpt2"], "blocks.1.ln2.hook_normalized", tiny.HOOKS[2]
    cached = CachedModel(model, tmp_path)
    assert not torch.equal(model.clean(tokens, [hook, other]).hidden, model.clean(tokens, [other]).hidden)
    for _ in range(2):
        for hooks in ([other], [hook, other], [hook]):
            assert_same(cached.clean(tokens, hooks), model.clean(tokens, hooks))
    assert len(files(tmp_path)) == 2


@st.composite
def calls(draw):
    family = draw(st.sampled_from(FAMILIES))
    hooks = st.frozensets(st.sampled_from(tiny.hooks_of(family)), max_size=4)
    return family, draw(st.lists(st.tuples(st.integers(0, 2), hooks, st.booleans()), min_size=1, max_size=6))


@given(asked=calls(), seed=st.integers(0, 2**16), n_rows=st.integers(1, 3), n_positions=st.integers(1, 24))
def test_any_sequence_of_calls_gives_what_the_model_gives(tiny_models, asked, seed, n_rows, n_positions):
    """Any tokens, any hooks, in any order, in this process or as if in the next: the wrapper is the model."""
    family, sequence = asked
    model, generator = tiny_models[family], torch.Generator().manual_seed(seed)
    batches = [torch.randint(tiny.N_VOCABULARY, (n_rows, n_positions), generator=generator) for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedModel(model, Path(folder))
        for which, hooks, is_next_run in sequence:
            if is_next_run:
                cached = CachedModel(model, Path(folder))
            assert_same(cached.clean(batches[which], hooks), model.clean(batches[which], hooks))


def test_other_hooks_are_computed_and_all_are_kept(model, tokens, tmp_path):
    """A pass with some hooks that is asked for others is computed with all of both, and then serves every subset."""
    first, second, third = (frozenset([hook]) for hook in tiny.HOOKS[:3])
    for hooks in (first, second | third, first | second, third, frozenset()):
        CachedModel(model, tmp_path).clean(tokens, hooks)
    assert model.asked == [first, first | second | third]
    assert len(files(tmp_path)) == 1


def test_the_residual_stream_is_stored_once(model, tokens, tmp_path):
    """A hook that is the boundary of its block, and the same point under two names, take no room of their own."""
    hooks = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out")
    clean = CachedModel(model, tmp_path).clean(tokens, hooks)
    assert len(clean.captured) + len(clean.boundaries) + 1 == 5
    (path,) = files(tmp_path)
    assert len(load_file(path)) == 3  # hidden, the residual stream, the MLP's output
    stored = CachedModel(model, tmp_path).clean(tokens, hooks)
    assert stored.activation(hooks[0]) is stored.activation(hooks[1]) is stored.boundaries[1]


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


BYTES = {
    "cut short": lambda content: content[:-30],
    "longer": lambda content: content + b"x",
    "empty": lambda _: b"",
    "not safetensors": lambda _: b"no tensors" * 100,
    "a bit of the data": lambda content: flipped(content, len(content) - 5),
    "a hook's name": lambda content: flipped(content, content.index(b"blocks.1") + 7),
    "a checksum": lambda content: flipped(content, content.index(b"checksums") + 22),
}


def reshaped(tensors, _):
    return {name: tensor.flatten(0, 1).contiguous() for name, tensor in tensors.items()}


def lacking(tensors, header):
    hidden = json.loads(header["contents"])["hidden"]
    return {name: tensor for name, tensor in tensors.items() if name != hidden}


def zeroed(tensors, _):
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def unnamed(tensors, header):
    header.clear()
    return tensors


def exchanged(tensors, header):
    """The residual stream for what the unembedding reads, both sound."""
    contents = json.loads(header["contents"])
    contents["hidden"] = contents["captured"][tiny.HOOKS[1]][0]
    header["contents"] = json.dumps(contents)
    return tensors


TENSORS = {
    "another shape": reshaped,
    "a tensor lacks": lacking,
    "zeros": zeroed,
    "no header": unnamed,
    "other contents": exchanged,
}


def damaged(path, how):
    if how in BYTES:
        path.write_bytes(BYTES[how](path.read_bytes()))
        return
    with clean_cache.safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = TENSORS[how](load_file(path), header)
    save_file(tensors, path, metadata=header or None)


@pytest.mark.parametrize("how", [*BYTES, *TENSORS])
def test_a_damaged_file_is_computed_again_and_replaced(model, tokens, tmp_path, how):
    """Whatever happened to it, the model computes, and then the cache serves it again."""
    hooks = frozenset(tiny.HOOKS[:2])
    CachedModel(model, tmp_path).clean(tokens, hooks)
    (path,) = files(tmp_path)
    before = path.read_bytes()
    damaged(path, how)
    assert path.read_bytes() != before
    expected = model._counted.clean(tokens, hooks)
    assert_same(CachedModel(model, tmp_path).clean(tokens, hooks), expected)
    assert len(model.asked) == 2
    assert_same(CachedModel(model, tmp_path).clean(tokens, hooks), expected)
    assert len(model.asked) == 2


def test_a_file_under_another_s_name_is_not_believed(model, tokens, tmp_path):
    """A whole and sound file of other tokens, of the same shape, is computed anew."""
    cached = CachedModel(model, tmp_path)
    other = tokens.flip(0)
    cached.clean(tokens, tiny.HOOKS)
    (of_tokens,) = files(tmp_path)
    cached.clean(other, tiny.HOOKS)
    (of_other,) = set(files(tmp_path)) - {of_tokens}
    shutil.copy(of_tokens, of_other)
    assert_same(cached.clean(other, tiny.HOOKS), model._counted.clean(other, tiny.HOOKS))
    assert len(model.asked) == 3


def test_tokens_count_with_their_shape(model, tokens, tmp_path):
    """The same numbers in another shape, or one other token, are another computation."""
    cached, changed = CachedModel(model, tmp_path), tokens.clone()
    changed[1, 3] += 1
    for asked in (tokens, tokens.reshape(6, 10), changed, tokens[:, :19]):
        assert_same(cached.clean(asked, tiny.HOOKS), model._counted.clean(asked, tiny.HOOKS))
    assert len(model.asked) == len(files(tmp_path)) == 4


def test_threads_count(model, tokens, tmp_path):
    """Sums over threads may differ in their last bits, also when their number changes within a run."""
    cached = CachedModel(model, tmp_path)
    cached.clean(tokens, tiny.HOOKS)
    torch.set_num_threads(2)
    try:
        cached.clean(tokens, tiny.HOOKS)
        assert len(model.asked) == 2
    finally:
        torch.set_num_threads(1)


def changed_weight():
    model = tiny.model("gpt2")
    with torch.no_grad():
        model.module.transformer.h[2].mlp.c_proj.weight[3, 4] *= 1 + 2**-20
    return model


def changed_in_its_code():
    model = tiny.model("gpt2")
    model.module.transformer.h[1].mlp.act = torch.nn.ReLU()
    return model


def changed_behind_its_back():
    """Neither its weights nor its modules tell: only what it computes."""
    model = tiny.model("gpt2")
    model.module.transformer.h[1].register_forward_hook(lambda _, __, output: output * 1.001)
    return model


def changed_configuration():
    model = tiny.model("gpt2")
    model.module.config.attn_pdrop = 0.2
    return model


def other_attention():
    model = tiny.model("gpt2")
    model.module.set_attn_implementation("eager")
    return model


def changed_facts(**facts):
    model = tiny.model("gpt2")
    model.facts = replace(model.facts, **facts)
    return model


OTHERS = {
    "one weight in one bit or so": changed_weight,
    "another activation": changed_in_its_code,
    "a hook that nobody knows of": changed_behind_its_back,
    "a setting": changed_configuration,
    "another attention": other_attention,
    "in bfloat16": lambda: tiny.HuggingFaceModel(tiny.raw_model("gpt2").bfloat16(), tiny.NoTokenizer(), source="gpt2"),
    "in TransformerLens": lambda: tiny.hooked("gpt2"),
    "centred in TransformerLens": lambda: tiny.hooked("gpt2", "center_writing_weights"),
    "on another device": lambda: changed_facts(device="mps"),
    "another family": lambda: tiny.model("llama"),
}


def test_every_model_is_another():
    """Whatever a pass depends on gives another fingerprint; the same model, loaded again from elsewhere, the same."""
    found = {name: numerics.fingerprint(make()) for name, make in OTHERS.items()}
    found["itself"] = numerics.fingerprint(tiny.model("gpt2"))
    assert len({*found.values()}) == len(found), found
    assert numerics.fingerprint(changed_facts(source="elsewhere")) == found["itself"]


def test_what_computes_counts(tiny_models, monkeypatch):
    """Versions, our own code, switches and environment of torch: each gives another fingerprint."""
    model, version = tiny_models["gpt2"], numerics.metadata.version
    found = {numerics.fingerprint(model)}
    for package in ("torch", "transformers", "transformer-lens", "numpy"):
        with monkeypatch.context() as patch:
            patch.setattr(numerics.metadata, "version", lambda name, p=package: version(name) + "x" * (name == p))
            found.add(numerics.fingerprint(model))
    with monkeypatch.context() as patch:
        patch.setattr(numerics, "_of_code", lambda: "another")
        found.add(numerics.fingerprint(model))
    with monkeypatch.context() as patch:
        patch.setattr(numerics, "_processor", lambda: "another")
        found.add(numerics.fingerprint(model))
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found.add(numerics.fingerprint(model))
    torch.set_num_threads(2)
    found.add(numerics.fingerprint(model))
    torch.set_num_threads(1)
    assert len(found) == 9
    monkeypatch.delenv("MKL_CBWR")
    assert numerics.fingerprint(model) in found


def test_a_full_disk_is_said_once_and_the_run_goes_on(model, tokens, tmp_path, monkeypatch):
    """Nothing is written where less than a tenth of the disk or 2 GiB would be left, and nothing goes wrong."""
    gib = 2**30
    for disk in ((100 * gib, 10 * gib), (8 * gib, 2 * gib)):
        monkeypatch.setattr(clean_cache.shutil, "disk_usage", lambda _, d=disk: SimpleNamespace(total=d[0], free=d[1]))
        cached = CachedModel(model, tmp_path)
        with pytest.warns(CleanCacheWarning, match="the run goes on"):
            first = cached.clean(tokens, tiny.HOOKS)
        assert_same(first, model._counted.clean(tokens, tiny.HOOKS))
        cached.clean(tokens.flip(0), tiny.HOOKS)  # in silence, or the warning would be an error
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.setattr(
        clean_cache.shutil, "disk_usage", lambda _: SimpleNamespace(total=100 * gib, free=10 * gib + 2**20)
    )
    CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    assert len(files(tmp_path)) == 1


def test_a_full_cache_is_still_read(model, tokens, tmp_path, monkeypatch):
    """What lies there serves; what does not is computed with the hooks that were asked, and no more."""
    first, second = (frozenset([hook]) for hook in tiny.HOOKS[:2])
    CachedModel(model, tmp_path).clean(tokens, first)
    monkeypatch.setattr(clean_cache.shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, free=0))
    cached = CachedModel(model, tmp_path)
    cached.clean(tokens, first)
    assert len(model.asked) == 1
    with pytest.warns(CleanCacheWarning):
        cached.clean(tokens, second)
    cached.clean(tokens, second)
    cached.clean(tokens, first)
    assert model.asked == [first, first | second, second]


def test_a_warning_made_an_error_does_not_end_the_run(model, tokens, tmp_path):
    """With `-W error` it is said all the same, and computed."""
    (tmp_path / "taken").touch()
    cached = CachedModel(model, tmp_path / "taken")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("error")
        got = cached.clean(tokens, tiny.HOOKS)
    assert [(one.category, "Error" in str(one.message)) for one in said] == [(CleanCacheWarning, True)]
    assert_same(got, model._counted.clean(tokens, tiny.HOOKS))


def test_a_folder_in_the_file_s_place_costs_time_alone(model, tokens, tmp_path):
    """It cannot be replaced, and is left alone; nothing half written stays."""
    CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    (path,) = files(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.warns(CleanCacheWarning):
        CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_what_a_killed_run_left_is_removed(model, tokens, tmp_path, monkeypatch):
    """After a day; what another process may be writing now stays."""
    CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    (path,) = files(tmp_path)
    part = path.with_name(".x.1.abc.part")
    part.touch()
    CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    assert part.exists()
    monkeypatch.setattr(clean_cache, "_N_SECONDS_HALF_WRITTEN", -1)
    CachedModel(model, tmp_path).clean(tokens, tiny.HOOKS)
    assert not part.exists()
    assert files(tmp_path) == [path]


def test_a_hook_that_never_fires_stays_one(tmp_path):
    """What a pass lacks is not made up by the cache: as without it, asking for that activation is the error."""
    model = tiny.model("llama")
    model._model.config.num_hidden_layers = 2  # LlamaModel runs layers[:num_hidden_layers]
    tokens, hook = torch.ones(1, 5, dtype=torch.long), "blocks.2.hook_resid_post"
    for _ in range(2):
        clean = CachedModel(model, tmp_path).clean(tokens, [hook, tiny.HOOKS[0]])
        assert_same(clean, model.clean(tokens, [hook, tiny.HOOKS[0]]))


def test_it_is_the_model_in_everything_else(tiny_models, tokens, tmp_path):
    """Facts, widths, logits and resumed passes are the model's own."""
    model = tiny_models["llama"]
    cached = CachedModel(model, tmp_path)
    for name in ("facts", "tokenizer", "device", "uses_layer_norm", "n_heads", "n_logits"):
        assert getattr(cached, name) == getattr(model, name), name
    assert cached.width("an SAE", tiny.HOOKS[1]) == tiny.D_MODEL
    clean = cached.clean(tokens, [tiny.HOOKS[1]])
    edits = {tiny.HOOKS[1]: instead(clean.activation(tiny.HOOKS[1]))}
    assert torch.equal(cached.logits(cached.resume(clean, edits)), model.logits(model.resume(clean, edits)))
    room = torch.empty(3, 20, tiny.N_VOCABULARY)
    assert cached.logits(clean.hidden, out=room) is room


def test_losses_are_the_same_to_the_bit_as_saes_leave(tiny_models, tmp_path):
    """Rounds, SAEs that leave, batches of several lengths: without cache, cold and warm."""
    sequences = tiny.sequences(lengths=(24, 5, 17, 24, 9, 12) * 3)
    saes = [tiny.random_sae(hook, seed=i) for i, hook in enumerate(tiny.HOOKS)]
    rounds = corpus_pass.Rounds(ends=(6, 12, 18), goes_on=lambda i, losses: i != 1 and len(losses.documents) < 12)
    counted = Counted(tiny_models["gpt2"])
    plain, cold, warm = (
        corpus_pass.measure_text(model, saes, sequences, n_batch_tokens=64, progress=lambda *_: None, rounds=rounds)
        for model in (tiny_models["gpt2"], CachedModel(counted, tmp_path), CachedModel(counted, tmp_path))
    )
    assert len(counted.asked) == len(files(tmp_path)) > 4  # by the cold run alone
    for a, b, c in zip(plain, cold, warm, strict=True):
        assert a.within.ce_spliced_nats.tobytes() == b.within.ce_spliced_nats.tobytes()
        assert repr(a) == repr(b) == repr(c)
        for name in ("ce_clean_nats", "ce_spliced_nats", "kl_nats", "n_tokens"):
            of = [getattr(each.within, name).tobytes() for each in (a, b, c)]
            assert of[0] == of[1] == of[2], name
