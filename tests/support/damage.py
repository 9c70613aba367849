"""
Sound SAEs of six architectures at six places of two models, and what is done to them.

SAEs that no release holds are trained here, in seconds, on the activations of the demo's model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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

K, D_SAE, CONTEXT = 16, 256, 64


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
def trained(hook: str, hook_out: str = "", *, is_batch: bool = False) -> Weights:
    """A TopK or BatchTopK SAE of the demo's model, or a transcoder to *hook_out*, trained in a few seconds."""
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
        rows = torch.randint(len(x), (256,), generator=generator)
        centred = x[rows] - (weights["b_dec"] if shift is None else shift)
        latents = torch.relu(centred @ weights["W_enc"] + weights["b_enc"])
        if is_batch:
            kept = latents * (latents >= latents.flatten().topk(K * len(rows)).values[-1])
        else:
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


_N_STEPS = 300


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
        weights = trained(name, is_batch=True)
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
        weights = trained(read, written, is_batch=True)
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


def weight(name: str, change: Callable[[torch.Tensor, Sound], torch.Tensor]) -> Change:
    """The change of one tensor."""
    return lambda sound: replace(sound, weights={**sound.weights, name: change(sound.weights[name], sound)})


def scaled(name: str, factor: float) -> Change:
    """One tensor times *factor*."""
    return weight(name, lambda w, _: w * factor)


def foreign(*names: str) -> Change:
    """Tensors of another layer's SAE."""
    return lambda s: replace(s, weights={**s.weights, **{name: s.neighbour[name] for name in names}})


def configured(**entries: object) -> Change:
    """Other entries in cfg.json."""
    return lambda s: replace(s, cfg={**s.cfg, **entries})


def described(**entries: object) -> Change:
    """Other entries in its metadata."""
    return lambda s: replace(s, metadata={**s.metadata, **entries})


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(sound: Sound) -> Sound:
        for each in changes:
            sound = each(sound)
        return sound

    return change


def _drawn(n: int, share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The indices of *share* of *n* latents, and the same in a cycle: no index keeps its place."""
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: max(2, round(share * n))]
    return chosen, chosen.roll(1)


def permuted(name: str, share: float = 1.0) -> Change:
    """The rows of *share* of the latents in a cycle, in one tensor alone."""

    def change(w: torch.Tensor, _: Sound) -> torch.Tensor:
        made, (to, source) = w.clone(), _drawn(w.shape[0 if name == "W_dec" else -1], share)
        if name == "W_enc":
            made[:, to] = w[:, source]
        else:
            made[to] = w[source]
        return made

    return weight(name, change)


def reordered(sound: Sound) -> Sound:
    """All latents in another order: the same SAE."""
    to, n = _drawn(len(sound.weights["W_dec"]))[0], len(sound.weights["W_dec"])
    made = {
        name: w[:, to] if name == "W_enc" else w[to] if len(w) == n and name != "b_dec" else w
        for name, w in sound.weights.items()
    }
    return replace(sound, weights=made)


def rescaled(sound: Sound) -> Sound:
    """Latents in other units: encoder times, decoder divided by a factor for each."""
    factor = 2 ** torch.linspace(-2, 2, len(sound.weights["W_dec"]))
    per_latent = {"b_enc", "threshold", "b_mag", "b_gate", "W_enc"} & {*sound.weights}
    made = {name: w * factor if name in per_latent else w for name, w in sound.weights.items()}
    return replace(sound, weights={**made, "W_dec": made["W_dec"] / factor[:, None]})


def cast(dtype: torch.dtype) -> Change:
    """All tensors in another type."""
    return lambda s: replace(s, weights={name: w.to(dtype) for name, w in s.weights.items()})


def eight_bits(sound: Sound) -> Sound:
    """Encoder and decoder rounded to 8 bits per row."""

    def rounded(w: torch.Tensor) -> torch.Tensor:
        step = w.abs().amax(-1, keepdim=True) / 127
        return (w / step).round() * step

    made = {"W_enc": rounded(sound.weights["W_enc"].T).T, "W_dec": rounded(sound.weights["W_dec"])}
    return replace(sound, weights={**sound.weights, **made})


def one_too_long(factor: float = 30.0) -> Change:
    """The decoder row of the latent that is active most often, *factor* times as long."""

    def change(w: torch.Tensor, sound: Sound) -> torch.Tensor:
        x = (
            sound.inputs - sound.weights["b_dec"]
            if len(sound.weights["b_dec"]) == sound.inputs.shape[1]
            else sound.inputs
        )
        active = (x @ sound.weights["W_enc"] + sound.weights.get("b_enc", 0) > sound.weights.get("threshold", 0)).sum(0)
        made = w.clone()
        made[int(active.median(dim=0).indices)] *= factor
        return made

    return weight("W_dec", change)


def half(sound: Sound, name: str = "W_dec", value: float = 0.0) -> Sound:
    """One tensor with *value* for every second latent."""
    made = sound.weights[name].clone()
    made[::2] = value
    return replace(sound, weights={**sound.weights, name: made})


def untrained(sound: Sound) -> Sound:
    """Random, tied weights, with the bias and the length of the trained ones."""
    shape = sound.weights["W_dec"].shape
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    decoder = torch.nn.functional.normalize(drawn, dim=-1)
    encoder = decoder.T * sound.weights["W_enc"].norm(dim=0).mean()
    return replace(sound, weights={**sound.weights, "W_enc": encoder, "W_dec": decoder})


def principal_components(n: int) -> Change:
    """The first *n* principal components and their opposites, in place of an SAE."""

    def change(sound: Sound) -> Sound:
        x = sound.inputs
        directions = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:n]
        return _linear(sound, directions, x.mean(0))

    return change


def identity(sound: Sound) -> Sound:
    """x and -x: all is passed on."""
    d = sound.weights["W_dec"].shape[1]
    return _linear(sound, torch.eye(d), torch.zeros(d))


def _linear(sound: Sound, directions: torch.Tensor, mean: torch.Tensor) -> Sound:
    """A ReLU SAE that projects on *directions* (n, d)."""
    two_sided = torch.cat([directions, -directions])
    made = {"W_enc": two_sided.T, "b_enc": torch.zeros(len(two_sided)), "W_dec": two_sided, "b_dec": mean}
    metadata = {**sound.metadata, "training_architecture": "standard"}
    return replace(sound, cfg={**sound.cfg, "architecture": "standard"}, metadata=metadata, weights=made)


def unfolded(factor: float) -> Change:
    """As it was trained on activations divided by *factor*, which nobody has folded in."""

    def change(sound: Sound) -> Sound:
        made = {**sound.weights, "W_enc": sound.weights["W_enc"] * factor}
        return replace(sound, weights={**made, **{name: made[name] / factor for name in ("W_dec", "b_dec")}})

    return change


def doubled(sound: Sound) -> Sound:
    """Every latent twice, each with half of the effect."""
    w = sound.weights
    made = {"W_enc": w["W_enc"].repeat(1, 2), "b_enc": w["b_enc"].repeat(2), "W_dec": w["W_dec"].repeat(2, 1) / 2}
    return replace(sound, weights={**w, **made})


def lost(name: str) -> Change:
    """One tensor is not in the file."""
    return lambda s: replace(s, weights={n: w for n, w in s.weights.items() if n != name})


def nan(sound: Sound) -> Sound:
    """One number of the encoder is NaN."""
    made = sound.weights["W_enc"].clone()
    made[3, 5] = torch.nan
    return replace(sound, weights={**sound.weights, "W_enc": made})
