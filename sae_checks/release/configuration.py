"""An SAE's configuration -> what is known of it, or why it cannot be used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sae_checks import errors
from sae_checks.release import hooks, hub

Format = Literal["sae_lens", "checkpoint", "sparsify", "registered"]
"""How its files are read: as SAE Lens, its trainer or sparsify saved it, or by the converter registered for it."""

N_CFG_BYTES_MOST = 1_000_000
_TO_BE_FOLDED = "expected_average_only_in"
_NORMS = ("none", "layer_norm", "constant_norm_rescale", "constant_scalar_rescale")  # those it applies while it runs
_WEIGHT_PROCESSING = ("center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")
_MODEL_KWARGS_WITHOUT_EFFECT = ("center_unembed", "dtype", "torch_dtype", "device", "n_devices", "device_map")

_REVISION = re.compile(r"\w[\w./-]{0,200}")  # it becomes part of a path in the Hub's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """Where an SAE lies on the Hub."""

    repo: hub.HubRepo
    path: str

    def file(self, name: str) -> str:
        """The path of the file *name* in this folder."""
        return (PurePosixPath(self.path) / name).as_posix()

    @property
    def names(self) -> tuple[str, ...]:
        """The files in this folder."""
        paths = (PurePosixPath(file.path) for file in self.repo.files)
        return tuple(path.name for path in paths if path.parent == PurePosixPath(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sae:
    """One SAE of a release, as its cfg.json describes it."""

    sae_id: str
    weights: Path | None
    """where its weights lie, or will lie once they are fetched; None: only the registered converter knows."""
    remote: HubFolder | None
    """where they are fetched from; None for what lies on disk."""
    overrides: Mapping[str, Any]
    """entries of cfg.json that the registry corrects."""
    format: Format = "sae_lens"
    release: str | None = None
    """the registry's name of its release, where the converter registered for that reads it."""
    allow_pickle: bool = False
    """its converter may read pickles and .npz."""
    norm_scaling_factor: float | None = None
    """what its input was multiplied by while it was trained, not yet folded into the weights; None: nothing."""
    hook: str
    """the place it reads, TransformerLens's name."""
    hook_out: str
    """the place it writes; *hook* but for transcoders."""
    head: int | None
    """the one attention head it reads and writes, of `hook_z`; None: all of them."""
    depth: float
    """blocks before the place it reads, see `hooks.Hook.depth`."""
    architecture: str
    d_in: int
    d_out: int
    d_sae: int
    n_training_context_tokens: int | None
    """None: the configuration does not say."""
    k: int | None
    """latents that a TopK or AbsTopK SAE keeps of each token; None for other architectures."""
    recorded_l0: float | None = None
    """active latents per token, as the registry has it; None: it does not say."""
    prepend_bos: bool | None
    """None: the configuration does not say."""
    model_name: str
    model_revision: str | None
    """of the model's repository; None: main."""
    model_kwargs: tuple[tuple[str, bool], ...]
    """how TransformerLens processed the model's weights for it, where that changes an activation; sorted."""
    exclude_special_tokens: bool | tuple[int, ...]
    """it was trained without these: never replaced."""
    dataset_path: str | None
    """the dataset that it was trained on; None: the configuration does not say."""

    @property
    def center_writing_weights(self) -> bool:
        """Trained on activations whose mean over d_model had been taken away."""
        return ("center_writing_weights", True) in self.model_kwargs


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSae:
    """An SAE that cannot be measured: its checks are errors with *problem*, the others are judged."""

    sae_id: str
    problem: str


