"""Reading the header of a safetensors file: names, shapes and metadata without any weights.

The format: 8 bytes (little endian) with the length of a JSON header, the header, then the tensors' bytes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflate.components import refuse_stand_in
from inflate.errors import InputError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# Of every dtype that safetensors (0.8) knows, by the bits of one number.
_BITS = {
    64: ("F64", "I64", "U64", "C64"),
    32: ("F32", "I32", "U32"),
    16: ("F16", "BF16", "I16", "U16"),
    8: ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"),
    6: ("F6_E2M3", "F6_E3M2"),
    4: ("F4",),
}
_BITS_OF = {dtype: bits for bits, dtypes in _BITS.items() for dtype in dtypes}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file; `start` and `end` count bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself."""

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of `path`.

    Raises:
        InputError: no such file, a pickle, not a safetensors file, one whose end is missing, or one whose header does
            not agree with itself or with the bytes after it, as the library has it.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8:
            raise InputError(
                f"{path} is truncated: a safetensors file has at least 8 bytes, this one {size}; copy it again"
            )
        if length > MAX_HEADER_BYTES:
            raise InputError(f"{path} is not a safetensors file, nor any other kind of weights that inflate reads")
        text = file.read(length)
    if len(text) < length:
        raise InputError(f"{path} is truncated: its header ends after {len(text)} of {length} bytes; copy it again")
    try:
        content = json.loads(text)
        metadata = content.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that are no text")
        tensors = {name: _stored_tensor(entry, 8 + length) for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file: its header cannot be read") from error
    needed = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if size < needed:
        raise InputError(f"{path} is truncated: it has {size} of {needed} bytes; copy or download it again")
    wrong = _disagreement(tensors, 8 + length, size)
    if wrong:
        raise InputError(f"{path} is damaged: {wrong}; copy or download it again")
    return Header(path, tensors, metadata)


def is_pickle(path: Path) -> bool:
    """Whether `path` is named as pickles are."""
    return path.suffix.lower() in PICKLE_SUFFIXES


def refuse_pickle(path: Path) -> None:
    """Raise `InputError` if `path` is named as pickles are, none of which is opened unasked, or is a stand-in."""
    if path.is_file():
        refuse_stand_in(path)
    if is_pickle(path):
        raise InputError(
            f"{path} is a pickle, a kind of file that may run any code when opened; "
            "get the model as safetensors, or allow reading tensors and nothing else from it "
            "with --allow-pickle (allow_pickle=True), which convert, inspect and import take"
        )


def _stored_tensor(entry: dict[str, Any], data_start: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if not isinstance(dtype, str) or any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError("what must be a count or a word is something else")
    if start > end:
        raise ValueError("offsets out of order")
    return StoredTensor(dtype, shape, data_start + start, data_start + end)


def _disagreement(tensors: Mapping[str, StoredTensor], data_start: int, size: int) -> str:
    """What is wrong with the places of a file's tensors; empty where they fill it one after the other, as they must."""
    at, before = data_start, "its header"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        bits = _BITS_OF.get(tensor.dtype)
        if bits is None:
            return f"its tensor {name!r} is of dtype {tensor.dtype!r}, which safetensors does not have"
        if math.prod(tensor.shape) * bits != 8 * (tensor.end - tensor.start):
            return (
                f"its tensor {name!r}, {tensor.dtype} of shape {list(tensor.shape)}, cannot have "
                f"{tensor.end - tensor.start} bytes"
            )
        if tensor.start != at:
            return f"its tensor {name!r} {'overlaps' if tensor.start < at else 'does not follow'} {before}"
        at, before = tensor.end, repr(name)
    return f"{size - at} bytes after {before} belong to no tensor" if at < size else ""
