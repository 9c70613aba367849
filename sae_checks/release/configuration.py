"""An SAE's configuration -> `Sae`, or an error that says why it cannot be used."""

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

Format = Literal["sae_lens", "checkpoint", "sparsify", "registered", "in_memory"]
"""What wrote its files: SAE Lens, SAE Lens's trainer or sparsify; "registered": SAE Lens's converter reads them;
"in_memory": there are no files."""

MAX_CFG_BYTES = 1_000_000
_FOLDABLE_NORM = "expected_average_only_in"
_RUNTIME_NORMS = ("none", "layer_norm", "constant_norm_rescale")
_TEMPORAL_NORM = "constant_scalar_rescale"
"""A norm that only temporal SAEs have."""
_SAVED_AS = {"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu"}
"""The architecture that SAE Lens saves for use, by that of training, where they differ."""
_TRAINED_AS = (
    *("standard", "gated", "topk", "abstopk", "jumprelu", "temporal", "matching_pursuit", "transcoder"),
    *("skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder", *_SAVED_AS),
)
"""Architectures of training that are known; another one may be saved as anything."""
_WEIGHT_PROCESSING = ("center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")
_MODEL_KWARGS_WITHOUT_EFFECT = ("center_unembed", "dtype", "torch_dtype", "device", "n_devices", "device_map")

