"""Extending a video and filling in its missing frames with the decoder alone, no frame interpolation needed.

The unchanged D^t draws the unknown frames of a window while the known ones are replaced at each step, with
reconstruction guidance (VDM, arXiv:2204.03458, section 3.1) in one of two forms: ``"errors"`` spreads what the
network gets wrong in known frames to the unknown ones (``spread_errors``), at no cost; ``"gradient"`` is the paper's
eq. 7, which takes the gradient through the network. Known frames come back bit for bit.
"""

import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor

from inflate.cascade.applications import SamplingOptions
from inflate.cascade.inputs import draw_seeds, video_frames
from inflate.cascade.output import CascadeOutput, OutputType, as_output, check_output_type, tell_end
from inflate.diffusion.reconstruction import error_correlation, frames_constraint, smaller_constraint
from inflate.errors import InputError, nearest
from inflate.inflater import InflatedModel
from inflate.models.completing import Completes
from inflate.models.decoder import DecoderStage
from inflate.sampling.denoiser import check_fps
from inflate.sampling.known import Known, sample_known, saving_memory
from inflate.sampling.noise import frame_noise
from inflate.stages import ChainState, StageSettings, stage_generator
from inflate.video import Video, fold_frames, unfold_frames

_MAX_BYTES = 2**30  # of float32 frames, which lie in memory
GUIDES = ("errors", "gradient")


def extend_video(
    cascade: Any,
    video: Video,
    seconds: float,
    weight: float,
    save_memory: bool = False,
    prompt: str = "",
    guide: str = "errors",
    **options: Unpack[SamplingOptions],
) -> CascadeOutput:
    """Go on where a video ends until it lasts ``seconds``: the last frames of what there is, then a window's new ones.

    Args:
        cascade: one with a decoder that is inflated; where that is told image embeddings, with a prior.
        video: what comes first; its frames get a size that the decoder can do (``Cascade.frame_shape``).
        seconds: of the whole result.
        weight: ``w_r``; 0 is replacement alone.
        save_memory: gradient checkpointing of the decoder's network.
        prompt: what the video shows, for decoders that read it (Stable Diffusion).
        guide: the form of guidance, one of ``GUIDES``.
        options: as for the other applications; what ``callback_on_step_end`` is told counts a window as a video.

    Raises:
        InputError: the video lasts that long already, there is no such decoder, or ``until`` names another stage.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"The video is to last {seconds} s; give more than 0.")
    total = round(seconds * video.fps)
    if total <= video.num_frames:
        raise InputError(
            f"The video lasts {video.duration_seconds:.2f} s already; ask for more than that, not {seconds:g} s."
        )
    size = cascade.frame_shape(video.height, video.width)
    frames = video_frames(video, size)
    most = _MAX_BYTES // frames[:, :, 0].nbytes
    if total > most:
        raise InputError(
            f"The video is to last {seconds:g} s, {total} frames; there is room for {most} of {size[1]} x {size[0]} px "
            f"({most / video.fps:.0f} s)."
        )
    with Completing(cascade.sized(*size), video.fps, weight, save_memory, prompt, options, guide) as work:
        work.windows = math.ceil((total - frames.shape[2]) / (work.window - max(1, work.window // 2)))
        while frames.shape[2] < total:
            old = min(frames.shape[2], max(1, work.window // 2))
            new = min(work.window - old, total - frames.shape[2])
            # A whole window is drawn even where fewer frames are wanted: that is what the network was trained on.
            blank = torch.zeros(1, 3, work.window - old, *frames.shape[-2:])
            made = work.complete(torch.cat([frames[:, :, -old:], blank], 2), torch.arange(work.window) < old)
            frames = torch.cat([frames, made[:, :, old : old + new]], dim=2)
    return work.output(frames)


def infill_video(
    cascade: Any,
    video: Video,
    known: Tensor,
    weight: float,
    save_memory: bool = False,
    prompt: str = "",
    guide: str = "errors",
    **options: Unpack[SamplingOptions],
) -> CascadeOutput:
    """Make the frames of ``video`` where ``known`` (F,) bool is False; a window at most; arguments as above.

    Raises:
        InputError: nothing is known or nothing is missing, or more frames than a window has.
    """
    if tuple(known.shape) != (video.num_frames,) or known.dtype != torch.bool:
        raise InputError(f"known must be bool, one for each of the {video.num_frames} frames.")
    if not bool(known.any()) or bool(known.all()):
        raise InputError("Some frames must be known and some missing; there is nothing to fill in.")
    size = cascade.frame_shape(video.height, video.width)
    with Completing(cascade.sized(*size), video.fps, weight, save_memory, prompt, options, guide) as work:
        if video.num_frames > work.window:
            raise InputError(
                f"The video has {video.num_frames} frames and the model draws {work.window} at once; cut it first."
            )
        frames = work.complete(video_frames(video, size), known)
    return work.output(frames)


def frame_numbers(text: str, count: int, what: str) -> list[int]:
    """Frame numbers from 0, single ones and ranges with commas between, as :func:`infill_video` is told by people.

    ``what`` is the text's name in messages.

    Raises:
        InputError: something else, or a number that none of the ``count`` frames has.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = (one.strip() for one in part.partition("-"))
        if not first.isdecimal() or not (last or first).isdecimal():
            raise InputError(f"{what} is {text!r}; give frame numbers from 0 with commas between, such as 4-11,14.")
        if int(last or first) < int(first):
            raise InputError(f"{what} is {text!r}, and {part.strip()} runs backwards; give the smaller number first.")
        numbers += range(int(first), min(int(last or first), max(int(first), count)) + 1)
    if max(numbers) >= count:
        raise InputError(f"{what} is {text!r}; the video has {count} frames, numbered from 0 to {count - 1}.")
    if len(set(numbers)) == count:
        raise InputError(f"{what} is {text!r}, all {count} frames of the video; leave one or more that are known.")
    return numbers


