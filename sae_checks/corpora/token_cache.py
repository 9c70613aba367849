"""
Tokens kept on disk between runs, by the fingerprint of everything that they are made of.

Never trusted by name: what is read must have the fingerprint that it was written with, and everything else is ignored
and written again. A cache that cannot be read or written costs time, never a run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from sae_checks.corpora.sequences import Convention, Sequences

_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "config.json",
)
_ARRAYS = ("tokens", "lengths", "replaced", "scored", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What tokens depend on."""

    kind: str
    content_sha256: str
    """of the texts."""
    tokenizer: Path
    """the folder with its files."""
    convention: Convention
    seed: int
    n_most: int

    @property
    def key(self) -> str:
        """sha256 over all of it, the code that tokenises and the versions of what it calls."""
        named = {**asdict(self), "convention": asdict(self.convention), "tokenizer": _hash(_files(self.tokenizer))}
        named["code"] = _hash(sorted(Path(__file__).parent.glob("*.py")))
        named["versions"] = [metadata.version(name) for name in ("tokenizers", "transformers", "numpy")]
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def folder() -> Path:
    """`SAE_CHECKS_CACHE`, or sae-checks in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("SAE_CHECKS_CACHE") or f"{home}/sae-checks").expanduser() / "tokens"


def get(ingredients: Ingredients, make: Callable[[], Sequences]) -> Sequences:
    """What the cache holds for *ingredients*, else what *make* makes, kept for the next run."""
    key = ingredients.key
    path = folder() / f"{key}.npz"
    found = _read(path, key)
    if found is None:
        found = make()
        _write(found, path, key)
    return found


def _read(path: Path, key: str) -> Sequences | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            n_cut = int(file["n_cut"])
            found = Sequences(**{name: file[name] for name in _ARRAYS}, n_cut=n_cut)
            return found if str(file["seal"]) == _seal(found, key) else None
    except Exception:  # noqa: BLE001 -- a damaged archive raises whatever zip, zlib and NumPy make of it
        return None


def _write(sequences: Sequences, path: Path, key: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(sequences, name) for name in _ARRAYS}
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays, n_cut=sequences.n_cut, seal=_seal(sequences, key))
        part.replace(path)
    except OSError:  # no home, no room, no right to write
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _seal(sequences: Sequences, key: str) -> str:
    return hashlib.sha256(f"{key} {sequences.fingerprint} {sequences.n_cut}".encode()).hexdigest()


def _files(tokenizer: Path) -> list[Path]:
    return sorted({path for pattern in _TOKENIZER_FILES for path in tokenizer.glob(pattern) if path.is_file()})


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
