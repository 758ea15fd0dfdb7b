"""Parts of people's models from their folders: no file that stands in for another, no weight made up at random."""

import inspect
import json
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from inflate.building import alone
from inflate.errors import InputError, Note, a

DIFFUSERS_STEM, TRANSFORMERS_STEM = "diffusion_pytorch_model", "model"  # what the libraries call weight files
_LFS = b"version https://git-lfs"
_NETWORKS = ("unet", "transformer")
_NAMED = 3
_SHARD_INDEX = re.compile(r"\.safetensors\.index(\.\w+)?\.json$")
# What files begin with that people have under a weight file's name, and what to say of them.
_STAND_INS = (
    (_LFS, "Git LFS's pointer to the file and not the file: run 'git lfs pull' in its repository, or download it"),
    (b"<!doctype", "a web page, perhaps one that asks to sign in, and no weights: download the file itself again"),
    (b"<html", "a web page, perhaps one that asks to sign in, and no weights: download the file itself again"),
    (b"<?xml", "a server's message in XML, and no weights: download the file itself again"),
    (b"gguf", "a GGUF file, weights quantised for llama.cpp and ComfyUI-GGUF: get the model as safetensors"),
)


def refuse_stand_in(path: Path) -> None:
    """Raise ``InputError`` for what people have in a file's place: a pointer to it, a web page, another format."""
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    for beginning, what in _STAND_INS:
        if start.startswith(beginning):
            raise InputError(f"{path} is {what}")


