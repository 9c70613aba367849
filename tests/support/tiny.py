"""Random models of every family, SAEs with known behaviour, and the plain computation to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import transformers as hf

from sae_checks.corpora.sequences import Convention, TokenRow, build
from sae_checks.model.hugging_face import HuggingFaceModel
from sae_checks.model.transformer_lens import HookedModel, _hooked
from sae_checks.saes.sae import Reconstruction

N_LAYERS, D_MODEL, N_VOCABULARY, N_CONTEXT, BOS = 3, 16, 40, 24, 1

_SHARED = {
    "vocab_size": N_VOCABULARY,
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": N_CONTEXT,
    "bos_token_id": BOS,
    "eos_token_id": BOS,
    "pad_token_id": None,
}
_GPT2 = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 2, "n_positions": N_CONTEXT, "bos_token_id": BOS}
FAMILIES = {
    "gpt2": lambda: hf.GPT2Config(vocab_size=N_VOCABULARY, **_GPT2),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**{k: v for k, v in _SHARED.items() if k != "num_key_value_heads"}),
    "llama": lambda: hf.LlamaConfig(**_SHARED),
    "mistral": lambda: hf.MistralConfig(**_SHARED, sliding_window=8),
    "qwen2": lambda: hf.Qwen2Config(**_SHARED),
    "qwen3": lambda: hf.Qwen3Config(**_SHARED, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**_SHARED, head_dim=8, query_pre_attn_scalar=8, sliding_window=8),
}
LAYER_NORM = ("gpt2", "gpt_neox")
HOOKS = (*(f"blocks.{layer}.hook_resid_pre" for layer in range(N_LAYERS)), f"blocks.{N_LAYERS - 1}.hook_resid_post")


INNER = (
    "blocks.1.attn.hook_z",
    "blocks.1.hook_attn_out",
    "blocks.1.hook_resid_mid",
    "blocks.1.hook_mlp_in",
    "blocks.1.ln2.hook_normalized",
    "blocks.1.mlp.hook_in",
    "blocks.1.hook_mlp_out",
)
"""Hooks within a block; GPT-NeoX, whose attention and MLP run side by side, has no resid_mid."""


def hooks_of(family: str) -> tuple[str, ...]:
    return tuple(h for h in (*HOOKS, *INNER) if not (family == "gpt_neox" and h.endswith("resid_mid")))


@dataclass
class NoTokenizer:
    """Stands where the tests bring tokens of their own."""

    all_special_ids: tuple[int, ...] = (BOS,)
    bos_token_id: int = BOS
    eos_token_id: int = BOS


def raw_model(family: str) -> torch.nn.Module:
    """A transformers model with random weights, large enough that layers matter."""
    torch.manual_seed(sum(map(ord, family)))
    model = hf.AutoModelForCausalLM.from_config(FAMILIES[family]())
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def model(family: str) -> HuggingFaceModel:
    return HuggingFaceModel(raw_model(family), NoTokenizer(), source=family)


def hooked(family: str, *processing: str) -> HookedModel:
    """The same model in TransformerLens."""
    raw = raw_model(family)
    return HookedModel(
        _hooked(raw, processing),
        NoTokenizer(),
        source=family,
        architecture=type(raw).__name__,
        processing=processing,
    )


def sequences(lengths=(24, 5, 17, 24, 9, 12), *, keep=True, n_context=N_CONTEXT, seed=0):
    """Random tokens of the given lengths, BOS first."""
    rng = np.random.default_rng(seed)
    rows = [
        TokenRow(row=i, tokens=[BOS, *rng.integers(2, N_VOCABULARY, n - 1)], n_given=1, was_cut=False)
        for i, n in enumerate(lengths)
    ]
    convention = Convention(prepend_bos=True, special_tokens_kept=keep, n_context_tokens=n_context)
    return build(rows, convention, [BOS], score_special=False)


class LinearSae:
    """x -> relu(x E) D, with *center* as asked; exact when E D is [I, -I] [I; -I]."""

    def __init__(self, hook, *, encoder, decoder, sae_id=None, context=8, center=False, hook_out=None, head_slice=None):
        self.sae_id = sae_id or hook
        self.hook = hook
        self.hook_out = hook_out or hook
        self.head_slice = head_slice or slice(0, None)
        self.n_training_context_tokens = context
        self.center = center
        self.encoder, self.decoder = encoder, decoder

    def reconstruct(self, x):
        latents = torch.relu(x @ self.encoder)
        return Reconstruction(output=latents @ self.decoder, n_active=(latents != 0).sum(-1))


def identity_sae(hook, d=D_MODEL, **kwargs):
    eye = torch.eye(d)
    return LinearSae(hook, encoder=torch.cat([eye, -eye], 1), decoder=torch.cat([eye, -eye], 0), **kwargs)


def random_sae(hook, *, seed=0, scale=0.2, **kwargs):
    """The identity, disturbed."""
    rng = torch.Generator().manual_seed(seed)
    sae = identity_sae(hook, **kwargs)
    sae.decoder = sae.decoder + scale * torch.randn(sae.decoder.shape, generator=rng)
    return sae


def plain_hidden_states(model: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """transformers' own residual stream: before each block (the last entry is after the final norm)."""
    with torch.no_grad():
        return model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states


_ENDS = {
    "hook_attn_out": {"gpt2": ("attn", 1), "gpt_neox": ("attention", 1), "gemma2": ("post_attention_layernorm", 1)},
    "attn.hook_z": {"gpt2": ("attn.c_proj", 0), "gpt_neox": ("attention.dense", 0)},
    "hook_mlp_in": {"gpt2": ("ln_2", 0), "gemma2": ("pre_feedforward_layernorm", 0)},
    "mlp.hook_in": {},
    "hook_mlp_out": {"gemma2": ("post_feedforward_layernorm", 1)},
    "hook_resid_pre": {},
    "hook_resid_post": {},
}
_LLAMA = {
    "hook_attn_out": ("self_attn", 1),
    "attn.hook_z": ("self_attn.o_proj", 0),
    "hook_mlp_in": ("post_attention_layernorm", 0),
    "mlp.hook_in": ("mlp", 0),
    "hook_mlp_out": ("mlp", 1),
    "hook_resid_pre": ("", 0),
    "hook_resid_post": ("", 1),
}
"""Where a hook lies by the names of each family's modules: the module, and whether its input or its output."""


def plain_logits(model: torch.nn.Module, tokens: torch.Tensor, hook=None, change=None) -> torch.Tensor:
    """A whole forward pass of plain transformers, with *change* applied to what *hook* carries by a PyTorch hook."""
    handle = None
    if hook is not None:
        _, layer, name = hook.split(".", 2)
        path, is_output = _ENDS[name].get(model.config.model_type, _LLAMA[name])
        blocks = next(m for m in model.base_model.children() if isinstance(m, torch.nn.ModuleList))
        module = blocks[int(layer)].get_submodule(path)

        def before(_, args, kwargs):
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        def after(_, __, output):
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        handle = (
            module.register_forward_hook(after)
            if is_output
            else module.register_forward_pre_hook(before, with_kwargs=True)
        )
    try:
        with torch.no_grad():
            return model(input_ids=tokens, use_cache=False).logits.float()
    finally:
        if handle is not None:
            handle.remove()
