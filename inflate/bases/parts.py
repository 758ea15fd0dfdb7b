"""Parts of people's pipelines beside the network: which class each is, reading, writing, and their fingerprints."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin

from inflate.checkpoint.fingerprint import weights_fingerprint
from inflate.checkpoint.header import read_header
from inflate.checkpoint.source import Weights
from inflate.components import read_diffusers_component, read_plain, read_whole
from inflate.configs import read_object
from inflate.errors import InputError, a

INDEX_NAME = "model_index.json"
OURS = "_inflate"  # what of a pipeline's index is ours: {"height": 320, "width": 512}, in pixels
# "Fast" tokenizers and feature extractors are what transformers once called what it now calls by the second name.
TRANSFORMERS = {
    "CLIPTextModel": "CLIPTextModel",
    "CLIPTextModelWithProjection": "CLIPTextModelWithProjection",
    "CLIPVisionModelWithProjection": "CLIPVisionModelWithProjection",
    "CLIPTokenizer": "CLIPTokenizer",
    "CLIPTokenizerFast": "CLIPTokenizer",
    "CLIPImageProcessor": "CLIPImageProcessor",
    "CLIPImageProcessorFast": "CLIPImageProcessor",
    "CLIPFeatureExtractor": "CLIPImageProcessor",
    "T5EncoderModel": "T5EncoderModel",
    "T5Tokenizer": "T5Tokenizer",
    "T5TokenizerFast": "T5Tokenizer",
    "XLMRobertaTokenizer": "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast": "XLMRobertaTokenizer",
}
# Classes that diffusers keeps beside a pipeline -> the library that indices name (or "diffusers"), and the modules of
# new and old releases.
_BESIDE_PIPELINES = {
    "UnCLIPTextProjModel": ("unclip", ("pipelines.deprecated.unclip.text_proj", "pipelines.unclip.text_proj")),
    "MultilingualCLIP": ("kandinsky", ("pipelines.kandinsky.text_encoder",)),
}
# Files that say a part's class, and under which key.
_SAYS_CLASS = (
    ("scheduler_config.json", "_class_name"),
    ("config.json", "_class_name"),
    ("config.json", "architectures"),
    ("tokenizer_config.json", "tokenizer_class"),
    ("preprocessor_config.json", "image_processor_type"),
    ("preprocessor_config.json", "feature_extractor_type"),
)


def read_part(folder: Path, library: str, class_name: str, dtype: torch.dtype, variant: str | None = None) -> Any:
    """A component of somebody's pipeline: diffusers' own, or one of the few others that pipelines are made of.

    Weights come from safetensors only, those of ``variant`` where the folder has them, else the plain ones, else those
    of the only variant, and nothing is downloaded.

    Raises:
        InputError: another kind of component, or the folder is missing or damaged.
    """
    if library == "diffusers" and class_name not in _BESIDE_PIPELINES:
        return read_diffusers_component(folder, library, class_name, dtype, variant)
    found = _class_of(library, class_name)
    if found is None:
        raise InputError(f"{folder} is {a(library)}.{class_name}, which no stage of a cascade knows.")
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; the pipeline's model_index.json names it.")
    if _needs_sentencepiece(folder):
        raise InputError(
            f"{folder} has its vocabulary as spiece.model alone, which transformers reads with two more libraries; "
            "install them (pip install sentencepiece protobuf)."
        )
    if not issubclass(found, torch.nn.Module):
        return read_plain(found, folder)
    options = {"torch_dtype": dtype} if issubclass(found, ModelMixin) else {}
    with _without_bar():
        part = read_whole(found, folder, options, variant)
    return part.eval() if part.dtype == dtype else part.to(dtype=dtype).eval()


def meta_part(folder: Path, library: str, class_name: str) -> torch.nn.Module:
    """A transformer of ``transformers`` by its config, without weights; ``InputError`` where that cannot be."""
    found = _class_of(library, class_name)
    try:
        with torch.device("meta"):
            return found(found.config_class.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # configs are checked by whatever reads them, each in its own way
        raise InputError(f"{folder} has no config of {a(class_name)} ({error}); copy the folder again.") from error


@contextmanager
def _without_bar() -> Iterator[None]:
    """transformers shows a bar for each part that it reads, in milliseconds mostly and with --quiet too."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _needs_sentencepiece(folder: Path) -> bool:
    """Whether a tokenizer lacks the file that needs no other library, and this library is not there."""
    alone = (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file()
    return alone and not all(find_spec(name) for name in ("sentencepiece", "google.protobuf"))


def write_part(component: Any, folder: Path) -> list[str]:
    """Save a component that :func:`read_part` reads; returns [library, class] as diffusers' indices have them."""
    component.save_pretrained(folder)
    name = type(component).__name__
    if name in _BESIDE_PIPELINES:
        return [_BESIDE_PIPELINES[name][0], name]
    return ["transformers" if name in TRANSFORMERS else "diffusers", name]


def _class_of(library: str, class_name: str) -> Any:
    if library == "transformers" and class_name in TRANSFORMERS:
        import transformers

        return getattr(transformers, TRANSFORMERS[class_name], None)
    home, modules = _BESIDE_PIPELINES.get(class_name, ("", ()))
    for module in modules if library in (home, "diffusers") else ():
        try:
            return getattr(import_module(f"diffusers.{module}"), class_name)
        except ModuleNotFoundError:
            continue
    return None


def part_config(folder: Path) -> dict[str, Any]:
    """The config of a part, empty where it has none."""
    return read_object(folder / "config.json") if (folder / "config.json").is_file() else {}


def part_class(folder: Path) -> tuple[str, str]:
    """[library, class] of a part, told from its own files.

    Raises:
        InputError: there is no such folder, or it does not say.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.")
    for name, key in _SAYS_CLASS:
        value = read_object(folder / name).get(key) if (folder / name).is_file() else None
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return ("transformers" if value in TRANSFORMERS else "diffusers"), value
    index = folder.parent / INDEX_NAME
    entry = read_object(index).get(folder.name) if index.is_file() else None
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(one, str) for one in entry):
        return entry[0], entry[1]
    raise InputError(f"{folder} is no part of a pipeline: none of its files says of what class it is.")


def parts_fingerprint(parts: Mapping[str, Path], *more: str | None) -> str:
    """SHA-256 over the files of parts by role, and over what of ``more`` is not None; nothing is loaded.

    Of large tensors samples are read, as for a network's own fingerprint, so that it takes no time for a T5 of 9 GB.
    """
    digest = hashlib.sha256("\n".join(one for one in more if one is not None).encode())
    for role, folder in sorted(parts.items()):
        digest.update(f"\n{role}\n".encode())
        for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
            digest.update(f"{path.name}\n".encode())
            if path.suffix == ".safetensors":
                digest.update(weights_fingerprint(Weights(None, (path,), (read_header(path),))).encode())
            else:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
