"""A stage that can be given LoRAs, which are merged into its networks' weights once these are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from inflate.bases.lora import NETWORK, ImageLora, is_motion_lora, read_image_lora
from inflate.bases.parts import meta_part
from inflate.checkpoint.formats.motion_lora import add_lora, check_lora, lora_file
from inflate.checkpoint.source import find_source
from inflate.checkpoint.temporal import read_temporal_info
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.stages import ComponentStage

TEMPORAL_NAME = "temporal.safetensors"
_ENCODERS = {f"text_encoder{suffix}": f"decoder_text_encoder{suffix}" for suffix in ("", "_2", "_3")}


@dataclass(frozen=True)
class MotionLora:
    """A LoRA of a motion module, that fits."""

    path: Path


class LoraStage(ComponentStage):
    """A decoder that takes LoRAs."""

    lora_pipeline: ClassVar[str] = ""  # diffusers' pipeline whose loader knows more layouts of LoRAs
    _loras: tuple[tuple[ImageLora | MotionLora, float], ...] = ()

    def add_lora(self, path: Path, weight: float) -> str:
        """Merge a LoRA, ``weight`` times, into networks that are loaded, and into others once they are.

        ``path`` is its file, or a folder of PEFT's or diffusers' with it.

        Returns:
            "image" or "motion", which the file's content says.

        Raises:
            InputError: no LoRA, one that does not fit, or a weight that is no number; nothing has changed then.
        """
        if not math.isfinite(weight):
            raise InputError(f"The weight of {path} is {weight}; give a finite number, such as 0.8.")
        path = lora_file(path)
        lora = self._motion_lora(path) if is_motion_lora(path) else self._image_lora(path)
        if weight != 0:
            self._loras = (*self._loras, (lora, weight))
            for role in self.components:
                self._merge(role, [(lora, weight)])
        return "motion" if isinstance(lora, MotionLora) else "image"

    def load(self, device: torch.device, dtype: torch.dtype, roles: Sequence[str] | None = None) -> None:
        """As :meth:`ComponentStage.load`, with the LoRAs merged into what is read."""
        before = set(self.components)
        super().load(device, dtype, roles)
        for role in self.components:
            if role not in before:
                self._merge(role, self._loras)

    def save(self, folder: Path) -> dict[str, list[str]]:
        """As :meth:`ComponentStage.save`; a folder that LoRAs are only merged into on loading is not copied without."""
        if self._loras and self.index:
            raise InputError("This cascade has LoRAs, which its files on disk have not; save it before they are added.")
        return super().save(folder)

    def _merge(self, role: str, loras: Sequence[tuple[ImageLora | MotionLora, float]]) -> None:
        component = self.components[role]
        part = NETWORK if role == "unet" else next((name for name, own in _ENCODERS.items() if own == role), "")
        for lora, weight in loras if part else ():
            if isinstance(lora, ImageLora):
                inner = component.image_model if isinstance(component, InflatedModel) else component
                lora.merge_into(inner, part, weight)
            elif part == NETWORK:
                component.load_temporal_state_dict(add_lora(component.temporal_state_dict(), lora.path, weight))

    def _motion_lora(self, path: Path) -> MotionLora:
        shapes = self._temporal_shapes()
        if not shapes:
            raise InputError(f"{path} is a MotionLoRA, and this decoder has no temporal layers that it could change.")
        check_lora(shapes, path)
        return MotionLora(path)

    def _temporal_shapes(self) -> dict[str, tuple[int, ...]]:
        if "unet" in self.components:
            model = self.components["unet"]
            tensors = model.temporal_state_dict() if isinstance(model, InflatedModel) else {}
            return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        file = self.path_of("unet") / TEMPORAL_NAME
        tensors = read_temporal_info(file)[1].tensors if file.is_file() else {}
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def _image_lora(self, path: Path) -> ImageLora:
        parts: dict[str, nn.Module] = {NETWORK: self._part("unet")}
        for name, role in _ENCODERS.items():
            if role in self.components or role in self.index:
                parts[name] = self._part(role)
        return read_image_lora(path, parts, self.lora_pipeline)

    def _part(self, role: str) -> Any:
        """A network as it is, or without weights where it is not loaded."""
        if role in self.components:
            found = self.components[role]
            return found.image_model if isinstance(found, InflatedModel) else found
        if role == "unet":
            return find_source(self.path_of(role)).meta_model()
        return meta_part(self.path_of(role), *self.index[role])
