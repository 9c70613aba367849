"""
Clean passes kept on disk between runs, by the fingerprint of everything that their numbers depend on.

Never trusted by name: what is read must say that it is of this very computation, and every tensor must have the
checksum that it was written with. Everything else is computed and written again. A cache that cannot be read or written
costs time, never a run.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sae_checks import errors
from sae_checks.model import numerics
from sae_checks.model.hugging_face import start
from sae_checks.model.interface import CleanPass, Edit
from sae_checks.model.numerics import Computed, checksum
from sae_checks.release.hooks import parse

_N_BYTES_LEFT = 2 << 30
_SHARE_LEFT = 0.1
"""of the disk; whichever of the two is more is left free."""
_N_SECONDS_HALF_WRITTEN = 24 * 3600
"""after which what is half written belongs to a run that was killed."""
_NOT_ONLY_LOOKING = ("z", "resid_mid", "normalized_mlp_in")
"""Places at which a hook computes what it shows (a sum, a norm, another shape) and hands that on: later numbers may
differ in their last bits by its being there. All others hand on the tensor itself."""


class CleanCacheWarning(UserWarning):
    """Clean passes are no longer kept; the run goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """Which tensor of a file is what."""

    hidden: str
    captured: dict[str, list[str]]
    """by hook, one for each time that it fired."""
    boundaries: dict[str, str]
    """by number of blocks before it, written out."""
    checksums: dict[str, str]


