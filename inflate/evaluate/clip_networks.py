"""CLIPs that people bring, for CLIPSIM and frame consistency: open_clip's folders, transformers', and our bundled one.

Embeddings are unit vectors, float32 on the CPU; pictures are uint8 ``(N, H, W, 3)``.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from inflate.bases.clip import TextImageEncoder
from inflate.checkpoint.hub import download, is_hub_name
from inflate.errors import InputError
from inflate.evaluate.weights import Weights, weights_of

BUNDLED = "bundled:clip"
_BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "bundled" / "emoji" / "clip"
_OPEN_CLIP = "open_clip_config.json"


class ClipNetwork(Protocol):
    """Pictures and texts to unit vectors ``(N, D)``."""

    name: str
    weights: Weights
    preprocessing: str

    def pictures(self, pictures: Tensor) -> Tensor:
        """Pictures uint8 ``(N, H, W, 3)``."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts; longer ones than the network takes are cut."""
        ...


def load_clip(source: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> ClipNetwork:
    """The CLIP that ``source`` names: ``bundled:clip``, a folder of open_clip's, transformers' or our layout, or a
    repository of transformers' layout on the model hub, which is downloaded only if it is named so.

    Raises:
        InputError: nothing there, or no CLIP.
    """
    if source == BUNDLED:
        return _Bundled(_BUNDLED_FOLDER, BUNDLED, device, dtype)
    folder = Path(source)
    if not folder.exists() and is_hub_name(source):
        return _Transformers(download(source), source, device, dtype)
    if not folder.is_dir():
        raise InputError(f"there is no folder {source}; name a CLIP of open_clip or transformers, or {BUNDLED}")
    if (folder / _OPEN_CLIP).is_file():
        return _OpenClip(folder, device, dtype)
    if (folder / "bpe_merges.txt.gz").is_file():
        return _Bundled(folder, folder.name, device, dtype)
    return _Transformers(folder, folder.name, device, dtype)


class _Bundled:
    def __init__(self, folder: Path, name: str, device: str | torch.device, dtype: torch.dtype) -> None:
        self.name, self.weights = name, weights_of(folder, name, packaged=name == BUNDLED)
        self.preprocessing = "white bars to a square, bicubic with antialiasing"
        self.model = TextImageEncoder.load(folder, device, dtype)

    @torch.inference_mode()
    def pictures(self, pictures: Tensor) -> Tensor:
        planes = pictures.permute(0, 3, 1, 2).float() * (2 / 255) - 1
        return self.model.encode_image(planes).float().cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        return self.model.encode_text(list(texts)).text_embeds.float().cpu()


class _OpenClip:
    def __init__(self, folder: Path, device: str | torch.device, dtype: torch.dtype) -> None:
        import open_clip

        self.name, self.weights = folder.name, weights_of(folder)
        self.preprocessing, self.device, self.dtype = "open_clip's own", torch.device(device), dtype
        place = f"local-dir:{folder}"
        try:
            json.loads((folder / _OPEN_CLIP).read_text(encoding="utf-8"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # open_clip warns of models that use another activation than it names
                made: Any = open_clip.create_model_from_pretrained(place, device=self.device)
                self.tokenizer: Any = open_clip.get_tokenizer(place)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} cannot be read as open_clip's folder ({_line(error)}); copy it again"
            ) from error
        self.model, self.transform = made[0].to(dtype).eval(), made[1]

    @torch.inference_mode()
    def pictures(self, pictures: Tensor) -> Tensor:
        ready = torch.stack([self.transform(Image.fromarray(one.numpy())) for one in pictures])
        return functional.normalize(self.model.encode_image(ready.to(self.device, self.dtype)).float(), dim=-1).cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(texts)).to(self.device)
        return functional.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu()


class _Transformers:
    def __init__(self, folder: Path, name: str, device: str | torch.device, dtype: torch.dtype) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.name, self.weights = name, weights_of(folder, name)
        self.preprocessing, self.device, self.dtype = "the folder's own processor", torch.device(device), dtype
        try:
            loaded: Any = CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            model, report = loaded
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{folder} cannot be read as a CLIP of transformers ({_line(error)}); its folder has "
                "model.safetensors, the tokenizer's files and preprocessor_config.json"
            ) from error
        missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise InputError(f"{folder} lacks {missing[0]}: it is no whole CLIP of transformers")
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.length = model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def pictures(self, pictures: Tensor) -> Tensor:
        ready = self.processor(images=[Image.fromarray(one.numpy()) for one in pictures], return_tensors="pt")
        hidden = self.model.vision_model(ready["pixel_values"].to(self.device, self.dtype)).pooler_output
        return functional.normalize(self.model.visual_projection(hidden).float(), dim=-1).cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": self.length}
        ready = self.tokenizer(list(texts), return_tensors="pt", **options)
        hidden = self.model.text_model(
            input_ids=ready["input_ids"].to(self.device), attention_mask=ready["attention_mask"].to(self.device)
        ).pooler_output
        return functional.normalize(self.model.text_projection(hidden).float(), dim=-1).cpu()


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
