"""
Sound SAEs of six architectures at six places of two models, and what is done to them.

SAEs that no release holds are trained here, in seconds, on the activations of the demo's model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sae_checks.measuring.local import LocalExecutor
from sae_checks.plan.options import Options
from sae_checks.release import release
from sae_checks.run.settle import settle

DEMO = release.resolve("demo")
DATA = Path(os.environ["SAE_CHECKS_DATA"]) if "SAE_CHECKS_DATA" in os.environ else None
Weights = dict[str, torch.Tensor]
Change = Callable[["Sound"], "Sound"]

K, D_SAE, CONTEXT = 16, 384, 64


@dataclass(frozen=True)
class Sound:
    """An SAE as it was trained: its configuration and its weights."""

    cfg: Mapping[str, Any]
    metadata: Mapping[str, Any]
    weights: Weights
    neighbour: Weights = field(default_factory=dict)
    """weights of another SAE of the same shape, of another layer."""

    @property
    def inputs(self) -> torch.Tensor:
        """(tokens, d_in) activations at its hook."""
        return activations(self.metadata["model_name"], self.metadata["hook_name"])

    def write(self, folder: Path) -> None:
        """Write it as SAE Lens does."""
        folder.mkdir(parents=True)
        d_sae, d_out = self.weights["W_dec"].shape
        sizes = {"d_sae": d_sae, **({"d_out": d_out} if "hook_name_out" in self.metadata else {})}
        cfg = {**self.cfg, **sizes, "metadata": {**self.metadata}}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        save_file({n: w.contiguous() for n, w in self.weights.items()}, folder / "sae_weights.safetensors")


@cache
def _model(name: str) -> tuple[Any, Any]:
    """The model called *name*, and sequences of its text."""
    options = Options(release="demo", device="cpu", n_context_tokens=CONTEXT)
    if name == "stories260K":
        assert DATA is not None
        options = Options(
            release=str(DATA / "stories260K-res-saes"),
            model=str(DATA / "stories260K"),
            corpus=str(DATA / "stories/eval.jsonl"),
            n_context_tokens=CONTEXT,
            device="cpu",
        )
    plan = settle(options).plan
    executor = LocalExecutor(plan)
    one = executor._saes.get(plan.release.sae_ids[0])
    return one.model, executor._corpus("text", one).sequences.first(192, CONTEXT)


@cache
def activations(model_name: str, hook: str) -> torch.Tensor:
    """(tokens, width) activations at *hook*, without that of the BOS."""
    model, sequences = _model(model_name)
    with torch.inference_mode():
        clean = model.clean(torch.from_numpy(sequences.tokens), {hook})
    return clean.activation(hook)[torch.from_numpy(sequences.replaced)].clone()


@cache
def trained(hook: str, hook_out: str = "") -> Weights:
    """A TopK SAE of the demo's model, or a transcoder from *hook* to *hook_out*, trained in a few seconds."""
    generator = torch.Generator().manual_seed(len(hook) + len(hook_out))
    x, y = (activations("sae-checks-demo", name) for name in (hook, hook_out or hook))
    decoder = torch.nn.functional.normalize(torch.randn(D_SAE, y.shape[1], generator=generator), dim=-1)
    encoder = decoder.T.clone() if not hook_out else torch.randn(x.shape[1], D_SAE, generator=generator) / 8
    weights = {"W_enc": encoder, "b_enc": torch.zeros(D_SAE), "W_dec": decoder, "b_dec": y.mean(0)}
    shift = torch.zeros(x.shape[1]) if hook_out else None
    for weight in weights.values():
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(weights.values(), lr=3e-3)
    for step in range(_N_STEPS):
        rows = torch.randint(len(x), (512,), generator=generator)
        centred = x[rows] - (weights["b_dec"] if shift is None else shift)
        latents = torch.relu(centred @ weights["W_enc"] + weights["b_enc"])
        kept = torch.zeros_like(latents).scatter(-1, (top := latents.topk(K)).indices, top.values)
        loss = (kept @ weights["W_dec"] + weights["b_dec"] - y[rows]).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            weights["W_dec"] /= weights["W_dec"].norm(dim=-1, keepdim=True)
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * (1 - step / _N_STEPS)
    return {name: weight.detach() for name, weight in weights.items()}