def describe(
    sae_id: str,
    cfg: Mapping[str, object],
    weights: Path | None,
    *,
    remote: HubFolder | None = None,
    overrides: Mapping[str, Any] | None = None,
    norm_scaling_factor: float | None = None,
) -> Sae:
    """
    What *cfg*, as SAE Lens writes it, says.

    Args:
        sae_id: its name in the release.
        cfg: the configuration, of any version.
        weights: see `Sae.weights`.
        remote: see `Sae.remote`.
        overrides: see `Sae.overrides`.
        norm_scaling_factor: the one that is known to belong to it, if the configuration should ask for one.

    Raises:
        SaeError: an entry that cannot be used, or one that would have to be ignored.
    """
    metadata = cfg.get("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_cfg(sae_id, "metadata is no object")
    described = {**metadata, **cfg}  # cfg wins: its d_in and d_sae are the ones that SAE Lens allocates by
    if "metadata" not in cfg:  # SAE Lens < 6: all on one level, older names, BOS unless said otherwise
        described.setdefault("hook_name", cfg.get("hook_point"))
        described.setdefault("hook_head_index", cfg.get("hook_point_head_index"))
        described.setdefault("prepend_bos", True)
        if isinstance(norm := cfg.get("normalize_activations"), bool):
            described["normalize_activations"] = _TO_BE_FOLDED if norm else "none"
    described.update(overrides or {})
    hook = _hook(sae_id, described, "")
    hook_out = _hook(sae_id, described, "_out") if described.get("hook_name_out") else hook
    d_in, d_sae = (_count(sae_id, described, key) for key in ("d_in", "d_sae"))
    d_out = _count(sae_id, described, "d_out") if "d_out" in cfg else d_in
    to_be_folded = described.get("normalize_activations") == _TO_BE_FOLDED and norm_scaling_factor is not None
    _refuse_what_would_be_ignored(sae_id, described, hook, () if norm_scaling_factor is None else (_TO_BE_FOLDED,))
    context = described.get("context_size")
    return Sae(
        sae_id=sae_id,
        weights=weights,
        remote=remote,
        overrides=overrides or {},
        norm_scaling_factor=_factor(sae_id, norm_scaling_factor) if to_be_folded else None,
        hook=hook.name,
        hook_out=hook_out.name,
        head=_head(sae_id, described, hook),
        depth=hook.depth,
        architecture=errors.shown(described.get("architecture", "standard")),
        d_in=d_in,
        d_out=d_out,
        d_sae=d_sae,
        n_training_context_tokens=context if type(context) is int and context > 0 else None,
        k=_k(sae_id, described),
        prepend_bos=bos if isinstance(bos := described.get("prepend_bos"), bool) else None,
        model_name=errors.shown(described.get("model_name", "")),
        model_revision=_model_revision(sae_id, described),
        model_kwargs=_weight_processing(sae_id, described),
        exclude_special_tokens=_excluded(sae_id, described),
        dataset_path=path if isinstance(path := described.get("dataset_path"), str) else None,
    )


def read_cfg(sae_id: str, path: Path) -> dict[str, object]:  # a dict: JSON's own keys
    """
    The JSON object in *path*.

    Raises:
        SaeError: it is none, or too long to be a configuration.
    """
    if path.stat().st_size > N_CFG_BYTES_MOST:
        raise errors.bad_cfg(sae_id, f"more than {N_CFG_BYTES_MOST} bytes")
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as problem:
        raise errors.bad_cfg(sae_id, f"not JSON ({errors.shown(problem)})") from None
    if not isinstance(cfg, dict):
        raise errors.bad_cfg(sae_id, "not a JSON object")
    return cfg


def _text(sae_id: str, cfg: Mapping[str, object], key: str) -> str:
    value = cfg.get(key)
    if not isinstance(value, str) or not value:
        raise errors.bad_cfg(sae_id, f"{key} is {errors.shown(value)!r}, not a text")
    return value


def _count(sae_id: str, cfg: Mapping[str, object], key: str) -> int:
    value = cfg.get(key)
    if type(value) is not int or value <= 0:
        raise errors.bad_cfg(sae_id, f"{key} is {errors.shown(value)!r}, not a positive whole number")
    return value


def _k(sae_id: str, cfg: Mapping[str, object]) -> int | None:
    """Before SAE Lens 6 a TopK SAE was a standard one with another activation function, whose arguments held k."""
    activation = cfg.get("activation_fn_str", cfg.get("activation_fn"))
    if cfg.get("architecture") not in ("topk", "abstopk") and activation != "topk":
        return None
    arguments = cfg.get("activation_fn_kwargs")
    return _count(sae_id, {**arguments, **cfg} if isinstance(arguments, dict) else cfg, "k")


def _hook(sae_id: str, cfg: Mapping[str, object], suffix: str) -> hooks.Hook:
    """
    The hook that is read (*suffix* "") or written ("_out").

    Where SAE Lens also gives transformers' own name for the place, that one counts: it calls the input of Gemma 3's
    MLP `hook_mlp_in`, which to TransformerLens is the residual stream before the norm.
    """
    name = _text(sae_id, cfg, f"hook_name{suffix}")
    of_module = cfg.get(f"hf_hook_name{suffix}")
    if not of_module and cfg.get("model_class_name") == "AutoModelForCausalLM":
        of_module = name
    if isinstance(of_module, str):
        name = hooks.of_module(of_module) or name
    hook = hooks.parse(name)
    if hook is None:
        raise errors.unknown_hook(sae_id, name, hooks.KNOWN)
    return hook


def _head(sae_id: str, cfg: Mapping[str, object], hook: hooks.Hook) -> int | None:
    head = cfg.get("hook_head_index")
    if head is None:
        return None
    if hook.place != "z":
        raise errors.not_supported(sae_id, "hook_head_index", str(head), "one head of blocks.L.attn.hook_z")
    if type(head) is not int or head < 0:
        raise errors.bad_cfg(sae_id, f"hook_head_index is {errors.shown(head)!r}, not a whole number from 0 on")
    return head


def _excluded(sae_id: str, cfg: Mapping[str, object]) -> bool | tuple[int, ...]:
    value = cfg.get("exclude_special_tokens")
    if value is None or isinstance(value, bool):
        return bool(value)
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise errors.bad_cfg(sae_id, f"exclude_special_tokens is {errors.shown(value)!r}, not true, false or token ids")
    return tuple(value)


def _model_kwargs(sae_id: str, cfg: Mapping[str, object]) -> dict[str, object]:
    kwargs = cfg.get("model_from_pretrained_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise errors.bad_cfg(sae_id, "model_from_pretrained_kwargs is no object")
    return kwargs


def _model_revision(sae_id: str, cfg: Mapping[str, object]) -> str | None:
    revision = _model_kwargs(sae_id, cfg).get("revision")
    if revision is None or (isinstance(revision, str) and _REVISION.fullmatch(revision) and ".." not in revision):
        return revision
    raise errors.bad_cfg(sae_id, f"model_from_pretrained_kwargs.revision is {errors.shown(revision)!r}, no revision")


def _weight_processing(sae_id: str, cfg: Mapping[str, object]) -> tuple[tuple[str, bool], ...]:
    kwargs = _model_kwargs(sae_id, cfg)
    for key, value in kwargs.items():
        is_processing = key in _WEIGHT_PROCESSING and isinstance(value, bool)
        if is_processing or key == "revision" or key in _MODEL_KWARGS_WITHOUT_EFFECT:
            continue
        supported = "revision; " + ", ".join(_WEIGHT_PROCESSING) + ": true or false"
        raise errors.not_supported(sae_id, f"model_from_pretrained_kwargs.{key}", str(value), supported)
    return tuple(sorted((key, True) for key, value in kwargs.items() if key in _WEIGHT_PROCESSING and value))


def _factor(sae_id: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise errors.bad_cfg(sae_id, f"its norm scaling factor is {errors.shown(value)!r}, not a positive number")
    return float(value)


def _refuse_what_would_be_ignored(
    sae_id: str, cfg: Mapping[str, object], hook: hooks.Hook, foldable: tuple[str, ...]
) -> None:
    def allow(key: str, values: tuple[object, ...], supported: str) -> None:
        if cfg.get(key) not in values:
            raise errors.not_supported(sae_id, key, json.dumps(cfg[key]), supported)

    norms = (None, False, *_NORMS, *foldable)
    allow("normalize_activations", norms, "none, folded into the weights, or with a known scaling factor")
    allow("seqpos_slice", (None, [None], [None, None], [None, None, None]), "none (every position)")
    allow("hook_head_index_out", (None, cfg.get("hook_head_index")), "the head it reads")
    allow("reshape_activations", (None, "none", *(["hook_z"] if hook.place == "z" else [])), "none; hook_z at hook_z")
