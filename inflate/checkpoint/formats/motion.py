"""Reading a motion-module file: what it is by names and shapes, and its tensors under our names."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from inflate.checkpoint.formats.describing import describe
from inflate.checkpoint.formats.layouts import HOTSHOT, MOTION_ADAPTER, PLACE, Layout, motion_keys
from inflate.checkpoint.header import is_pickle, read_header
from inflate.checkpoint.pickled import read_pickle
from inflate.components import DIFFUSERS_STEM
from inflate.errors import InputError, a
from inflate.inflater import SCHEMES, Scheme
from inflate.layers import sinusoidal_positions

# Positions of AnimateLCM, and of modules that AnimateDiff's main branch saves without their table; sines and cosines
# have the same rows whatever their number.
POSITIONS_WITHOUT_TABLE = 64
_EXTRA_OF_PIA = "conv_in-extra"


@dataclass(frozen=True)
class Motion:
    """A motion-module file, known by the names and shapes in it."""

    path: Path
    layout: Layout
    names: dict[str, str]  # ours -> theirs
    ignored: tuple[str, ...]  # keys that are no motion module's
    shapes: dict[str, tuple[int, ...]]  # by our names
    dtypes: tuple[str, ...]
    scheme: Scheme
    widths: tuple[int, ...]  # channels of the down blocks
    notes: tuple[str, ...]  # what is odd about it

    @property
    def family(self) -> str:
        """The image model it fits."""
        known = {(320, 640, 1280, 1280): "Stable Diffusion 1.x or 2.x", (320, 640, 1280): "Stable Diffusion XL"}
        return known.get(self.widths, f"an image model with blocks of {', '.join(map(str, self.widths))} channels")

    @property
    def num_parameters(self) -> int:
        """Trained numbers, without the tables of positions."""
        return sum(int(torch.Size(shape).numel()) for name, shape in self.shapes.items() if not name.endswith(".pe"))


def read_motion(path: Path, allow_pickle: bool = False) -> Motion:
    """What a motion-module file, or the folder of a MotionAdapter, is; of safetensors only the header is read.

    Raises:
        InputError: no such file, a pickle without ``allow_pickle``, or no motion module.
    """
    file, config = _file_and_config(path)
    stored = read_shapes(file, allow_pickle)
    layout, names, ignored = motion_keys(stored)
    if layout is None:
        raise InputError(f"{file} holds no motion module: {describe({key: one[0] for key, one in stored.items()})}")
    if _has_own_conv_in(stored):
        names |= {f"{_EXTRA_OF_PIA}.weight": "conv_in.weight", f"{_EXTRA_OF_PIA}.bias": "conv_in.bias"}
        ignored = [key for key in ignored if key not in ("conv_in.weight", "conv_in.bias")]
    shapes = {name: stored[key][0] for name, key in names.items()}
    scheme, widths, notes = _scheme_of(file, layout, shapes, config)
    notes += _oddities(names, ignored, stored)
    dtypes = tuple(sorted({stored[key][1] for key in names.values()}))
    return Motion(file, layout, names, tuple(ignored), shapes, dtypes, scheme, widths, tuple(notes))


def _has_own_conv_in(stored: Mapping[str, tuple[tuple[int, ...], str]]) -> bool:
    """Whether a file brings a first convolution as PIA does; a whole UNet's belongs to its image model."""
    weight = stored.get("conv_in.weight")
    return weight is not None and weight[0][1] > 4 and "conv_in.bias" in stored and "conv_out.weight" not in stored


