"""Attaching temporal layers to an image model, and the video model that comes of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inflate.errors import InputError, nearest
from inflate.inflater.arguments import check_names, fps_of_each_video, per_frame
from inflate.inflater.frames import ExtraInputHook, FrameCheckpoint, FrameContext, FrameRateHook, LayerHook
from inflate.inflater.schemes import Scheme, resolve_scheme
from inflate.inflater.sites import Site, check_image_model, find_sites
from inflate.layers import FrameRateEmbedding, TemporalAttention, TemporalConv
from inflate.video import fold_frames, unfold_frames

FPS_KEY = "time_embedding"


@dataclass(frozen=True)
class LoadReport:
    """What `load_temporal_state_dict` did; missing and unknown names never get this far, they raise."""

    loaded: tuple[str, ...]
    num_parameters: int


def build_temporal_layers(
    sites: tuple[Site, ...], scheme: Scheme, num_frames: int, conv_in: nn.Module
) -> nn.ModuleDict:
    """New temporal layers for `sites`, float32, on the default device; together they change nothing until trained."""
    layers = nn.ModuleDict()
    for site in sites:
        if site.kind == "convolution":
            layers[site.key] = TemporalConv(site.channels, scheme.kernel_size)
        elif site.kind == "attention":
            layers[site.key] = TemporalAttention(
                site.channels, site.num_heads, site.head_dim, num_frames, position=scheme.position
            )
        elif site.kind == "time_embedding":
            layers[site.key] = FrameRateEmbedding(site.channels)
        else:
            layers[site.key] = _zero_input_convolution(scheme.extra_in_channels, conv_in)
    return layers


def _zero_input_convolution(extra_channels: int, conv_in: nn.Module) -> nn.Conv2d:
    """A convolution of `extra_channels` shaped like `conv_in`, starting at zero, so that new inputs change nothing."""
    assert isinstance(conv_in, nn.Conv2d), "every supported image model begins with a Conv2d"
    layer = nn.Conv2d(
        extra_channels,
        conv_in.out_channels,
        conv_in.kernel_size,  # type: ignore[arg-type]  # a pair; torch's stubs say a tuple of any length
        padding=conv_in.padding,  # type: ignore[arg-type]  # as above
        bias=False,
    )
    nn.init.zeros_(layer.weight)
    return layer


class InflatedModel(nn.Module):
    """An image model with temporal layers hung on it; made by `inflate`, taken apart by `deflate`.

    The image model stays the user's own object, with its own parameters and names. Called directly it answers for
    pictures as before; called through this wrapper it answers for videos.
    """

    image_model: Any  # a diffusers model; nn.Module would hide its config from type checkers

    def __init__(self, image_model: nn.Module, scheme: str | Scheme = "make-a-video", num_frames: int = 16) -> None:
        super().__init__()
        check_image_model(image_model)
        if num_frames < 1:
            raise InputError(f"num_frames must be at least 1, got {num_frames}")
        if any(
            isinstance(hook, LayerHook) for module in image_model.modules() for hook in module._forward_hooks.values()
        ):
            raise InputError("this image model is inflated already; call inflate.deflate on its video model first")
        self.scheme = resolve_scheme(scheme)
        self.num_frames = num_frames
        self.image_model = image_model
        self.sites = find_sites(image_model, self.scheme)
        layers = build_temporal_layers(self.sites, self.scheme, num_frames, image_model.get_submodule("conv_in"))
        self.temporal = layers.to(device=self.device, dtype=self.dtype)
        self.context = FrameContext()
        self._handles = [self._attach(site) for site in self.sites]
        self.train(image_model.training)

    def _attach(self, site: Site) -> Any:
        layer, module = self.temporal[site.key], self.image_model.get_submodule(site.name)
        if site.kind == "time_embedding":
            return module.register_forward_hook(FrameRateHook(self.context))
        if site.kind == "extra_input":
            # Before the temporal convolution of conv_in, as if conv_in itself were wider.
            return module.register_forward_hook(ExtraInputHook(layer, self.context), prepend=True)
        return module.register_forward_hook(LayerHook(site.name, layer, self.context))

    @property
    def config(self) -> Any:
        """The image model's own config."""
        return self.image_model.config

    @property
    def dtype(self) -> torch.dtype:
        """The image model's dtype."""
        return next(parameter.dtype for parameter in self.image_model.parameters() if parameter.is_floating_point())

    @property
    def device(self) -> torch.device:
        """The image model's device."""
        return next(self.image_model.parameters()).device

    @property
    def in_channels(self) -> int:
        """Channels of the video sample: the image model's own and those the scheme adds."""
        return int(self.config.in_channels) + self.scheme.extra_in_channels

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
        return LoadReport(tuple(state_dict), sum(tensor.numel() for tensor in state_dict.values()))

    def freeze_image_model(self) -> None:
        """Stop the image model's parameters from training; the temporal ones go on."""
        self.image_model.requires_grad_(False)

    def forward(
        self,
        sample: Tensor,
        timestep: "Tensor | float | int",
        fps: "Tensor | float | int | None" = None,
        return_dict: bool = True,
        **image_arguments: Any,
    ) -> Any:
        """The image model's answer for each frame, with the frames knowing of each other.

        Args:
            sample: (B, C, F, H, W); C is the image model's input channels plus the scheme's extra ones. F may differ
                from `num_frames`.
            timestep: a number, or a tensor of size 1, B (per video) or B*F (per frame).
            fps: frames per second, a number or a tensor of size B; None adds no frame-rate embedding.
            return_dict: False for a tuple, as the image model itself offers.
            image_arguments: the image model's own arguments, by its own names. A tensor of first size B is per video,
                one of first size B*F per frame; dicts, lists and tuples of tensors likewise.

        Returns:
            The image model's output class, its `sample` being (B, C, F, H, W).

        Raises:
            InputError: an unknown or a missing argument, or a tensor that is neither per video nor per frame.
        """
        if not self._handles:
            raise InputError("this video model was deflated; inflate its image model again")
        batch, num_frames = self._check_sample(sample)
        check_names(self.image_model, tuple(image_arguments))
        arguments = {name: per_frame(value, name, batch, num_frames) for name, value in image_arguments.items()}
        if not (isinstance(timestep, Tensor) and timestep.numel() == 1):
            timestep = per_frame(timestep, "timestep", batch, num_frames)
        # contiguous, because for one video the fold may be a view whose strides make a backend choose other kernels
        frames = fold_frames(sample).contiguous()
        extra_input = None
        if self.scheme.extra_in_channels:
            extra_input = frames[:, -self.scheme.extra_in_channels :].contiguous()
            frames = frames[:, : -self.scheme.extra_in_channels].contiguous()
        fps_embedding = self._embed_fps(fps, batch, num_frames)
        self._remember_frames_in_checkpoints()
        with self.context.during_call(num_frames, fps_embedding, extra_input):
            output = self.image_model(frames, timestep, **arguments)
        result = unfold_frames(output.sample, num_frames)
        return type(output)(sample=result) if return_dict else (result,)

    def _check_sample(self, sample: Tensor) -> tuple[int, int]:
        """The numbers of videos and of frames."""
        if sample.ndim != 5:
            raise InputError(
                f"sample must be a video (batch, channels, frames, height, width), got shape {tuple(sample.shape)}"
            )
        # the channels of a Kandinsky hint are concatenated inside the image model
        own = int(self.image_model.get_submodule("conv_in").in_channels)  # type: ignore[arg-type]  # a Conv2d's int
        hinted = getattr(self.config, "addition_embed_type", None) == "image_hint"
        if not hinted and sample.shape[1] != own + self.scheme.extra_in_channels:
            extra = f" + {self.scheme.extra_in_channels}" if self.scheme.extra_in_channels else ""
            raise InputError(f"sample has {sample.shape[1]} channels; this model takes {own}{extra}")
        return sample.shape[0], sample.shape[2]

    def _embed_fps(self, fps: "Tensor | float | int | None", batch: int, num_frames: int) -> Tensor | None:
        """The frame-rate embedding per frame, (B*F, D), or None."""
        if fps is None:
            return None
        if self.scheme.fps_range is None:
            raise InputError(f"scheme {self.scheme.name!r} has no frame-rate embedding; leave fps out")
        values = fps_of_each_video(fps, batch, self.device)
        return self.temporal[FPS_KEY](values).repeat_interleave(num_frames, dim=0)

    def _remember_frames_in_checkpoints(self) -> None:
        """Make gradient checkpointing, if the user has switched it on, recompute with the frames of this call."""
        if not torch.is_grad_enabled():
            return
        for module in self.image_model.modules():
            inner = getattr(module, "_gradient_checkpointing_func", None)
            if inner is not None and getattr(module, "gradient_checkpointing", False):
                if not (isinstance(inner, FrameCheckpoint) and inner.context is self.context):
                    # diffusers' own attribute, which torch's stubs take for a submodule.
                    module._gradient_checkpointing_func = FrameCheckpoint(inner, self.context)  # type: ignore[assignment]

    def _detach(self) -> nn.Module:
        """Take every hook off the image model and return it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module in self.image_model.modules():
            inner = getattr(module, "_gradient_checkpointing_func", None)
            if isinstance(inner, FrameCheckpoint) and inner.context is self.context:
                module._gradient_checkpointing_func = inner.inner  # type: ignore[assignment]  # as it was
        return self.image_model


def inflate(image_model: nn.Module, scheme: str | Scheme = "make-a-video", num_frames: int = 16) -> InflatedModel:
    """Attach temporal layers to `image_model`, which stays the same object, and return the video model.

    At first the video model gives for every frame exactly what the image model gives for it, bit for bit.

    Args:
        image_model: a diffusers `UNet2DConditionModel` or `UNet2DModel`.
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
