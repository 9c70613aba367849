"""The Hugging Face backend against plain transformers, for every family."""

import pytest
import tiny
import torch

from sae_checks import errors

FAMILIES = list(tiny.FAMILIES)


@pytest.fixture
def tokens():
    return torch.from_numpy(tiny.sequences(lengths=(20, 20, 20)).tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_captures_are_the_residual_stream(tiny_models, family, tokens):
    """What a hook carries is what transformers calls the hidden state before that block."""
    model = tiny_models[family]
    captured = model.clean(tokens, tiny.HOOKS).activations
    expected = tiny.plain_hidden_states(model._model, tokens)
    for layer in range(tiny.N_LAYERS):
        assert torch.equal(captured[f"blocks.{layer}.hook_resid_pre"], expected[layer])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hook", tiny.HOOKS)
def test_resuming_with_what_was_captured_changes_nothing(tiny_models, family, hook, tokens):
    """Resumed with its own activation a model computes, bit for bit, what it computed."""
    model = tiny_models[family]
    clean = model.clean(tokens, [hook])
    assert torch.equal(model.resume(tokens, hook, clean.activations[hook]), clean.hidden)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hook", tiny.HOOKS)
def test_resuming_equals_a_whole_spliced_pass(tiny_models, family, hook, tokens):
    """Resumed with a changed activation it gives the logits of a full pass in which a PyTorch hook makes the change."""
    model = tiny_models[family]
    changed = model.clean(tokens, [hook]).activations[hook].sin()
    got = model.logits(model.resume(tokens, hook, changed))
    assert torch.equal(got, tiny.plain_logits(model._model, tokens, hook, torch.sin))
    assert not torch.allclose(got, tiny.plain_logits(model._model, tokens), atol=1e-3)


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
        model.resume(tokens, tiny.HOOKS[1], torch.zeros(3, 20, tiny.D_MODEL + 1))
    assert list(model._blocks) == before
    assert torch.equal(model.logits(model.clean(tokens, []).hidden), tiny.plain_logits(model._model, tokens))


def test_a_hook_that_does_not_fire_is_an_error():
    """A block that the model passes over leaves its hook silent, and that must never look like a harmless splice."""
    model = tiny.model("llama")
    model._model.config.num_hidden_layers = 2  # LlamaModel runs layers[:num_hidden_layers]
    tokens = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(errors.MeasuringError, match=r"fired 0 times in 1 forward"):
        model.clean(tokens, ["blocks.2.hook_resid_pre"])
    with pytest.raises(errors.MeasuringError, match=r"fired 0 times in 1 forward"):
        model.resume(tokens, "blocks.2.hook_resid_post", torch.zeros(1, 5, tiny.D_MODEL))


def test_a_hook_that_fires_twice_is_an_error():
    """A block that runs twice per pass is spliced twice: the count says so."""
    model = tiny.model("gpt2")
    model._model.transformer.forward = _run_block_again(model._model.transformer)
    with pytest.raises(errors.MeasuringError, match=r"fired 2 times in 1 forward"):
        model.clean(torch.ones(1, 5, dtype=torch.long), ["blocks.1.hook_resid_pre"])


def _run_block_again(base):
    original = base.forward

    def forward(*args, **kwargs):
        output = original(*args, **kwargs)
        base.h[1](output.last_hidden_state)
        return output

    return forward


@pytest.mark.parametrize(
    ("hook", "d_in", "message"),
    [
        ("blocks.3.hook_resid_pre", tiny.D_MODEL, "beyond the model's last layer"),
        ("blocks.3.hook_resid_post", tiny.D_MODEL, "beyond the model's last layer"),
        ("blocks.0.hook_mlp_in", tiny.D_MODEL, "is not known"),
        ("blocks.0.hook_resid_pre", tiny.D_MODEL + 1, "reads 17 dimensions"),
    ],
)
def test_a_hook_the_model_does_not_have_is_refused(tiny_models, hook, d_in, message):
    """Unknown hooks, layers that are not there and wrong widths are errors of that SAE."""
    with pytest.raises(errors.SaeError, match=message):
        tiny_models["gpt2"].check_hook("an SAE", hook, d_in)


def test_the_last_blocks_output_and_input_are_hooks(tiny_models):
    """Every hook up to the last block's output is accepted."""
    for hook in tiny.HOOKS:
        tiny_models["gpt2"].check_hook("an SAE", hook, tiny.D_MODEL)


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
    assert {family for family, model in tiny_models.items() if model.uses_layer_norm} == {"gpt2", "gpt_neox"}
