"""A family as the measures ask for it, and the data that it is measured on."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from inflate.cli.checks import check_device, check_dtype

if TYPE_CHECKING:
    import torch

    from inflate.evaluate.family import DecoderParts, GenerateClip
    from inflate.evaluate.things import Things
    from inflate.inflater import InflatedModel
    from inflate.stages import StageSettings


class Family:
    """A cascade with what the measures ask of it; its weights stay loaded."""

    def __init__(
        self,
        model: str,
        device: str | None,
        dtype: str,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> None:
        from inflate import Cascade

        self.model = model
        self.cascade = Cascade.from_pretrained(model, check_device(device), check_dtype(dtype), keep_loaded=True)
        self.steps = None if steps is None else {"decoder": steps}
        self.guidance_scale = None if guidance_scale is None else {"decoder": guidance_scale}
        self.cascade.settings(self.steps, self.guidance_scale)  # refused here if they cannot be

    def stage(self, name: str) -> Any:
        """A stage by name, with its weights loaded."""
        from inflate import InputError

        found: Any = self.cascade.stage(name)
        if found is None:
            names = ", ".join(stage.name for stage in self.cascade.stages)
            what = name.replace("_", "-")
            raise InputError(f"{self.model} has no {what} stage, which this measures; it has {names}")
        found.load(self.cascade.device, self.cascade.dtype)
        return found

    def components(self, stage_name: str) -> dict[str, Any]:
        """A stage's loaded networks by role."""
        return self.stage(stage_name).components

    def settings(self, stage: Any, steps: int | None) -> "StageSettings":
        """A stage's own settings, with another number of steps where one is given."""
        return stage.defaults if steps is None else replace(stage.defaults, num_inference_steps=steps)

    def degrade(self) -> "Callable[[torch.Tensor], torch.Tensor]":
        """Clips ``(1, 3, F, S, S)`` in [0, 1] through the autoencoder and back."""
        from inflate import InputError
        from inflate.video import fold_frames, unfold_frames

        there_and_back = self.reconstruct()
        if there_and_back is None:
            raise InputError(f"{self.model} works on pixels and has no autoencoder")
        return lambda clip: unfold_frames(there_and_back(fold_frames(clip)), clip.shape[2]).clamp(0, 1)

    def embed(self) -> "Callable[[torch.Tensor], torch.Tensor] | None":
        """Frames ``(B, 3, F, S, S)`` in [-1, 1] to mean image embeddings; None where no stage has a CLIP model."""
        return None if self.cascade.stage("prior") is None else self.cascade.embed_images

    def frame_size(self, chosen: int | None) -> int:
        """Side in pixels of the frames that the decoder makes, unless another is ``chosen``."""
        from inflate import InputError

        side = chosen or self.cascade.frame_size()
        if side is None:
            raise InputError(f"{self.model} has no decoder to tell the size of frames; give --size")
        return side

    def picture_size(self) -> int:
        """Side of the decoder's pictures in pixels."""
        import torch

        from inflate.models.decoder import decode_latents

        decoder = self.components("decoder")
        config = decoder["unet"].config
        size = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
        latents = torch.zeros(1, config.in_channels, size, size, device=self.cascade.device)
        return int(decode_latents(decoder.get("vae"), latents).shape[-1])

    def generator(self, things: "Things", from_image: bool = False) -> "GenerateClip":
        """What makes a clip of a thing: from its caption, or from the image embedding of its still."""
        import torch

        def generate(name: str, num_frames: int, fps: float, seed: int) -> "torch.Tensor":
            embeds = self.encode_image(things.stills_of([name]) * 2 - 1) if from_image else None
            made = self.cascade(
                None if from_image else things.caption(name),
                num_frames=num_frames,
                fps=fps,
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=self.steps,
                guidance_scale=self.guidance_scale,
                output_type="pt",
                until="decoder",
                image_embeds=embeds,
            )
            assert isinstance(made.frames, torch.Tensor), "the decoder stage makes frames"
            return made.frames.transpose(1, 2)

        return generate

    def encode_image(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pixels ``(N, 3, S, S)`` in [-1, 1] to image embeddings ``(N, D)``."""
        import torch

        with torch.no_grad():
            return self.components("prior")["text_encoder"].encode_image(pixels)

    def reconstruct(self) -> "Callable[[torch.Tensor], torch.Tensor] | None":
        """Pictures in [0, 1] through the autoencoder and back; None in pixel space."""
        import torch

        from inflate.models.decoder import decode_latents, encode_pixels

        vae: Any = self.components("decoder").get("vae")

        def there_and_back(pictures: "torch.Tensor") -> "torch.Tensor":
            with torch.no_grad():
                parts = [encode_pixels(vae, part.to(vae.device) * 2 - 1) for part in pictures.split(16)]
                return (decode_latents(vae, torch.cat(parts)).cpu() + 1) / 2

        return None if vae is None else there_and_back

    def _video_model(self) -> "InflatedModel":
        from inflate import InputError
        from inflate.inflater import InflatedModel

        model = self.components("decoder")["unet"]
        if not isinstance(model, InflatedModel):
            raise InputError(
                "this family's decoder is an image model without temporal layers; fine-tune it on video first"
            )
        return model

    def image_decoder(self) -> Any:
        """The decoder's stage with its image model alone, which draws every frame by itself."""
        stage = self.stage("decoder")
        parts = {**stage.components, "unet": self._video_model().image_model}
        return type(stage)(parts, defaults=stage.defaults, config=stage.config)

    def output_size(self, until: str | None) -> int:
        """Side in pixels of the frames that the chain makes, up to and with the stage ``until``."""
        stages: Any = self.cascade.up_to(until)
        return self.frame_size(None) * prod(getattr(stage.config, "scale", 1) for stage in stages)

    def decoder_parts(self) -> "DecoderParts":
        """What the denoising loss is measured on."""
        from inflate.evaluate.family import DecoderParts
        from inflate.models.decoder import encode_pixels, image_conditioning

        decoder = self.components("decoder")
        model, vae, scheduler = self._video_model(), decoder.get("vae"), decoder["scheduler"]
        return DecoderParts(
            video_model=model,
            alphas_cumprod=scheduler.alphas_cumprod,
            prediction_type=scheduler.config.prediction_type,
            encode_image=self.encode_image,
            encode_pixels=lambda pixels: pixels if vae is None else encode_pixels(vae, pixels),
            conditioning=image_conditioning,
        )


def read_things(data: Path, size: int, quiet: bool) -> "Things":
    """The data at ``size`` pixels, from a prepared folder or from a cache built before."""
    from inflate import InputError
    from inflate.data import FrameCache, build_frame_cache
    from inflate.evaluate.things import find_things

    if (data / "frames.bin").is_file():
        cache = FrameCache.open(data)
        if cache.size != size:
            raise InputError(
                f"{data} holds frames of {cache.size} px and the model makes {size} px; give the data itself"
            )
    else:
        tell = partial(typer.echo, err=True)
        cache = build_frame_cache(data, size, workers=os.cpu_count() or 1, tell=tell)
        if not quiet:
            tell(cache.report.sentence())
    return find_things(cache)
