"""The state of a run on disk: safetensors and JSON only, written whole or not at all, so that a kill loses no more than
the updates since the last checkpoint and a restart with the same command continues bit for bit."""

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.staging import abandoned, flush, put_in_place, staged

_PREFIX = "step-"
_WEIGHTS, _META = "state.safetensors", "state.json"
_SPARE_BYTES = 16 * 2**20  # for the log, a sheet and what the file system takes for itself


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints below ``folder``, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and p.name[len(_PREFIX) :].isdigit())


def updates_done(folder: Path) -> int:
    """Updates of the newest checkpoint below ``folder``, 0 without one; it is not read."""
    found = checkpoints(folder)
    return int(found[-1].name[len(_PREFIX) :]) if found else 0


def save_state(
    folder: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    scaler: torch.amp.GradScaler | None = None,
    keep: int = 1,
) -> Path:
    """Write the state after ``step`` updates as ``folder/step-00000123``, and drop all but the newest ``keep``.

    It is staged in a folder of another name, flushed to the disk and renamed; older ones go only after that.

    Args:
        folder: the run's ``state`` folder.
        step: number of updates done.
        parameters: the trained parameters by name, in the optimizer's order.
        optimizer: AdamW over them.
        ema: their running average, or None.
        scaler: of fp16's gradients, or None.
        keep: how many checkpoints stay.

    Raises:
        InputError: there is no room, the disk refuses, or a number in it is not finite; nothing half-written is left,
            and older checkpoints stay.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    if target.is_dir():
        return target
    tensors, numbers = _gather(parameters, optimizer, ema)
    check_finite(tensors, "this checkpoint is not written, and those before it stay")
    meta = {
        "step": step,
        "ema_optimization_step": ema.optimization_step if ema is not None else None,
        "optimizer": numbers,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    try:
        with staged(target) as partial:
            _check_room(folder, tensors)
            save_file(tensors, partial / _WEIGHTS)
            (partial / _META).write_text(json.dumps(meta | {"crc32": _checksum(partial / _WEIGHTS)}))
            for path in (partial / _WEIGHTS, partial / _META, partial):
                flush(path)
            put_in_place(partial, target)
        flush(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The state cannot be written to {folder} ({error}); free some space.") from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for litter in abandoned(folder, _PREFIX):
        shutil.rmtree(litter, ignore_errors=True)
    return target


def check_finite(tensors: Mapping[str, Tensor], kept: str) -> None:
    """Raise ``InputError`` for NaN and infinite values; ``kept`` is what there is all the same."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"Training has diverged: {name} holds values that are not finite; {kept}; lower train.learning_rate or "
                "train.max_grad_norm, or take train.mixed_precision = 'no'."
            )


def _gather(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors by name, on the CPU; and the optimizer's plain numbers (bitsandbytes counts updates in one)."""
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    numbers: dict[str, Any] = {}
    for name, value in parameters.items():
        for key, item in optimizer.state.get(value, {}).items():
            (tensors if isinstance(item, Tensor) else numbers)[f"optimizer.{key}.{name}"] = item
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in zip(parameters, ema.shadow_params, strict=True)}
    copies: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        copy = value.detach().cpu().contiguous()
        # One table of 8-bit values serves all parameters, and safetensors keeps no two names for one memory.
        copies[name] = copy.clone() if copy.data_ptr() in seen else copy
        seen.add(copy.data_ptr())
    return copies, numbers


def _check_room(folder: Path, tensors: dict[str, Tensor]) -> None:
    needed = sum(value.nbytes for value in tensors.values()) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"it needs {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            value = zlib.crc32(block, value)
    return value


def load_state(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    scaler: torch.amp.GradScaler | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> int:
    """Restore the newest checkpoint below ``folder`` in place; returns the number of updates done (0: none found).

    A damaged checkpoint is set aside as ``damaged-step-…``, ``tell`` gets a sentence about it, and the one before it is
    restored.

    Raises:
        InputError: no checkpoint can be read although there are some, or it belongs to another recipe.
    """
    found = checkpoints(folder)
    damaged: list[tuple[Path, Exception]] = []
    for path in reversed(found):
        try:
            tensors, meta = _read(path)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            damaged.append((path, error))
            continue
        _restore(path, tensors, meta, parameters, optimizer, ema, scaler)
        for bad, error in damaged:
            tell(_set_aside(bad, error, path))
        return meta["step"]
    if damaged:
        path, error = damaged[0]
        raise InputError(f"The state in {path} cannot be read ({error}); delete it to start anew.")
    return 0


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    meta: Any = json.loads((path / _META).read_text())
    if not isinstance(meta, dict) or not isinstance(meta.get("step"), int):
        raise ValueError(f"{_META} does not say how many updates it has")
    if "crc32" in meta and meta["crc32"] != _checksum(path / _WEIGHTS):
        raise ValueError("its checksum is another")
    tensors = load_file(path / _WEIGHTS)
    return tensors, meta


def _set_aside(bad: Path, error: Exception, used: Path) -> str:
    aside = bad.with_name(f"damaged-{bad.name}")
    shutil.rmtree(aside, ignore_errors=True)
    bad.rename(aside)
    return f"The checkpoint {bad.name} is damaged ({error}); it is now {aside}, and {used.name} is used instead."


def _restore(
    path: Path,
    tensors: dict[str, Tensor],
    meta: dict[str, Any],
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    saved = {name[len("parameter.") :]: value for name, value in tensors.items() if name.startswith("parameter.")}
    if set(saved) != set(parameters) or any(saved[n].shape != p.shape for n, p in parameters.items()):
        raise InputError(
            f"The state in {path} belongs to another model than this recipe's; choose another `output` or delete it."
        )
    numbers: dict[str, Any] = meta.get("optimizer", {})
    kept = {name: item for name, item in (tensors | numbers).items() if name.startswith("optimizer.")}
    states: dict[str, dict[str, Any]] = {}
    for full, item in kept.items():
        _, key, name = full.split(".", 2)
        states.setdefault(name, {})[key] = item
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(saved[name])
            if name in states:
                optimizer.state[value] = {key: _laid_out(item, value) for key, item in states[name].items()}
    if ema is not None:
        ema.shadow_params = [_laid_out(tensors[f"ema.{name}"], value) for name, value in parameters.items()]
        ema.optimization_step = int(meta["ema_optimization_step"])
    if scaler is not None and meta.get("scaler"):
        scaler.load_state_dict(meta["scaler"])


def _laid_out(item: Any, parameter: nn.Parameter) -> Any:
    """``item`` on the device of its parameter and in its memory order, which fused optimizers take for granted."""
    if not isinstance(item, Tensor):
        return item
    if item.shape != parameter.shape:  # counters of updates, and the blocks of 8-bit moments
        return item.to(parameter.device)
    return torch.empty_like(parameter, dtype=item.dtype, requires_grad=False).copy_(item)
