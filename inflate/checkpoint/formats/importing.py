"""A motion module put onto an image model: an inflated folder of the two."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.adapters import adapter_of
from inflate.checkpoint.convert import check_apart, files_to_copy
from inflate.checkpoint.fingerprint import architecture_fingerprint, tensors_fingerprint, weights_fingerprint
from inflate.checkpoint.formats.motion import Motion, motion_tensors, read_motion
from inflate.checkpoint.formats.motion_lora import add_lora
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.reading import read_tensors
from inflate.checkpoint.source import Source, Weights, check_weights, find_source, find_weights
from inflate.checkpoint.temporal import TemporalInfo, write_temporal
from inflate.checkpoint.writing import check_destination, copy_file, new_folder, write_model
from inflate.configs import read_object
from inflate.errors import InputError, a
from inflate.inflater import build_temporal_layers, find_sites

# What AnimateDiff was trained with on Stable Diffusion 1.5, and on XL (its configs/inference).
_BETAS = {4: ("linear", 0.00085, 0.012), 3: ("scaled_linear", 0.00085, 0.02)}


@dataclass(frozen=True)
class Import:
    """What `import_motion` wrote."""

    destination: Path
    temporal_file: Path
    scheme: str
    max_frames: int | None
    num_tensors: int
    used: int  # tensors of the file that are in the folder
    ignored: tuple[str, ...]  # tensors of the file that are not
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """All of it as indented JSON."""
        values = asdict(self) | {"destination": str(self.destination), "temporal_file": str(self.temporal_file)}
        return json.dumps(values, indent=2)


def import_motion(
    motion_file: str | Path,
    image_model: str | Path,
    destination: str | Path,
    num_frames: int = 16,
    loras: Sequence[tuple[str | Path, float]] = (),
    set_scheduler: bool = False,
    allow_pickle: bool = False,
    force: bool = False,
    config: str | Path | None = None,
    variant: str | None = None,
) -> Import:
    """Make an inflated folder of an image model's folder, or a pipeline's, and a motion module of any known format.

    Args:
        motion_file: an AnimateDiff or Hotshot-XL file, or a MotionAdapter's folder or file.
        image_model: as `convert` takes it, the last two arguments too; its files are copied as they are.
        destination: the folder to make. It appears when it is complete.
        num_frames: frames of a clip when it is trained further.
        loras: MotionLoRA files and their scales, added into the motion module's weights.
        set_scheduler: give the copied pipeline a DDIM scheduler with the noise levels the module was trained with.
        allow_pickle: open `.ckpt` and the like, as nothing but tensors.
        force: replace a model folder that is there.
        config: for a single file: the config.json of its image model, or a folder with it.
        variant: which of a folder's weights.

    Raises:
        InputError: no motion module, one that does not fit the image model, too many frames, or a full disk; nothing
            has been written then.
    """
    motion = read_motion(Path(motion_file).expanduser(), allow_pickle)
    destination = Path(destination).expanduser()
    found = find_source(image_model, config, variant, allow_pickle)
    _check_arguments(motion, found, destination, num_frames, force)
    weights = find_weights(found)
    meta = found.meta_model()
    check_weights(found, weights, meta)
    tensors = _tensors(motion, meta, str(found.folder), loras, allow_pickle)
    rewritten = None if weights.renamed is None else read_tensors(found, weights, meta)
    info = TemporalInfo(
        scheme=motion.scheme,
        num_frames=num_frames,
        image_model_class=found.image_model_class.__name__,
        fingerprint=architecture_fingerprint(meta),
        weights_fingerprint=weights_fingerprint(weights) if rewritten is None else tensors_fingerprint(rewritten),
    )
    notes = [*motion.notes, *_scheduler_notes(motion, found, set_scheduler)]
    subfolder = found.folder.relative_to(found.root)
    files = _Files(found, weights, rewritten, subfolder, len(motion.widths) if set_scheduler else None)
    _write(files, destination, force, tensors, info)
    return Import(
        destination,
        destination / subfolder / TEMPORAL_FILE,
        motion.scheme.name,
        motion.scheme.max_frames,
        len(tensors),
        len(set(motion.names.values())),
        motion.ignored,
        tuple(notes),
    )


def _tensors(
    motion: Motion, image_model: Any, where: str, loras: Sequence[tuple[str | Path, float]], allow_pickle: bool
) -> dict[str, Tensor]:
    """The motion module's tensors, checked against the image model, with the LoRAs added."""
    tensors = motion_tensors(motion, allow_pickle)
    check_motion_fits(motion, {name: tuple(one.shape) for name, one in tensors.items()}, image_model, where)
    for path, scale in loras:
        tensors = add_lora(tensors, Path(path).expanduser(), scale, allow_pickle)
    return tensors


def _check_arguments(motion: Motion, found: Source, destination: Path, num_frames: int, force: bool) -> None:
    if found.temporal_file.exists():
        raise InputError(
            f"{found.folder} is inflated already; name the image model, or run 'inflate deflate' on it first"
        )
    check_apart(found.root, destination)
    check_destination(destination, force)
    if motion.scheme.max_frames is not None and num_frames > motion.scheme.max_frames:
        raise InputError(
            f"{motion.path} has {motion.scheme.max_frames} positions and was asked for {num_frames} frames; "
            f"use --frames {motion.scheme.max_frames} or fewer, or a module with more positions"
        )


