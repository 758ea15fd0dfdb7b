"""Temporal weights as other programs read them: diffusers' MotionAdapter, AnimateDiff's and Hotshot-XL's files."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from inflate.checkpoint.formats.layouts import LAYOUTS, MOTION_ADAPTER, Layout
from inflate.checkpoint.source import find_source
from inflate.checkpoint.temporal import TemporalInfo, read_temporal_info, read_temporal_tensors
from inflate.checkpoint.writing import new_folder
from inflate.components import DIFFUSERS_STEM
from inflate.errors import InputError, a, nearest
from inflate.staging import new_file

_OWN_INPUT = "conv_in-extra."


@dataclass(frozen=True)
class Export:
    """What `export_motion` wrote."""

    destination: Path
    to: str
    num_tensors: int


def export_motion(source: str | Path, destination: str | Path, to: str, force: bool = False) -> Export:
    """Write the motion modules of an inflated folder, or of a temporal file, in another program's format.

    Args:
        source: an inflated folder (a pipeline's or a model's), or its `temporal.safetensors`.
        destination: for "motion-adapter" a folder, for "animatediff" and "hotshot" a `.safetensors` file.
        to: the format, one of `LAYOUTS`.
        force: replace what is there.

    Raises:
        InputError: an unknown format, a destination that is taken, or temporal layers that the format has no place
            for, naming them; nothing has been written then.
    """
    if to not in LAYOUTS:
        raise InputError(f"--to is {to!r}{nearest(to, list(LAYOUTS))}; known: {', '.join(LAYOUTS)}")
    path = Path(source).expanduser()
    path = path if path.is_file() else find_source(source).temporal_file
    info, _ = read_temporal_info(path)
    tensors = read_temporal_tensors(path)
    layout, destination = LAYOUTS[to], Path(destination).expanduser()
    renamed = _renamed(path, tensors, layout, info)
    if layout is MOTION_ADAPTER:
        with new_folder(destination, force, _size(renamed)) as partial:
            _write_adapter(partial, renamed, tensors, info)
    else:
        _write_file(destination, renamed, force)
    return Export(destination, to, len(renamed))


def _renamed(path: Path, tensors: Mapping[str, Tensor], layout: Layout, info: TemporalInfo) -> dict[str, Tensor]:
    """The tensors by the format's names."""
    result, homeless = {}, []
    for name, tensor in tensors.items():
        key = layout.from_ours(name)
        if (
            key is None
            and name.startswith(_OWN_INPUT)
            and info.scheme.field("own_conv_in")
            and layout.name != "hotshot"
        ):
            key = name.replace(_OWN_INPUT, "conv_in.")
        if key is None:
            homeless.append(name)
        elif key in result and not torch.equal(result[key], tensor):
            raise InputError(
                f"{path}: the two attentions of {name.rpartition('.attn')[0]!r} have different positions, and "
                f"{a(layout.name)} file has one table for both; export to animatediff, which has two"
            )
        else:
            result[key] = tensor.contiguous()
    if homeless or not result:
        shown = ", ".join(homeless[:3])
        raise InputError(
            f"{path} was made with scheme {info.scheme.name!r}, and {a(layout.name)} file has no place for "
            f"{len(homeless)} of its {len(tensors)} tensors ({shown}, …); only motion modules go there "
            "(animatediff-v1, -v2, -v3, -sdxl, hotshot-xl)"
        )
    if layout.name == "hotshot" and (
        info.scheme.field("mid_motion_module") or any("down_blocks-3" in name for name in tensors)
    ):
        raise InputError(
            f"{path} has motion modules for Stable Diffusion 1.x; Hotshot-XL's format has those of XL only"
        )
    if layout is not MOTION_ADAPTER:
        _check_heads(path, tensors, layout, info)
    return result


def _check_heads(path: Path, tensors: Mapping[str, Tensor], layout: Layout, info: TemporalInfo) -> None:
    """Files have no place for heads and groups: their readers take 8 and 32."""
    widths = {int(one.shape[0]) for name, one in tensors.items() if name.endswith("-motion_modules-0.norm.weight")}
    rows = (
        ("heads", info.scheme.field("motion_heads"), 8),
        ("groups in norms", info.scheme.field("norm_num_groups"), 32),
    )
    for what, ours, theirs in rows:
        if any(math.gcd(width, ours) != math.gcd(width, theirs) for width in widths):
            raise InputError(
                f"{path} has motion modules with {ours} {what}, and {layout.name} files cannot say so: its readers "
                f"take {theirs}; export to motion-adapter"
            )


def _write_adapter(
    folder: Path, renamed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], info: TemporalInfo
) -> None:
    """A MotionAdapter's folder: diffusers writes its own config."""
    from diffusers import MotionAdapter

    widths, layers = {}, {}
    for name, tensor in tensors.items():
        found = re.match(r"down_blocks-(\d+)-motion_modules-(\d+)\.norm\.weight$", name)
        if found:
            block = int(found[1])
            widths[block] = int(tensor.shape[0])
            layers[block] = max(layers.get(block, 0), int(found[2]) + 1)
    blocks, own_input = sorted(widths), tensors.get(f"{_OWN_INPUT}weight")
    # Narrow blocks have fewer of them than the scheme names; diffusers has one number of groups for all blocks.
    heads = tuple(math.gcd(widths[block], info.scheme.field("motion_heads")) for block in blocks)
    groups = {math.gcd(width, info.scheme.field("norm_num_groups")) for width in widths.values()}
    if len(groups) > 1:
        raise InputError(
            f"these motion modules have group norms of {' and '.join(map(str, sorted(groups)))} groups, and a "
            "MotionAdapter has one number for all; export to animatediff"
        )
    with torch.device("meta"):
        adapter = MotionAdapter(
            block_out_channels=tuple(widths[block] for block in blocks),
            motion_layers_per_block=layers[0] if len(set(layers.values())) == 1 else tuple(layers[b] for b in blocks),  # type: ignore[arg-type]  # its own hint allows one number only
            motion_transformer_layers_per_block=info.scheme.field("motion_layers"),
            motion_transformer_layers_per_mid_block=info.scheme.field("motion_layers"),
            motion_num_attention_heads=heads[0] if len(set(heads)) == 1 else heads,  # type: ignore[arg-type]  # as above
            motion_norm_num_groups=groups.pop(),
            motion_max_seq_length=info.scheme.max_frames or info.num_frames,
            use_motion_mid_block=info.scheme.field("mid_motion_module"),
            conv_in_channels=None if own_input is None else int(own_input.shape[1]),
        )
    expected = {name: tuple(one.shape) for name, one in adapter.state_dict().items()}
    given = {name: tuple(one.shape) for name, one in renamed.items()}
    if expected != given:
        differing = sorted(name for name in {*expected, *given} if expected.get(name) != given.get(name))
        raise InputError(
            f"these motion modules do not make a MotionAdapter: {differing[0]!r} has shape {given.get(differing[0])} "
            f"and diffusers expects {expected.get(differing[0])}; export to animatediff"
        )
    adapter.save_config(folder)
    save_file(dict(renamed), folder / f"{DIFFUSERS_STEM}.safetensors", metadata={"format": "pt"})


def _write_file(destination: Path, tensors: Mapping[str, Tensor], force: bool) -> None:
    """One safetensors file, which appears when it is complete."""
    if destination.suffix != ".safetensors":
        raise InputError(f"{destination} must end in .safetensors")
    if destination.is_dir():
        raise InputError(f"{destination} is a folder; choose another name")
    with new_file(destination, force) as partial:
        save_file(dict(tensors), partial, metadata={"format": "pt"})


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors.values())
