"""What a stage of the chain is: one object with one call, its seeds, and the denoising loop that all share.

``inflate`` never imports a stage by statement: ``stage_table`` names "module:Class" and :func:`stage_class` resolves it
when asked, so that any stage can be replaced, or added by a package beside this one, without touching the core.
"""

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from inflate.building import alone
from inflate.cancelling import check_cancelled
from inflate.components import read_diffusers_component
from inflate.configs import read_object
from inflate.diffusion.guidance import GuidanceOptions
from inflate.errors import InputError, nearest
from inflate.stage_table import STAGES, stage_entry


@dataclass(frozen=True)
class StageSettings(GuidanceOptions):
    """How a stage samples; what guidance may do beside is in :class:`GuidanceOptions`, for stages that know it.

    ``guidance_scale`` g: prediction = uncond + g * (cond - uncond); 1 evaluates only cond. ``noise_level``, from 0 to
    1, is the noise added to low-resolution input (noise conditioning augmentation), for stages that know it. ``cost``
    is the time of one evaluation of one frame, in units of the decoder's, for overall progress.
    """

    num_inference_steps: int
    guidance_scale: float = 1.0
    noise_level: float = 0.0
    cost: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.num_inference_steps, bool) or not isinstance(self.num_inference_steps, int):
            raise InputError(f"num_inference_steps must be a whole number, got {self.num_inference_steps!r}.")
        if not 1 <= self.num_inference_steps <= 1000:
            raise InputError(f"num_inference_steps must lie between 1 and 1000, got {self.num_inference_steps}.")
        if not 0 <= self.guidance_scale <= 100:
            raise InputError(f"guidance_scale must lie between 0 and 100, got {self.guidance_scale}.")
        if not 0 <= self.noise_level <= 1:
            raise InputError(f"noise_level must lie between 0 and 1, got {self.noise_level}.")
        if not self.cost > 0:
            raise InputError(f"cost must be above 0, got {self.cost}.")


@dataclass(frozen=True)
class Segment:
    """From ``seconds`` on a video shows ``prompt``, into which what it showed before turns in ``transition`` seconds.

    ``image_embeds`` (B, D), one for each video, is what the prior makes of the prompt; None where there is no prior.
    """

    seconds: float
    prompt: str
    transition: float = 1.0
    image_embeds: Tensor | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError(f"A segment must begin some seconds after the video does, got {self.seconds}.")
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise InputError(f"The prompt of the segment at {self.seconds:g} s is empty; say what it should show.")
        if not (math.isfinite(self.transition) and self.transition >= 0):
            raise InputError(f"A transition must take some seconds, or 0, got {self.transition}.")


@dataclass(frozen=True)
class ChainState:
    """What travels down the chain, B videos at a time; each stage returns a copy with its own part filled in."""

    prompts: tuple[str, ...]  # B, empty where the chain starts from image_embeds
    seeds: tuple[int, ...]  # B, the root of each video's random numbers
    num_frames: int
    fps: float  # frames per second
    image_embeds: Tensor | None = None  # (B, D), of the norm the decoder knows: 1 in our families, CLIP's own in others
    frames: Tensor | None = None  # (B, 3, F, H, W), float32 in [-1, 1], on the CPU
    frame_skip: int = 5  # ↑F puts frame_skip - 1 new frames between two; 1 adds none
    known_frames: Tensor | None = None  # (F,) bool: those of `frames` that are given and stay; ↑F makes the others
    passed: tuple[str, ...] = ()  # stages that have changed `frames` since the decoder made them, by name
    init_image: Tensor | None = None  # (1, 3, H, W) in [-1, 1]: what every frame of the decoder begins as, noised
    strength: float = 1.0  # share of the decoder's steps that are left then
    segments: tuple[Segment, ...] = ()  # what all videos show later on, rising in time; the prompt is until then


class OnStep(Protocol):
    """What a stage calls after each step, or part of one."""

    def __call__(self, video: int, step: int, time: Tensor, sample: Tensor, share: float | None = None, /) -> Tensor:
        """``share``, from 0 to 1, of the video's work in this stage is done; None: as many as there were steps."""
        ...