_N_STEPS = 600


def _metadata(hook: str, architecture: str, **more: Any) -> dict[str, Any]:
    return {
        "hook_name": hook,
        "model_name": "sae-checks-demo",
        "context_size": CONTEXT,
        "prepend_bos": True,
        "training_architecture": architecture,
        **more,
    }


def _cfg(architecture: str, **more: Any) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "d_in": 64,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **more,
    }


def _threshold(weights: Weights, x: torch.Tensor, *, centred: bool = True) -> torch.Tensor:
    """The threshold with which K latents are active per token on average."""
    before = (x - weights["b_dec"] if centred else x) @ weights["W_enc"] + weights["b_enc"]
    return before.flatten().topk(K * len(x)).values[-1].expand(D_SAE).clone()


def standard() -> Sound:
    """The demo's own SAE of the residual stream in the middle."""
    return _of_release(DEMO, "blocks.2.hook_resid_pre", "blocks.1.hook_resid_pre")


def stories() -> Sound:
    """An SAE of stories260K."""
    assert DATA is not None
    found = release.resolve(str(DATA / "stories260K-res-saes"))
    return _of_release(found, "blocks.2.hook_resid_pre", "blocks.1.hook_resid_pre")


def _of_release(found: release.Release, sae_id: str, other_id: str) -> Sound:
    paths = {sae.sae_id: sae.weights for sae in found.saes}
    cfg = json.loads((paths[sae_id].parent / "cfg.json").read_text())
    metadata = cfg.pop("metadata")
    return Sound(cfg=cfg, metadata=metadata, weights=load_file(paths[sae_id]), neighbour=load_file(paths[other_id]))


def topk() -> Sound:
    """A TopK SAE of an MLP's output."""
    hook = "blocks.1.hook_mlp_out"
    neighbour = trained("blocks.2.hook_mlp_out")
    return Sound(_cfg("topk", k=K), _metadata(hook, "topk"), trained(hook), neighbour)


def batchtopk() -> Sound:
    """A BatchTopK SAE of an attention's output, saved as JumpReLU."""
    return _jumprelu("blocks.2.hook_attn_out", "blocks.1.hook_attn_out", "batchtopk")


def matryoshka() -> Sound:
    """A Matryoshka SAE of the residual stream within a block, saved as JumpReLU."""
    return _jumprelu("blocks.2.hook_resid_mid", "blocks.1.hook_resid_mid", "matryoshka_batchtopk")


def _jumprelu(hook: str, other: str, trained_as: str) -> Sound:
    made = []
    for name in (hook, other):
        weights = trained(name)
        made.append({**weights, "threshold": _threshold(weights, activations("sae-checks-demo", name))})
    return Sound(_cfg("jumprelu"), _metadata(hook, trained_as), *made)


def gated() -> Sound:
    """The demo's SAE as a gated one that computes the same."""
    ungated = standard()
    made = []
    for weights in (ungated.weights, ungated.neighbour):
        bias = weights["b_enc"]
        of_gate = {"b_gate": bias, "b_mag": bias.clone(), "r_mag": torch.zeros_like(bias)}
        made.append({name: weights[name] for name in ("W_enc", "W_dec", "b_dec")} | of_gate)
    metadata = {**ungated.metadata, "training_architecture": "gated"}
    return Sound({**ungated.cfg, "architecture": "gated"}, metadata, *made)


def transcoder() -> Sound:
    """A JumpReLU transcoder of an MLP, from the normalised residual stream to its output."""
    made = []
    for layer in (1, 2):
        read, written = f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"
        weights = trained(read, written)
        x = activations("sae-checks-demo", read)
        made.append({**weights, "threshold": _threshold(weights, x, centred=False)})
    metadata = _metadata("blocks.1.ln2.hook_normalized", "jumprelu_transcoder", hook_name_out="blocks.1.hook_mlp_out")
    return Sound(_cfg("jumprelu_transcoder", apply_b_dec_to_input=False), metadata, *made)


SOUND: dict[str, Callable[[], Sound]] = {
    "standard": standard,
    "gated": gated,
    "topk": topk,
    "batchtopk": batchtopk,
    "matryoshka": matryoshka,
    "transcoder": transcoder,
    **({"stories": stories} if DATA is not None else {}),
}
