"""The demo's SAEs in a folder of one's own, with one kind of damage each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sae_checks.release import release

DEMO = release.resolve("demo")
HOOKS = [sae.hook for sae in DEMO.saes]
ARGS = [f"--sae-{name}={getattr(DEMO, name)}" for name in ("model", "corpus", "lambada", "cbt")]
"""options beside --sae-release of a run that judges a damaged copy."""

Weights = dict[str, Any]


def copied(folder: Path, *, but: tuple[str, ...] = ()) -> Path:
    """The demo's SAEs *but* a few, in a folder that is called demo, so that its limits apply."""
    for sae in DEMO.saes:
        if sae.sae_id not in but:
            shutil.copytree(sae.weights.parent, folder / "demo" / sae.sae_id)
    return folder / "demo"


def changed(folder: Path, hook: str, change: Callable[[Weights], None]) -> Path:
    """With *change* made to the weights of the SAE of *hook*."""
    from safetensors.torch import load_file, save_file

    saes = copied(folder)
    path = saes / hook / "sae_weights.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    return saes


def broken(folder: Path) -> Path:
    """With the SAE of demo-broken, whose decoder has lost the norm of the activation."""
    saes = copied(folder)
    weights = release.resolve("demo-broken").sae(HOOKS[2]).weights
    shutil.copy(weights, saes / HOOKS[2] / "sae_weights.safetensors")
    return saes


def with_long_decoder(folder: Path) -> Path:
    return changed(folder, HOOKS[2], lambda w: w.update(W_dec=w["W_dec"] * 1.6))


def without_b_dec(folder: Path) -> Path:
    return changed(folder, HOOKS[2], lambda w: w.update(b_dec=w["b_dec"] * 0))


def swapped(folder: Path) -> Path:
    """With the weights of the second and the fourth SAE swapped."""
    saes = copied(folder)
    one, other = (saes / HOOKS[i] / "sae_weights.safetensors" for i in (1, 3))
    aside = folder / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    return saes


def of_another_layer(folder: Path) -> Path:
    """With the SAE of block 3 under the name of block 1, and not under its own."""
    saes = copied(folder, but=(HOOKS[3],))
    (weights,) = [sae.weights for sae in DEMO.saes if sae.hook == HOOKS[3]]
    shutil.copy(weights, saes / HOOKS[1] / "sae_weights.safetensors")
    return saes


CASES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "broken": (broken, HOOKS[2], "3.5 times too short (100 % of the loss): the activation's norm"),
    "long decoder": (with_long_decoder, HOOKS[2], "the reconstruction is 1.5 times too long"),
    "no b_dec": (without_b_dec, HOOKS[2], "a bias is lost (98 % of the loss): b_dec is zero"),
    "swapped": (swapped, HOOKS[3], f"swapped with {HOOKS[1]}"),
    "another layer": (of_another_layer, HOOKS[1], f"it belongs to {HOOKS[3]}"),
}
"""By name: what makes the folder, the damaged SAE, and what its diagnosis says."""
