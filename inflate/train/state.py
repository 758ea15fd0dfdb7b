"""The state of a run on disk: safetensors and JSON only, written whole or not at all, so that a kill loses no more than
the updates since the last checkpoint and a restart with the same command continues bit for bit."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inflate.errors import InputError

_PREFIX = "step-"


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints below ``folder``, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and p.name[len(_PREFIX) :].isdigit())


def save_state(
    folder: Path, step: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> Path:
    """Write the state after ``step`` updates as ``folder/step-00000123`` and drop older ones.

    Args:
        folder: the run's ``state`` folder.
        step: number of updates done.
        parameters: the trained parameters by name, in the optimizer's order.
        optimizer: AdamW over them.
        ema: their running average, or None.

    Raises:
        InputError: the disk is full; nothing half-written is left.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    partial = folder / f".{target.name}.{os.getpid()}.part"
    tensors = {f"parameter.{name}": value.detach().cpu().contiguous() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, item in optimizer.state.get(value, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(item).detach().cpu().contiguous()
    if ema is not None:
        for name, value in zip(parameters, ema.shadow_params, strict=True):
            tensors[f"ema.{name}"] = value.detach().cpu().contiguous()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial / "state.safetensors")
        meta = {"step": step, "ema_optimization_step": ema.optimization_step if ema is not None else None}
        (partial / "state.json").write_text(json.dumps(meta))
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"The state cannot be written to {folder} ({error}); free some space.") from error
    for old in checkpoints(folder)[:-1]:
        shutil.rmtree(old, ignore_errors=True)
    for litter in folder.glob(f".{_PREFIX}*.part"):
        shutil.rmtree(litter, ignore_errors=True)
    return target


def load_state(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> int:
    """Restore the newest checkpoint below ``folder`` in place; returns the number of updates done (0: none found).

    Raises:
        InputError: the checkpoint is damaged or belongs to another recipe.
    """
    found = checkpoints(folder)
    if not found:
        return 0
    newest = found[-1]
    try:
        tensors: dict[str, Tensor] = load_file(newest / "state.safetensors")
        meta: dict[str, Any] = json.loads((newest / "state.json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"The state in {newest} cannot be read ({error}); delete it to start anew.") from error
    saved = {name[len("parameter.") :]: value for name, value in tensors.items() if name.startswith("parameter.")}
    if set(saved) != set(parameters) or any(saved[n].shape != p.shape for n, p in parameters.items()):
        raise InputError(
            f"The state in {newest} belongs to another model than this recipe's; choose another `output` or delete it."
        )
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(saved[name])
            state = {
                key: tensors[f"optimizer.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{key}.{name}" in tensors
            }
            if state:
                moved = {key: item if key == "step" else _laid_out(item, value) for key, item in state.items()}
                optimizer.state[value] = moved
    if ema is not None:
        ema.shadow_params = [_laid_out(tensors[f"ema.{name}"], value) for name, value in parameters.items()]
        ema.optimization_step = int(meta["ema_optimization_step"])
    return int(meta["step"])


def _laid_out(item: Tensor, parameter: nn.Parameter) -> Tensor:
    """``item`` on the device of its parameter and in its memory order, which fused optimizers take for granted."""
    return torch.empty_like(parameter, dtype=item.dtype, requires_grad=False).copy_(item)
