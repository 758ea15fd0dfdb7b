"""What a sampler asks of a network: its answer to a noisy sample, told its condition, guided, window by window.

This is the only place where a network is evaluated with and without its condition.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from inflate.bases.prediction import network_inputs, network_of, scheme_of
from inflate.diffusion.conversions import from_x, to_x
from inflate.diffusion.guidance import Guidance, GuidanceOptions, dynamic_threshold
from inflate.errors import InputError
from inflate.sampling.known import prediction_type, scheduler_level
from inflate.sampling.loop import for_steps
from inflate.sampling.windows import Windows, WindowView
from inflate.stages import StageSettings

Told = Mapping[str, Any] | Callable[[float], Mapping[str, Any]]
"""A network's own arguments, or what gives them by the place of a window's middle in the video, in frames."""


class Denoiser:
    """(sample (B, ...), timestep) -> what a network predicts for it, float32, guided as its settings say.

    A network that predicts twice the channels predicts its variance too, which only a scheduler of learned variance
    takes; guidance changes the rest alone, and the variance is that of the conditional prediction. Make a new one for
    each video: it counts its calls, by which windows move.
    """

    def __init__(
        self,
        model: Any,
        scheduler: Any,
        told: Told,
        guidance: Guidance,
        *,
        both: bool | None = None,
        fps: float | None = None,
        windows: Windows | None = None,
        threshold: float | None = None,
        inside: bool = False,
        beside: Callable[[Tensor], Tensor] | None = None,
        network: Callable[..., Any] | None = None,
    ) -> None:
        """All that stays the same from step to step.

        Args:
            model: an ``InflatedModel``, or an image model, which sees pictures or each frame on its own.
            scheduler: the diffusers scheduler that samples.
            told: the network's arguments, of first size 2 B (without, with the condition) where it is evaluated both
                ways, and of B otherwise.
            guidance: how two answers become one.
            both: whether it is evaluated both ways; None is as ``guidance`` needs it.
            fps: frames per second, told to networks that take it.
            windows: how a video is cut that is longer than one; None sees all frames at once.
            threshold: the quantile of dynamic thresholding, over all of a video; None is none.
            inside: whether the network is told the scale of guidance instead, having learned it.
            beside: what the network sees in place of the sample itself, such as the sample and known frames.
            network: what is called; None is the model itself.
        """
        self.model, self.scheduler, self.told, self.guidance = model, scheduler, told, guidance
        self.both = guidance.needs_both and not inside if both is None else both
        self.fps, self.windows, self.threshold = fps, windows, threshold
        self.inside, self.beside = inside, beside
        self.network = network or network_of(model)
        config = getattr(scheduler, "config", {})
        self.variance = str(getattr(config, "variance_type", "")).startswith("learned")
        self.calls = 0

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The prediction, of the sample's shape, or with channels of variance behind it."""
        mean: Tensor | None = None
        for view in self._views(sample):
            part = view.of(sample)
            inputs = part if self.beside is None else self.beside(part)
            inputs = torch.cat([inputs, inputs]) if self.both else inputs
            inputs, at, told = network_inputs(self.model, inputs, timestep, self._told(view, timestep), self.fps)
            made = self._guided(self.network(inputs, at, **told).sample.float(), part.shape[1], timestep)
            mean = view.put(mean, made, sample)
        assert mean is not None, "there is a window"
        return mean if self.threshold is None else self._thresholded(sample, mean, timestep, self.threshold)

    def _views(self, sample: Tensor) -> Iterator[WindowView]:
        if sample.ndim != 5 or self.windows is None or sample.shape[2] <= self.windows.size:
            return iter((WindowView.whole(sample),))
        self.calls += 1
        return self.windows.views(sample.shape[2], self.calls - 1)

    def _told(self, view: WindowView, timestep: Tensor) -> Mapping[str, Any]:
        told = self.told(view.middle) if callable(self.told) else self.told
        return {**told, "guidance_scale": self.guidance.scale_at(timestep)} if self.inside else told

    def _guided(self, made: Tensor, channels: int, timestep: Tensor) -> Tensor:
        """One answer of the network's two, of ``channels`` unless the scheduler takes those of a variance too."""
        if self.both:
            without, given = made.chunk(2)
            guess = self.guidance(without[:, :channels], given[:, :channels], timestep)
            made = torch.cat([guess, given[:, channels:]], dim=1)
        return made if self.variance else made[:, :channels]

    def _thresholded(self, sample: Tensor, made: Tensor, timestep: Tensor, quantile: float) -> Tensor:
        """The answer with the clean sample it means thresholded (E12); channels of variance stay as they are."""
        kind, channels = prediction_type(self.scheduler), sample.shape[1]
        level = scheduler_level(self.scheduler, timestep)
        x = dynamic_threshold(to_x(sample, made[:, :channels], level, kind), quantile)
        return torch.cat([from_x(sample, x, level, kind), made[:, channels:]], dim=1)


def guidance_of(scale: float, options: GuidanceOptions, scheduler: Any, num_inference_steps: int) -> Guidance:
    """Guidance for sampling with a diffusers scheduler in so many steps."""
    if options.guidance_oscillate is None:
        return Guidance(scale, options.guidance_rescale)
    timesteps = tuple(float(timestep) for timestep in for_steps(scheduler, num_inference_steps).timesteps)
    return Guidance(scale, options.guidance_rescale, options.guidance_oscillate, timesteps)


def guidance_inside(model: Any, guidance: Guidance) -> bool:
    """Whether guidance is distilled into a model's weights, and its scale an input.

    Raises:
        InputError: the weights know other scales, or none by themselves as rescaling needs it.
    """
    scheme = scheme_of(model)
    known = None if scheme is None else scheme.guidance_range
    if known is None:
        return False
    for scale in guidance.scales:
        if not known[0] <= scale <= known[1]:
            raise InputError(
                f"guidance_scale is {scale:g}; this distilled model knows scales from {known[0]:g} to {known[1]:g}."
            )
    if guidance.rescale:
        raise InputError("guidance_rescale needs predictions without guidance, which this distilled model has not.")
    return True


def needs_both(settings: StageSettings) -> bool:
    """Whether a stage's guidance needs predictions without the condition, at some step at least."""
    return settings.guidance_scale != 1 or settings.guidance_oscillate not in (None, 1)


def check_both(settings: StageSettings, network: str) -> None:
    """``InputError`` for guidance that needs predictions without the prompt, of a network that makes none."""
    if settings.guidance_oscillate is not None or settings.guidance_rescale:
        raise InputError(
            "guidance_rescale and guidance_oscillate change predictions with and without the prompt, and "
            f"{network} has its guidance in its weights; leave them out."
        )


def check_threshold(options: GuidanceOptions, vae: Any | None) -> None:
    """``InputError`` for thresholding of a decoder that draws latents, whose values lie beyond [-1, 1]."""
    if options.threshold is not None and vae is not None:
        raise InputError(
            "threshold brings pixels into [-1, 1], and this decoder draws latents, which lie beyond; leave it out "
            "(guidance_rescale does work for latents)."
        )


def check_fps(model: Any, fps: float) -> None:
    """``InputError`` unless the model was trained for this frame rate, or has no use for it."""
    scheme = scheme_of(model)
    fps_range = None if scheme is None else scheme.fps_range
    if fps_range is not None and not fps_range[0] <= fps <= fps_range[1]:
        raise InputError(f"fps is {fps:g}; this model was trained for {fps_range[0]:g} to {fps_range[1]:g}.")
