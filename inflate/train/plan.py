"""Memory and time of a fine-tuning run before it starts, and what to change so that it fits."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from inflate.adapters import ADAPTERS
from inflate.bases import open_base
from inflate.checkpoint import Source, find_source
from inflate.data.clips.buckets import sizes_for
from inflate.errors import InputError
from inflate.train.checking import check_values
from inflate.train.from_model import recipe_table
from inflate.train.measuring import Measured, measure, process_bytes, warm_up
from inflate.train.planned import Lasting, Planned, lasting_bytes, meta_network, reduced, simulated
from inflate.train.recipe import apply_override, parse_recipe
from inflate.train.simulation import Simulated

# What the allocator holds beside what lives, as a factor on what comes and goes in an update, where nothing was
# measured: glibc's heap on a CPU (benchmarks/plan_accuracy.json), the caching allocator of torch on CUDA.
ALLOCATOR = {"cpu": 1.65, "cuda": 1.1}
_CUDA_CONTEXT = 600_000_000  # of a process that has used cuBLAS and cuDNN once
_SMALL_STEP_FLOPS = {"cpu": 10**11, "cuda": 2 * 10**13}
_LEAST_FRAMES = 4
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Run:
    """A run to plan: what costs memory and time, the pixels of a cell, and what sizes are multiples of, in pixels."""

    planned: Planned
    factor: int
    multiple: int
    updates: int
    device: str


@dataclass(frozen=True)
class Plan:
    """Bytes at the moment of the highest use, by purpose, and seconds; None for what was not measured."""

    weights: int
    temporal: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    transient: int
    allocator: int  # held by the allocator between uses
    process: int  # libraries, and the context of the device
    updates: int
    flops: int  # of an update
    step_seconds: float | None = None

    @property
    def total(self) -> int:
        """All bytes of the process at its highest moment."""
        return (
            self.weights + self.temporal + self.gradients + self.optimizer + self.ema + self.activations
            + self.transient + self.allocator + self.process
        )  # fmt: skip

    @property
    def total_seconds(self) -> float | None:
        """Of all updates; validation, samples and encoding are not in it."""
        return None if self.step_seconds is None else self.step_seconds * self.updates

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain values."""
        return {**asdict(self), "total": self.total, "total_seconds": self.total_seconds}


@dataclass(frozen=True)
class Machine:
    """What a small step of the network told of the machine: the allocator's factor, bytes of the process, and speed."""

    allocator: float
    process: int
    flops_per_second: float | None = None
    update_seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Fitted:
    """Settings that fit: the flags for them, and the plan with them."""

    flags: tuple[str, ...]
    plan: Plan


def run_of(
    model: str, data: str = "", scheme: str = "", overrides: Sequence[str] = (), device: str | None = None
) -> Run:
    """What ``inflate finetune --model MODEL`` with these settings would be.

    A network alone, without the parts that training needs, can be planned too: its autoencoder is taken to be one of 8
    pixels a cell if it works on latents.

    Args:
        model: as ``options.model``; weights need not be there.
        data: as ``data.path``; not read.
        scheme: of temporal layers.
        overrides: ``section.key=value``.
        device: ``cpu`` or ``cuda``, also one that is not here; by default what is here.

    Raises:
        InputError: no such model, one that cannot be inflated, settings out of range.
    """
    kind = device.partition(":")[0] if device else "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ALLOCATOR:
        raise InputError(f"Memory is planned for 'cpu' and 'cuda', not for {device!r}.")
    if kind == "cuda" and not torch.cuda.is_available():  # what the recipe would say on a machine with a GPU
        overrides = ["train.mixed_precision=bf16", *overrides]
    base = _base(model, overrides)
    table = recipe_table(model, data or "CLIPS", "", scheme, overrides, base)
    recipe = parse_recipe(table, f"the recipe of {model}")
    check_values(recipe)
    clips, train, options = recipe.clip_options, recipe.train, recipe.options
    sizes_for(clips, base.multiple)
    height, width = clips.size[0], clips.size[-1]
    source = base.network
    planned = Planned(
        image_model_class=source.image_model_class.__name__,
        config=dict(source.config),
        num_frames=clips.num_frames,
        height=height // base.factor,
        width=width // base.factor,
        scheme=options["scheme"],
        batch_size=train.batch_size,
        accumulation=train.gradient_accumulation_steps,
        precision=train.mixed_precision,
        gradient_checkpointing=train.gradient_checkpointing,
        optimizer=train.optimizer,
        **{name: options[name] for name in ("trainable", "lora_rank", "image_dtype") if name in options},
    )
    return Run(planned, base.factor, base.multiple, train.steps, kind)