def check_guidance(weight: float, guide: str = "errors") -> None:
    """Raise ``InputError`` unless reconstruction guidance can have that weight and that form."""
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"The weight of reconstruction guidance is {weight}; it must be 0 or more.")
    if guide not in GUIDES:
        raise InputError(f"There is no guidance {guide!r}{nearest(guide, GUIDES)}; use {' or '.join(GUIDES)}.")


class Completing:
    """A loaded decoder that completes windows, one after the other, each with noise of its own.

    ``window`` is the number of frames that its network sees at once. ``windows``, for progress: how many there will be
    at most.
    """

    windows = 1

    def __init__(
        self,
        cascade: Any,
        fps: float,
        weight: float,
        save_memory: bool,
        prompt: str,
        options: SamplingOptions,
        guide: str = "errors",
    ) -> None:
        """As :func:`extend_video` is called; ``fps`` is that of the frames to be made."""
        check_guidance(weight, guide)
        self.output_type: OutputType = options.get("output_type", "pil")
        check_output_type(self.output_type)
        until = options.get("until")
        if until not in (None, "decoder"):
            raise InputError(f"until={until!r}: reconstruction guidance is the decoder's work alone; leave until out.")
        stage = cascade.stage("decoder")
        if not isinstance(stage, DecoderStage):
            raise InputError("This cascade has no decoder, which completing a video needs.")
        if not (prompt or stage.needs_embeds or stage.told_nothing):
            raise InputError("This decoder makes frames from a prompt; say what the video shows (prompt, --prompt).")
        if prompt and not stage.reads_prompt():
            raise InputError("This decoder is told what a video shows by its frames alone; leave the prompt out.")
        self.stage: Completes = stage
        self.cascade, self.fps, self.weight = cascade, float(fps), weight
        self.save_memory, self.prompt, self.guide = save_memory, prompt, guide
        self.settings: StageSettings = cascade.chosen_settings(options)["decoder"]
        self.callback, self.done = options.get("callback_on_step_end"), 0
        self.stage_callback = options.get("callback_on_stage_end")
        [self.seed] = draw_seeds(options.get("generator"), 1)
        self.generator = stage_generator(self.seed, "reconstruction")
        self.running = cascade.running(stage)

    def __enter__(self) -> "Completing":
        self.running.__enter__()
        try:
            model = self.stage.components["unet"]
            if not isinstance(model, InflatedModel):
                raise InputError("The decoder has no temporal layers, so its frames know nothing of each other.")
            check_fps(model, self.fps)
        except BaseException:
            self.running.__exit__(None, None, None)
            raise
        self.model, self.window = model, model.num_frames
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def complete(self, frames: Tensor, mask: Tensor, low: Tensor | None = None) -> Tensor:
        """Frames (1, 3, F, H, W) in [-1, 1] with those made where ``mask`` is False; the others are as they were.

        With ``low`` (1, 3, F, h, w) all frames should be these when shrunk, and ``frames`` are a guess at them of which
        image embeddings are made.
        """
        device, count, shown = self.model.device, frames.shape[2], frames[:, :, mask]
        seen = shown if low is None else frames
        embeds = self.cascade.embed_images(seen).to(device) if self.stage.needs_embeds else None
        shape = self.stage.picture_shape()
        noise = frame_noise(self.model, 1, count, self.generator, device, self.fps, None, shape)
        latents, constraints = torch.zeros_like(noise), []
        if shown.shape[2]:
            with torch.no_grad():
                known = self.stage.encode(fold_frames(shown.to(device)))
            latents[:, :, mask] = unfold_frames(known, shown.shape[2])
            if self.guide == "gradient":
                constraints += [frames_constraint(latents, mask, self.weight)]
        if low is not None:
            constraints += [smaller_constraint(low.to(device), self.weight, self._decode, self.save_memory)]
        covariance = error_correlation(count, self.fps) if self.guide == "errors" else None
        predict = self.stage.predictor(embeds, self.prompt, count, self.fps, self.settings)
        with saving_memory(self.model, self.save_memory):
            made = sample_known(
                predict,
                self.stage.scheduler(),
                noise,
                Known(latents, mask, constraints if self.weight else (), covariance, self.weight),
                num_inference_steps=self.settings.num_inference_steps,
                generator=self.generator,
                on_step=self._step_callback(count),
            )
        self.done += 1
        pixels = self.stage.to_pixels(made).cpu()
        return torch.where(mask[None, None, :, None, None], frames, pixels)

    def output(self, frames: Tensor) -> CascadeOutput:
        """What a whole video (1, 3, F, H, W) in [-1, 1] is handed out as, the decoder's end being told."""
        state = ChainState((), (self.seed,), frames.shape[2], self.fps, frames=frames)
        tell_end(self.stage_callback, self.cascade, "decoder", state)
        return CascadeOutput(as_output(frames, self.output_type), self.fps, None)

    def _step_callback(self, num_frames: int) -> Callable[[int, Tensor, Tensor], Tensor]:
        """The cascade's, to which the windows are videos."""
        videos, number = ChainState((), (0,) * self.windows, num_frames, self.fps), self.done
        tell = self.cascade.step_callback([self.stage], [1.0], 0, videos, {"decoder": self.settings}, self.callback)
        return lambda step, timestep, sample: tell(number, step, timestep, sample)

    def _decode(self, latents: Tensor) -> Tensor:
        return unfold_frames(self.stage.decode(fold_frames(latents)), latents.shape[2])
