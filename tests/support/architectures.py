"""SAEs of every architecture that SAE Lens saves, exact or a little off, in folders as it writes them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the imports of SAE Lens's own dependencies are not what is tested here
    from sae_lens import registry
    from sae_lens.saes.sae import SAEMetadata

RESIDUAL = "blocks.1.hook_resid_pre"
MLP_IN, MLP_OUT = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
TRAINED_AS = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of training alone: SAE Lens saves them for use as jumprelu."""

ARCHITECTURES = (
    *("standard", "gated", "topk", "abstopk", "jumprelu", "matching_pursuit", "temporal"),
    *TRAINED_AS,
    *TRANSCODERS,
)


def test_every_architecture_of_sae_lens_is_here():
    """What SAE Lens's registries gain shows here first."""
    assert set(ARCHITECTURES) == {*registry.SAE_CLASS_REGISTRY, *registry.SAE_TRAINING_CLASS_REGISTRY}


def write(folder: Path, architecture: str, mlp: nn.Module, *, noise: float = 0.0, dead: bool = False) -> Path:
    """
    An SAE of *architecture* that reconstructs exactly, disturbed by *noise*; *dead*: its decoder is zero.

    A transcoder is exact when it is the ReLU MLP of the model itself.
    """
    made = _transcoder(architecture, mlp) if architecture in TRANSCODERS else _autoencoder(architecture, mlp)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(len(architecture))
        for name in ("W_dec", "W_skip"):
            if hasattr(made, name):
                weight = getattr(made, name)
                weight += noise * torch.randn(weight.shape, generator=generator)
                weight *= not dead
    if architecture in TRAINED_AS:
        made.save_inference_model(folder)
    else:
        made.save_model(folder)
    return folder


def _metadata(hook: str, hook_out: str | None) -> dict[str, object]:
    return {
        "hook_name": hook,
        **({"hook_name_out": hook_out} if hook_out else {}),
        "model_name": "tiny",
        "context_size": 8,
        "prepend_bos": True,
    }


def _sae(architecture: str, **config):
    is_training = architecture in TRAINED_AS
    classes = registry.SAE_TRAINING_CLASS_REGISTRY if is_training else registry.SAE_CLASS_REGISTRY
    kind, kind_of_config = classes[architecture]
    metadata = config.pop("metadata")
    made = kind(kind_of_config(dtype="float32", device="cpu", **config))
    made.cfg.metadata = SAEMetadata(**metadata)
    return made


def _autoencoder(architecture: str, mlp: nn.Module):
    d = mlp.c_fc.weight.shape[0]
    eye = torch.eye(d)
    # abstopk keeps signs: with both halves every value would be there twice
    encoder = torch.cat([eye, 0 * eye if architecture == "abstopk" else -eye], 1)
    decoder = torch.cat([eye, -eye], 0)
    more = {
        "topk": {"k": d},
        "abstopk": {"k": d},
        "batchtopk": {"k": d},
        "matryoshka_batchtopk": {"k": d, "matryoshka_widths": [d, 2 * d]},
        "matching_pursuit": {"residual_threshold": 1e-6},
        "temporal": {"n_heads": 2, "bottleneck_factor": 2, "sae_diff_type": "relu", "tied_weights": False},
    }
    made = _sae(
        architecture,
        d_in=d,
        d_sae=2 * d,
        apply_b_dec_to_input=False,
        metadata=_metadata(RESIDUAL, None),
        **more.get(architecture, {}),
    )
    with torch.no_grad():
        for weight in (*made.parameters(), *made.buffers()):
            weight.zero_()
        if architecture != "matching_pursuit":  # its encoder is its decoder
            made.W_enc.copy_(encoder / getattr(made, "lam", 1.0))
        made.W_dec.copy_(decoder)
    return made


def _transcoder(architecture: str, mlp: nn.Module):
    d, d_hidden = mlp.c_fc.weight.shape
    made = _sae(
        architecture, d_in=d, d_out=d, d_sae=d_hidden, apply_b_dec_to_input=False, metadata=_metadata(MLP_IN, MLP_OUT)
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.zero_()
        made.W_enc.copy_(mlp.c_fc.weight)
        made.b_enc.copy_(mlp.c_fc.bias)
        made.W_dec.copy_(mlp.c_proj.weight)
        made.b_dec.copy_(mlp.c_proj.bias)
    return made
