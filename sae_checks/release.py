"""A release name or folder -> SAEs, read from their configurations alone: no torch, no weights."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sae_checks import errors, hooks
from sae_checks.safetensors_header import HeaderError, TensorShape, read_shapes

CFG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"

_EMBEDDED = Path(__file__).parent / "demo" / "files"
_DAMAGED_SAE = "blocks.2.hook_resid_pre"
EMBEDDED_RELEASES = ("demo", "demo-broken")

_N_CFG_BYTES_MOST = 1_000_000
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".npz")
_NORMS = ("none", "layer_norm", "constant_norm_rescale")  # those that SAE Lens applies while it runs
_MODEL_KWARGS_WITHOUT_EFFECT_ON_RESIDUALS = ("fold_ln", "center_unembed", "fold_value_biases", "dtype", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sae:
    """One SAE of a release, as its cfg.json describes it."""

    sae_id: str
    weights: Path
    hook: str
    """the place it reads and writes, TransformerLens's name."""
    layer: int
    """index of the block whose input it is; the number of blocks for the last block's output."""
    architecture: str
    d_in: int
    d_sae: int
    n_training_context_tokens: int | None
    """None: the configuration does not say."""
    prepend_bos: bool | None
    """None: the configuration does not say."""
    model_name: str
    center_writing_weights: bool
    """trained on residuals whose mean over d_model had been taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSae:
    """An SAE that cannot be measured: its checks are errors with *problem*, the others are judged."""

    sae_id: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything one run judges."""

    name: str
    source: str
    """the folder, or 'embedded'."""
    revision: str | None
    """the commit it was fetched at; None for what lies on disk."""
    saes: tuple[Sae | BrokenSae, ...]
    model: Path | None
    """its own language model, where it brings one."""
    corpus: Path | None
    lambada: Path | None

    @property
    def sae_ids(self) -> tuple[str, ...]:
        """In the release's order: by layer, then by name."""
        return tuple(sae.sae_id for sae in self.saes)


def resolve(name: str, *, patterns: Sequence[str] = ()) -> Release:
    """
    The release called *name*, narrowed to SAEs whose id matches one of *patterns* (fnmatch; none: all).

    Raises:
        UsageError: no such release, no SAE in it, or none that matches.
    """
    if name in EMBEDDED_RELEASES:
        release = _embedded(name)
    elif (folder := _folder(name)) is not None:
        saes = _in_folder(folder)
        if not saes:
            raise errors.empty_release(name)
        release = Release(
            name=errors.shown(folder.resolve().name),
            source=str(folder),
            revision=None,
            saes=saes,
            model=None,
            corpus=None,
            lambada=None,
        )
    else:
        near = difflib.get_close_matches(name, (*EMBEDDED_RELEASES, *_folders_beside(Path(name))), n=1, cutoff=0.6)
        raise errors.unknown_release(name, near, EMBEDDED_RELEASES)
    if not patterns:
        return release
    kept = tuple(sae for sae in release.saes if any(fnmatch.fnmatchcase(sae.sae_id, p) for p in patterns))
    if not kept:
        raise errors.no_sae_matches(patterns, release.sae_ids)
    return replace(release, saes=kept)


