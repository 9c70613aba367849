"""SAE Lens's registry of pretrained releases, read without importing SAE Lens (10 s)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_PICKLE_SUFFIX_OF = {
    "connor_rob_hook_z": ".pt",
    "deepseek_r1": ".pt",
    "dictionary_learning_1": ".pt",
    "gemma_2": ".npz",
    "gemma_2_transcoder": ".npz",
    "goodfire": ".pt",
    "qwen_scope": ".pt",
}
"""What SAE Lens 6.54's converters read; one that is not listed is refused when it asks for such a file."""
_TRANSFORMER_LENS_OWNERS = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")
"""Whose models TransformerLens 3.9 reads from its own files instead of transformers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSae:
    """One SAE of a registered release."""

    sae_id: str
    path: str
    """its folder in the repository; for some converters a file, or a layer."""
    norm_scaling_factor: float | None
    """folded into its weights where its configuration asks for one."""
    l0: float | None = None
    """active latents per token, as its release says; None: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRelease:
    """One release of the registry."""

    name: str
    repo_id: str
    model: str
    """as TransformerLens calls it."""
    conversion: str | None
    """how SAE Lens converts its files; None: they are in SAE Lens's own format."""
    saes: tuple[RegisteredSae, ...]
    overrides: Mapping[str, Any]
    """entries of every SAE's configuration that the registry corrects."""

    @property
    def pickle_suffix(self) -> str | None:
        """Of its weights, where they are known to be pickles or .npz."""
        return _PICKLE_SUFFIX_OF.get(self.conversion or "")


def names() -> tuple[str, ...]:
    """Every registered release."""
    return tuple(_registry())


def lookup(name: str) -> RegisteredRelease | None:
    """The registered release called *name*."""
    entry = _registry().get(name)
    if entry is None:
        return None
    return RegisteredRelease(
        name=name,
        repo_id=entry["repo_id"],
        model=entry["model"],
        conversion=entry.get("conversion_func"),
        saes=tuple(
            RegisteredSae(
                sae_id=str(sae["id"]),
                path=str(sae["path"]),
                norm_scaling_factor=sae.get("norm_scaling_factor"),
                l0=sae.get("l0") or None,  # 0 stands for unknown, too
            )
            for sae in entry["saes"]
        ),
        overrides=entry.get("config_overrides") or {},
    )


@cache
def hub_model_name(model: str) -> str | None:
    """The Hub's name of a model that TransformerLens may call otherwise, "gpt2" of "gpt2-small"; None: no Hub name."""
    table = _aliases()
    official = next((name for name, aliases in table.MODEL_ALIASES.items() if model in aliases), model)
    return official if "/" in official or official in table.OFFICIAL_MODEL_NAMES else None


def has_transformer_lens_files(repo_id: str) -> bool:
    """Whether the model *repo_id* is in TransformerLens's own file format."""
    return repo_id.startswith(_TRANSFORMER_LENS_OWNERS) and repo_id in _aliases().OFFICIAL_MODEL_NAMES


@cache
def _aliases() -> ModuleType:
    """TransformerLens's table of names is a file of plain data; it is run by itself, without the package around it."""
    folder = _package("transformer_lens")
    spec = importlib.util.spec_from_file_location("sae_checks._aliases", folder / "supported_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _registry() -> dict[str, Any]:  # a dict: YAML's own keys, read by `lookup` alone
    import yaml  # here: the plugin is imported in every pytest run, and reads no registry in most

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader reads 1.5 MB in 0.8 s instead of 10
    text = (_package("sae_lens") / "pretrained_saes.yaml").read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=loader))  # noqa: S506 -- both loaders are the safe ones


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # finds a top-level package without importing it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
