"""Hook names: TransformerLens's, and transformers' module names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_checks.release import hooks


@given(st.integers(0, 9999))
def test_the_output_of_a_block_is_the_input_of_the_next(layer):
    """Both names are one point of the residual stream, between all that lies within the two blocks."""
    post, pre = (hooks.parse(name) for name in (f"blocks.{layer}.hook_resid_post", f"blocks.{layer}.hook_resid_pre"))
    assert post.boundary == layer + 1
    assert pre.boundary == layer
    assert post.depth == hooks.parse(f"blocks.{(layer + 1) % 10000}.hook_resid_pre").depth or layer == 9999


def test_within_a_block_depth_follows_the_computation():
    """The order in which the names are listed is the order in which a block computes them."""
    depths = [hooks.parse(name.replace("L", "3")).depth for name in hooks.KNOWN]
    assert depths == sorted(set(depths))
    assert [hooks.parse(name.replace("L", "3")).boundary for name in hooks.KNOWN] == [3, *[None] * 7, 4]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hook_embed",
        "blocks.2.hook_mlp_post",
        "blocks.2.attn.hook_result",
        "blocks.2.hook_q_input",
        "blocks.-1.hook_resid_pre",
        "blocks.12345.hook_resid_pre",
        "blocks.2.hook_resid_pre.hook",
        "xblocks.2.hook_resid_pre",
        "blocks.2.hook_resid_pre\n",
        "blocks_2_hook_resid_pre",
    ],
)
def test_other_names_are_no_hooks(name):
    """What is not one of the names, whole and exact, is not guessed at."""
    assert hooks.parse(name) is None


@pytest.mark.parametrize(
    ("module", "hook"),
    [
        ("model.layers.3", "blocks.3.hook_resid_post"),
        ("model.layers.3.output", "blocks.3.hook_resid_post"),
        ("transformer.h.11", "blocks.11.hook_resid_post"),
        ("gpt_neox.layers.0", "blocks.0.hook_resid_post"),
        ("model.language_model.layers.7.output", "blocks.7.hook_resid_post"),
        ("model.layers.3.self_attn.o_proj.input", "blocks.3.attn.hook_z"),
        ("model.layers.3.pre_feedforward_layernorm.output", "blocks.3.mlp.hook_in"),
        ("model.layers.3.post_feedforward_layernorm.output", "blocks.3.hook_mlp_out"),
        ("model.layers.3.mlp", None),
        ("model.layers", None),
        ("blocks.3.hook_resid_post", None),
    ],
)
def test_module_names_that_mean_the_same_in_every_family(module, hook):
    """The names that SAE Lens gives Gemma Scope 2 and Qwen Scope; a family's own meaning is not guessed at."""
    assert hooks.from_module_name(module) == hook
