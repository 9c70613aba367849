"""
A cache of token sequences on disk, keyed by a hash of everything that they depend on.

An entry whose content does not match the fingerprint stored with it is ignored and written again. A cache that cannot
be read or written is no error: the sequences are made again.
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
_COUNTS = ("n_cut", "n_copies")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInputs:
    """Everything that token sequences depend on."""

    kind: str
    content_sha256: str
    """hash of the texts."""
    tokenizer: Path
    """folder of its files."""
    convention: Convention
    seed: int
    max_rows: int

    @property
    def key(self) -> str:
        """sha256 of the inputs, the code that tokenises and the versions of the libraries that it calls."""
        fields = {**asdict(self), "convention": asdict(self.convention), "tokenizer": _hash(_files(self.tokenizer))}
        fields["code"] = _hash(sorted(Path(__file__).parent.glob("*.py")))
        fields["versions"] = [metadata.version(name) for name in ("tokenizers", "transformers", "numpy")]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def folder() -> Path:
    """Folder of the cache: in `SAE_CHECKS_CACHE` if that is set, else in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("SAE_CHECKS_CACHE") or f"{home}/sae-checks").expanduser() / "tokens"


def get(inputs: TokenInputs, make: Callable[[], Sequences]) -> Sequences:
    """The sequences cached for *inputs*; if there are none, those that *make* returns, which are then cached."""
    key = inputs.key
    path = folder() / f"{key}.npz"
    sequences = _read(path, key)
    if sequences is None:
        sequences = make()
        _write(sequences, path, key)
    return sequences


def _read(path: Path, key: str) -> Sequences | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            n_cut, n_copies = (int(file[name]) for name in _COUNTS)
            sequences = Sequences(**{name: file[name] for name in _ARRAYS}, n_cut=n_cut, n_copies=n_copies)
            return sequences if str(file["seal"]) == _seal(sequences, key) else None
    except Exception:  # noqa: BLE001 -- zip, zlib and NumPy raise many kinds of errors for a damaged archive
        return None


def _write(sequences: Sequences, path: Path, key: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: getattr(sequences, name) for name in (*_ARRAYS, *_COUNTS)}
        with part.open("wb") as file:
            np.savez_compressed(file, **fields, seal=_seal(sequences, key))
        part.replace(path)
    except OSError:  # no home, no space, or no permission to write
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _seal(sequences: Sequences, key: str) -> str:
    return hashlib.sha256(f"{key} {sequences.fingerprint} {sequences.n_cut} {sequences.n_copies}".encode()).hexdigest()


def _files(tokenizer: Path) -> list[Path]:
    return sorted({path for pattern in _TOKENIZER_FILES for path in tokenizer.glob(pattern) if path.is_file()})


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
