"""Finding the image model in a diffusers folder, and checking its weights against its config first of all."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflate.checkpoint.header import PICKLE_SUFFIXES, Header, read_header, refuse_pickle
from inflate.errors import InputError, nearest
from inflate.inflater import IMAGE_MODEL_CLASSES, meta_image_model

SUBFOLDERS = ("unet", "decoder", "transformer")  # where pipelines keep the network that is inflated
WEIGHTS_STEM = "diffusion_pytorch_model"
TEMPORAL_FILE = "temporal.safetensors"
BUNDLED_PREFIX = "bundled:"

# diffusers renames these of checkpoints from before its Attention class, when it loads them.
_OLD_ATTENTION_NAMES = (
    (re.compile(r"\.query\.(weight|bias)$"), r".to_q.\1"),
    (re.compile(r"\.key\.(weight|bias)$"), r".to_k.\1"),
    (re.compile(r"\.value\.(weight|bias)$"), r".to_v.\1"),
    (re.compile(r"\.proj_attn\.(weight|bias)$"), r".to_out.0.\1"),
)


@dataclass(frozen=True)
class Source:
    """An image model in a diffusers folder."""

    root: Path  # what the user named: a pipeline's folder or the model's own
    folder: Path  # where config.json and the weights are; `root` itself, or a subfolder of it
    config: dict[str, Any]
    image_model_class: type[Any]

    @property
    def temporal_file(self) -> Path:
        """Where the temporal weights are, if the model is inflated."""
        return self.folder / TEMPORAL_FILE

    def meta_model(self) -> Any:
        """The image model without weights."""
        try:
            return meta_image_model(self.image_model_class, self.config)
        except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.folder / 'config.json'} does not describe a model that diffusers can build: {reason}"
            ) from error


@dataclass(frozen=True)
class Weights:
    """The safetensors files that hold one image model, with their headers read."""

    variant: str | None  # "fp16" of `diffusion_pytorch_model.fp16.safetensors`
    headers: tuple[Header, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(header.path.stat().st_size for header in self.headers)


def resolve_path(folder_or_name: str | Path) -> Path:
    """A folder's path; `bundled:NAME` is a family inside the package."""
    name = str(folder_or_name)
    if not name.startswith(BUNDLED_PREFIX):
        return Path(name).expanduser()
    families = Path(__file__).resolve().parent.parent / "bundled"
    wanted = name.removeprefix(BUNDLED_PREFIX)
    known = sorted(path.name for path in families.iterdir() if path.is_dir()) if families.is_dir() else []
    if wanted not in known:
        listed = ", ".join(BUNDLED_PREFIX + family for family in known) or "none"
        raise InputError(f"no bundled family {wanted!r}{nearest(wanted, known)}; known: {listed}")
    return families / wanted


def find_source(folder_or_name: str | Path) -> Source:
    """The image model in a model's folder or in a pipeline's.

    Raises:
        InputError: no such folder, a file instead of a folder, or no model in it that can be inflated.
    """
    root = resolve_path(folder_or_name)
    if root.is_file():
        refuse_pickle(root)
        raise InputError(f"{root} is a file; name the diffusers folder that has config.json and the weights in it")
    if not root.is_dir():
        raise InputError(f"no such folder: {root}")
    if (root / "config.json").is_file() and not (root / "model_index.json").is_file():
        return _read_model_folder(root, root)
    for subfolder in SUBFOLDERS:
        if (root / subfolder / "config.json").is_file():
            return _read_model_folder(root, root / subfolder)
    raise InputError(
        f"{root} is not a diffusers model: "
        f"it has neither config.json nor one of {', '.join(SUBFOLDERS)} with a config.json in it"
    )


def read_config(path: Path) -> tuple[dict[str, Any], type[Any]]:
    """A model's config and class; `InputError` unless diffusers' format and a class that can be inflated."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not readable as JSON: {error}") from error
    class_name = config.get("_class_name") if isinstance(config, dict) else None
    if class_name is None:
        raise InputError(f"{path} is not a diffusers config: it has no _class_name")
    if class_name not in IMAGE_MODEL_CLASSES:
        raise InputError(
            f"{path} is a {class_name}, which cannot be inflated; it must be one of {', '.join(IMAGE_MODEL_CLASSES)}"
        )
    return config, IMAGE_MODEL_CLASSES[class_name]


def _read_model_folder(root: Path, folder: Path) -> Source:
    config, image_model_class = read_config(folder / "config.json")
    return Source(root, folder, config, image_model_class)


def find_weights(source: Source) -> Weights:
    """The weight files of `source`: the plain ones, else those of the only variant there is.

    Raises:
        InputError: only pickles, no weights, several variants, or a missing, truncated or unreadable file.
    """
    pattern = re.compile(rf"^{WEIGHTS_STEM}(?:\.(?P<a>[\w]+?))?(?:-\d+-of-\d+)?(?:\.(?P<b>[\w]+))?\.safetensors$")
    by_variant: dict[str | None, list[Path]] = {}
    for path in sorted(source.folder.iterdir()):
        match = pattern.match(path.name)
        if match:
            by_variant.setdefault(match["a"] or match["b"], []).append(path)
    if not by_variant:
        pickles = sorted(path for path in source.folder.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
        if pickles:
            refuse_pickle(pickles[0])
        raise InputError(f"{source.folder} has no weights: {WEIGHTS_STEM}.safetensors is missing")
    if None in by_variant:
        variant = None
    elif len(by_variant) == 1:
        variant = next(iter(by_variant))
    else:
        raise InputError(
            f"{source.folder} has weights in several variants ({', '.join(map(str, by_variant))}) and none without; "
            "remove all but one"
        )
    paths = _complete(source.folder, by_variant[variant])
    return Weights(variant, tuple(read_header(path) for path in paths))


def _complete(folder: Path, paths: list[Path]) -> list[Path]:
    """`paths`, one whole file or all the shards; `InputError` naming a shard that is missing."""
    whole = [path for path in paths if not re.search(r"-\d+-of-\d+", path.name)]
    if whole:
        return whole[:1]
    for number in range(1, int(re.search(r"-\d+-of-(\d+)", paths[0].name)[1]) + 1):  # type: ignore[index]  # all are shards
        name = re.sub(r"-(\d+)-of-", lambda match, n=number: f"-{n:0{len(match[1])}d}-of-", paths[0].name)
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: {len(paths)} of the model's files are there; copy it again")
    return paths


def check_weights(source: Source, weights: Weights, image_model: Any) -> None:
    """Compare every name and shape in the files with what the config builds, `image_model` (meta device is enough).

    Raises:
        InputError: naming the first weight that is missing, unknown or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in image_model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for header in weights.headers:
        for name, tensor in header.tensors.items():
            found[name if name in expected else _new_attention_name(name)] = tensor.shape
    where = f"the weights in {source.folder} do not fit its config.json"
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{where}: {name!r} is missing")
        if found[name] != shape:
            raise InputError(f"{where}: {name!r} has shape {found[name]} and should have {shape}")
    for name in found:
        if name not in expected:
            raise InputError(f"{where}: {name!r} is unknown{nearest(name, list(expected))}")


def _new_attention_name(name: str) -> str:
    for pattern, replacement in _OLD_ATTENTION_NAMES:
        name = pattern.sub(replacement, name)
    return name
