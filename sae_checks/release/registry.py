"""SAE Lens's registry of pretrained releases, read without importing SAE Lens, which takes 10 s."""

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
"""File types that SAE Lens 6.54's converters read. An unlisted converter is refused when it asks for such a file."""
_TRANSFORMER_LENS_OWNERS = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")
"""Owners of the models that TransformerLens 3.9 reads from its own file format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSae:
    """One SAE of a registered release."""

    sae_id: str
    path: str
    """folder in the repository; for some converters a file or a layer."""
    norm_scaling_factor: float | None
    """factor to fold into the weights if the configuration asks for one."""
    l0: float | None = None
    """active latents per token that the release states; None: not stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRelease:
    """One release of the registry."""

    name: str
    repo_id: str
    model: str
    """TransformerLens's name of the language model."""
    conversion: str | None
    """name of SAE Lens's converter; None: the files are in SAE Lens's own format."""
    saes: tuple[RegisteredSae, ...]
    overrides: Mapping[str, Any]
    """corrections of entries in every SAE's configuration."""

    @property
    def pickle_suffix(self) -> str | None:
        """Suffix of its weights if they are known to be pickles or .npz, else None."""
        return _PICKLE_SUFFIX_OF.get(self.conversion or "")


def names() -> tuple[str, ...]:
    """Names of all registered releases."""
    return tuple(_registry())


def lookup(name: str) -> RegisteredRelease | None:
    """The registered release called *name*, or None."""
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
                l0=sae.get("l0") or None,  # 0 means unknown, too
            )
            for sae in entry["saes"]
        ),
        overrides=entry.get("config_overrides") or {},
    )


@cache
def hub_model_name(model: str) -> str | None:
    """The Hub's name of *model*, which may be an alias of TransformerLens ("gpt2" for "gpt2-small"); None: unknown."""
    table = _aliases()
    official = next((name for name, aliases in table.MODEL_ALIASES.items() if model in aliases), model)
    return official if "/" in official or official in table.OFFICIAL_MODEL_NAMES else None


def has_transformer_lens_files(repo_id: str) -> bool:
    """Whether the model *repo_id* is in TransformerLens's own file format."""
    return repo_id.startswith(_TRANSFORMER_LENS_OWNERS) and repo_id in _aliases().OFFICIAL_MODEL_NAMES


@cache
def _aliases() -> ModuleType:
    """TransformerLens's table of model names: a file of plain data, run without importing the package."""
    folder = _package("transformer_lens")
    spec = importlib.util.spec_from_file_location("sae_checks._aliases", folder / "supported_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _registry() -> dict[str, Any]:  # a dict: YAML's own keys, read by `lookup` alone
    import yaml  # here: every pytest run imports the plugin, and few read the registry

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader reads 1.5 MB in 0.8 s instead of 10
    text = (_package("sae_lens") / "pretrained_saes.yaml").read_text(encoding="utf-8")
    return dict(yaml.load(text, Loader=loader))  # noqa: S506 -- both loaders are the safe ones


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # finds a top-level package without importing it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
