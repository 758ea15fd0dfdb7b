"""Two fingerprints of an image model: of its architecture, which temporal weights need, and of its very weights."""

import hashlib
from typing import Any

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
