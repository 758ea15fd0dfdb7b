"""What else a chain can do than answer a prompt: animate, interpolate, extend, vary and upscale.

Make-A-Video, arXiv:2209.14792, section 4: an image is animated by masked frame interpolation with the image as the
known frame and its own CLIP embedding as the condition; two images are interpolated with both ends known; a video is
varied from the mean of its frames' embeddings.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inflate.cascade.enlarging import Enlarging, scale_of, shrunk, stages_for
from inflate.cascade.inputs import (
    Generators,
    Picture,
    Timing,
    draw_seeds,
    picture_frames,
    picture_size,
    video_frames,
)
from inflate.cascade.output import (
    CascadeOutput,
    OutputType,
    StageCallback,
    StepCallback,
    as_output,
    check_output_type,
    gathered,
)
from inflate.cascade.runner import Runner
from inflate.cascade.shapes import Shape
from inflate.errors import InputError
from inflate.stages import ChainState, StageSettings
from inflate.video import Video, fold_frames, from_uint8

_FRAMES_AT_ONCE = 64
_HELD_BYTES = 256 * 2**20  # of frames as float32, of which there are several copies on the way


class GuidanceChoice(TypedDict, total=False):
    """What may be done to guidance, for the decoder or by stage name; see ``GuidanceOptions``."""

    guidance_rescale: float | Mapping[str, float] | None
    guidance_oscillate: float | Mapping[str, float] | None
    threshold: float | Mapping[str, float] | None


class SamplingOptions(GuidanceChoice, total=False):
    """What every application takes beside its own arguments; each as in ``Cascade.__call__``."""

    generator: Generators
    num_inference_steps: int | Mapping[str, int] | None
    guidance_scale: float | Mapping[str, float] | None
    output_type: OutputType
    callback_on_step_end: StepCallback | None
    callback_on_stage_end: StageCallback | None
    until: str | None


class Applications(Runner):
    """The applications, as methods."""

    def chosen_settings(self, options: Mapping[str, Any]) -> dict[str, StageSettings]:
        """:meth:`Cascade.settings` from those of ``options`` that it knows."""
        names = ("num_inference_steps", "guidance_scale", *GuidanceChoice.__annotations__)
        return self.settings(**{name: options[name] for name in names if name in options})

    def animate(
        self,
        image: Picture,
        num_frames: int = 16,
        fps: float = 8,
        frame_skip: int = 1,
        **options: Unpack[SamplingOptions],
    ) -> CascadeOutput:
        """Make an image move: it is the first frame, and its own CLIP image embedding the condition.

        Args:
            image: a PIL picture, uint8 (H, W, 3), or float (3, H, W) in [0, 1]; frames get its shape, the centre being
                taken where that is not possible (:meth:`frame_shape`).
            num_frames: frames to make, the image among them.
            fps: their frames per second.
            frame_skip: how many times frame interpolation then multiplies the frame rate.
            options: see ``SamplingOptions``.

        Raises:
            InputError: not a picture, bad numbers, or this cascade has no frame interpolation or no image encoder.
        """
        return self._between([image], [0], Timing(num_frames, fps, frame_skip), options)

    def interpolate(
        self,
        first: Picture,
        last: Picture,
        num_frames: int = 16,
        fps: float = 8,
        frame_skip: int = 1,
        **options: Unpack[SamplingOptions],
    ) -> CascadeOutput:
        """Make a video that begins with one image and ends with another; arguments as for :meth:`animate`.

        Frames get the first one's shape, to which the last one is cropped.
        """
        if num_frames < 2:
            raise InputError(f"Two images need num_frames of 2 or more, got {num_frames}.")
        return self._between([first, last], [0, num_frames - 1], Timing(num_frames, fps, frame_skip), options)

    def interpolate_video(self, video: Video, frame_skip: int = 5, **options: Unpack[SamplingOptions]) -> CascadeOutput:
        """Raise a video's frame rate ``frame_skip`` times: ``(F - 1) * frame_skip + 1`` frames, the known ones kept.

        Frames are brought to about the size of the decoder's (:meth:`frame_shape`); later stages enlarge them.
        """
        self.interpolation(options.get("until"))
        frames = video_frames(video, self.frame_shape(video.height, video.width))
        timing = Timing(video.num_frames, video.fps, frame_skip)
        return self._finish(self._known_state(frames, None, timing, options), options)

    def extend(self, video: Video, num_frames: int = 8, **options: Unpack[SamplingOptions]) -> CascadeOutput:
        """Go on where a video ends: ``num_frames`` more frames at its frame rate, after its own."""
        self.interpolation(options.get("until"))
        timing = Timing(video.num_frames + num_frames, video.fps, 1)
        known = video_frames(video, self.frame_shape(video.height, video.width))
        blank = torch.zeros(1, 3, num_frames, *known.shape[-2:])
        mask = torch.arange(timing.num_frames) < video.num_frames
        state = self._known_state(torch.cat([known, blank], 2), mask, timing, options)
        return self._finish(replace(state, image_embeds=self.embed_images(known)), options)

    def vary(
        self,
        video: Video,
        num_frames: int = 16,
        fps: float = 8,
        frame_skip: int = 5,
        **options: Unpack[SamplingOptions],
    ) -> CascadeOutput:
        """Another video of the same thing, from the mean of the CLIP image embeddings of the frames of ``video``.

        It has the shape of ``video`` (:meth:`frame_shape`).
        """
        return self.vary_chunks([video.frames], num_frames, fps, frame_skip, **options)

    def vary_chunks(
        self,
        chunks: Iterable[np.ndarray],
        num_frames: int = 16,
        fps: float = 8,
        frame_skip: int = 5,
        **options: Unpack[SamplingOptions],
    ) -> CascadeOutput:
        """:meth:`vary` of a video that comes in chunks of uint8 frames (n, H, W, 3), which are not kept."""
        if self.stage("decoder") is None:
            raise InputError("This cascade has no decoder, which varying a video needs.")
        Timing(num_frames, fps, frame_skip)
        size = (0, 0)

        def watched() -> Iterator[Tensor]:
            nonlocal size
            for chunk in self.fitted(chunks):
                size = (chunk.shape[2], chunk.shape[3])
                yield chunk

        embeds = self.embed_chunks(watched())
        cascade: Any = self.sized(*size)
        return cascade(None, num_frames, fps, image_embeds=embeds, frame_skip=frame_skip, **options)

    def upscale(self, video: Video, factor: float | None = None, **options: Unpack[SamplingOptions]) -> CascadeOutput:
        """Enlarge a video by the super-resolution stages; for one that does not fit into memory see
        :meth:`upscale_chunks`, as which this works where frames are large.

        Args:
            video: any size.
            factor: how many times larger each side becomes; None is what all stages do together.
            options: see ``SamplingOptions``; large videos come without calls of ``callback_on_stage_end``.

        Raises:
            InputError: the cascade has no super-resolution, or does not enlarge ``factor`` times.
        """
        stages = self.upscalers(options.get("until"))
        plan = self.enlarging(video, factor, options.get("until"))
        if plan.stages != stages or plan.size != plan.made(len(stages)) or plan.held_bytes() > _HELD_BYTES:
            return self._upscale_large(video, factor, options)
        state = self._known_state(video_frames(video, None), None, Timing(video.num_frames, video.fps, 1), options)
        before = tuple(stage.name for stage in self.stages if stage not in stages)
        return self._finish(replace(state, passed=before), options)

    def enlarging(self, video: Shape, factor: float | None = None, until: str | None = None) -> Enlarging:
        """What :meth:`upscale` takes for a video of that length and size, or :meth:`upscale_chunks`."""
        stages = stages_for(self.upscalers(until), factor)
        return Enlarging(stages, (video.height, video.width), video.num_frames, factor)

    def upscale_chunks(
        self,
        chunks: Iterator[Tensor],
        num_frames: int | None = None,
        factor: float | None = None,
        works: Sequence[float] = (),
        fps: float | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Tensor]:
        """Enlarge a video of any length and size, of which a few frames and tiles are in memory at a time.

        Args:
            chunks: (3, n, H, W) float32 in [-1, 1] each, any n, in order.
            num_frames: how many frames will come in all, for progress.
            factor: as in :meth:`upscale`.
            works: how long each stage will take, for progress; see :meth:`Enlarging.seconds`.
            fps: frames per second, which networks with a frame-rate embedding are told.
            options: see ``SamplingOptions``; there is one seed for the video.

        Yields:
            Chunks (3, m, factor H, factor W), in order. Between two stages frames lie in a temporary file, as 8-bit
            pixels.
        """
        settings = self.chosen_settings(options)
        [seed] = draw_seeds(options.get("generator"), 1)
        stages = stages_for(self.upscalers(options.get("until")), factor)
        callback = options.get("callback_on_step_end")
        works = works or [settings[stage.name].num_inference_steps * settings[stage.name].cost for stage in stages]
        before = tuple(stage.name for stage in self.stages if stage not in stages)
        state = ChainState((), (seed,), num_frames or 0, float(fps or 0), passed=before)
        made = self.stream_through(stages, works, state, settings, callback, chunks)
        return shrunk(made, scale_of(stages), factor)

    def _upscale_large(self, video: Video, factor: float | None, options: SamplingOptions) -> CascadeOutput:
        output_type = options.get("output_type", "pil")
        check_output_type(output_type)
        read = (from_uint8(frame[None, None])[0] for frame in video.frames)
        made = self.upscale_chunks(read, video.num_frames, factor, fps=video.fps, **options)
        return CascadeOutput(gathered(made, video.num_frames, output_type), float(video.fps), None)

    def embed_images(self, frames: Tensor) -> Tensor:
        """Mean CLIP image embedding (B, D) of the frames of videos (B, 3, F, H, W) in [-1, 1].

        It has the norm that the frames' own embeddings have on average, as the decoder expects it: a mean of different
        directions would be shorter.

        Raises:
            InputError: the cascade has no prior stage, to which the CLIP model belongs, or that has no image encoder.
        """
        pictures = fold_frames(frames).split(_FRAMES_AT_ONCE)
        return self._mean_embeds((chunk.transpose(0, 1) for chunk in pictures), len(frames))

    def embed_chunks(self, chunks: Iterable[Tensor]) -> Tensor:
        """As :meth:`embed_images`, (1, D), of one video whose frames come in chunks (3, n, H, W)."""
        return self._mean_embeds(chunks, 1)

    def fitted(self, chunks: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Chunks of uint8 frames (n, H, W, 3) at the size that :meth:`frame_shape` says: (3, n, h, w) in [-1, 1]."""
        for chunk in chunks:
            yield video_frames(Video(chunk, 1.0), self.frame_shape(*chunk.shape[1:3]))[0]

    def _mean_embeds(self, chunks: Iterable[Tensor], videos: int) -> Tensor:
        prior: Any = self.stage("prior")
        if prior is None:
            raise InputError("This cascade has no CLIP model (it belongs to the prior), which embedding images needs.")
        with torch.no_grad(), self.running(prior, prior.image_roles):
            parts = [prior.embed_pictures(chunk.transpose(0, 1).to(self.device)) for chunk in chunks]
        embeds = torch.cat(parts).unflatten(0, (videos, -1))
        return functional.normalize(embeds.mean(1), dim=-1) * embeds.norm(dim=-1).mean(1, keepdim=True)

    def _between(
        self, pictures: Sequence[Picture], positions: Sequence[int], timing: Timing, options: SamplingOptions
    ) -> CascadeOutput:
        self.interpolation(options.get("until"))
        size = self.frame_shape(*picture_size(pictures[0]))
        known = torch.cat([picture_frames(picture, size) for picture in pictures], dim=2)
        frames = torch.zeros(1, 3, timing.num_frames, *known.shape[-2:])
        frames[:, :, list(positions)] = known
        mask = torch.zeros(timing.num_frames, dtype=torch.bool)
        mask[list(positions)] = True
        state = self._known_state(frames, mask, timing, options)
        return self._finish(replace(state, image_embeds=self.embed_images(known)), options)

    def _known_state(self, frames: Tensor, mask: Tensor | None, timing: Timing, options: SamplingOptions) -> ChainState:
        return ChainState(
            (),
            draw_seeds(options.get("generator"), 1),
            timing.num_frames,
            float(timing.fps),
            image_embeds=self.embed_images(frames) if mask is None and self._wants_embeds(timing) else None,
            frames=frames,
            frame_skip=timing.frame_skip,
            known_frames=mask,
        )

    def _wants_embeds(self, timing: Timing) -> bool:
        return timing.frame_skip > 1 and self.stage("interpolation") is not None

    def _finish(self, state: ChainState, options: SamplingOptions) -> CascadeOutput:
        output_type = options.get("output_type", "pil")
        check_output_type(output_type)
        state = self.run(
            state,
            self.chosen_settings(options),
            options.get("callback_on_step_end"),
            options.get("until"),
            options.get("callback_on_stage_end"),
        )
        assert state.frames is not None
        return CascadeOutput(as_output(state.frames, output_type), state.fps, state.image_embeds)
