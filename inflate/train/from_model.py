"""The recipe that a checkpoint asks for: class, condition, latents and noise schedule follow from it, the rest from its
size and from this machine."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
import torch

from inflate.bases import Base, open_base
from inflate.checkpoint.temporal import read_temporal_info
from inflate.errors import InputError
from inflate.inflater import resolve_scheme
from inflate.train.recipe import VIDEO, Recipe, apply_override, parse_recipe

# Above this many parameters, activations are recomputed in the backward pass rather than kept.
_LARGE = 300_000_000
_MANY_PIXELS = 768 * 768


def recipe_table(
    model: str, data: str = "", output: str = "", scheme: str = "", overrides: Sequence[str] = (), base: Any = None
) -> dict[str, Any]:
    """The recipe for ``model`` as a table, with ``overrides`` (``section.key=value``) applied.

    Args:
        model: as ``options.model``; an inflated folder goes on from its temporal weights.
        data: as ``data.path``; may be named later.
        output: the run's folder; default ``runs/NAME``.
        scheme: of temporal layers; default is Make-A-Video's for UNets and ``lean`` for transformers.
        overrides: what the user wants otherwise.
        base: what is known of ``model`` already (``network`` and ``sample_size``, as of a ``Base``).

    Raises:
        InputError: no such model, or one that cannot be fine-tuned.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    if scheme:
        resolve_scheme(scheme)
    chosen_parts = given.get("options") or {}
    base = base or open_base(model, chosen_parts.get("parts"), chosen_parts.get("variant"))
    steps = (given.get("train") or {}).get("steps", 2000)
    table: dict[str, Any] = {
        "name": _name(model),
        "step": VIDEO,
        "about": _about(model, data),
        "data": {"path": data, **_data(base)},
        "options": {"model": model, **_options(base, model, scheme)},
        "train": _train(base, steps if isinstance(steps, int) else 2000),
    }
    if output:
        table["output"] = output
    for override in overrides:
        apply_override(table, override)
    chosen = resolve_scheme(table["options"]["scheme"])
    data_given = given.get("data") or {}
    if "fps" not in data_given and chosen.fps_range is not None:
        table["data"]["fps"] = [4.0, 16.0]
    if chosen.max_frames is not None and "num_frames" not in data_given:
        table["data"]["num_frames"] = min(table["data"]["num_frames"], chosen.max_frames)
    return table


def recipe_of_model(
    model: str, data: str = "", output: str = "", scheme: str = "", overrides: Sequence[str] = ()
) -> Recipe:
    """:func:`recipe_table`, parsed."""
    return parse_recipe(recipe_table(model, data, output, scheme, overrides), "the recipe of " + model)


def recipe_text(table: dict[str, Any]) -> str:
    """A recipe as a TOML file."""
    return tomlkit.dumps(table)


def _name(model: str) -> str:
    stem = Path(model.removeprefix("bundled:")).name.partition("@")[0]
    return (re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "model") + "-video"


def _about(model: str, data: str) -> dict[str, str]:
    return {
        "purpose": f"A video model on top of {model}.",
        "command": f"inflate finetune --model {model} --data {data or 'CLIPS'}",
        "hardware": "CPU" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "time": "see the progress bar",
        "figure": "held-out loss below the image model's, frame by frame (validation_loss, image_model_loss)",
    }


def _data(base: Base) -> dict[str, Any]:
    height, width = base.sample_size
    frames = 16 if height * width <= _MANY_PIXELS else 8
    size = [height] if height == width else [height, width]
    return {"num_frames": frames, "size": size, "fps": [8.0]}


def _options(base: Base, model: str, scheme: str) -> dict[str, Any]:
    temporal = base.network.temporal_file
    if base.network.single_file is None and temporal.is_file():
        own = read_temporal_info(temporal)[0].scheme.name
        if scheme and scheme != own:
            raise InputError(
                f"{model} has temporal layers of the scheme {own!r} already, so it cannot have {scheme!r}; leave "
                "--scheme out, or name its image model (inflate deflate)."
            )
        return {"scheme": own, "init": str(base.network.folder)}
    is_unet = "UNet" in base.network.image_model_class.__name__
    return {"scheme": scheme or ("make-a-video" if is_unet else "lean")}


def _train(base: Base, steps: int) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in base.network.meta_model().parameters())
    cuda = torch.cuda.is_available()
    return {
        "steps": steps,
        "batch_size": 1,
        "gradient_accumulation_steps": 4 if parameters >= _LARGE else 1,
        "learning_rate": 1e-4,
        "warmup_steps": min(100, steps // 10),
        "decay_steps": steps // 4,
        "ema_decay": 0.999,
        "mixed_precision": "bf16" if cuda and torch.cuda.is_bf16_supported() else "no",
        "gradient_checkpointing": parameters >= _LARGE,
        "log_every": 1,
        "checkpoint_every": max(1, min(250, steps // 2)),
        "sample_every": max(1, min(500, steps)),
        "validate_every": max(1, min(250, steps // 2)),
    }
