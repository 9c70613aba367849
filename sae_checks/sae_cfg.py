"""An SAE's own description: cfg.json and the header of its weights -> what is known of it, or why it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_checks import errors, hooks, hub
from sae_checks.safetensors_header import HeaderError, TensorShape, read_shapes

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"

_N_CFG_BYTES_MOST = 1_000_000
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".npz")
_NORMS = ("none", "layer_norm", "constant_norm_rescale", "constant_scalar_rescale")  # those it applies while it runs
_WEIGHT_PROCESSING = ("center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")
_MODEL_KWARGS_WITHOUT_EFFECT = ("center_unembed", "dtype", "torch_dtype", "device", "n_devices", "device_map")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """Where an SAE lies on the Hub."""

    repo: hub.HubRepo
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sae:
    """One SAE of a release, as its cfg.json describes it."""

    sae_id: str
    weights: Path
    """where its weights lie, or will lie once `make_local` has fetched them."""
    remote: HubFolder | None
    """where they are fetched from; None for what lies on disk."""
    overrides: Mapping[str, Any]
    """entries of cfg.json that the registry corrects."""
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
    prepend_bos: bool | None
    """None: the configuration does not say."""
    model_name: str
    model_kwargs: tuple[tuple[str, bool], ...]
    """how TransformerLens processed the model's weights for it, where that changes an activation; sorted."""
    exclude_special_tokens: bool | tuple[int, ...]
    """it was trained without these: never replaced."""

    @property
    def center_writing_weights(self) -> bool:
        """Trained on activations whose mean over d_model had been taken away."""
        return ("center_writing_weights", True) in self.model_kwargs


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSae:
    """An SAE that cannot be measured: its checks are errors with *problem*, the others are judged."""

    sae_id: str
    problem: str


def read_sae(sae_id: str, folder: Path) -> Sae:
    """
    The SAE that SAE Lens saved in *folder*, from its cfg.json and the header of its weights.

    Raises:
        SaeError: a configuration or weight file that cannot be used, or a setting that would have to be ignored.
    """
    sae = _described(sae_id, _read_cfg(sae_id, folder / CFG_FILE), folder / WEIGHTS_FILE, remote=None, overrides={})
    check_weights(sae)
    return sae


def read_remote_sae(sae_id: str, remote: HubFolder, overrides: Mapping[str, Any]) -> Sae:
    """
    The SAE in a folder of the Hub, from its cfg.json alone, with what the registry corrects in it.

    Raises:
        SaeError: as `read_sae`, or the Hub does not give the file.
    """
    weights = f"{remote.path}/{WEIGHTS_FILE}"
    if remote.repo.file(weights) is None:
        beside = [file.path for file in remote.repo.files if file.path.startswith(f"{remote.path}/")]
        pickles = sorted(path for path in beside if path.endswith(_PICKLE_SUFFIXES))
        raise errors.only_pickle(sae_id, pickles[0]) if pickles else errors.bad_weights(sae_id, f"no {WEIGHTS_FILE}")
    try:
        cfg = _read_cfg(sae_id, hub.fetch(remote.repo, f"{remote.path}/{CFG_FILE}", n_bytes_most=_N_CFG_BYTES_MOST))
    except errors.HubError as problem:
        raise errors.SaeError(str(problem)) from None
    # SAE Lens keeps what concerns the model in metadata, where its own overrides do not reach (FIELD.md, trap 11)
    place = hub.place_of(remote.repo, weights)
    return _described(sae_id, cfg, place, remote=remote, overrides=overrides)


def make_local(sae: Sae) -> None:
    """
    Fetch the weights of *sae* if they are not on disk, and check them before anything is allocated.

    Raises:
        SaeError: the Hub does not give them, or they do not agree with cfg.json.
    """
    if sae.remote is None:
        return
    try:
        hub.fetch(sae.remote.repo, f"{sae.remote.path}/{WEIGHTS_FILE}")
    except errors.HubError as problem:
        raise errors.SaeError(str(problem)) from None
    check_weights(sae)


