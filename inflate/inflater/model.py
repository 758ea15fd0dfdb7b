"""Attaching temporal layers to an image model, and the video model that comes of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import adapter_of
from inflate.building import alone
from inflate.errors import InputError, nearest
from inflate.inflater.arguments import (
    arguments_per_frame,
    check_names,
    group_frames,
    num_groups_of,
    number_of_each_video,
    per_frame,
)
from inflate.inflater.attaching import Attachments, computing_device, is_inflated
from inflate.inflater.sites import build_temporal_layers, find_sites
from inflate.layers import FrameContext, Frames, identity_layers
from inflate.schemes import Scheme, resolve_scheme
from inflate.video import fold_frames, unfold_frames

# Layers that embed numbers of a whole video, by what a call names them.
_NUMBERS = {"fps": "time_embedding", "guidance_scale": "guidance_embedding"}


@dataclass(frozen=True)
class LoadReport:
    """What `load_temporal_state_dict` did; missing and unknown names never get this far, they raise."""

    loaded: tuple[str, ...]
    num_parameters: int


class InflatedModel(nn.Module):
    """An image model with temporal layers hung on it; made by `inflate`, taken apart by `deflate`.

    The image model stays the user's own object, with its own parameters and names. Called directly it answers for
    pictures as before; called through this wrapper it answers for videos.
    """

    image_model: Any  # a diffusers model; nn.Module would hide its config from type checkers

    stored_dtype: torch.dtype | None = None
    """Of the image weights in the files that it was loaded from; None where it was not, or they have several."""

    def __init__(self, image_model: nn.Module, scheme: str | Scheme = "make-a-video", num_frames: int = 16) -> None:
        super().__init__()
        self.adapter = adapter_of(image_model)
        self.scheme = resolve_scheme(scheme)
        _check_frames(self.scheme, num_frames)
        if is_inflated(image_model):
            raise InputError("this image model is inflated already; call inflate.deflate on its video model first")
        self.num_frames = num_frames
        self.image_model = image_model
        self.sites = find_sites(image_model, self.scheme)
        layers = build_temporal_layers(self.sites, num_frames, image_model)
        self.temporal = layers.to(device=self.device, dtype=self.dtype)
        self.context = FrameContext()
        self._attachments = Attachments(self.sites, self.temporal, self.context)
        self._attachments.attach(image_model)
        self.train(image_model.training)

    @property
    def config(self) -> Any:
        """The image model's own config."""
        return self.image_model.config

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the image model computes in."""
        return self.image_model.dtype

    @property
    def device(self) -> torch.device:
        """The device that the image model computes on."""
        return computing_device(self.image_model)

    @property
    def in_channels(self) -> int:
        """Channels of the video sample: the image model's own and those the scheme adds."""
        return self.adapter.in_channels(self.image_model) + self.scheme.extra_in_channels

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters that inflating added."""
        return self.temporal.parameters()

    def temporal_state_dict(self) -> dict[str, Tensor]:
        """All tensors that inflating added, by name (the site's name with "-" for ".", then the layer's own)."""
        return dict(self.temporal.state_dict())

    def load_temporal_state_dict(self, state_dict: Mapping[str, Tensor]) -> LoadReport:
        """Take `state_dict` as the temporal weights, all of it and nothing else.

        Raises:
            InputError: a name is missing or unknown, or a shape differs; nothing has been changed then.
        """
        own = self.temporal.state_dict()
        unknown = [name for name in state_dict if name not in own]
        missing = [name for name in own if name not in state_dict]
        if unknown or missing:
            parts = []
            if missing:
                parts.append(f"{len(missing)} missing, the first {missing[0]!r}")
            if unknown:
                parts.append(f"{len(unknown)} unknown, the first {unknown[0]!r}{nearest(unknown[0], list(own))}")
            raise InputError(f"the temporal weights do not fit this model: {'; '.join(parts)}")
        for name, tensor in state_dict.items():
            if tensor.shape != own[name].shape:
                raise InputError(
                    f"the temporal weights do not fit this model: {name!r} has shape {tuple(tensor.shape)} "
                    f"and should have {tuple(own[name].shape)}"
                )
        self.temporal.load_state_dict(dict(state_dict))
        return LoadReport(tuple(state_dict), sum(parameter.numel() for parameter in self.temporal_parameters()))

    def freeze_image_model(self) -> None:
        """Stop the image model's parameters from training; the temporal ones go on."""
        self.image_model.requires_grad_(False)

    def forward(
        self,
        sample: Tensor,
        timestep: "Tensor | float | int",
        fps: "Tensor | float | int | None" = None,
        return_dict: bool = True,
        guidance_scale: "Tensor | float | int | None" = None,
        **image_arguments: Any,
    ) -> Any:
        """The image model's answer for each frame, with the frames knowing of each other.

        Args:
            sample: (B, C, F, H, W); C is the image model's input channels plus the scheme's extra ones. F may differ
                from `num_frames`. Where one token covers several frames and F does not divide, the last is repeated
                inside.
            timestep: a number, or a tensor of size 1, B (per video) or B*F (per frame).
            fps: frames per second, a number or a tensor of size B; None adds no frame-rate embedding.
            return_dict: False for a tuple, as the image model itself offers.
            guidance_scale: for a scheme with a `guidance_range`, the scale g of classifier-free guidance that the
                answer is to have, a number or a tensor of size B; None for the weights' answer without that input.
            image_arguments: the image model's own arguments, by its own names. A tensor of first size B is per video,
                one of first size B*F per frame; dicts, lists and tuples of tensors likewise. Where one token covers
                several frames it takes what is given for the first of them.

        Returns:
            The image model's output class, its `sample` being (B, C, F, H, W).

        Raises:
            InputError: an unknown or a missing argument, or a tensor that is neither per video nor per frame.
        """
        if not self._attachments:
            raise InputError("this video model was deflated; inflate its image model again")
        batch, num_frames = self._check_sample(sample)
        check_names(self.image_model, tuple(image_arguments), self.adapter.given)
        patch_frames = self.scheme.patch_frames
        arguments = arguments_per_frame(self.adapter, image_arguments, batch, num_frames, patch_frames)
        if not (isinstance(timestep, Tensor) and timestep.numel() == 1):
            timestep = per_frame(timestep, "timestep", batch, num_frames, patch_frames)
        # contiguous, because for one video the fold may be a view whose strides make a backend choose other kernels
        frames = fold_frames(sample).contiguous()
        extra_input = None
        if self.scheme.extra_in_channels:
            extra_input = frames[:, -self.scheme.extra_in_channels :].contiguous()
            frames = frames[:, : -self.scheme.extra_in_channels].contiguous()
        num_groups = num_groups_of(num_frames, patch_frames)
        if patch_frames > 1:
            frames, extra_input = group_frames(frames, num_frames, patch_frames)
        embedding = self._embed_numbers(fps, guidance_scale, batch)
        embedding = None if embedding is None else embedding.repeat_interleave(num_groups, dim=0)
        self._attachments.follow(self.image_model)
        self._attachments.check_dtype(self.image_model)
        self._attachments.remember_frames_in_checkpoints(self.image_model)
        height, width = frames.shape[-2:]
        tokens = self.adapter.picture_tokens(self.image_model, (height, width), frames.shape[0], arguments)
        call = Frames(num_groups, embedding, extra_input, self._left_out(), tokens)
        with self.context.during(call):
            output = self.adapter.call(self.image_model, frames, timestep, arguments)
        answers = self._for_each_frame(output.sample, call.answers)
        result = unfold_frames(answers, num_groups * patch_frames)[:, :, :num_frames]
        return type(output)(sample=result) if return_dict else (result,)

    def _for_each_frame(self, answers: Tensor, beyond: Tensor | None) -> Tensor:
        """Answers for groups of frames, (B*G, C, H, W), with what each frame has `beyond` them, (B*G*p, C, H, W)."""
        if beyond is None:
            return answers
        height, width = answers.shape[-2:]
        change = self.adapter.unpatch(beyond, self.image_model, (height, width))
        return answers.repeat_interleave(self.scheme.patch_frames, dim=0) - (0 - change)

    def _left_out(self) -> frozenset[nn.Module]:
        """Layers not to run in a call of now: at inference those that are still as they started."""
        device = self.device.type
        unseen = torch.compiler.is_compiling() or device == "meta"
        unseen = unseen or (device == "cuda" and torch.cuda.is_current_stream_capturing())
        if self.training or torch.is_grad_enabled() or unseen or self.context.changes is not None:
            return frozenset()
        return identity_layers(self.temporal.values())

    def _check_sample(self, sample: Tensor) -> tuple[int, int]:
        """The numbers of videos and of frames."""
        if sample.ndim != 5:
            raise InputError(
                f"sample must be a video (batch, channels, frames, height, width), got shape {tuple(sample.shape)}"
            )
        own = self.adapter.in_channels(self.image_model)
        if sample.shape[1] != own + self.scheme.extra_in_channels:
            extra = f" + {self.scheme.extra_in_channels}" if self.scheme.extra_in_channels else ""
            raise InputError(f"sample has {sample.shape[1]} channels; this model takes {own}{extra}")
        _check_frames(self.scheme, sample.shape[2])
        return sample.shape[0], sample.shape[2]

    def _embed_numbers(
        self, fps: "Tensor | float | int | None", guidance_scale: "Tensor | float | int | None", batch: int
    ) -> Tensor | None:
        """The embedding (B, D) of frame rate and guidance scale, or None."""
        if fps is not None and self.scheme.fps_range is None:
            raise InputError(f"scheme {self.scheme.name!r} has no frame-rate embedding; leave fps out")
        if guidance_scale is not None and self.scheme.guidance_range is None:
            raise InputError("this model has no guidance scale in its weights; leave guidance_scale out")
        parts = []
        for name, number in (("fps", fps), ("guidance_scale", guidance_scale)):
            if number is not None:
                layer = self.temporal[_NUMBERS[name]]
                values = number_of_each_video(number, name, batch, next(layer.parameters()).device, name != "fps")
                parts.append(layer(values))
        return sum(parts[1:], parts[0]) if parts else None

    def _detach(self) -> nn.Module:
        """Take every hook off the image model and return it."""
        self._attachments.detach(self.image_model)
        return self.image_model


