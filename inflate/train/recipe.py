"""Recipes: TOML files that are parsed strictly, so that a misspelt key is an error and never silently ignored."""

import dataclasses
import json
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from inflate.data.clips.options import ClipOptions
from inflate.errors import InputError, nearest
from inflate.train.limits import check_numbers

T = TypeVar("T")
KINDS = ("still", "clip")  # of a prepared data set's entries
SPLITS = ("train", "validation", "test")
VIDEO = "video"  # the step that fine-tunes any image model on any clips


@dataclass(frozen=True)
class About:
    """What a reader wants to know before running: purpose, command, hardware, time, and the figure it should reach."""

    purpose: str
    command: str
    hardware: str
    time: str
    figure: str


@dataclass(frozen=True)
class DataOptions:
    """Where the pictures and clips come from.

    ``path`` is a prepared dataset or any folder of videos; ``size`` in pixels; ``kinds`` of entries to draw from
    (a step that trains on clips draws these alone); ``split`` is never ``test`` in a recipe of ours. ``cache``: the
    folder where decoded frames are kept; empty means what :func:`inflate.data.kept.cache_folder` says.
    """

    path: str
    size: int = 64
    kinds: tuple[str, ...] = ("still", "clip")
    split: str = "train"
    cache: str = ""

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise InputError("data.path is empty; name the folder of a data set, or of videos.")
        if not 8 <= self.size <= 4096:
            raise InputError(f"data.size is {self.size}; it must be from 8 to 4096 pixels.")
        for kind in self.kinds:
            if kind not in KINDS:
                raise InputError(f"data.kinds has {kind!r}{nearest(kind, KINDS)}; use {' and '.join(KINDS)}.")
        if self.split not in SPLITS:
            raise InputError(f"data.split is {self.split!r}{nearest(self.split, SPLITS)}; use {', '.join(SPLITS)}.")
        if not self.kinds:
            raise InputError(f"data.kinds is empty; use {' or '.join(KINDS)}, or both.")


@dataclass(frozen=True)
class TrainOptions:
    """How long and how: steps, batch size per process, AdamW, warm-up, constant, then linear decay to zero, EMA.

    ``compile`` runs the trained network through ``torch.compile`` and channels-last convolutions: a minute or two of
    start-up for updates that take two thirds of the time (measured on 2 CPU cores); resuming is then no longer exact to
    the bit. ``learning_rate_scale`` multiplies the learning rate of the parameters whose names start so.
    ``optimizer``: ``adamw`` or ``adamw-8bit`` (bitsandbytes). ``gradient_checkpointing``: the image model keeps fewer
    activations and computes them again, about a third more time for much less memory. ``trackers``: of
    ``tensorboard``, ``wandb``, ``trackio``. ``validate_every`` and ``sample_every``: 0 for never;
    ``keep_checkpoints``: the newest so many.
    """

    steps: int
    batch_size: int
    learning_rate: float
    learning_rate_scale: dict[str, float] = field(default_factory=dict)
    warmup_steps: int = 100
    decay_steps: int = 0
    weight_decay: float = 0.01
    beta2: float = 0.99
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    compile: bool = False
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 250
    sample_every: int = 500
    validate_every: int = 250
    keep_checkpoints: int = 2
    optimizer: str = "adamw"
    gradient_checkpointing: bool = False
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check_numbers(item.name, getattr(self, item.name), "train")
        if self.optimizer not in ("adamw", "adamw-8bit"):
            raise InputError(f"train.optimizer is {self.optimizer!r}; use 'adamw' or 'adamw-8bit'.")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise InputError(f"train.mixed_precision is {self.mixed_precision!r}; use 'no', 'fp16' or 'bf16'.")
        for prefix, scale in self.learning_rate_scale.items():
            if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 1000:
                raise InputError(
                    f"train.learning_rate_scale of {prefix!r} is {scale!r}; it must be a number above 0, at most 1000."
                )
        if self.warmup_steps + self.decay_steps > self.steps:
            raise InputError(
                f"train.warmup_steps + train.decay_steps = {self.warmup_steps + self.decay_steps} is more than "
                f"train.steps = {self.steps}; shorten one of them."
            )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of update ``step`` (from 0): linear warm-up, constant, linear decay to zero at the end."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay = min(1.0, (self.steps - step) / (self.decay_steps + 1)) if self.decay_steps else 1.0
        return self.learning_rate * warmup * decay


