"""The composed chain of Make-A-Video (arXiv:2209.14792, eq. 1): stages one after the other.

A cascade knows only order, seeds, progress and memory: a stage's weights are there while it runs. How a stage samples
is the stage's own business. On disk it is a diffusers pipeline folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from inflate.cascade.applications import Applications
from inflate.cascade.folder import family_folder, read_index, read_stages, write_folder
from inflate.cascade.inputs import Generators, Picture, Segments, Timing, begun, first_state
from inflate.cascade.long import MAX_STREAMED_FRAMES, FrameStream, stream_video
from inflate.cascade.output import (
    CascadeOutput,
    OutputType,
    StageCallback,
    StepCallback,
    as_output,
    check_output_type,
)
from inflate.cascade.pipelines import PIPELINES
from inflate.cascade.role_file import is_role_file, read_role_file
from inflate.cascade.roles import choose_weights, read_pipeline, stages_of_roles
from inflate.cascade.runner import GuidanceChoice
from inflate.errors import InputError
from inflate.stages import Stage


class Cascade(Applications):
    """Stages in the order of the chain, called as one: ``cascade("party popper", fps=8).frames[0]``."""

    def __init__(
        self,
        stages: Sequence[Stage],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_loaded: bool = False,
        family: str | None = None,
    ) -> None:
        """A chain of ready stages.

        Args:
            stages: in order; each name once.
            device: default is CUDA where there is one, else the CPU.
            dtype: number format of the networks, default float32.
            keep_loaded: keep a stage's weights in memory between calls rather than release them after it ran.
            family: the name these weights go by.
        """
        super().__init__(stages, device, dtype, keep_loaded)
        self.family = family
        self.folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_loaded: bool = False,
        variant: str | None = None,
    ) -> "Cascade":
        """The cascade in a pipeline folder, one that ships inside the package (``bundled:emoji``), or a role file's.

        The folder may also be somebody's pipeline (Stable Diffusion, Karlo, …), inflated or not: then it plays what
        stages it can. A role file (``.toml``) says what plays each stage; see :mod:`inflate.cascade.role_file`.
        Only ``model_index.json`` and configs are read here; weights are read when their stage runs. ``variant`` says
        which, such as "fp16", of components that have weights in several; the plain ones by default.

        Raises:
            InputError: no such folder or name, its index is damaged or names what no stage knows, or no component has
                weights of ``variant``.
        """
        cascade = cls._opened(folder_or_name, device, dtype, keep_loaded)
        if variant is not None:
            stages: Any = cascade.stages
            choose_weights(stages, variant, str(folder_or_name))
        return cascade

    @classmethod
    def _opened(
        cls, folder_or_name: str | Path, device: torch.device | str | None, dtype: torch.dtype | None, keep_loaded: bool
    ) -> "Cascade":
        if is_role_file(folder_or_name):
            file = read_role_file(Path(folder_or_name).expanduser())
            stages: Any = stages_of_roles(file, str(folder_or_name))
            return cls(stages, device, dtype, keep_loaded, file.name)
        folder = family_folder(folder_or_name)
        index = read_index(folder)
        if index.get("_class_name") in PIPELINES:
            return cls(read_pipeline(folder, index), device, dtype, keep_loaded, folder.name)
        cascade = cls(read_stages(folder, index), device, dtype, keep_loaded, index.get("family"))
        cascade.folder = folder
        return cascade

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_frames: int = 16,
        fps: float = 8,
        generator: Generators = None,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        image_embeds: Tensor | None = None,
        frame_skip: int = 5,
        callback_on_stage_end: StageCallback | None = None,
        segments: Segments = (),
        init_image: Picture | None = None,
        strength: float = 0.8,
        **guidance: Unpack[GuidanceChoice],
    ) -> CascadeOutput:
        """Make one video per prompt; for one that does not fit into memory see :meth:`stream`.

        Args:
            prompt: one, or several.
            num_frames: frames that the decoder makes per video.
            fps: frames per second that these are made for.
            generator: one from which each video's seed is drawn, or one per video. A stage's noise follows from its
                video's seed alone, so neither other stages' steps nor other prompts change it.
            num_inference_steps: for every stage, or by stage name; stages have defaults of their own.
            guidance_scale: likewise; 1 is without guidance.
            output_type: see :class:`CascadeOutput`.
            callback_on_step_end: called after each sampling step as diffusers does; see ``StepCallback``.
            until: name of the last stage to run.
            image_embeds: (B, D), instead of prompts: the chain then starts after the prior.
            frame_skip: where there is frame interpolation, it makes ``(num_frames - 1) * frame_skip + 1`` frames at
                ``fps * frame_skip``; 1 leaves it out.
            callback_on_stage_end: called after each stage with what there is so far; see ``StageCallback``.
            segments: what every video shows later on, (seconds, prompt) each; only for more frames than the decoder
                sees at once.
            init_image: what every frame of the decoder begins as; its centre is cut to the frames' shape.
            strength: how far they go from there, above 0 to 1: the share of the decoder's steps that are left.
            guidance: for the decoder, or by stage; see ``GuidanceChoice``.

        Raises:
            InputError: bad arguments.
            CancelledError: a callback returned False.
        """
        check_output_type(output_type)
        timing, nothing = Timing(num_frames, fps, frame_skip), self.told_nothing()
        state = first_state(prompt, image_embeds, timing, generator, segments, nothing)
        state = begun(state, self.stage("decoder"), init_image, strength)
        settings = self.settings(num_inference_steps, guidance_scale, **guidance)
        state = self.run(state, settings, callback_on_step_end, until, callback_on_stage_end)
        frames = None if state.frames is None else as_output(state.frames, output_type)
        return CascadeOutput(frames, state.fps, state.image_embeds)

    def stream(
        self,
        prompt: str | None = None,
        num_frames: int = 16,
        fps: float = 8,
        generator: torch.Generator | None = None,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        frame_skip: int = 5,
        segments: Segments = (),
        init_image: Picture | None = None,
        strength: float = 0.8,
        **guidance: Unpack[GuidanceChoice],
    ) -> FrameStream:
        """Make one video of any length, in memory that does not grow with it; arguments as in a call.

        Between two stages frames lie in a temporary file, as 8-bit pixels. Nothing runs before the first chunk is asked
        for.

        Raises:
            InputError: bad arguments, or ``until`` names a stage before the decoder.
        """
        timing = Timing(num_frames, fps, frame_skip, MAX_STREAMED_FRAMES)
        state = first_state(prompt, None, timing, generator, segments, self.told_nothing())
        state = begun(state, self.stage("decoder"), init_image, strength)
        settings = self.settings(num_inference_steps, guidance_scale, **guidance)
        return stream_video(self, state, settings, callback_on_step_end, until)

    def load_lora(self, path: str | Path, weight: float = 1.0) -> str:
        """Add a LoRA to the decoder: of its image model and text encoders, or of its motion module (MotionLoRA).

        Several add up. They are merged into the weights: at once into networks that are in memory (of ready-made
        stages these are your own objects), and into others each time they are read. Weight 0 changes no bit.

        Args:
            path: a .safetensors file of diffusers, PEFT or kohya; which kind it is its content says.
            weight: how much of it is added, beside its own alpha over its rank; may be negative.

        Returns:
            "image" or "motion".

        Raises:
            InputError: no LoRA, one that does not fit this decoder, or there is none; nothing has changed then.
        """
        decoder: Any = self.stage("decoder")
        if decoder is None:
            raise InputError("This cascade has no decoder, to which LoRAs are added.")
        with self._turn:
            return decoder.add_lora(Path(path).expanduser(), weight)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write the cascade as a pipeline folder, which appears whole or not at all.

        Raises:
            InputError: ``folder`` exists and ``overwrite`` is not set.
        """
        write_folder(Path(folder), self.stages, self.family, self.folder, overwrite)