def _check_frames(scheme: Scheme, num_frames: int) -> None:
    if num_frames < 1:
        raise InputError(f"num_frames must be at least 1, got {num_frames}")
    if scheme.max_frames is not None and num_frames > scheme.max_frames:
        raise InputError(
            f"scheme {scheme.name!r} has {scheme.max_frames} positions and was asked for {num_frames} frames; "
            f"make at most {scheme.max_frames} at once, or choose a scheme with more"
        )


@alone
def inflate(image_model: nn.Module, scheme: str | Scheme = "make-a-video", num_frames: int = 16) -> InflatedModel:
    """Attach temporal layers to `image_model`, which stays the same object, and return the video model.

    At first the video model gives for every frame exactly what the image model gives for it, bit for bit.

    Args:
        image_model: a diffusers UNet or transformer, of one of the classes in `IMAGE_MODEL_CLASSES`.
        scheme: a name in `SCHEMES`, or a `Scheme` of your own.
        num_frames: frames of a clip in training; relative positions are learned up to this distance.

    Raises:
        InputError: a model that cannot be inflated, one that is inflated already, or an unknown scheme.
    """
    return InflatedModel(image_model, scheme, num_frames)


def deflate(video_model: InflatedModel) -> Any:
    """Take the temporal layers off and return the image model: the very object that was inflated.

    `video_model` keeps its temporal weights but answers no more calls.
    """
    return video_model._detach()
