"""Both backends against plain transformers and each other, for every family and hook."""

import pytest
import tiny
import torch

from sae_checks import errors
from sae_checks.model.interface import replace_with
from sae_checks.release import hooks

FAMILIES = list(tiny.FAMILIES)


@pytest.fixture
def tokens():
    return torch.from_numpy(tiny.sequences(lengths=(20, 20, 20)).tokens)


CASES = [(family, hook) for family in FAMILIES for hook in tiny.hooks_of(family)]


@pytest.mark.parametrize("family", FAMILIES)
def test_captures_are_the_residual_stream(tiny_models, family, tokens):
    """What a hook carries is what transformers calls the hidden state before that block."""
    model = tiny_models[family]
    clean = model.clean(tokens, tiny.HOOKS)
    expected = tiny.plain_hidden_states(model._model, tokens)
    for layer in range(tiny.N_LAYERS):
        assert torch.equal(clean.activation(f"blocks.{layer}.hook_resid_pre"), expected[layer])


@pytest.mark.parametrize(("family", "hook"), CASES)
def test_resuming_with_what_was_captured_changes_nothing(tiny_models, family, hook, tokens):
    """Resumed with its own activation a model computes what it computed; between blocks bit for bit."""
    model = tiny_models[family]
    clean = model.clean(tokens, [hook])
    resumed = model.resume(clean, {hook: replace_with(clean.activation(hook))})
    if hook in tiny.HOOKS:
        assert torch.equal(resumed, clean.hidden)
    assert torch.allclose(resumed, clean.hidden, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "hook"), [case for case in CASES if not case[1].endswith(("resid_mid", "normalized"))]
)
def test_resuming_equals_a_whole_spliced_pass(tiny_models, family, hook, tokens):
    """Resumed with a changed activation it gives the logits of a full pass in which a PyTorch hook makes the change."""
    model = tiny_models[family]
    got = model.logits(model.resume(model.clean(tokens, [hook]), {hook: torch.sin}))
    assert torch.equal(got, tiny.plain_logits(model._model, tokens, hook, torch.sin))
    assert not torch.allclose(got, tiny.plain_logits(model._model, tokens), atol=1e-3)


def test_the_gelu_of_one_kernel_is_transformers_own():
    """GPT-2's activation is exchanged for torch's, which is the same function, and the predictions stay."""
    raw = tiny.raw_model("gpt2")
    tokens = torch.arange(12)[None] + 2
    theirs = raw.transformer.h[0].mlp.act
    expected = torch.log_softmax(tiny.plain_logits(raw, tokens), -1)
    tiny.HuggingFaceModel(raw, tiny.NoTokenizer(), source="gpt2")
    ours = raw.transformer.h[0].mlp.act
    assert (type(theirs).__name__, type(ours).__name__) == ("NewGELUActivation", "GELU")
    x = torch.linspace(-12, 12, 10_001)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(torch.log_softmax(tiny.plain_logits(raw, tokens), -1), expected, atol=1e-5)