def _described(
    sae_id: str,
    cfg: dict[str, object],
    weights: Path,
    *,
    remote: HubFolder | None,
    overrides: Mapping[str, Any],
) -> Sae:
    metadata = cfg.get("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_cfg(sae_id, "metadata is no object")
    described = {**metadata, **cfg}  # cfg wins: its d_in and d_sae are the ones that SAE Lens allocates by
    if "metadata" not in cfg:  # SAE Lens < 6: all on one level, older names, BOS unless said otherwise
        described.setdefault("hook_name", cfg.get("hook_point"))
        described.setdefault("hook_head_index", cfg.get("hook_point_head_index"))
        described.setdefault("prepend_bos", True)
    described.update(overrides)
    hook = _hook(sae_id, described, "")
    hook_out = _hook(sae_id, described, "_out") if described.get("hook_name_out") else hook
    d_in, d_sae = (_count(sae_id, described, key) for key in ("d_in", "d_sae"))
    d_out = _count(sae_id, described, "d_out") if "d_out" in cfg else d_in
    _refuse_what_would_be_ignored(sae_id, described, hook)
    context = described.get("context_size")
    return Sae(
        sae_id=sae_id,
        weights=weights,
        remote=remote,
        overrides=overrides,
        hook=hook.name,
        hook_out=hook_out.name,
        head=_head(sae_id, described, hook),
        depth=hook.depth,
        architecture=errors.shown(described.get("architecture", "standard")),
        d_in=d_in,
        d_out=d_out,
        d_sae=d_sae,
        n_training_context_tokens=context if type(context) is int and context > 0 else None,
        prepend_bos=bos if isinstance(bos := described.get("prepend_bos"), bool) else None,
        model_name=errors.shown(described.get("model_name", "")),
        model_kwargs=_weight_processing(sae_id, described),
        exclude_special_tokens=_excluded(sae_id, described),
    )


def _read_cfg(sae_id: str, path: Path) -> dict[str, object]:
    if path.stat().st_size > _N_CFG_BYTES_MOST:
        raise errors.bad_cfg(sae_id, f"more than {_N_CFG_BYTES_MOST} bytes")
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


def _weight_processing(sae_id: str, cfg: Mapping[str, object]) -> tuple[tuple[str, bool], ...]:
    kwargs = cfg.get("model_from_pretrained_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise errors.bad_cfg(sae_id, "model_from_pretrained_kwargs is no object")
    for key, value in kwargs.items():
        if key in _MODEL_KWARGS_WITHOUT_EFFECT or (key in _WEIGHT_PROCESSING and isinstance(value, bool)):
            continue
        supported = ", ".join(_WEIGHT_PROCESSING) + ": true or false"
        raise errors.not_supported(sae_id, f"model_from_pretrained_kwargs.{key}", str(value), supported)
    return tuple(sorted((key, value) for key, value in kwargs.items() if key in _WEIGHT_PROCESSING and value))


def _refuse_what_would_be_ignored(sae_id: str, cfg: Mapping[str, object], hook: hooks.Hook) -> None:
    def allow(key: str, values: tuple[object, ...], supported: str) -> None:
        if cfg.get(key) not in values:
            raise errors.not_supported(sae_id, key, json.dumps(cfg[key]), supported)

    allow("normalize_activations", (None, False, *_NORMS), "none, or folded into the weights")
    allow("seqpos_slice", (None, [None], [None, None], [None, None, None]), "none (every position)")
    allow("hook_head_index_out", (None, cfg.get("hook_head_index")), "the head it reads")
    allow("reshape_activations", (None, "none", *(["hook_z"] if hook.place == "z" else [])), "none; hook_z at hook_z")


def check_weights(sae: Sae) -> None:
    """
    cfg.json and weights must agree before SAE Lens allocates what cfg.json asks for.

    Raises:
        SaeError: no weights, only a pickle, or tensors of other shapes.
    """
    expected = {"W_dec": (sae.d_sae, sae.d_out), "W_enc": (sae.d_in, sae.d_sae), "b_dec": (sae.d_out,)}
    shapes = _shapes(sae.sae_id, sae.weights)
    for tensor in shapes:
        if tensor.name in expected and tensor.shape != expected[tensor.name]:
            problem = f"{tensor.name} is {tensor.shape}, cfg.json (d_in, d_out, d_sae) asks for {expected[tensor.name]}"
            raise errors.bad_weights(sae.sae_id, problem)
    if not any(tensor.name == "W_dec" for tensor in shapes):
        raise errors.bad_weights(sae.sae_id, "there is no W_dec in it")


def _shapes(sae_id: str, weights: Path) -> tuple[TensorShape, ...]:
    if not weights.is_file():
        pickles = sorted(file.name for file in weights.parent.iterdir() if file.suffix in _PICKLE_SUFFIXES)
        raise errors.only_pickle(sae_id, pickles[0]) if pickles else errors.bad_weights(sae_id, f"no {WEIGHTS_FILE}")
    try:
        return read_shapes(weights)
    except (HeaderError, OSError) as problem:
        raise errors.bad_weights(sae_id, str(problem)) from None
