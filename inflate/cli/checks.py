"""What options of several commands mean, checked before anything is loaded."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from inflate.cli.options import DTYPES
from inflate.errors import InputError, nearest

if TYPE_CHECKING:
    import torch


def check_model(name: str) -> str:
    """``name`` if it names something."""
    if not name.strip():
        raise InputError("--model is empty; name a cascade's folder, or leave it out for bundled:emoji.")
    return name


def parse_by_stage(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """``"12"`` -> 12; ``"prior=10,decoder=15"`` -> a dict; an empty text -> None, the stages' own defaults."""
    if not text:
        return None
    try:
        if "=" not in text:
            return kind(text)
        pairs = [part.split("=", 1) for part in text.split(",")]
        names = [name.strip() for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{option} is {text!r}, which names {twice!r} twice; give each stage one number.")
        return {name.strip(): kind(value) for name, value in pairs}
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        examples = {int: "15 or prior=10,decoder=15", _interval: "0.2-0.8 or decoder=0.2-0.8"}
        example = examples.get(kind, "2.5 or prior=1,decoder=2.5")
        raise InputError(f"{option} is {text!r}; give a number or one per stage, such as {example}.") from None


def parse_sampling(steps: str, guidance_scale: str, **more: str) -> dict[str, Any]:
    """The options of sampling as ``Cascade.settings`` takes them; ``more`` are those of ``GuidanceChoice``."""
    chosen: dict[str, Any] = {"num_inference_steps": parse_by_stage("--steps", steps, int)}
    kinds = {"guidance_interval": _interval, "reuse": int}
    for name, text in {"guidance_scale": guidance_scale, **more}.items():
        chosen[name] = parse_by_stage(f"--{name.replace('_', '-')}", text, kinds.get(name, float))
    return chosen


def _interval(text: str) -> tuple[float, float]:
    """``"0.2-0.8"`` -> (0.2, 0.8)."""
    start, _, stop = text.partition("-")
    return float(start), float(stop)


def check_dtype(name: str) -> "torch.dtype":
    """The torch dtype of that name."""
    import torch

    if name not in DTYPES:
        raise InputError(f"--dtype is {name!r}{nearest(name, DTYPES)}; use {', '.join(DTYPES)}.")
    return getattr(torch, name)


def check_device(name: str | None) -> str | None:
    """``name`` if a tensor with numbers can be put there."""
    import torch

    if name is not None:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's backends differ here
            kind = name.partition(":")[0]
            if kind not in ("cuda", "mps"):
                raise InputError(f"--device {name!r} cannot be used here; give cpu, cuda, cuda:1 or mps.") from error
            count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
            found = f"no graphics card but {kind}:0 to {kind}:{count - 1}" if count else "no graphics card of that kind"
            raise InputError(
                f"--device {name!r} cannot be used here: torch finds {found}; leave it out, or give cpu."
            ) from error
        if device.type == "meta" or (device.type == "cpu" and device.index):
            raise InputError(f"--device {name!r} cannot be used here; name cpu, or a GPU such as cuda:0.")
    return name