@pytest.mark.parametrize(("family", "hook"), CASES)
def test_the_backends_agree(tiny_models, hooked_models, family, hook, tokens):
    """Both carry the same at every hook and, with the same change made there, predict the same to 1e-4 nats."""
    ours, theirs = tiny_models[family], hooked_models[family]
    assert ours.width("an SAE", hook) == theirs.width("an SAE", hook)
    clean, hooked = (model.clean(tokens, [hook]) for model in (ours, theirs))
    assert torch.allclose(clean.activation(hook), hooked.activation(hook), atol=1e-4, rtol=1e-4)
    for edits in (torch.sin, torch.zeros_like):
        expected, got = (
            torch.log_softmax(m.logits(m.resume(c, {hook: edits}).flatten(0, 1)), -1)
            for m, c in ((ours, clean), (theirs, hooked))
        )
        of_tokens = tokens.flatten()[:, None]
        assert (expected - got).gather(-1, of_tokens).abs().max() < 1e-4
    assert torch.allclose(
        theirs.resume(hooked, {hook: replace_with(hooked.activation(hook))}), hooked.hidden, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_several_hooks_are_changed_in_one_pass(tiny_models, hooked_models, family, tokens):
    """Changes in two blocks, the later of what the earlier left: both backends agree, and differ from either alone."""
    edits = {"blocks.2.hook_resid_pre": torch.sin, "blocks.1.hook_attn_out": torch.cos}
    both, first = [], []
    for model in (tiny_models[family], hooked_models[family]):
        clean = model.clean(tokens, edits)
        both.append(model.resume(clean, edits))
        first.append(model.resume(clean, {"blocks.1.hook_attn_out": torch.cos}))
    assert torch.allclose(both[0], both[1], atol=1e-4)
    assert not torch.allclose(both[0], first[0], atol=1e-2)


@pytest.mark.parametrize("family", tiny.LAYER_NORM)
def test_processing_centres_what_the_other_backend_centres(tiny_models, family, tokens):
    """With center_writing_weights TransformerLens carries, at every hook, what is_centred says of it."""
    centred = tiny.hooked(family, "center_writing_weights")
    for hook in tiny.hooks_of(family):
        x = tiny_models[family].clean(tokens, [hook]).activation(hook)
        expected = x - x.mean(-1, keepdim=True) if hooks.parse(hook).is_centred else x
        assert torch.allclose(centred.clean(tokens, [hook]).activation(hook), expected, atol=1e-4), hook


def test_a_block_that_is_not_understood_is_refused():
    """A block whose output is not its input plus attention plus MLP has no inner hooks, and all others still."""
    raw = tiny.raw_model("llama")
    mlp = raw.model.layers[1].mlp
    mlp.register_forward_hook(lambda _, __, output: output * 2)  # behind the place where the output is looked at
    model = tiny.HuggingFaceModel(raw, tiny.NoTokenizer(), source="odd")
    model._blocks[1].register_forward_hook(lambda _, __, output: output * 1.5)
    with pytest.raises(errors.HookNotHereError, match="block 1 is not its input plus"):
        model.width("an SAE", "blocks.0.hook_mlp_out")
    assert model.width("an SAE", "blocks.0.hook_resid_pre") == tiny.D_MODEL


@pytest.mark.parametrize("family", FAMILIES)
def test_right_padding_does_not_reach_real_positions(tiny_models, family, tokens):
    """Cutting a sequence leaves the hidden states of what remains alone, so padding needs no attention mask."""
    model = tiny_models[family]
    whole, cut = model.clean(tokens, []).hidden, model.clean(tokens[:, :11], []).hidden
    assert torch.allclose(whole[:, :11], cut, atol=1e-5)


def test_a_model_is_itself_again_after_resuming(tiny_models, tokens):
    """The blocks stand in place again, also when a resumed pass fails in the middle."""
    model = tiny_models["gpt2"]
    before = list(model._blocks)
    with pytest.raises(RuntimeError):
        model.resume(model.clean(tokens, tiny.HOOKS), {tiny.HOOKS[1]: lambda x: x[..., 1:]})
    assert list(model._blocks) == before
    assert torch.equal(model.logits(model.clean(tokens, []).hidden), tiny.plain_logits(model._model, tokens))


def test_a_hook_that_does_not_fire_is_an_error():
    """A block that the model passes over leaves its hook silent, and that must never look like a harmless splice."""
    model = tiny.model("llama")
    model._model.config.num_hidden_layers = 2  # LlamaModel runs layers[:num_hidden_layers]
    tokens = torch.ones(1, 5, dtype=torch.long)
    hook = "blocks.2.hook_resid_post"
    clean = model.clean(tokens, [hook, tiny.HOOKS[0]])
    with pytest.raises(errors.MeasuringError, match=r"fired 0 times in 1 forward"):
        clean.activation(hook)
    assert clean.activation(tiny.HOOKS[0]).shape == (1, 5, tiny.D_MODEL)
    with pytest.raises(errors.MeasuringError, match=r"fired 0 times in 1 forward"):
        model.resume(clean, {tiny.HOOKS[0]: torch.sin, hook: torch.sin})


def test_a_hook_that_fires_twice_is_an_error():
    """A block that runs twice per pass is spliced twice: the count says so."""
    model = tiny.model("gpt2")
    model._model.transformer.forward = _run_block_again(model._model.transformer)
    with pytest.raises(errors.MeasuringError, match=r"fired 2 times in 1 forward"):
        model.clean(torch.ones(1, 5, dtype=torch.long), [tiny.HOOKS[2]]).activation(tiny.HOOKS[2])


def _run_block_again(base):
    original = base.forward

    def forward(*args, **kwargs):
        output = original(*args, **kwargs)
        base.h[1](output.last_hidden_state)
        return output

    return forward


@pytest.mark.parametrize("backend", ["tiny_models", "hooked_models"])
@pytest.mark.parametrize(
    ("family", "hook", "message"),
    [
        ("gpt2", "blocks.3.hook_resid_pre", "beyond the model's last layer"),
        ("gpt2", "blocks.3.hook_resid_post", "beyond the model's last layer"),
        ("gpt2", "blocks.3.hook_mlp_out", "beyond the model's last layer"),
        ("gpt2", "blocks.0.hook_mlp_post", "is not known"),
        ("gpt2", "blocks.0.attn.hook_result", "is not known"),
        ("gpt_neox", "blocks.0.hook_resid_mid", "cannot be spliced"),
    ],
)
def test_a_hook_the_model_does_not_have_is_refused(backend, family, hook, message, request):
    """Unknown hooks, those that exist and do not fire, and layers that are not there are errors of that SAE."""
    with pytest.raises(errors.SaeError, match=message):
        request.getfixturevalue(backend)[family].width("an SAE", hook)


def test_a_head_that_does_more_is_refused():
    """A model whose logits do not follow from head(hidden) is not measured with wrong logits."""
    raw = tiny.raw_model("gpt2")
    original = raw.forward

    def scaled(*args, **kwargs):
        output = original(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    raw.forward = scaled
    with pytest.raises(errors.MeasuringError, match="its logits differ"):
        tiny.HuggingFaceModel(raw, tiny.NoTokenizer(), source="scaled")


def test_layer_norm_models_are_told_from_rms_norm_models(tiny_models):
    """Only a LayerNorm model cannot tell a residual from its centred copy."""
    assert {family for family, model in tiny_models.items() if model.uses_layer_norm} == set(tiny.LAYER_NORM)