def plan(run: Run, machine: Machine | None = None) -> Plan:
    """Memory and time of a run; without a machine's measurement by what is usual, and no time."""
    lasting, made = simulated(run.planned, run.device == "cuda")
    return _plan(run, lasting, made, machine or unmeasured(run.device))


def unmeasured(device: str) -> Machine:
    """What is usual for a device, where no step was run."""
    if device == "cuda":
        return Machine(ALLOCATOR[device], _CUDA_CONTEXT)
    warm_up(torch.device("cpu"))
    return Machine(ALLOCATOR[device], process_bytes())


def measured_machine(run: Run) -> Machine:
    """Run a small step of the same network on this machine; one that has no room for it is only told so."""
    usual = unmeasured(run.device)
    if run.device == "cuda" and not torch.cuda.is_available():
        return replace(usual, note="no step was measured: there is no GPU here")
    lasting, made = simulated(run.planned, run.device == "cuda")
    unit = max(1, run.multiple // run.factor)
    small = reduced(run.planned, made.flops, _SMALL_STEP_FLOPS[run.device], unit)
    lasting, made = simulated(small, run.device == "cuda")
    needed, free = _plan(run, lasting, made, usual).total, _free(run.device)
    if needed > free:
        note = f"no step was measured: a small one needs {_gigabytes(needed)} and {_gigabytes(free)} are free here"
        return replace(usual, note=note)
    return machine_of(measure(small, run.device), lasting, made, small)


def machine_of(found: Measured, lasting: Lasting, made: Simulated, small: Planned) -> Machine:
    """What a measured step says, given what was simulated of it."""
    # The step itself ran with AdamW in float32, whatever the plan's optimizer.
    moments = 2 * lasting.trained
    there = lasting.weights + lasting.temporal + lasting.ema + moments
    held = (found.peak - found.base - there) / max(1, made.peak)
    size = f"{small.num_frames} frames of {small.height} x {small.width} cells"
    note = f"measured: {found.seconds:.2f} s for {size}, {made.flops / found.seconds / 1e9:,.1f} GFLOP/s"
    return Machine(min(3.0, max(1.0, held)), found.base, made.flops / found.seconds, found.update_seconds, note)


def fit(run: Run, limit: int, machine: Machine, begin: Plan | None = None) -> Fitted | None:
    """The first settings, in a fixed order of what costs least, with which the run stays within ``limit`` bytes.

    The order: gradient checkpointing, 8-bit AdamW, 16-bit image weights and arithmetic, one clip at a time, fewer
    frames, smaller pictures, the scheme ``lean``. A change that saves nothing is left out. None if nothing fits.
    """
    current, flags = begin or plan(run, machine), ()
    if machine.process + _least(run) > limit:
        return None
    for change in _CHANGES:
        for changed, added in change(run):
            if current.total <= limit:
                return Fitted(flags, current)
            try:
                tried = plan(changed, machine)
            except InputError:  # this network cannot have it: ``lean`` without attention, or a size of its own
                continue
            if tried.total < current.total:
                run, current = changed, tried
                flags = (*(flag for flag in flags if _key(flag) not in map(_key, added)), *added)
    return Fitted(flags, current) if current.total <= limit else None


def read_size(text: str) -> int:
    """Bytes of "24GB", "24 GiB", "800M".

    Raises:
        InputError: no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise InputError(f"--fit {text!r} is no size of memory; write 24GB, for instance.")
    letter = match[2].upper()
    if match[3]:
        return int(float(match[1]) * 1024 ** " KMGT".index(letter or " "))
    return int(float(match[1]) * _UNITS[letter])


Change = Callable[[Run], Iterator[tuple[Run, tuple[str, ...]]]]


def _changed(run: Run, **values: Any) -> Run:
    return replace(run, planned=replace(run.planned, **values))


def _checkpoint(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    if not run.planned.gradient_checkpointing:
        yield _changed(run, gradient_checkpointing=True), ("train.gradient_checkpointing=true",)


def _eight_bits(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    if run.planned.optimizer == "adamw":
        yield _changed(run, optimizer="adamw-8bit"), ("train.optimizer=adamw-8bit",)


def _sixteen_bits(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    if run.planned.precision == "no":
        yield _changed(run, precision="bf16"), ("train.mixed_precision=bf16",)
    if run.planned.image_dtype == "float32" and run.planned.trainable != "all":
        changed = _changed(run, precision="bf16", image_dtype="bfloat16")
        yield changed, ("train.mixed_precision=bf16", "options.image_dtype=bfloat16")


def _one_clip(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    clips = run.planned.batch_size
    if clips > 1:
        many = clips * run.planned.accumulation
        flags = ("train.batch_size=1", f"train.gradient_accumulation_steps={many}")
        yield _changed(run, batch_size=1, accumulation=many), flags


def _fewer_frames(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    frames = run.planned.num_frames
    while frames > _LEAST_FRAMES:
        frames = max(_LEAST_FRAMES, frames // 2)
        yield _changed(run, num_frames=frames), (f"data.num_frames={frames}",)


def _smaller(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    """Three quarters, and half of height and width."""
    pixels = [side * run.factor for side in (run.planned.height, run.planned.width)]
    for quarters in (3, 2):
        height, width = (max(run.multiple, side * quarters // 4 // run.multiple * run.multiple) for side in pixels)
        frames = {"num_frames": min(run.planned.num_frames, _LEAST_FRAMES)}
        changed = _changed(run, height=height // run.factor, width=width // run.factor, **frames)
        size = f"[{height}]" if height == width else f"[{height},{width}]"
        yield changed, (f"data.num_frames={frames['num_frames']}", f"data.size={size}")


def _lean(run: Run) -> Iterator[tuple[Run, tuple[str, ...]]]:
    if run.planned.scheme != "lean":
        yield _changed(run, scheme="lean"), ("options.scheme=lean",)


_CHANGES: tuple[Change, ...] = (
    _checkpoint, _eight_bits, _sixteen_bits, _one_clip, _fewer_frames, _smaller, _lean,
)  # fmt: skip


def _least(run: Run) -> int:
    """Bytes that last with all that makes them fewer; no clip is short enough to go below."""
    small = replace(run.planned, optimizer="adamw-8bit", precision="bf16")
    try:
        small = replace(small, scheme="lean")
        return lasting_bytes(small, meta_network(small)).total
    except InputError:
        small = replace(small, scheme=run.planned.scheme)
        return lasting_bytes(small, meta_network(small)).total


def _key(flag: str) -> str:
    return flag.partition("=")[0]


def _plan(run: Run, lasting: Lasting, made: Simulated, machine: Machine) -> Plan:
    flops = made.flops * run.planned.accumulation
    seconds = None
    if machine.flops_per_second is not None:
        seconds = flops / machine.flops_per_second + machine.update_seconds
    return Plan(
        weights=lasting.weights,
        temporal=lasting.temporal,
        gradients=made.gradients,
        optimizer=lasting.optimizer,
        ema=lasting.ema,
        activations=made.activations,
        transient=made.transient,
        allocator=round((machine.allocator - 1) * made.peak),
        process=machine.process,
        updates=run.updates,
        flops=flops,
        step_seconds=seconds,
    )


@dataclass(frozen=True)
class _Network:
    """What a plan needs to know of what somebody brings."""

    network: Source
    factor: int
    multiple: int
    sample_size: tuple[int, int]


def _base(model: str, overrides: Sequence[str]) -> _Network:
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    try:
        base = open_base(model, (given.get("options") or {}).get("parts"))
        return _Network(base.network, base.autoencoder().factor, base.multiple, base.sample_size)
    except InputError:
        return _alone(find_source(model))


def _alone(source: Source) -> _Network:
    """A network of which nothing else is there."""
    config, name = source.meta_model().config, source.image_model_class.__name__
    adapter = ADAPTERS[name](config)
    unet = adapter.family == "UNet"
    pixels = name == "UNet2DModel" or (unet and int(config.get("in_channels", 4)) in (3, 6))
    factor = 1 if pixels else 8
    halvings = 2 ** (len(config.get("down_block_types") or [0]) - 1)
    height, width = adapter.sample_size or (adapter.native_cells, adapter.native_cells)
    return _Network(source, factor, factor * halvings * adapter.patch_size, (height * factor, width * factor))


def _free(device: str) -> int:
    """Bytes that nobody uses."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    if not _MEMORY.is_file():
        return 0
    line = next(line for line in _MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
