"""What a file of weights is, by the names and shapes in it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from inflate.checkpoint.formats.describing import OTHER_ADAPTERS, Shapes, describe, kind_of
from inflate.checkpoint.formats.importing import check_motion_fits
from inflate.checkpoint.formats.layouts import motion_keys
from inflate.checkpoint.formats.motion import Motion, motion_shapes, read_motion, read_shapes
from inflate.checkpoint.source import find_source
from inflate.checkpoint.temporal import FORMAT, check_fits, read_temporal_info
from inflate.errors import InputError, a
from inflate.inflater import Scheme

_NOT_TAKEN = "generate --lora does not take it, only plain LoRAs; merge it into the image model"

_VERSIONS = {
    "animatediff-v1": "AnimateDiff v1",
    "animatediff-v2": "AnimateDiff v2",
    "animatediff-v3": "AnimateDiff v3",
    "animatediff-sdxl": "AnimateDiff for SDXL",
    "hotshot-xl": "Hotshot-XL",
}


@dataclass(frozen=True)
class FileInspection:
    """What a file of weights, or a MotionAdapter's folder, is."""

    path: Path
    kind: str  # "motion module", "temporal weights", "MotionLoRA", or what else it seems to be
    version: str | None
    format: str | None  # animatediff, hotshot, motion-adapter
    fits: str | None  # the image model it was made for
    max_frames: int | None
    positions: str | None
    parameters: int
    dtypes: tuple[str, ...]
    notes: tuple[str, ...]
    why_not: str | None = None  # why it does not fit the image model asked about; None where it does, or none was

    def to_json(self) -> str:
        """All of it as indented JSON."""
        return json.dumps({**asdict(self), "path": str(self.path)}, indent=2)


def inspect_file(path: str | Path, base: str | Path | None = None, allow_pickle: bool = False) -> FileInspection:
    """Say what a file is, from its header alone; with ``base``, also whether it fits that image model, or why not.

    Raises:
        InputError: no such file, one that cannot be read, or a pickle without ``allow_pickle``.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _of_motion(read_motion(path, allow_pickle), base)
    stored = read_shapes(path, allow_pickle)
    shapes = {key: shape for key, (shape, _) in stored.items()}
    if path.suffix == ".safetensors" and _is_temporal(path):
        return _of_temporal(path, shapes, base)
    if motion_keys(shapes)[0] is not None:
        return _of_motion(read_motion(path, allow_pickle), base)
    return FileInspection(
        path,
        kind_of(shapes),
        version=None,
        format=None,
        fits=_base_of(shapes),
        max_frames=None,
        positions=None,
        parameters=_count(shapes),
        dtypes=tuple(sorted({dtype for _, dtype in stored.values()})),
        notes=(_NOT_TAKEN,) if kind_of(shapes) in OTHER_ADAPTERS.values() else (),
        why_not=None if base is None else f"{path} is no motion module: {describe(shapes)}",
    )


def is_image_model(path: Path, allow_pickle: bool = False) -> bool:
    """Whether a file seems to hold an image model, by its header alone."""
    shapes = {key: shape for key, (shape, _) in read_shapes(path, allow_pickle).items()}
    return motion_keys(shapes)[0] is None and kind_of(shapes).startswith("image")


def _of_motion(motion: Motion, base: str | Path | None) -> FileInspection:
    table = any(name.endswith(".pe") for name in motion.names)
    pia = " with PIA's first convolution" if motion.scheme.field("own_conv_in") else ""
    return FileInspection(
        motion.path,
        "motion module",
        version=(_VERSIONS[motion.scheme.name] if table else "AnimateLCM or AnimateDiff") + pia,
        format=motion.layout.name,
        fits=motion.family,
        max_frames=motion.scheme.max_frames,
        positions="a table" if table else "none in the file; sines and cosines",
        parameters=motion.num_parameters,
        dtypes=motion.dtypes,
        notes=motion.notes,
        why_not=None if base is None else _why_motion_does_not_fit(motion, base),
    )


def _why_motion_does_not_fit(motion: Motion, base: str | Path) -> str | None:
    found = find_source(base)
    try:
        check_motion_fits(motion, motion_shapes(motion), found.meta_model(), str(found.folder))
    except InputError as error:
        return str(error)
    return None


def _of_temporal(path: Path, shapes: Shapes, base: str | Path | None) -> FileInspection:
    from inflate.checkpoint.fingerprint import architecture_fingerprint

    info, header = read_temporal_info(path)
    why_not = None
    if base is not None:
        image_model = find_source(base).meta_model()
        try:
            check_fits(info, path, type(image_model).__name__, architecture_fingerprint(image_model))
        except InputError as error:
            why_not = str(error)
    scheme: Scheme = info.scheme
    return FileInspection(
        path,
        "temporal weights",
        version=f"scheme {scheme.name}, clips of {info.num_frames} frames",
        format="inflate",
        fits=f"{a(info.image_model_class)} of fingerprint {info.fingerprint[:12]}",
        max_frames=scheme.max_frames,
        positions=scheme.position,
        parameters=_count({name: shape for name, shape in shapes.items() if not name.endswith(".pe")}),
        dtypes=tuple(sorted({tensor.dtype for tensor in header.tensors.values()})),
        notes=(),
        why_not=why_not,
    )


def _is_temporal(path: Path) -> bool:
    from inflate.checkpoint.header import read_header

    return read_header(path).metadata.get("format") == FORMAT


def _base_of(shapes: Shapes) -> str | None:
    """Stable Diffusion's family by the width of its text, where cross-attention says it."""
    widths = {shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2}
    names = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
    return next((names[width] for width in sorted(widths, reverse=True) if width in names), None)


def _count(shapes: Shapes) -> int:
    return sum(int(torch.Size(shape).numel()) for shape in shapes.values())
