"""The folder that a fine-tuning run leaves: what was brought, file by file, and the temporal weights beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from inflate.bases import FAMILIES, Base
from inflate.bases.families import PIPELINES
from inflate.bases.parts import INDEX_NAME, OURS, part_class
from inflate.checkpoint import load
from inflate.checkpoint.convert import files_to_copy
from inflate.checkpoint.fingerprint import architecture_fingerprint, tensors_fingerprint, weights_fingerprint
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.reading import read_tensors
from inflate.checkpoint.source import Source, Weights, find_weights
from inflate.checkpoint.temporal import TemporalInfo, write_temporal
from inflate.checkpoint.writing import copy_file, files_below, new_folder, write_model
from inflate.components import DIFFUSERS_STEM
from inflate.configs import read_object
from inflate.errors import InputError
from inflate.inflater import InflatedModel


@dataclass(frozen=True)
class Exported:
    """Where the parts of an export are."""

    folder: Path
    network: Path  # the image model's folder, with the temporal weights


def export_video_model(
    base: Base,
    video_model: InflatedModel,
    temporal: Mapping[str, Tensor],
    folder: Path,
    image_weights: bool = False,
    size: tuple[int, int] | None = None,
) -> Exported:
    """Write ``folder``: every file of the base as it is (a second name of large ones where the file system can), and
    ``temporal.safetensors`` in the image model's folder.

    Args:
        base: what was brought.
        video_model: the trained model.
        temporal: its temporal weights, by name.
        folder: replaced if it is an earlier export.
        image_weights: write the image weights of ``video_model`` too, in place of those brought, because they trained.
        size: height and width in pixels that it was trained at; the index says so where the base is for another size.

    Raises:
        InputError: the disk is full; an earlier export is left as it was.
    """
    source = base.network
    weights = find_weights(source)
    meta = source.meta_model()
    rewritten = None
    if image_weights:
        rewritten = {name: value.detach().cpu() for name, value in video_model.image_model.state_dict().items()}
    elif weights.renamed is not None:
        rewritten = read_tensors(source, weights, meta)
    fingerprint = weights_fingerprint(weights) if rewritten is None else tensors_fingerprint(rewritten)
    info = TemporalInfo(
        video_model.scheme,
        video_model.num_frames,
        type(meta).__name__,
        architecture_fingerprint(meta),
        fingerprint,
    )
    copies = _copies(base, weights, rewritten is not None)
    network = _network_folder(base, source)
    index = _index(base, network, size)
    num_bytes = sum(value.numel() * value.element_size() for value in temporal.values())
    num_bytes += sum(value.numel() * value.element_size() for value in (rewritten or {}).values())
    with new_folder(folder, True, num_bytes, list(copies)) as partial:
        for target, path in copies.items():
            copy_file(path, partial / target, hard_link=True)
        if rewritten is not None:
            write_model(partial / network, source.config, rewritten)
        write_temporal(partial / network / TEMPORAL_FILE, temporal, info)
        if index is not None:
            (partial / INDEX_NAME).unlink(missing_ok=True)  # a second name of the base's own
            (partial / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return Exported(folder, folder / network)


def read_start(init: str, video_model: InflatedModel) -> dict[str, Tensor]:
    """The temporal weights of ``init``: an inflated folder, or a motion module of any known format.

    Raises:
        InputError: another scheme, or a module for another image model.
    """
    path = Path(init).expanduser()
    if path.is_dir() and not _is_motion_folder(path):
        before = load(path)
        if before.scheme.name != video_model.scheme.name:
            raise InputError(
                f"options.init, {init}, was trained with scheme {before.scheme.name!r}; set options.scheme to that, or "
                "start from another folder"
            )
        return before.temporal_state_dict()
    from inflate.checkpoint.formats.importing import check_motion_fits
    from inflate.checkpoint.formats.motion import motion_tensors, read_motion

    motion = read_motion(path, False)
    tensors = motion_tensors(motion, False)
    shapes = {name: tuple(one.shape) for name, one in tensors.items()}
    check_motion_fits(motion, shapes, video_model.image_model, "options.model")
    return tensors


def _is_motion_folder(path: Path) -> bool:
    config = path / "config.json"
    return config.is_file() and "MotionAdapter" in config.read_text(encoding="utf-8", errors="replace")


def _network_folder(base: Base, source: Source) -> Path:
    """The image model's place in the export: as in the pipeline, or ``unet`` or ``transformer`` where it came alone."""
    if source.single_file is None and base.root is not None and source.folder.is_relative_to(base.root):
        return source.folder.relative_to(base.root)
    return Path("unet" if "UNet" in source.image_model_class.__name__ else "transformer")


def _copies(base: Base, weights: Weights, rewritten: bool) -> dict[Path, Path]:
    """Where each file of the export comes from, by its place in the export."""
    source, files = base.network, {}
    place = _network_folder(base, source)
    if base.root is not None:
        files = {path: base.root / path for path in files_below(base.root)}
        files = {path: found for path, found in files.items() if path.parent != place or place == Path()}
    if source.single_file is None:
        wanted = set(files_to_copy(source, weights))
        below = source.folder.relative_to(source.root)
        own = {path.relative_to(below): source.root / path for path in wanted if path.is_relative_to(below)}
        kept = {name: path for name, path in own.items() if not (rewritten and name.name.startswith(DIFFUSERS_STEM))}
        files |= {place / name: path for name, path in kept.items()}
    for folder, part in _lent_parts(base).items():
        files = {path: found for path, found in files.items() if path.parts[0] != folder}
        files |= {Path(folder) / path: part / path for path in files_below(part)}
    return {target: path for target, path in files.items() if target.name != TEMPORAL_FILE}


def _lent_parts(base: Base) -> dict[str, Path]:
    """Parts that lie outside the pipeline's folder and that sampling needs, by their folder in the export."""
    family, pipeline = FAMILIES[base.family], _pipeline_class(base.family)
    outside = {
        role: folder
        for role, folder in base.parts.items()
        if role in family.needs and role not in family.extra
        if base.root is None or not folder.resolve().is_relative_to(base.root.resolve())
    }
    folders = PIPELINES[pipeline].folders if pipeline else {}
    return {folders.get(role, role): folder for role, folder in outside.items()}


def _pipeline_class(family: str) -> str:
    """The pipeline of diffusers that a family's networks are run by; empty for a family of ours."""
    return next((name for name, one in PIPELINES.items() if one.family == family), "")


def _index(base: Base, network: Path, size: tuple[int, int] | None) -> dict[str, Any] | None:
    """``model_index.json`` where the base has none, parts of its own that another class stands for, or another size;
    else None."""
    lent, source = _lent_parts(base), base.network
    resized = size is not None and base.family != "inflate" and size != base.sample_size
    if base.root is not None and not lent and not resized:
        return None
    index: dict[str, Any] = {"_class_name": _pipeline_class(base.family), "_diffusers_version": diffusers.__version__}
    if base.root is not None:
        index = read_object(base.root / INDEX_NAME)
    else:
        index[network.name] = ["diffusers", source.image_model_class.__name__]
    if size is not None and resized:
        before = index.get(OURS)
        index[OURS] = (before if isinstance(before, dict) else {}) | {"height": size[0], "width": size[1]}
    return index | {name: list(part_class(folder)) for name, folder in lent.items()}