@dataclass(frozen=True)
class Recipe:
    """One training run as data: ``step`` names the TrainStep, ``options`` are that step's own, parsed by it."""

    name: str
    step: str
    about: About
    data: DataOptions
    train: TrainOptions
    options: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    clips: ClipOptions | None = None  # what [data] says, for a step that trains on any clips

    def __post_init__(self) -> None:
        if not self.name.strip() or any(letter in self.name for letter in "/\\:\0") or self.name in (".", ".."):
            raise InputError(
                f"The recipe's name is {self.name!r}; it names a folder of runs/, so use letters, digits and -."
            )

    @property
    def clip_options(self) -> ClipOptions:
        """The clips of a recipe with ``step = "video"``."""
        assert self.clips is not None, "parse_recipe reads [data] so"
        return self.clips

    @property
    def output_folder(self) -> Path:
        """Where state, log, sheets and the export go."""
        return Path(self.output or f"runs/{self.name}")

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain data."""
        values = dataclasses.asdict(self)
        clips = values.pop("clips")
        return json.loads(json.dumps(values | ({"data": clips} if clips else {})))


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: a TOML file.
        overrides: ``section.key=value`` strings, values in TOML syntax (a bare word is taken as a string).

    Raises:
        InputError: no such file, not TOML, an unknown or missing key (nearest name offered), a wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no recipe at {path}; `recipes/` has examples.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}); mend that line.") from error
    for override in overrides or []:
        apply_override(table, override)
    return parse_recipe(table, str(path))


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """A recipe from its table; ``[data]`` of ``step = "video"`` is that of :class:`ClipOptions`.

    Raises:
        InputError: as :func:`load_recipe`.
    """
    data = table.get("data")
    if table.get("step") != VIDEO or not isinstance(data, dict):
        return parse_table(Recipe, {key: value for key, value in table.items() if key != "clips"}, where)
    clips = parse_table(ClipOptions, data, f"{where}: data")
    plain = parse_table(Recipe, table | {"data": {"path": clips.path}}, where)
    return dataclasses.replace(plain, clips=clips)


def parse_table(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Build the dataclass ``cls`` from ``table``, refusing unknown keys, missing keys and wrong types by name."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(typing.cast(Any, cls))]
    for key in table:
        if key not in names:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, names)}; the keys are {', '.join(names)}.")
    values = {}
    for item in dataclasses.fields(typing.cast(Any, cls)):
        if item.name in table:
            values[item.name] = _coerce(hints[item.name], table[item.name], f"{where}: {item.name}")
            check_numbers(item.name, values[item.name], where)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: the key {item.name!r} is missing; add it.")
    return cls(**values)


def _coerce(kind: Any, value: Any, where: str) -> Any:
    """``value`` as a ``kind`` by pydantic's strict rules; what would be a list's only item may stand for it."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise InputError(f"{where} must be a table, not {value!r}.")
        return parse_table(kind, value, where)
    if typing.get_origin(kind) is tuple:  # size = 512, trackers = "wandb"
        value = tuple(value) if isinstance(value, list) else (value,)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(typing.cast(Any, kind), config=ConfigDict(strict=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        wanted, found = getattr(kind, "__name__", str(kind)), error.errors(include_url=False)[0]
        if found["loc"] and typing.get_origin(kind) is tuple:
            wanted, value = getattr(typing.get_args(kind)[0], "__name__", "another"), found["input"]
        raise InputError(f"{where} must be of type {wanted}, not {value!r}.") from error


def apply_override(table: dict[str, Any], override: str) -> None:
    """Change ``table`` by one ``section.key=value``; ``InputError`` where that is no place in it."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override!r} is not of the form section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.split(".")
    target = table
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise InputError(f"--set {override!r}: {section!r} is not a section of the recipe.")
    target[last] = value
