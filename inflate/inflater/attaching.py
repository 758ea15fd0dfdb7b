"""Hanging temporal layers on the modules of an image model, and keeping them there when other libraries swap modules.

PEFT puts a wrapper (`lora.Conv2d`) around a module, with the module inside as `base_layer`, and takes it off again. A
site is the place, not the module: its hook belongs on whatever stands there, so that the temporal layer sees the whole
output, adapter included.
"""

from typing import Any

import torch
from torch import nn

from inflate.errors import InputError
from inflate.inflater.sites import Site
from inflate.layers import FrameCheckpoint, FrameContext, FrameHook, TemporalLayer


class Attachments:
    """The hooks of one inflated model, by site."""

    def __init__(self, sites: tuple[Site, ...], temporal: nn.ModuleDict, context: FrameContext) -> None:
        self.sites, self.temporal, self.context = sites, temporal, context
        self._hooked: list[tuple[Site, nn.Module, list[Any]]] = []  # site, module that stood there, handles

    def __bool__(self) -> bool:
        return bool(self._hooked)

    def attach(self, image_model: nn.Module) -> None:
        """Hang every hook on its module."""
        for site in self.sites:
            module = image_model.get_submodule(site.name)
            self._hooked.append((site, module, self._hang(site, module)))

    def follow(self, image_model: nn.Module) -> None:
        """Move hooks whose module was wrapped or unwrapped since; nothing to do in the common case."""
        for index, (site, hooked, handles) in enumerate(self._hooked):
            module = image_model.get_submodule(site.name)
            if module is not hooked:
                for handle in handles:
                    handle.remove()
                self._forget_copies(module)
                self._hooked[index] = (site, module, self._hang(site, module))
            if self._layer(site).own_projections:
                attention = image_model.get_submodule(site.name.removesuffix(".to_q"))
                # Not `fused_projections`, which stays True when diffusers unfuses.
                if "Fused" in type(attention.processor).__name__:
                    raise InputError(
                        "the temporal layers work on separate query, key and value projections, and those of "
                        f"{site.name} are fused; call unfuse_qkv_projections() on the image model first"
                    )

    def _forget_copies(self, module: nn.Module) -> None:
        """Take our hooks off a module that was put in a site's place: torch's quantiser copies them to it."""
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "context", None) is self.context:
                    del hooks[key]

    def check_dtype(self, image_model: Any) -> None:
        """Raise `InputError` when the image model was converted and the temporal layers were left behind."""
        own = next((parameter.dtype for parameter in self.temporal.parameters()), None)
        if own in (None, image_model.dtype) or torch.is_autocast_enabled(image_model.device.type):
            return
        found, own = (str(dtype).removeprefix("torch.") for dtype in (image_model.dtype, own))
        raise InputError(
            f"the image model computes in {found} and its temporal layers in {own}: convert both at once with "
            f"video_model.to(torch.{found}), or call it under torch.autocast"
        )

    def detach(self, image_model: nn.Module) -> None:
        """Take every hook off, also those inside gradient checkpointing."""
        for _, _, handles in self._hooked:
            for handle in handles:
                handle.remove()
        self._hooked.clear()
        for module in image_model.modules():
            inner = getattr(module, "_gradient_checkpointing_func", None)
            if isinstance(inner, FrameCheckpoint) and inner.context is self.context:
                module._gradient_checkpointing_func = inner.inner  # type: ignore[assignment]  # as it was

    def remember_frames_in_checkpoints(self, image_model: nn.Module) -> None:
        """Make gradient checkpointing, if the user has switched it on, recompute with the frames of this call."""
        if not torch.is_grad_enabled():
            return
        for module in image_model.modules():
            inner = getattr(module, "_gradient_checkpointing_func", None)
            if inner is not None and getattr(module, "gradient_checkpointing", False):
                if not (isinstance(inner, FrameCheckpoint) and inner.context is self.context):
                    owner: Any = module  # the attribute is diffusers' own, which torch's stubs take for a submodule
                    owner._gradient_checkpointing_func = FrameCheckpoint(inner, self.context)

    def _layer(self, site: Site) -> TemporalLayer:
        layer = self.temporal[site.key]
        assert isinstance(layer, TemporalLayer), "sites build nothing else"
        return layer

    def _hang(self, site: Site, module: nn.Module) -> list[Any]:
        return self._layer(site).hang(module, site.place, self.context)


def is_inflated(image_model: nn.Module) -> bool:
    """Whether temporal layers hang on `image_model`."""
    return any(
        isinstance(hook, FrameHook)
        for module in image_model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )


def computing_device(image_model: Any) -> torch.device:
    """The device that a diffusers model computes on, though an offloading hook may keep its weights elsewhere."""
    for module in image_model.modules():
        hook = getattr(module, "_hf_hook", None)  # accelerate's; diffusers' own offloading `device` knows about
        for one in (hook, *getattr(hook, "hooks", ())):
            device = getattr(one, "execution_device", None)
            if device is not None:
                return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return image_model.device
