"""Checking and folding the image model's own keyword arguments for a call with videos."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import Adapter
from inflate.errors import InputError, nearest


def check_names(image_model: nn.Module, names: "tuple[str, ...] | list[str]", given: tuple[str, ...]) -> None:
    """Raise `InputError` if `names` has one the image model's `forward` lacks, or lacks one it requires.

    `given` are names that the video model gives itself.
    """
    parameters = inspect.signature(type(image_model).forward).parameters
    allowed = tuple(name for name in parameters if name not in given)
    class_name = type(image_model).__name__
    for name in names:
        if name not in allowed:
            raise InputError(
                f"{class_name} takes no argument {name!r}{nearest(name, (*allowed, 'fps', 'guidance_scale'))}; "
                f"it takes: {', '.join(allowed)}"
            )
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in names:
            raise InputError(
                f"{class_name} requires the argument {name!r}; pass {name}=None if this model has no use for it"
            )


def arguments_per_frame(
    adapter: Adapter, arguments: Mapping[str, Any], batch: int, num_frames: int, patch_frames: int
) -> dict[str, Any]:
    """Every argument as `per_frame` has it; lists of one tensor for each picture, of their own lengths, item by item.

    Raises:
        InputError: a tensor, or a list, that is neither per video nor per frame.
    """
    found = {}
    for name, value in arguments.items():
        if name in adapter.listed and value is not None:
            places = torch.arange(len(value))
            found[name] = [value[place] for place in per_frame(places, name, batch, num_frames, patch_frames)]
        else:
            layers = list(value) if name in adapter.layered and isinstance(value, Tensor) else value
            found[name] = per_frame(layers, name, batch, num_frames, patch_frames)
    return found


def per_frame(value: Any, name: str, batch: int, num_frames: int, patch_frames: int = 1) -> Any:
    """`value` with every tensor given per frame, or per group of `patch_frames` frames.

    A tensor whose first size is `batch` is per video and is repeated for each frame; one of first size
    `batch * num_frames` is per frame already and passes unchanged, as do numbers and tensors without dimensions. Dicts,
    lists and tuples are entered (and rebuilt, since some image models empty the lists they are given). Inside
    `cross_attention_kwargs` and its like a tensor of any other size is a setting, not a batch, and
    passes unchanged. A group of frames has one token and so one condition: where it is given per frame, that of the
    group's first frame.

    Raises:
        InputError: a tensor of another first size.
    """
    if isinstance(value, Mapping):
        return {
            key: per_frame(item, f"{name}[{key!r}]", batch, num_frames, patch_frames) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [
            per_frame(item, f"{name}[{index}]", batch, num_frames, patch_frames) for index, item in enumerate(value)
        ]
        return items if isinstance(value, list) else tuple(items)
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if "['ip_adapter_masks']" in name:  # (1, pictures, H, W): where each picture counts, the same in all frames
        return value
    if value.shape[0] == batch * num_frames:
        if patch_frames == 1:
            return value
        firsts = value.unflatten(0, (batch, num_frames))[:, ::patch_frames].flatten(0, 1)
        return firsts.contiguous()  # some image models ask for a `view` of what they are given
    if value.shape[0] == batch:
        return value.repeat_interleave(num_groups_of(num_frames, patch_frames), dim=0)
    if name.startswith(("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")):
        return value
    raise InputError(
        f"{name} has first size {value.shape[0]}; with {batch} videos of {num_frames} frames it must be {batch} "
        f"(one per video) or {batch * num_frames} (one per frame)"
    )


def number_of_each_video(
    number: "float | int | Tensor", name: str, batch: int, device: torch.device, zero: bool = False
) -> Tensor:
    """A number such as `fps` as a float32 tensor of size `batch`; `InputError` unless it is positive and fits.

    `zero` allows 0 too.
    """
    values = torch.as_tensor(number, dtype=torch.float32, device=device).flatten()
    if values.numel() == 1:
        values = values.expand(batch)
    if values.numel() != batch:
        raise InputError(f"{name} has {values.numel()} values for {batch} videos; give one number, or one per video")
    # Looking at values breaks a compiled graph; tensors without memory, a subclass, have none.
    looked_at = type(values) is Tensor and values.device.type != "meta" and not torch.compiler.is_compiling()
    if looked_at and not bool((torch.isfinite(values) & ((values >= 0) if zero else (values > 0))).all()):
        raise InputError(f"{name} must be {'0 or more' if zero else 'positive'}, got {values.tolist()}")
    return values


def num_groups_of(num_frames: int, patch_frames: int) -> int:
    """Tokens in time: the last covers fewer frames where they do not divide."""
    return -(-num_frames // patch_frames)


def group_frames(frames: Tensor, num_frames: int, patch_frames: int) -> tuple[Tensor, Tensor]:
    """Folded frames (B*F, C, H, W) as their groups' means, (B*G, C, H, W), and the groups, (B*G, C, p, H, W).

    A last group that is not full is filled by repeating the last frame; so one frame is a group of equal frames.
    """
    videos = frames.unflatten(0, (-1, num_frames))
    missing = num_groups_of(num_frames, patch_frames) * patch_frames - num_frames
    if missing:
        videos = torch.cat([videos, videos[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
    groups = videos.flatten(0, 1).unflatten(0, (-1, patch_frames))
    return groups.mean(dim=1), groups.transpose(1, 2).contiguous()