class CachedModel:
    """A LanguageModel whose clean passes are looked up first (see `interface.LanguageModel`)."""

    def __init__(self, model: Computed, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._stores = True
        self.facts = model.facts
        self.tokenizer = model.tokenizer
        self.device = model.device
        self.uses_layer_norm = model.uses_layer_norm
        self.n_heads = model.n_heads
        self.n_logits = model.n_logits

    def width(self, sae_id: str, hook: str) -> int:
        return self._model.width(sae_id, hook)

    def resume(self, clean: CleanPass, edits: Mapping[str, Edit]) -> torch.Tensor:
        return self._model.resume(clean, edits)

    def logits(self, hidden: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        return self._model.logits(hidden, out=out)

    @torch.inference_mode()
    def clean(self, tokens: torch.Tensor, hooks: Collection[str]) -> CleanPass:
        """
        As the model computes it, to the bit, from the disk where it lies there with all of *hooks*.

        What lies there with other hooks is computed anew with all of them and takes its place.
        """
        asked = frozenset(hooks)
        key = self._key(tokens, asked)
        path = self._folder / self._fingerprint[:16] / f"{key}.safetensors"
        found, held = _read(path, key, asked, tokens)
        if found is not None:
            return found
        computed = self._model.clean(tokens, asked | held if self._stores else asked)
        if self._stores:
            self._store(computed, path, key)
        return _of_hooks(computed, asked)

    @cached_property
    def _fingerprint(self) -> str:
        _sweep(self._folder)
        return numerics.fingerprint(self._model)

    def _key(self, tokens: torch.Tensor, hooks: Collection[str]) -> str:
        disturbing = sorted(hook for hook in hooks if _disturbs(hook))
        threads = torch.get_num_threads()  # may change after the fingerprint was taken
        of_tokens = sha256(f"{tokens.dtype} {tuple(tokens.shape)} ".encode())
        of_tokens.update(tokens.cpu().contiguous().numpy().tobytes())
        return sha256(json.dumps([self._fingerprint, of_tokens.hexdigest(), threads, disturbing]).encode()).hexdigest()

    def _store(self, clean: CleanPass, path: Path, key: str) -> None:
        named = _Named()
        contents = _Contents(
            hidden=named.name(clean.hidden),
            captured={hook: [named.name(t) for t in fired] for hook, fired in clean.captured.items()},
            boundaries={str(n_blocks): named.name(t) for n_blocks, t in clean.boundaries.items()},
            checksums=named.checksums,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            problem = _no_room(path.parent, sum(t.nbytes for t in named.tensors.values()))
            if problem is None and not all(t.is_contiguous() for t in named.tensors.values()):
                return  # another order in memory may be added up in another order
            if problem is None:
                with _in_place_of(path) as part:
                    save_file(named.tensors, part, metadata=_sealed(contents, key))
                return
        except Exception as why:  # noqa: BLE001 -- OSError, and whatever safetensors makes of one
            problem = f"{type(why).__name__}: {why}"
        self._stores = False
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # -W error is for what is wrong with the run, and nothing is
            warnings.warn(CleanCacheWarning(errors.clean_cache_full(str(self._folder), problem)), stacklevel=2)


class _Named:
    """Tensors under names; what several hooks carry has one."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.checksums: dict[str, str] = {}
        self._names: dict[object, str] = {}

    def name(self, tensor: torch.Tensor) -> str:
        identity = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if identity not in self._names:
            name = self._names[identity] = str(len(self._names))
            self.tensors[name] = tensor.cpu()
            self.checksums[name] = checksum(self.tensors[name])
        return self._names[identity]


def _disturbs(hook: str) -> bool:
    parsed = parse(hook)
    return parsed is None or parsed.place in _NOT_ONLY_LOOKING


def _read(path: Path, key: str, asked: frozenset[str], tokens: torch.Tensor) -> tuple[CleanPass | None, frozenset[str]]:
    """The pass with the hooks *asked*, if it is there, whole and of *key*; and the hooks that are there."""
    try:
        with safe_open(path, framework="pt") as file:
            contents = _unsealed(file.metadata(), key)
            held = frozenset(contents.captured)
            if not asked <= held:
                return None, held
            return _loaded(file, contents, asked, tokens), held
    except Exception:  # noqa: BLE001 -- not there, or damaged: safetensors, JSON and torch each say so in their own way
        return None, frozenset()


def _loaded(file: Any, contents: _Contents, hooks: Collection[str], tokens: torch.Tensor) -> CleanPass:
    """
    The pass in *file*, restricted to *hooks*; only what is needed is read. Any: safetensors has no types for it.

    Raises:
        ValueError: a tensor is not what was written.
    """
    read: dict[str, torch.Tensor] = {}

    def tensor(name: str) -> torch.Tensor:
        if name not in read:
            # TRAP: copied out of the mapping, where it lies at any multiple of 8 bytes. Products of matrices in memory
            # that is not aligned may differ in their last bits; and what happens to the file no longer matters.
            found = file.get_tensor(name).clone()
            if checksum(found) != contents.checksums[name]:
                raise ValueError(name)
            read[name] = found.to(tokens.device)
        return read[name]

    return CleanPass(
        tokens=tokens,
        hidden=tensor(contents.hidden),
        captured={hook: tuple(tensor(name) for name in contents.captured[hook]) for hook in hooks},
        boundaries={n_blocks: tensor(contents.boundaries[str(n_blocks)]) for n_blocks in {start(h) for h in hooks}},
    )


def _of_hooks(clean: CleanPass, hooks: Collection[str]) -> CleanPass:
    """What would have been computed had only *hooks* been asked."""
    return CleanPass(
        tokens=clean.tokens,
        hidden=clean.hidden,
        captured={hook: clean.captured[hook] for hook in hooks},
        boundaries={n: clean.boundaries[n] for n in {start(hook) for hook in hooks} if n in clean.boundaries},
    )


def _sealed(contents: _Contents, key: str) -> dict[str, str]:
    """What safetensors keeps in a file's header: strings by name."""
    text = json.dumps(asdict(contents), sort_keys=True)
    return {"key": key, "contents": text, "seal": sha256(f"{key} {text}".encode()).hexdigest()}


def _unsealed(header: dict[str, str], key: str) -> _Contents:
    """
    What `_sealed` wrote for *key*.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    text = header["contents"]
    if header["key"] != key or header["seal"] != sha256(f"{key} {text}".encode()).hexdigest():
        raise ValueError(key)
    return _Contents(**json.loads(text))


def _no_room(folder: Path, n_bytes: int) -> str | None:
    """Why *n_bytes* more in *folder* are too many; None: they are not."""
    disk = shutil.disk_usage(folder)
    left, least = disk.free - n_bytes, max(_N_BYTES_LEFT, _SHARE_LEFT * disk.total)
    return None if left >= least else f"{disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f}"


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of *path* when it is whole."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed left half written."""
    with suppress(OSError):
        for part in folder.glob("*/.*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _N_SECONDS_HALF_WRITTEN:
                    part.unlink()