_REVISION = re.compile(r"\w[\w./-]{0,200}")  # WHY so strict: it becomes part of a path in the Hub's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """A folder of a Hub repository, which holds one SAE."""

    repo: hub.HubRepo
    path: str

    def file(self, name: str) -> str:
        """Path in the repository of the file *name* in this folder."""
        return (PurePosixPath(self.path) / name).as_posix()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files in this folder."""
        paths = (PurePosixPath(file.path) for file in self.repo.files)
        return tuple(path.name for path in paths if path.parent == PurePosixPath(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sae:
    """One SAE of a release, as its cfg.json describes it."""

    sae_id: str
    weights: Path | None
    """path of its weights, which may not be fetched yet; None: only the registered converter knows it."""
    remote: HubFolder | None
    """where the files are fetched from; None: they are on disk."""
    overrides: Mapping[str, Any]
    """the registry's corrections of entries in cfg.json."""
    format: Format = "sae_lens"
    release: str | None = None
    """the registry's name of the release, for format "registered"."""
    allow_pickle: bool = False
    """its converter may read pickles and .npz."""
    norm_scaling_factor: float | None = None
    """factor on its input during training that is yet to be folded into the weights; None: nothing to fold."""
    hook: str
    """TransformerLens's name of the hook that it reads."""
    hook_out: str
    """the hook that it writes; differs from *hook* for transcoders."""
    head: int | None
    """index of the one attention head that it reads and writes at `hook_z`; None: all heads."""
    depth: float
    """position of *hook* in the model, in blocks, see `hooks.Hook.depth`."""
    architecture: str
    d_in: int
    d_out: int
    d_sae: int
    n_training_context_tokens: int | None
    """None: not stated."""
    k: int | None
    """active latents per token of a TopK or AbsTopK SAE; None for other architectures."""
    module: Any = None  # Any: no torch is imported here
    """SAE Lens's module, for format "in_memory"."""
    recorded_l0: float | None = None
    """active latents per token that the registry states; None: not stated."""
    prepend_bos: bool | None
    """None: not stated."""
    model_name: str
    model_revision: str | None
    """revision of the model's repository; None: main."""
    model_kwargs: tuple[tuple[str, bool], ...]
    """TransformerLens's weight processing during training, the kinds that change an activation; sorted by name."""
    exclude_special_tokens: bool | tuple[int, ...]
    """special tokens on which it was not trained, and which are never replaced: ids, True for all of them."""
    dataset_path: str | None
    """dataset that it was trained on; None: not stated."""

    @property
    def center_writing_weights(self) -> bool:
        """Whether it was trained on activations less their mean over d_model."""
        return ("center_writing_weights", True) in self.model_kwargs


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSae:
    """An SAE that cannot be measured; each of its checks is an error with the text *problem*."""

    sae_id: str
    problem: str
    is_withheld: bool = False
    """the Hub did not give its configuration."""


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
    Describe an SAE by its configuration *cfg*, in any version of SAE Lens's format.

    Args:
        sae_id: its id in the release.
        cfg: the configuration.
        weights: see `Sae.weights`.
        remote: see `Sae.remote`.
        overrides: see `Sae.overrides`.
        norm_scaling_factor: its factor, if one is known; used only if the configuration needs one.

    Raises:
        SaeError: an entry cannot be used, or would have to be ignored.
    """
    metadata = cfg.get("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_cfg(sae_id, "metadata is no object")
    entries = {**_flatten(metadata, cfg), **(overrides or {})}
    hook = _hook(sae_id, entries, "")
    hook_out = _hook(sae_id, entries, "_out") if entries.get("hook_name_out") else hook
    d_in, d_sae = (_count(sae_id, entries, key) for key in ("d_in", "d_sae"))
    d_out = _count(sae_id, entries, "d_out") if "d_out" in cfg else d_in
    is_foldable = entries.get("normalize_activations") == _FOLDABLE_NORM and norm_scaling_factor is not None
    _check_supported(sae_id, entries, hook)
    _check_norm(sae_id, entries, can_fold=norm_scaling_factor is not None)
    _check_architecture(sae_id, entries)
    context = entries.get("context_size")
    return Sae(
        sae_id=sae_id,
        weights=weights,
        remote=remote,
        overrides=overrides or {},
        norm_scaling_factor=_factor(sae_id, norm_scaling_factor) if is_foldable else None,
        hook=hook.name,
        hook_out=hook_out.name,
        head=_head(sae_id, entries, hook),
        depth=hook.depth,
        architecture=errors.shown(entries.get("architecture", "standard")),
        d_in=d_in,
        d_out=d_out,
        d_sae=d_sae,
        n_training_context_tokens=context if type(context) is int and context > 0 else None,
        k=_k(sae_id, entries),
        prepend_bos=bos if isinstance(bos := entries.get("prepend_bos"), bool) else None,
        model_name=errors.shown(entries.get("model_name", "")),
        model_revision=_model_revision(sae_id, entries),
        model_kwargs=_weight_processing(sae_id, entries),
        exclude_special_tokens=_excluded(sae_id, entries),
        dataset_path=path if isinstance(path := entries.get("dataset_path"), str) else None,
    )


def _flatten(metadata: Mapping[str, object], cfg: Mapping[str, object]) -> dict[str, object]:  # a dict: JSON's own keys
    """The entries of *cfg* and of its *metadata* on one level, with the names and defaults of SAE Lens 6."""
    entries = {**metadata, **cfg}  # cfg wins: SAE Lens allocates memory by its d_in and d_sae
    if "metadata" not in cfg:  # SAE Lens < 6: one level, older names, BOS unless stated otherwise
        entries.setdefault("hook_name", cfg.get("hook_point"))
        entries.setdefault("hook_head_index", cfg.get("hook_point_head_index"))
        entries.setdefault("prepend_bos", True)
        if isinstance(norm := cfg.get("normalize_activations"), bool):
            entries["normalize_activations"] = _FOLDABLE_NORM if norm else "none"
    return entries


def read_cfg(sae_id: str, path: Path) -> dict[str, object]:  # a dict: JSON's own keys
    """
    Read the JSON object in *path*.

    Raises:
        SaeError: the file holds no JSON object, or is too large for a configuration.
    """
    if path.stat().st_size > MAX_CFG_BYTES:
        raise errors.bad_cfg(sae_id, f"more than {MAX_CFG_BYTES} bytes")
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
    """Active latents per token. Before SAE Lens 6, TopK was an activation function, and k one of its arguments."""
    activation = cfg.get("activation_fn_str", cfg.get("activation_fn"))
    if cfg.get("architecture") not in ("topk", "abstopk") and activation != "topk":
        return None
    arguments = cfg.get("activation_fn_kwargs")
    return _count(sae_id, {**arguments, **cfg} if isinstance(arguments, dict) else cfg, "k")


def _hook(sae_id: str, cfg: Mapping[str, object], suffix: str) -> hooks.Hook:
    """
    The hook that is read (*suffix* "") or written (*suffix* "_out").

    TRAP: transformers' name of the place wins over TransformerLens's if both are given. SAE Lens calls the input of
    Gemma 3's MLP `hook_mlp_in`, which in TransformerLens is the residual stream before the norm.
    """
    name = _text(sae_id, cfg, f"hook_name{suffix}")
    module_name = cfg.get(f"hf_hook_name{suffix}")
    if not module_name and cfg.get("model_class_name") == "AutoModelForCausalLM":
        module_name = name
    if isinstance(module_name, str):
        name = hooks.from_module_name(module_name) or name
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


def _check_norm(sae_id: str, cfg: Mapping[str, object], *, can_fold: bool) -> None:
    """Raise SaeError for a normalisation of the input that cannot be run."""
    norms = (None, False, *_RUNTIME_NORMS, *([_FOLDABLE_NORM] if can_fold else []))
    norm, is_temporal = cfg.get("normalize_activations"), cfg.get("architecture") == "temporal"
    if norm not in norms and not (norm == _TEMPORAL_NORM and is_temporal):
        raise errors.norm_not_supported(sae_id, json.dumps(norm))


def _check_architecture(sae_id: str, cfg: Mapping[str, object]) -> None:
    """Raise SaeError if the SAE was trained with another architecture than it would run with."""
    trained, architecture = cfg.get("training_architecture"), cfg.get("architecture", "standard")
    if trained in _TRAINED_AS and architecture not in (trained, _SAVED_AS.get(str(trained))):
        raise errors.other_architecture(
            sae_id, str(architecture), str(trained), _SAVED_AS.get(str(trained), str(trained))
        )


def _check_supported(sae_id: str, cfg: Mapping[str, object], hook: hooks.Hook) -> None:
    """Raise SaeError for a setting that splicing would have to ignore."""

    def allow(key: str, values: tuple[object, ...], supported: str) -> None:
        if cfg.get(key) not in values:
            raise errors.not_supported(sae_id, key, json.dumps(cfg[key]), supported)

    allow("seqpos_slice", (None, [None], [None, None], [None, None, None]), "none (every position)")
    allow("hook_head_index_out", (None, cfg.get("hook_head_index")), "the head it reads")
    allow("reshape_activations", (None, "none", *(["hook_z"] if hook.place == "z" else [])), "none; hook_z at hook_z")