def unchanged(video: int, step: int, time: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
    """An :class:`OnStep` that does nothing."""
    return sample


class Stage(Protocol):
    """One step of the chain, such as P or D^t; it knows its own sampler and conditioning, and no other stage.

    One that ``makes_frames`` makes them by :meth:`stream`; another, such as P, fills in something else when called.
    """

    name: ClassVar[str]
    makes_frames: ClassVar[bool]
    enlarges: ClassVar[bool]
    guidance_options: ClassVar[bool]
    defaults: StageSettings
    config: Any

    def done(self, state: ChainState) -> bool:
        """Whether ``state`` already holds what this stage makes, so that the chain may start after it."""
        ...

    def work(self, state: ChainState, settings: StageSettings) -> float:
        """Size of the job in evaluations of one picture's network times their cost, for overall progress."""
        ...

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        """How long the state's video of so many pixels will take here, a small part being timed; 0: cannot tell."""
        ...

    def size_multiple(self) -> int | None:
        """What both sides of frames must be multiples of, in pixels; None where the stage knows one size alone."""
        ...

    def load(self, device: torch.device, dtype: torch.dtype, roles: Sequence[str] | None = None) -> None:
        """Bring the weights onto ``device``; with ``roles``, those of these components only."""
        ...

    def release(self) -> None:
        """Let go of the weights that :meth:`load` read."""
        ...

    def save(self, folder: Path) -> dict[str, list[str]]:
        """Write the components into ``folder``; returns their entries for ``model_index.json``."""
        ...

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        """Do the stage's part of all videos. Each one's result depends on its own seed and input only."""
        ...

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        """The frames of one of the state's videos in chunks (3, n, H, W), float32 in [-1, 1] on the CPU, in order.

        ``chunks`` are the frames that there are, likewise, None where there are none; how they are cut has no
        influence but on memory: a video that is held in memory is a stream of one chunk. ``state.num_frames`` says how
        many they are in all (0: nobody knows); ``state.frames`` is not read.
        """
        ...

    def after(self, state: ChainState) -> ChainState:
        """The state when :meth:`stream` has made its frames: how many there are, and at which rate."""
        ...


def whole(stage: Any, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
    """The state with the frames (B, 3, F, H, W) that a :class:`Stage` makes of it, all of them in memory."""
    made = []
    for video in range(len(state.seeds)):
        chunks = None if state.frames is None else [state.frames[video]]
        made.append(torch.cat(list(stage.stream(state, video, chunks, settings, on_step)), dim=1))
    return replace(stage.after(state), frames=torch.stack(made))


def stage_class(name: str, player: str = "") -> "type[ComponentStage]":
    """The class of a stage in the table, or of a player of it; raises as :func:`stage_entry`."""
    module, class_name = stage_entry(name, player).target.split(":")
    return getattr(import_module(module), class_name)


def known_components(players: Mapping[str, str] | None = None) -> list[str]:
    """Names of all components that stages have, played by their own classes or by ``players``, each once."""
    entries = [stage_entry(name, (players or {}).get(name, "")) for name in STAGES]
    return list(dict.fromkeys(role for entry in entries for role in (*entry.needs, *entry.takes)))


def stages_of(components: Mapping[str, Any], where: str, players: Mapping[str, str] | None = None) -> list[str]:
    """Names of the stages that a folder with these components has, in the order of the chain.

    ``players`` says who plays a stage where its own class does not.

    Raises:
        InputError: a component that no stage knows, a stage with only part of its components, or no stage at all.
    """
    entries = {name: stage_entry(name, (players or {}).get(name, "")) for name in STAGES}
    known = known_components(players)
    for role in components:
        if role not in known:
            raise InputError(f"{where}: no stage has a component {role!r}{nearest(role, known)}.")
    names = []
    for name, entry in entries.items():
        missing = [role for role in entry.needs if role not in components]
        if missing and len(missing) < len(entry.needs):
            raise InputError(f"{where}: the stage {name!r} lacks its component {missing[0]!r}.")
        if not missing:
            names.append(name)
    if not names:
        raise InputError(f"{where} names no stage of a cascade; it needs for instance {STAGES['decoder'].needs}.")
    return names


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a stage that needs none."""


class ComponentStage:
    """A stage whose networks are the components of a pipeline folder, or are given ready-made.

    From a folder they are read by :meth:`load` and dropped by :meth:`release`; ready-made ones stay where they are.
    """

    name: ClassVar[str]
    player: ClassVar[str] = ""  # its name in PLAYERS, for a class that is not in STAGES
    defaults: StageSettings
    folders: ClassVar[dict[str, str]] = {}  # component -> its subfolder, where the two names differ
    makes_frames: ClassVar[bool] = False  # by `stream`
    enlarges: ClassVar[bool] = False  # the frames that it is given
    guidance_options: ClassVar[bool] = False  # whether it knows GuidanceOptions
    variant: str | None = None  # which weights are read, such as "fp16", where a component's folder has them
    config_class: ClassVar[type] = NoConfig  # what the stage must know beside its components, a frozen dataclass

    def __init__(
        self,
        components: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        index: Mapping[str, tuple[str, str]] | None = None,
        defaults: StageSettings | None = None,
        config: Any = None,
        paths: Mapping[str, Path] | None = None,
    ) -> None:
        """Either ``components`` by role, or a ``folder`` with its ``index`` of (library, class) by role.

        ``config`` is an instance of ``config_class``, whose defaults hold where it is None. ``paths`` say where each
        component lies, where these are not one folder's subfolders.
        """
        assert (components is None) == (folder is not None or bool(paths)), "components are ready-made, or on disk"
        self.folder = folder
        self.paths = dict(paths or {})
        self.index = dict(index or {})
        self.components: dict[str, Any] = dict(components or {})
        self.config = self.config_class() if config is None else config
        self.defaults = self._own_defaults() if defaults is None else defaults

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        index: Mapping[str, tuple[str, str]],
        defaults: StageSettings | None = None,
        config: Any = None,
    ) -> "Stage":
        """The stage with those components of ``folder`` that the table says are its own; nothing is read yet."""
        entry = stage_entry(cls.name, cls.player)
        own = {role: index[role] for role in (*entry.needs, *entry.takes) if role in index}
        return cls(folder=folder, index=own, defaults=defaults, config=config)  # pyright: ignore[reportReturnType]

    def _own_defaults(self) -> StageSettings:
        """The class's, in as many steps as the scheduler's config says that the network was distilled for."""
        for role in (*self.index, *self.components):
            steps = self.component_config(role).get("num_inference_steps") if "scheduler" in role else None
            if isinstance(steps, int):
                return replace(self.defaults, num_inference_steps=steps)
        return self.defaults

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """Read one component; a stage with components of its own kind overrides this."""
        return read_diffusers_component(folder, library, class_name, dtype, self.variant)

    def size_multiple(self) -> int | None:
        """As of :class:`Stage`; any size will do."""
        return 1

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        """As of :class:`Stage`; it cannot tell."""
        return 0.0

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        """As of :class:`Stage`."""
        raise AssertionError(f"the stage {self.name!r} makes no frames")

    def after(self, state: ChainState) -> ChainState:
        """As of :class:`Stage`."""
        return replace(state, passed=(*state.passed, self.name))

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        """As of :class:`Stage`: its frames, all of them in memory."""
        return whole(self, state, settings, on_step)

    @alone
    def load(self, device: torch.device, dtype: torch.dtype, roles: Sequence[str] | None = None) -> None:
        """Read what is not there yet, and put networks onto ``device`` as ``dtype``, in evaluation mode.

        ``roles`` reads those components only; None reads all.
        """
        for role, (library, class_name) in self.index.items():
            if role not in self.components and (roles is None or role in roles):
                check_cancelled()
                self.components[role] = self.read(role, self.path_of(role), library, class_name, dtype)
        for component in self.components.values():
            if isinstance(component, torch.nn.Module):
                if component.dtype != dtype:
                    component.to(dtype=dtype)
                component.to(device=device).eval()

    def release(self) -> None:
        """Forget components that came from disk."""
        if self.folder is not None or self.paths:
            self.components.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def save(self, folder: Path) -> dict[str, list[str]]:
        """Write each component into ``folder``: a copy of its files if it is not loaded, else as it is now.

        What another stage with the same component has written there already stays.
        """
        entries = {}
        for role in self.index or self.components:
            target = folder / self.folders.get(role, role)
            if target.is_dir() and role in self.index:
                entries[role] = list(self.index[role])
            elif role in self.components:
                entries[role] = self.write(self.components[role], target)
            else:
                shutil.copytree(self.path_of(role), target)
                entries[role] = list(self.index[role])
        return entries

    def component_config(self, role: str) -> dict[str, Any]:
        """The configuration of a component, read from its folder where it is not loaded; empty if there is none."""
        if role in self.components:
            return dict(getattr(self.components[role], "config", {}))
        if role not in self.index:
            return {}
        path = self.path_of(role) / ("scheduler_config.json" if "scheduler" in role else "config.json")
        if not path.is_file():
            return {}
        return read_object(path)

    def write(self, component: Any, folder: Path) -> list[str]:
        """Save one component into ``folder``; returns [library, class]. Overridden beside :meth:`read`."""
        component.save_pretrained(folder)
        return [type(component).__module__.split(".")[0], type(component).__name__]

    def path_of(self, role: str) -> Path:
        """The folder of one component."""
        if role in self.paths:
            return self.paths[role]
        assert self.folder is not None, "ready-made components are never read"
        return self.folder / self.folders.get(role, role)


def stage_generator(seed: int, stage: str) -> torch.Generator:
    """Random numbers of one video in one stage: they depend on nothing that any other stage or video draws.

    Always on the CPU, so that every device starts from the same noise.
    """
    digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