def check_motion_fits(motion: Motion, shapes: Mapping[str, tuple[int, ...]], image_model: Any, where: str) -> None:
    """Raise `InputError` unless a motion module's tensors are those that the image model's scheme has places for."""
    if adapter_of(image_model).family != "UNet":
        raise InputError(
            f"{motion.path} is a motion module for {motion.family}, and {where} is {a(type(image_model).__name__)}, "
            "which has no blocks of layers; motion modules go onto UNets"
        )
    blocks = tuple(int(width) for width in image_model.config["block_out_channels"])
    if blocks != motion.widths:
        raise InputError(
            f"{motion.path} is a motion module for {motion.family} (blocks of {', '.join(map(str, motion.widths))} "
            f"channels), and the image model in {where} has blocks of {', '.join(map(str, blocks))}; take a module "
            "made for this image model, or an image model that it was made for"
        )
    with torch.device("meta"):
        layers = build_temporal_layers(find_sites(image_model, motion.scheme), 1, image_model)
    expected = {name: tuple(one.shape) for name, one in layers.state_dict().items()}
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    differing = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    if missing or unknown:
        which = f"lacks {missing[0]!r} and {len(missing) - 1} more" if missing else f"has {unknown[0]!r}, and no place"
        raise InputError(
            f"{motion.path} does not fit the image model in {where}: it {which}; it was made for other blocks"
        )
    if differing:
        name = differing[0]
        raise InputError(
            f"{motion.path} does not fit the image model in {where}: {name!r} has shape {shapes[name]} and should "
            f"have {expected[name]}"
        )


def _scheduler_notes(motion: Motion, found: Source, set_scheduler: bool) -> list[str]:
    """What the image model's scheduler says against the module's training."""
    path = found.root / "scheduler" / "scheduler_config.json"
    if (
        found.root == found.folder
        or found.single_file is not None
        or not path.is_file()
        or len(motion.widths) not in _BETAS
    ):
        return []
    try:
        config = read_object(path)
    except InputError as error:
        return [str(error)]
    notes = []
    if config.get("prediction_type", "epsilon") != "epsilon":
        notes.append(
            f"{path} predicts {config['prediction_type']}, and motion modules were trained with image models that "
            "predict epsilon: expect noise or grey; take an epsilon model"
        )
    schedule, start, end = _BETAS[len(motion.widths)]
    theirs = (config.get("beta_schedule"), config.get("beta_start"), config.get("beta_end"))
    if theirs != (schedule, start, end) and not set_scheduler:
        notes.append(
            f"{path} has beta_schedule {theirs[0]!r} from {theirs[1]} to {theirs[2]}, and the module was trained with "
            f"{schedule!r} from {start} to {end}: videos look washed out without it; --scheduler writes it to the copy"
        )
    return notes


@dataclass(frozen=True)
class _Files:
    """What goes into the folder beside the temporal file."""

    found: Source
    weights: Weights
    rewritten: dict[str, Tensor] | None  # the image weights of a single file or a pickle
    subfolder: Path
    scheduler_blocks: int | None  # of a motion module that asks for its scheduler


def _write(files: _Files, destination: Path, force: bool, tensors: Mapping[str, Tensor], info: TemporalInfo) -> None:
    copied = files_to_copy(files.found, files.weights)
    num_bytes = sum(one.numel() * one.element_size() for one in tensors.values())
    num_bytes += sum((files.found.root / path).stat().st_size for path in copied)
    num_bytes += 0 if files.rewritten is None else files.weights.num_bytes
    with new_folder(destination, force, num_bytes, copied) as partial:
        for path in copied:
            copy_file(files.found.root / path, partial / path)
        if files.rewritten is not None:
            write_model(partial / files.subfolder, files.found.config, files.rewritten)
        write_temporal(partial / files.subfolder / TEMPORAL_FILE, tensors, info)
        if files.scheduler_blocks is not None:
            _write_scheduler(partial, files.scheduler_blocks)


def _write_scheduler(folder: Path, num_blocks: int) -> None:
    from diffusers import DDIMScheduler

    index = folder / "model_index.json"
    if not index.is_file() or num_blocks not in _BETAS:
        raise InputError("--scheduler needs a whole pipeline's folder of Stable Diffusion; leave it out")
    schedule, start, end = _BETAS[num_blocks]
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler: Any = DDIMScheduler
    # What the image model predicts is no choice of the motion module's.
    theirs = read_object(path) if path.is_file() else {}
    scheduler(
        beta_schedule=schedule,
        beta_start=start,
        beta_end=end,
        clip_sample=False,
        steps_offset=1,
        prediction_type=theirs.get("prediction_type", "epsilon"),
    ).save_pretrained(folder / "scheduler")
    values = read_object(index)
    values["scheduler"] = ["diffusers", "DDIMScheduler"]
    index.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
