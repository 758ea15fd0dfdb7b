"""`temporal.safetensors`: the temporal weights as an artefact of their own, for any model of one architecture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from inflate.checkpoint.header import Header, read_header
from inflate.errors import InputError
from inflate.inflater import Scheme

FORMAT = "inflate-temporal-1"


@dataclass(frozen=True)
class TemporalInfo:
    """The header of a temporal file."""

    scheme: Scheme
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


def write_temporal(path: Path, tensors: Mapping[str, Tensor], info: TemporalInfo) -> None:
    """Write a temporal file."""
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(on_cpu, path, metadata=info.to_metadata())


def read_temporal_info(path: Path) -> tuple[TemporalInfo, Header]:
    """The header of a temporal file.

    Raises:
        InputError: missing, truncated, a pickle, or not a temporal file of this format.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} holds no temporal weights (its format is {metadata.get('format')!r}, not {FORMAT!r})")
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


def read_temporal_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of a temporal file, on the CPU."""
    return load_file(path)


def check_fits(info: TemporalInfo, path: Path, image_model: Any, fingerprint: str) -> None:
    """Raise `InputError` unless the temporal weights were made for the architecture of `image_model`."""
    class_name = type(image_model).__name__
    if info.image_model_class != class_name:
        raise InputError(f"{path} was made for a {info.image_model_class} and does not fit this {class_name}")
    if info.fingerprint != fingerprint:
        raise InputError(
            f"{path} was made for a {class_name} of another architecture (fingerprint {info.fingerprint[:12]}, "
            f"this model has {fingerprint[:12]}); use it with an image model of the same config"
        )
