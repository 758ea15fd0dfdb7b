"""Headers of safetensors files: what the library takes is read, everything else is one sentence before any work."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from inflate.checkpoint import convert, inspect
from inflate.checkpoint.dtypes import TORCH_DTYPES
from inflate.checkpoint.header import read_header
from inflate.errors import InputError


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


CASES: dict[str, tuple[Any, int, str]] = {
    "too few bytes": ({"a": entry(shape=[3])}, 8, r"'a', F32 of shape \[3\], cannot have 8 bytes"),
    "more numbers than there can be": ({"a": entry(shape=[10**30])}, 8, "cannot have 8 bytes"),
    "half a byte": ({"a": entry("F4", [3], [0, 1])}, 1, "cannot have 1 bytes"),
    "overlap": ({"a": entry(), "b": entry(offsets=[4, 12])}, 12, "'b' overlaps 'a'"),
    "twice the same place": ({"a": entry(), "b": entry()}, 8, "'b' overlaps 'a'"),
    "a hole": ({"a": entry(), "b": entry(offsets=[12, 20])}, 20, "'b' does not follow 'a'"),
    "a hole at the start": ({"a": entry(offsets=[4, 12])}, 12, "'a' does not follow its header"),
    "more bytes": ({"a": entry()}, 20, "12 bytes after 'a' belong to no tensor"),
    "unknown dtype": ({"a": entry("F33")}, 8, "'a' is of dtype 'F33', which safetensors does not have"),
    "the end missing": ({"a": entry()}, 4, "is truncated"),
    "negative": ({"a": entry(shape=[-2])}, 8, "header cannot be read"),
    "a word for a count": ({"a": entry(shape=["2"])}, 8, "header cannot be read"),
    "a truth for a count": ({"a": entry(shape=[True, 2])}, 8, "header cannot be read"),
    "fractions": ({"a": entry(offsets=[0.0, 8.0])}, 8, "header cannot be read"),
    "dtypes": ({"a": entry(["F32"])}, 8, "header cannot be read"),
    "numbers as metadata": ({"__metadata__": {"a": 1}, "a": entry()}, 8, "header cannot be read"),
    "a list as metadata": ({"__metadata__": [1], "a": entry()}, 8, "header cannot be read"),
    "a list": ([1], 8, "header cannot be read"),
    "nested too deep": (b"{" + b'"a":[' * 100_000, 8, "header cannot be read"),
}


def write(path: Path, content: Any, num_bytes: int) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))
    return path


@pytest.mark.parametrize("name", CASES)
def test_what_the_library_refuses_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, num_bytes, said = CASES[name]
    path = write(tmp_path / "model.safetensors", content, num_bytes)
    with pytest.raises(SafetensorError):
        safe_open(path, framework="pt").__enter__()
    with pytest.raises(InputError, match=said) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for work in (inspect, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(InputError, match=said):
            work(path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=str)
def test_what_the_library_writes_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"none": torch.zeros(0, 3), "one": torch.zeros(()), "some": torch.zeros(2, 3)}
    save_file({name: value.to(dtype) for name, value in tensors.items()}, tmp_path / "a.safetensors", {"b": "c"})
    header = read_header(tmp_path / "a.safetensors")
    assert {name: one.shape for name, one in header.tensors.items()} == {"none": (0, 3), "one": (), "some": (2, 3)}
    assert header.metadata == {"b": "c"} and all(TORCH_DTYPES[one.dtype] == dtype for one in header.tensors.values())
