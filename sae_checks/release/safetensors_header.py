"""
Header of a .safetensors file: the shapes of its tensors, and whether the file is complete.

Reading the header alone lets a broken SAE be refused before torch is imported, and before a hostile configuration can
ask for memory.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

_N_HEADER_BYTES_MOST = 100_000_000  # the format's own limit
_N_BYTES_OF_DTYPE = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


class HeaderError(ValueError):
    """The file is not a complete .safetensors file; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShape:
    """Name, shape and type of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """"F32", "BF16", ..."""

    @property
    def is_real(self) -> bool:
        """Whether its numbers are floating-point numbers."""
        return self.dtype.startswith(("F", "BF"))


def read_shapes(path: Path) -> tuple[TensorShape, ...]:
    """
    Read the shapes of the tensors in *path* from its header.

    Raises:
        HeaderError: the file is no .safetensors file, or shorter or longer than its header says.
    """
    n_file_bytes = path.stat().st_size
    with path.open("rb") as file:
        n_header_bytes = int.from_bytes(file.read(8), "little")
        if n_file_bytes < 8 or n_header_bytes > min(_N_HEADER_BYTES_MOST, n_file_bytes - 8):
            raise HeaderError(f"{n_file_bytes} bytes are too few for a safetensors header (truncated?)")
        text = file.read(n_header_bytes)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = tuple(_tensor(name, entry) for name, entry in entries.items())
        n_data_bytes = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        raise HeaderError("its header is not that of a safetensors file") from None
    if 8 + n_header_bytes + n_data_bytes != n_file_bytes:
        raise HeaderError(f"truncated: {n_file_bytes} bytes, its header speaks of {8 + n_header_bytes + n_data_bytes}")
    return shapes


def _tensor(name: str, entry: dict[str, object]) -> TensorShape:
    shape = tuple(int(length) for length in _list(entry["shape"]))
    start, stop = (int(offset) for offset in _list(entry["data_offsets"]))
    n_bytes_each = _N_BYTES_OF_DTYPE[str(entry["dtype"])]
    if min(shape, default=0) < 0 or stop - start != n_bytes_each * math.prod(shape):
        raise ValueError(name)
    return TensorShape(name=name, shape=shape, dtype=str(entry["dtype"]))


def _list(value: object) -> list[int]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value