def motion_tensors(motion: Motion, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The tensors of a motion file by our names, in the file's dtype; a table of positions that is missing is made."""
    tensors = read_tensors(motion.path, allow_pickle)
    # Copies, since two attentions may share a table, and a file may not hold one tensor twice.
    found = {name: tensors[key].clone() for name, key in motion.names.items()}
    for name in [name for name in found if name.endswith(".to_q.weight")]:
        table = name.removesuffix("to_q.weight") + "pe"
        if table not in found:
            length, width = motion.scheme.max_frames or POSITIONS_WITHOUT_TABLE, found[name].shape[1]
            found[table] = sinusoidal_positions(length, width)[None].to(found[name].dtype)
    return found


def motion_shapes(motion: Motion) -> dict[str, tuple[int, ...]]:
    """Shapes by our names, those of missing tables of positions included."""
    shapes = dict(motion.shapes)
    for name, shape in motion.shapes.items():
        if name.endswith(".to_q.weight"):
            length = motion.scheme.max_frames or POSITIONS_WITHOUT_TABLE
            shapes.setdefault(name.removesuffix("to_q.weight") + "pe", (1, length, shape[1]))
    return shapes


def read_shapes(path: Path, allow_pickle: bool = False) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every tensor of a file, by its own keys; of safetensors only the header is read."""
    return _shapes(path, allow_pickle)[0]


def read_tensors(path: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """All tensors of a file by its own keys."""
    return _shapes(path, allow_pickle, read=True)[1]


def _file_and_config(path: Path) -> tuple[Path, dict[str, Any]]:
    """The weight file and, of a MotionAdapter's folder, its config."""
    if not path.is_dir():
        return path, {}
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no motion module's folder: its config.json cannot be read") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is no motion module's folder: its config.json holds no settings")
    if config.get("_class_name") != "MotionAdapter":
        raise InputError(
            f"{path} is the folder of {a(str(config.get('_class_name')))}, not of a MotionAdapter; name a motion module"
        )
    files = sorted(path.glob(f"{DIFFUSERS_STEM}*.safetensors"), key=lambda file: len(file.name))
    if not files:
        raise InputError(f"{path} has no weights: {DIFFUSERS_STEM}.safetensors is missing")
    return files[0], config


def _shapes(
    path: Path, allow_pickle: bool, read: bool = False
) -> tuple[dict[str, tuple[tuple[int, ...], str]], dict[str, Tensor]]:
    """Shape and dtype of each tensor, and the tensors where ``read`` or where there is no other way."""
    if is_pickle(path) and allow_pickle:
        tensors = read_pickle(path)
        return {key: (tuple(one.shape), str(one.dtype).removeprefix("torch.")) for key, one in tensors.items()}, tensors
    header = read_header(path)
    tensors = load_file(path) if read else {}
    return {key: (one.shape, one.dtype) for key, one in header.tensors.items()}, tensors


def _scheme_of(
    path: Path, layout: Layout, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> tuple[Scheme, tuple[int, ...], list[str]]:
    """The row of the table that the file is one of, its widths, and notes."""
    blocks: dict[int, int] = {}
    for name, shape in shapes.items():
        found = re.match(r"down_blocks-(\d+)-motion_modules-0\.norm\.weight$", name)
        if found:
            blocks[int(found[1])] = shape[0]
    widths = tuple(blocks[number] for number in sorted(blocks))
    if not widths:
        raise InputError(f"{path} is damaged: it has motion modules, but none of a down block's first layer")
    tables = {shape[1] for name, shape in shapes.items() if name.endswith(".pe")}
    if len(tables) > 1:
        raise InputError(
            f"{path} has tables of {' and '.join(map(str, sorted(tables)))} positions; one length is needed"
        )
    mid, notes = any(name.startswith("mid_block") for name in shapes), []
    length = next(iter(tables), POSITIONS_WITHOUT_TABLE)
    if not tables:
        notes.append(
            f"it has no table of positions, as AnimateLCM and modules saved by AnimateDiff's main branch; sines and "
            f"cosines for {POSITIONS_WITHOUT_TABLE} frames are put in"
        )
    if layout is HOTSHOT:
        row = "hotshot-xl"
    elif len(widths) == 3:
        row = "animatediff-sdxl"
    else:
        row = "animatediff-v2" if mid else "animatediff-v1" if length == 24 else "animatediff-v3"
    layers = 1 + max(int(found[1]) for name in shapes if (found := re.search(r"transformer_blocks\.(\d+)\.", name)))
    scheme = SCHEMES[row].changed(mid_motion_module=mid, max_frames=length, motion_layers=layers)
    if layout is MOTION_ADAPTER:
        scheme = scheme.changed(**_of_config(path, config))
    inputs = shapes.get(f"{_EXTRA_OF_PIA}.weight")
    if inputs is not None:
        scheme = scheme.changed(extra_in_channels=inputs[1] - 4, own_conv_in=True)
        notes.append(f"it has a first convolution of its own, of {inputs[1]} channels, as PIA")
    return scheme, widths, notes


def _of_config(path: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Heads and groups that a MotionAdapter's config names; a bare file has the usual ones."""
    values: dict[str, int] = {}
    names = {"motion_heads": "motion_num_attention_heads", "norm_num_groups": "motion_norm_num_groups"}
    for field, name in names.items():
        value = config.get(name)
        numbers = [] if value is None else sorted({int(one) for one in (value if isinstance(value, list) else [value])})
        if len(numbers) > 1:
            raise InputError(f"{path}: its config has {name} {value}; modules with different numbers are not supported")
        if numbers:
            values[field] = numbers[0]
    return values


def _oddities(
    names: Mapping[str, str], ignored: list[str], stored: Mapping[str, tuple[tuple[int, ...], str]]
) -> list[str]:
    notes = []
    wrapped = sorted({key[: found.start()] for key in names.values() if (found := PLACE.search(key)) and found.start()})
    if wrapped:
        notes.append(f"its keys start with {wrapped[0]!r}, as training wrapped the network; that is taken off")
    if ignored:
        notes.append(f"{len(ignored)} other tensors are in it and left out, the first {ignored[0]!r}")
    if any(stored[key][1].lower() in ("f16", "float16", "bf16", "bfloat16") for key in names.values()):
        notes.append("its weights have half precision, and keep it")
    return notes