def files_by_variant(folder: Path, stem: str, suffix: str) -> dict[str | None, list[Path]]:
    """The weight files ``stem.suffix`` of a model's folder by variant, None being the plain ones; shards in order."""
    # diffusers has written the variant of shards before their number and after it
    pattern = re.compile(rf"^{stem}(?:\.(?P<a>\w+?))?(?:-\d+-of-\d+)?(?:\.(?P<b>\w+))?\.{suffix}$")
    found: dict[str | None, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.match(path.name)
        if match:
            found.setdefault(match["a"] or match["b"], []).append(path)
    return found


def variant_there(folder: Path, wanted: str | None) -> str | None:
    """The variant ``wanted`` where a network's folder has weights of it."""
    return wanted if wanted in files_by_variant(folder, DIFFUSERS_STEM, "safetensors") else None


def choose_variant(folder: Path, there: Collection[str | None], wanted: str | None) -> str | None:
    """The variant ``wanted`` if it is ``there``, else the plain weights (None), else the only variant.

    Raises:
        InputError: several variants, and none of them wanted or plain.
    """
    if wanted in there or None in there:
        return wanted if wanted in there else None
    named = sorted(name for name in there if name is not None)
    if len(named) > 1:
        raise InputError(
            f"{folder} has weights in several variants ({', '.join(named)}) and none without; "
            "choose one with --variant (variant=) or, where a command has no such option, leave only one in the folder"
        )
    return named[0]


def read_shard_index(path: Path) -> dict[str, str]:
    """Which file beside the index each weight is in.

    Raises:
        InputError: it names a file elsewhere, or it is damaged.
    """
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        outside = next((file for file in weight_map.values() if file == ".." or Path(file).name != file), None)
    except (ValueError, TypeError, KeyError, AttributeError):
        weight_map, outside = {}, None
    if outside is not None:
        raise InputError(
            f"{path} names {outside!r}, which is outside its folder: files must lie beside it; copy it again"
        )
    if not weight_map:
        raise InputError(f"{path} does not say which weight is in which file: it is damaged; copy it again")
    return weight_map


@alone
def read_whole(found: Any, folder: Path, options: Mapping[str, Any] | None = None, variant: str | None = None) -> Any:
    """A model of class ``found`` of diffusers or transformers from its folder; nothing is downloaded.

    Weights come from safetensors only, and which of them is as :func:`choose_variant` has it.

    Both libraries make up at random what the files lack, and only warn. Names of old releases, tied weights and buffers
    that follow from the config are theirs to know. Tensors that the model has no place for are left out, as they do.

    Raises:
        InputError: weights are missing, by name; the folder is missing, damaged, or holds stand-ins; an index of shards
            is damaged or leads out of the folder; several variants to choose from.
    """
    from diffusers.models.modeling_utils import ModelMixin

    loader: Any = found  # the two libraries' classes have no common one
    stem = DIFFUSERS_STEM if issubclass(found, ModelMixin) else TRANSFORMERS_STEM
    there = files_by_variant(folder, stem, "safetensors") if folder.is_dir() else {}
    asked: dict[str, Any] = {"use_safetensors": True, **(options or {})}
    asked["variant"] = choose_variant(folder, there, variant) if there else None
    if not there:
        _refuse_pickle_alone(folder)
    with _one_sentence(folder, found.__name__):
        model, said = loader.from_pretrained(folder, local_files_only=True, output_loading_info=True, **asked)
    missing = sorted({*said["missing_keys"], *(str(name) for name in said["mismatched_keys"])})
    if missing:
        named = ", ".join(repr(name) for name in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        unknown = sorted(said["unexpected_keys"])
        other = f", and have {unknown[0]!r}, which it has no place for" if unknown else ""
        raise InputError(
            f"the weights in {folder} are not those of {found.__name__} by its config: they lack {named}{more}{other}; "
            "copy the folder again"
        )
    return model


def _refuse_pickle_alone(folder: Path) -> None:
    """``InputError`` for a model whose weights lie in a pickle and nowhere else."""
    names = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
    if names:
        network = (
            ", or have 'inflate convert --allow-pickle' read its tensors alone" if folder.name in _NETWORKS else ""
        )
        raise InputError(
            f"{folder} has its weights in a pickle alone ({names[0]}), which may run any code and is not opened here; "
            f"where you trust it, write the pipeline anew with diffusers, DiffusionPipeline.from_pretrained("
            f"{str(folder.parent)!r}).save_pretrained('another folder'){network}"
        )


def read_plain(found: Any, folder: Path) -> Any:
    """What has no weights (a scheduler, a tokenizer) from its folder; raises as :func:`read_whole`."""
    with _one_sentence(folder, found.__name__):
        return found.from_pretrained(folder, local_files_only=True)


def read_diffusers_component(
    folder: Path, library: str, class_name: str, dtype: torch.dtype, variant: str | None = None
) -> Any:
    """A diffusers model or scheduler from its folder, from safetensors only and without any download.

    Of weights in several variants ``variant`` is read where it is there, as :func:`choose_variant` has it.

    The ``library`` of our own schedulers is ``inflate``, or ``inflate.schedulers`` as diffusers' pipelines write it.

    Raises:
        InputError: not a diffusers class, or the folder is missing, damaged, or lacks weights.
    """
    import diffusers
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    found = getattr(diffusers, class_name, None) if library == "diffusers" else None
    if library in ("inflate", "inflate.schedulers"):
        from inflate.schedulers import SCHEDULERS

        found = SCHEDULERS.get(class_name)
    if not (inspect.isclass(found) and issubclass(found, (ModelMixin, SchedulerMixin))):
        raise InputError(f"{folder.name} in {folder.parent} is {a(library)}.{class_name}; only diffusers' own will do.")
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; model_index.json names it.")
    if issubclass(found, ModelMixin):
        return read_whole(found, folder, {"torch_dtype": dtype}, variant)
    scheduler = read_plain(found, folder)
    _tell_other_sampler(folder, found, class_name)
    return scheduler


def _tell_other_sampler(folder: Path, found: Any, class_name: str) -> None:
    """A pipeline's index says which sampler it has, as for diffusers; its own file may say another."""
    said = str(found.load_config(folder, local_files_only=True).get("_class_name", class_name))
    if said != class_name:
        warnings.warn(
            f"Sampled by {class_name}, as {folder.parent / 'model_index.json'} says; the file in {folder} is that of "
            f"{a(said)}, and diffusers goes by the index too.",
            Note,
            stacklevel=2,
        )


@contextmanager
def _one_sentence(folder: Path, class_name: str) -> Iterator[None]:
    """Turn whatever a library raises for a folder into one sentence."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file():
            refuse_stand_in(path)
            if _SHARD_INDEX.search(path.name):
                read_shard_index(path)  # before the libraries, which follow it wherever it leads
    try:
        yield
    except Exception as error:  # diffusers, transformers, safetensors and json each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{folder} cannot be loaded as {class_name}: {reason}") from error
