"""`temporal.safetensors`: the temporal weights as an artefact of their own, for any model of one architecture."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from inflate.checkpoint.header import Header, read_header
from inflate.errors import InputError, a

if TYPE_CHECKING:
    from torch import Tensor, nn

    from inflate.schemes import Scheme

FORMAT = "inflate-temporal-1"
_BLOCK_BYTES = 1 << 12


@dataclass(frozen=True)
class TemporalInfo:
    """The header of a temporal file."""

    scheme: "Scheme"
    num_frames: int
    image_model_class: str
    fingerprint: str  # architecture of the image model
    weights_fingerprint: str  # the image weights it was made with; "" if there were none on disk

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata, whose values are strings."""
        return {
            "format": FORMAT,
            "scheme": self.scheme.name,
            "scheme_fields": self.scheme.to_json(),
            "num_frames": str(self.num_frames),
            "fps_range": json.dumps(self.scheme.fps_range),
            "image_model_class": self.image_model_class,
            "fingerprint": self.fingerprint,
            "weights_fingerprint": self.weights_fingerprint,
        }


def write_temporal(path: Path, tensors: "Mapping[str, Tensor]", info: TemporalInfo) -> None:
    """Write a temporal file; equal weights make equal files, byte for byte.

    (safetensors' own writer puts the entries of the metadata in another order each time.)
    """
    import torch

    sizes = {name: -tensor.element_size() for name, tensor in tensors.items()}
    names = sorted(tensors, key=lambda name: (sizes[name], name))  # wide numbers first, so that all are aligned
    with open(path, "wb") as file:
        file.write(header_bytes(entries_of({name: tensors[name] for name in names}), info.to_metadata()))
        for name in names:
            content = tensors[name].detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            file.write(content.numpy().data)


def write_new_layers(
    path: Path, makers: "Sequence[tuple[str, Callable[[], nn.Module]]]", metadata: Mapping[str, str]
) -> None:
    """Write a temporal file of new layers, of which one at a time is in memory.

    New kernels and output projections are zeros but for a few ones: blocks of zeros are left out of the file, which
    reads the same and takes no time and no space where the file system has holes.
    """
    import torch

    with torch.device("meta"):
        tensors = {f"{key}.{name}": tensor for key, make in makers for name, tensor in make().state_dict().items()}
    with open(path, "wb") as file:
        file.write(header_bytes(entries_of(tensors), metadata))
        for _, make in makers:
            for tensor in make().state_dict().values():
                _write_but_zeros(file, tensor)
        file.truncate()


def entries_of(tensors: "Mapping[str, Tensor]") -> dict[str, dict[str, Any]]:
    """What a header says of tensors that follow it in this order."""
    from inflate.checkpoint.dtypes import TORCH_DTYPES

    names = {dtype: name for name, dtype in TORCH_DTYPES.items()}
    entries, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    return entries


def header_bytes(entries: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, str]) -> bytes:
    """What stands before the tensors."""
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-len(text) % 8)  # the format wants tensors to begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text


def _write_but_zeros(file: BinaryIO, tensor: "Tensor") -> None:
    """The bytes of ``tensor``, going over blocks of zeros: they are what a file's holes read as."""
    import numpy as np
    import torch

    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    whole = len(content) // _BLOCK_BYTES * _BLOCK_BYTES
    holds = np.append(content[:whole].reshape(-1, _BLOCK_BYTES).view(np.uint64).any(axis=1), content[whole:].any())
    borders = np.flatnonzero(np.diff(holds)) + 1
    for first, last in pairwise([0, *borders.tolist(), len(holds)]):
        part = content[first * _BLOCK_BYTES : last * _BLOCK_BYTES]
        if holds[first]:
            file.write(part.data)
        else:
            file.seek(len(part), os.SEEK_CUR)


def read_temporal_header(path: Path) -> Header:
    """The header of a temporal file as it is.

    Raises:
        InputError: missing, truncated, a pickle, or not a temporal file of this format.
    """
    header = read_header(path)
    said = header.metadata.get("format")
    if said != FORMAT:
        raise InputError(f"{path} holds no temporal weights (its format is {said!r}, not {FORMAT!r})")
    return header


def read_temporal_info(path: Path) -> tuple[TemporalInfo, Header]:
    """The header of a temporal file.

    Raises:
        InputError: missing, truncated, a pickle, or not a temporal file of this format.
    """
    from inflate.schemes import Scheme

    header = read_temporal_header(path)
    metadata = header.metadata
    try:
        info = TemporalInfo(
            scheme=Scheme.from_json(metadata["scheme_fields"]),
            num_frames=int(metadata["num_frames"]),
            image_model_class=metadata["image_model_class"],
            fingerprint=metadata["fingerprint"],
            weights_fingerprint=metadata["weights_fingerprint"],
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged: its header lacks or garbles {error}") from error
    return info, header


def read_temporal_tensors(path: Path) -> "dict[str, Tensor]":
    """The weights of a temporal file, on the CPU."""
    from safetensors.torch import load_file

    return load_file(path)


def check_fits(info: TemporalInfo, path: Path, class_name: str, fingerprint: str) -> None:
    """Raise `InputError` unless the temporal weights were made for an image model of that class and architecture."""
    check_made_for((info.image_model_class, info.fingerprint), path, class_name, fingerprint)


def check_made_for(made_for: tuple[str, str], path: Path, class_name: str, fingerprint: str) -> None:
    """As :func:`check_fits`, of class and fingerprint as a header has them."""
    if made_for[0] != class_name:
        raise InputError(f"{path} was made for {a(made_for[0])} and does not fit this {class_name}")
    if made_for[1] != fingerprint:
        raise InputError(
            f"{path} was made for {a(class_name)} of another architecture (fingerprint {made_for[1][:12]}, "
            f"this model has {fingerprint[:12]}); use it with an image model of the same config"
        )
