"""What a .safetensors file says of itself: the same as safetensors' own reader says, or a refusal."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import strategies  # noqa: F401 -- loads the Hypothesis profile
from builders import header_bytes, weights
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from sae_checks.release.safetensors_header import HeaderError, read_shapes

DTYPES = (
    "float64",
    "float32",
    "float16",
    "int64",
    "uint64",
    "int32",
    "uint32",
    "int16",
    "uint16",
    "int8",
    "uint8",
    "bool",
)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
tensors = st.dictionaries(names, st.tuples(shapes, st.sampled_from(DTYPES)), max_size=4)
metadata = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=2)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "sae_weights.safetensors"


@given(tensors, metadata)
def test_shapes_are_those_that_safetensors_reads(described, about):
    """Names and shapes agree with safetensors' own reader, whatever dtypes, empty tensors and metadata there are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.safetensors")
        save_file({name: np.zeros(shape, dtype) for name, (shape, dtype) in described.items()}, path, metadata=about)
        with safe_open(path, framework="numpy") as theirs:
            expected = {name: tuple(theirs.get_slice(name).get_shape()) for name in theirs.keys()}  # noqa: SIM118 -- no dict
        assert {tensor.name: tensor.shape for tensor in read_shapes(path)} == expected


def test_every_truncation_is_refused(file):
    """A file cut short anywhere, in its length, its header or its data, is never taken for whole."""
    whole = save(weights(d_in=2, d_sae=3))
    for n_bytes in range(len(whole)):
        file.write_bytes(whole[:n_bytes])
        with pytest.raises(HeaderError):
            read_shapes(file)
    file.write_bytes(whole)
    assert len(read_shapes(file)) == 4


def test_bytes_after_the_end_are_refused(file):
    """A file longer than its header says is not the file that was saved."""
    file.write_bytes(save(weights()) + b"\0")
    with pytest.raises(HeaderError):
        read_shapes(file)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"not json",
        b"\xff\xfe",
        b'{"W_dec": 3}',
        b'{"W_dec": {}}',
        b'{"W_dec": null}',
        b'{"W_dec": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [4], "data_offsets": [0]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [4], "data_offsets": "0, 16"}}',
        b'{"W_dec": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [4], "data_offsets": [0, Infinity]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [-4, -1], "data_offsets": [0, 16]}}',
        b'{"W_dec": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}',
        b"[" * 100_000,
    ],
    ids=lambda header: header[:60].decode("latin1"),
)
def test_a_garbage_header_is_refused(file, header):
    """A header that is no safetensors header is a HeaderError and nothing else."""
    file.write_bytes(header_bytes(header, 16))
    with pytest.raises(HeaderError):
        read_shapes(file)


def test_a_header_longer_than_the_file_is_refused_unread(file):
    """The length at the head is not believed: 2**63 bytes are never asked for."""
    file.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(HeaderError, match="truncated"):
        read_shapes(file)


@pytest.mark.parametrize("dtype", ["F32", "U64", "F8_E4M3", "no such dtype"])
def test_a_tensor_larger_than_its_bytes_is_refused(file, dtype):
    """A shape that the file has no bytes for is refused whatever the dtype: memory is asked for by shape."""
    entry = {"dtype": dtype, "shape": [10**15, 4], "data_offsets": [0, 16]}
    file.write_bytes(header_bytes(json.dumps({"W_dec": entry}).encode(), 16))
    with pytest.raises(HeaderError):
        read_shapes(file)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(garbage):
    """No sequence of bytes raises anything but HeaderError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.safetensors")
        path.write_bytes(header_bytes(garbage))
        try:
            assert isinstance(read_shapes(path), tuple)
        except HeaderError as refusal:
            assert str(refusal)  # noqa: PT017 -- both ways out are right, and only these two