def _folder(name: str) -> Path | None:
    """The folder that *name* may be the path of."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, no access, the home of nobody
        return None


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedded(name: str) -> Release:
    saes = _in_folder(_EMBEDDED / "saes")
    if name == "demo-broken":
        (damaged,) = _in_folder(_EMBEDDED / "saes-broken")
        saes = tuple(damaged if sae.sae_id == damaged.sae_id else sae for sae in saes)
    return Release(
        name=name,
        source="embedded",
        revision=None,
        saes=saes,
        model=_EMBEDDED / "model",
        corpus=_EMBEDDED / "text.jsonl",
        lambada=_EMBEDDED / "lambada.jsonl",
    )


def _folders_beside(path: Path) -> tuple[str, ...]:
    """Folders that a mistyped path may have meant."""
    try:
        return tuple(str(path.parent / folder.name) for folder in path.parent.iterdir() if folder.is_dir())
    except OSError:
        return ()


def _in_folder(folder: Path) -> tuple[Sae | BrokenSae, ...]:
    """Every cfg.json in or below *folder* is one SAE; its id is its path from there."""
    found: list[Sae | BrokenSae] = []
    for cfg_path in sorted(folder.rglob(CFG_FILE)):
        place = cfg_path.parent
        sae_id = place.resolve().name if place == folder else place.relative_to(folder).as_posix()
        try:
            found.append(read_sae(_id(sae_id), place))
        except errors.SaeError as problem:
            found.append(BrokenSae(sae_id=_id(sae_id), problem=str(problem)))
    return tuple(sorted(found, key=_place_in_release))


def _id(path: str) -> str:
    """Printable, and two different paths stay different."""
    return errors.shown(path.replace("\\", "\\\\"), n_most=100_000)


def _place_in_release(sae: Sae | BrokenSae) -> tuple[int, str]:
    return (sae.layer if isinstance(sae, Sae) else 1_000_000, sae.sae_id)


def read_sae(sae_id: str, folder: Path) -> Sae:
    """
    The SAE that SAE Lens saved in *folder*, from its cfg.json and the header of its weights.

    Raises:
        SaeError: a configuration or weight file that cannot be used, or a setting that would have to be ignored.
    """
    cfg = _read_cfg(sae_id, folder / CFG_FILE)
    metadata = cfg.get("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_cfg(sae_id, "metadata is no object")
    described = {**metadata, **cfg}  # cfg wins: its d_in and d_sae are the ones that SAE Lens allocates by
    if "metadata" not in cfg:  # SAE Lens < 6: all on one level, older names, BOS unless said otherwise
        described.setdefault("hook_name", cfg.get("hook_point"))
        described.setdefault("hook_head_index", cfg.get("hook_point_head_index"))
        described.setdefault("prepend_bos", True)
    hook = _text(sae_id, described, "hook_name")
    d_in, d_sae = (_count(sae_id, described, key) for key in ("d_in", "d_sae"))
    _refuse_what_would_be_ignored(sae_id, described)
    model_kwargs = described.get("model_from_pretrained_kwargs")
    _check_shapes(sae_id, _shapes(sae_id, folder), d_in=d_in, d_sae=d_sae)
    context = described.get("context_size")
    return Sae(
        sae_id=sae_id,
        weights=folder / WEIGHTS_FILE,
        hook=hook,
        layer=_layer(sae_id, hook),
        architecture=errors.shown(described.get("architecture", "standard")),
        d_in=d_in,
        d_sae=d_sae,
        n_training_context_tokens=context if type(context) is int and context > 0 else None,
        prepend_bos=bos if isinstance(bos := described.get("prepend_bos"), bool) else None,
        model_name=errors.shown(described.get("model_name", "")),
        center_writing_weights=isinstance(model_kwargs, dict) and bool(model_kwargs.get("center_writing_weights")),
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


def _layer(sae_id: str, hook: str) -> int:
    layer = hooks.boundary(hook)
    if layer is None:
        raise errors.unknown_hook(sae_id, hook)
    return layer


def _refuse_what_would_be_ignored(sae_id: str, cfg: Mapping[str, object]) -> None:
    def allow(key: str, values: tuple[object, ...], supported: str) -> None:
        if cfg.get(key) not in values:
            raise errors.not_supported(sae_id, key, json.dumps(cfg[key]), supported)

    allow("normalize_activations", (None, False, *_NORMS), "none, or folded into the weights")
    allow("hook_head_index", (None,), "none (all heads)")
    allow("seqpos_slice", (None, [None], [None, None], [None, None, None]), "none (every position)")
    allow("hook_name_out", (None, cfg["hook_name"]), "none (SAEs that write where they read)")
    allow("reshape_activations", (None, "none"), "none")
    kwargs = cfg.get("model_from_pretrained_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise errors.bad_cfg(sae_id, "model_from_pretrained_kwargs is no object")
    for key, value in kwargs.items():
        if key == "center_writing_weights" or key in _MODEL_KWARGS_WITHOUT_EFFECT_ON_RESIDUALS:
            continue
        raise errors.not_supported(sae_id, f"model_from_pretrained_kwargs.{key}", str(value), "center_writing_weights")


def _shapes(sae_id: str, folder: Path) -> tuple[TensorShape, ...]:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLE_SUFFIXES)
        raise errors.only_pickle(sae_id, pickles[0]) if pickles else errors.bad_weights(sae_id, f"no {WEIGHTS_FILE}")
    try:
        return read_shapes(weights)
    except (HeaderError, OSError) as problem:
        raise errors.bad_weights(sae_id, str(problem)) from None


def _check_shapes(sae_id: str, shapes: Sequence[TensorShape], *, d_in: int, d_sae: int) -> None:
    """cfg.json and weights must agree before SAE Lens allocates what cfg.json asks for."""
    expected = {"W_dec": (d_sae, d_in), "W_enc": (d_in, d_sae), "b_dec": (d_in,)}
    for tensor in shapes:
        if tensor.name in expected and tensor.shape != expected[tensor.name]:
            problem = f"{tensor.name} is {tensor.shape}, cfg.json (d_in, d_sae) asks for {expected[tensor.name]}"
            raise errors.bad_weights(sae_id, problem)
    if not any(tensor.name == "W_dec" for tensor in shapes):
        raise errors.bad_weights(sae_id, "there is no W_dec in it")
