"""An interpolation model on disk: whole, or only what it adds to the image model that lies in ``unet/`` beside it.

↑F of a family has the image weights of its D^t, so a family's folder need not hold them twice.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from inflate.checkpoint import (
    find_source,
    has_fingerprint,
    load,
    load_image_model,
    load_temporal,
    save,
    weights_fingerprint,
)
from inflate.checkpoint.fingerprint import architecture_fingerprint
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.source import find_weights
from inflate.checkpoint.temporal import TemporalInfo, check_fits, read_temporal_info, write_temporal
from inflate.checkpoint.writing import new_folder
from inflate.components import DIFFUSERS_STEM
from inflate.errors import InputError
from inflate.inflater import InflatedModel, meta_image_model

IMAGE_FOLDER = "unet"


def is_partial(folder: Path) -> bool:
    """Whether ``folder`` has temporal weights and a config but no image weights."""
    return (folder / TEMPORAL_FILE).is_file() and not any(folder.glob(f"{DIFFUSERS_STEM}*.safetensors"))


def save_partial(model: InflatedModel, folder: Path, image_folder: Path) -> None:
    """Write ``config.json`` and ``temporal.safetensors``, which says whose image weights it needs.

    Args:
        model: its weights are written in its dtype.
        folder: to make; a model's folder that is there is replaced.
        image_folder: holds the image model, with the very weights that ``model`` was made with.
    """
    image_model = model.image_model
    info = TemporalInfo(
        scheme=model.scheme,
        num_frames=model.num_frames,
        image_model_class=type(image_model).__name__,
        fingerprint=architecture_fingerprint(meta_image_model(type(image_model), image_model.config)),
        weights_fingerprint=weights_fingerprint(find_weights(find_source(image_folder))),
    )
    with new_folder(folder, force=True) as partial:
        image_model.save_config(partial)
        write_temporal(partial / TEMPORAL_FILE, model.temporal_state_dict(), info)


def fits_beside(folder: Path, image_folder: Path) -> bool:
    """Whether the image weights that a partial ``folder`` names are those in ``image_folder``."""
    info, _ = read_temporal_info(folder / TEMPORAL_FILE)
    if not (image_folder / "config.json").is_file():
        return False
    return has_fingerprint(find_weights(find_source(image_folder)), info.weights_fingerprint)


def load_interpolation(
    folder: str | Path, image_folder: str | Path | None = None, dtype: torch.dtype | None = None
) -> InflatedModel:
    """An interpolation model in evaluation mode, on the CPU, float32 by default.

    Args:
        folder: whole, or partial.
        image_folder: where the image weights of a partial one are; ``unet/`` beside it by default.
        dtype: whatever the files hold.

    Raises:
        InputError: no such model, damaged files, or the image weights are missing or others.
    """
    folder = Path(folder)
    if not is_partial(folder):
        return load(folder, dtype=dtype)
    beside = Path(image_folder) if image_folder is not None else folder.parent / IMAGE_FOLDER
    if not (beside / "config.json").is_file():
        raise InputError(f"{folder} holds no image weights, and there is no {beside} with those it was made for.")
    source = find_source(beside)
    info, _ = read_temporal_info(folder / TEMPORAL_FILE)
    meta_model = source.meta_model()
    check_fits(info, folder / TEMPORAL_FILE, type(meta_model).__name__, architecture_fingerprint(meta_model))
    if not fits_beside(folder, beside):
        raise InputError(
            f"{folder} was made for other image weights than those in {beside}; take both from one family, "
            "or give it image weights of its own."
        )
    return load_temporal(load_image_model(source, dtype=dtype), folder)


def save_beside(model: InflatedModel, folder: Path) -> None:
    """Write ``model`` into ``folder``: partial where ``unet/`` beside it has the same image weights, else whole."""
    beside = folder.parent / IMAGE_FOLDER
    if _same_weights(model.image_model, beside):
        save_partial(model, folder, beside)
    else:
        save(model, folder)


def _same_weights(image_model: Any, folder: Path) -> bool:
    """Whether a folder holds the values of ``image_model``, in whatever dtype."""
    if not (folder / "config.json").is_file():
        return False
    stored = {}
    for header in find_weights(find_source(folder)).headers:
        stored |= load_file(header.path)
    own = image_model.state_dict()
    return set(own) == set(stored) and all(
        value.shape == stored[name].shape and torch.equal(value.cpu().double(), stored[name].double())
        for name, value in own.items()
    )
