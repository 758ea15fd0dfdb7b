"""Two fingerprints of an image model: of its architecture, which temporal weights need, and of its very weights."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import Tensor

from inflate.checkpoint.source import Weights

_CHUNK_BYTES = 1 << 22


def architecture_fingerprint(image_model: Any) -> str:
    """SHA-256 over the sorted names and shapes of an image model's weights; values, dtype and device do not matter."""
    lines = sorted(f"{name} {tuple(tensor.shape)}\n" for name, tensor in image_model.state_dict().items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_fingerprint(weights: Weights) -> str:
    """SHA-256 over the sorted tensors of the files, each with name, dtype, shape and bytes; not their order."""
    digest = hashlib.sha256()
    entries = sorted(
        (name, tensor, header.path) for header in weights.headers for name, tensor in header.tensors.items()
    )
    for name, tensor, path in entries:
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        with open(path, "rb") as file:
            file.seek(tensor.start)
            left = tensor.end - tensor.start
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """What `weights_fingerprint` would say of a safetensors file with these tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        content = save({name: tensors[name].contiguous()})
        start = 8 + int.from_bytes(content[:8], "little")
        digest.update(f"{name} {json.loads(content[8:start])[name]['dtype']} {tuple(tensors[name].shape)}\n".encode())
        digest.update(memoryview(content)[start:])
    return digest.hexdigest()
