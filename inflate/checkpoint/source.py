"""Finding the image model in a folder or a file, and checking its weights against its config first of all."""

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.checkpoint.header import TORCH_DTYPES, Header, is_pickle, read_header, refuse_pickle
from inflate.checkpoint.hub import download, is_hub_name
from inflate.checkpoint.kinds import SAFETENSORS_SUFFIXES, TEMPORAL_FILE, what_it_is
from inflate.checkpoint.pickled import read_pickle
from inflate.checkpoint.single_file import SingleFile, recognise, recognise_layout
from inflate.components import DIFFUSERS_STEM, choose_variant, files_by_variant, read_shard_index
from inflate.configs import read_object
from inflate.errors import InputError, a, nearest
from inflate.inflater import IMAGE_MODEL_CLASSES, meta_image_model

SUBFOLDERS = ("unet", "decoder", "transformer")  # where pipelines keep the network that is inflated
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
    """An image model in a diffusers folder, or in a single file."""

    root: Path  # what the user named: a pipeline's folder, the model's own, or a file
    folder: Path  # where config.json and the weights are: `root` itself, or a subfolder of it; the file if it is one
    config: dict[str, Any]
    image_model_class: type[Any]
    single_file: SingleFile | None = None
    variant: str | None = None  # the one asked for: "fp16" of `diffusion_pytorch_model.fp16.safetensors`
    allow_pickle: bool = False

    @property
    def temporal_file(self) -> Path:
        """Where the temporal weights are, if the model is inflated; a single file has none."""
        return self.folder / TEMPORAL_FILE

    @property
    def config_name(self) -> str:
        """What to call the config in a sentence."""
        return str(self.folder / "config.json") if self.single_file is None else self.single_file.config_name

    def meta_model(self) -> Any:
        """The image model without weights."""
        try:
            return meta_image_model(self.image_model_class, self.config)
        except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.config_name} does not describe a model that diffusers can build: {reason}"
            ) from error


@dataclass(frozen=True)
class Weights:
    """The files that hold one image model, with the headers of those in safetensors."""

    variant: str | None  # "fp16" of `diffusion_pytorch_model.fp16.safetensors`
    paths: tuple[Path, ...]
    headers: tuple[Header, ...]  # empty for pickles
    # By diffusers' names, on the meta device; for pickles and single files, whose headers do not say.
    renamed: dict[str, Tensor] | None = None

    @property
    def num_bytes(self) -> int:
        """Size of all files; of a single file, the image model's part of it."""
        if self.renamed is not None:
            return sum(tensor.numel() * tensor.element_size() for tensor in self.renamed.values())
        return sum(path.stat().st_size for path in self.paths)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by names."""
        if self.renamed is not None:
            return {name: tuple(tensor.shape) for name, tensor in self.renamed.items()}
        return {name: tensor.shape for header in self.headers for name, tensor in header.tensors.items()}

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Dtypes as safetensors calls them."""
        if self.renamed is not None:
            names = {dtype: name for name, dtype in TORCH_DTYPES.items()}
            return tuple(sorted({names.get(tensor.dtype, str(tensor.dtype)) for tensor in self.renamed.values()}))
        return tuple(sorted({tensor.dtype for header in self.headers for tensor in header.tensors.values()}))


def resolve_path(folder_or_name: str | Path) -> Path:
    """A folder's path; `bundled:NAME` is a family inside the package, `bundled:NAME/PART` one folder of it."""
    name = str(folder_or_name)
    if not name.startswith(BUNDLED_PREFIX):
        return Path(name).expanduser()
    families = Path(__file__).resolve().parent.parent / "bundled"
    wanted, _, part = name.removeprefix(BUNDLED_PREFIX).partition("/")
    known = sorted(path.name for path in families.iterdir() if path.is_dir()) if families.is_dir() else []
    if wanted not in known:
        listed = ", ".join(BUNDLED_PREFIX + family for family in known) or "none"
        raise InputError(f"no bundled family {wanted!r}{nearest(wanted, known)}; known: {listed}")
    return families / wanted / part


def find_source(
    folder_or_name: str | Path,
    config: str | Path | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> Source:
    """The image model in a model's folder, a pipeline's, or a single file.

    Args:
        folder_or_name: a diffusers folder, a file in a layout that `single_file` knows, `bundled:NAME`, or, if nothing
            of that name is here, a repository on the model hub, `org/name` or `org/name@revision`.
        config: for a single file: a config.json, or a folder with one, instead of the config it is recognised to have.
        variant: for a folder: which of its weights, such as "fp16"; the plain ones by default.
        allow_pickle: read weights from a pickle too where there are no others; tensors only, nothing is run.

    Raises:
        InputError: no such folder, file or repository, or no model in it that can be inflated.
    """
    root = resolve_path(folder_or_name)
    if not root.exists() and is_hub_name(str(folder_or_name)):
        root = download(str(folder_or_name), variant)
    if root.is_file():
        return _find_in_file(root, config, variant, allow_pickle)
    if not root.is_dir():
        raise InputError(f"no such folder: {root}")
    if config is not None:
        raise InputError(f"--config (config=) goes with a single file, and {root} is a folder, which has its own")
    found = _config_file(root)
    if found is None:
        raise InputError(
            f"{root} is {what_it_is(root)}, without a network that can be inflated: "
            f"it has neither config.json nor one of {', '.join(SUBFOLDERS)} with a config.json in it"
        )
    values, image_model_class = read_config(found)
    return Source(root, found.parent, values, image_model_class, None, variant, allow_pickle)


def _config_file(root: Path) -> Path | None:
    """The config.json of the image model in a model's folder or a pipeline's."""
    if (root / "config.json").is_file() and not (root / "model_index.json").is_file():
        return root / "config.json"
    files = (root / subfolder / "config.json" for subfolder in SUBFOLDERS)
    return next((file for file in files if file.is_file()), None)


def _find_in_file(path: Path, config: str | Path | None, variant: str | None, allow_pickle: bool) -> Source:
    if config is None and path.name.startswith(DIFFUSERS_STEM) and (path.parent / "config.json").is_file():
        raise InputError(f"{path} is a file of a diffusers model; name its folder, {path.parent}")
    if variant is not None:
        raise InputError(f"--variant (variant=) chooses among the files of a folder, and {path} is a file")
    kind = what_it_is(path)
    if path.suffix.lower() not in SAFETENSORS_SUFFIXES and not is_pickle(path):
        raise InputError(f"{path} is {kind}; name a diffusers folder or safetensors")
    part = re.search(r"-\d+-of-(\d+)\.", path.name)
    if part is not None:
        raise InputError(
            f"{path} is one of {int(part[1])} parts of a model; name the folder that has them all, with their index "
            "and config.json"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in _meta_tensors(path, allow_pickle).items()}
    metadata = {} if is_pickle(path) else read_header(path).metadata
    if config is None:
        single_file, values = recognise(path, shapes, metadata)
        image_model_class = IMAGE_MODEL_CLASSES[values["_class_name"]]
    else:
        given = Path(config).expanduser()
        config_file = _config_file(given) if given.is_dir() else given
        if config_file is None:
            raise InputError(f"--config is {given}, which has no config.json of an image model")
        values, image_model_class = read_config(config_file)
        single_file = recognise_layout(path, shapes, config_file, values["_class_name"], metadata)
    return Source(path, path, values, image_model_class, single_file, None, allow_pickle)


def _meta_tensors(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """What is in a file, on the meta device."""
    if is_pickle(path):
        if not allow_pickle:
            refuse_pickle(path)
        return {name: tensor.to("meta") for name, tensor in read_pickle(path).items()}
    tensors = {}
    for name, stored in read_header(path).tensors.items():
        if stored.dtype not in TORCH_DTYPES:
            raise InputError(f"{path} is in a dtype that inflate does not read: {name!r} is {stored.dtype}")
        tensors[name] = torch.empty(stored.shape, dtype=TORCH_DTYPES[stored.dtype], device="meta")
    return tensors


def read_config(path: Path) -> tuple[dict[str, Any], type[Any]]:
    """A model's config and class; `InputError` unless diffusers' format and a class that can be inflated."""
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    config = read_object(path)
    class_name = config.get("_class_name")
    if not isinstance(class_name, str):
        raise InputError(f"{path} is not a diffusers config: it has no _class_name")
    if class_name not in IMAGE_MODEL_CLASSES:
        raise InputError(
            f"{path} is {a(class_name)}, which cannot be inflated; it must be one of {', '.join(IMAGE_MODEL_CLASSES)}"
        )
    return config, IMAGE_MODEL_CLASSES[class_name]


def find_weights(source: Source) -> Weights:
    """The weight files of `source`: those of the variant asked for, else the plain ones, else of the only variant.

    Raises:
        InputError: only pickles and those not allowed, no weights, several variants and none chosen, no such variant,
            or a missing, truncated or unreadable file.
    """
    if source.single_file is not None:
        renamed = source.single_file.to_diffusers(_meta_tensors(source.root, source.allow_pickle), source.config)
        headers = () if is_pickle(source.root) else (read_header(source.root),)
        return Weights(None, (source.root,), headers, renamed)
    by_variant = files_by_variant(source.folder, DIFFUSERS_STEM, "safetensors")
    by_variant = by_variant or files_by_variant(source.folder, DIFFUSERS_STEM, "bin")
    if not by_variant:
        pickles = sorted(path for path in source.folder.iterdir() if is_pickle(path))
        if pickles and not source.allow_pickle:
            refuse_pickle(pickles[0])
        for index in sorted(source.folder.glob(f"{DIFFUSERS_STEM}.*index*.json")):
            named = min(read_shard_index(index).values())
            raise InputError(f"{index} names {named!r}, and none of the model's files is there; copy the folder again")
        raise InputError(f"{source.folder} has no weights: {DIFFUSERS_STEM}.safetensors is missing")
    variant = _chosen(source, by_variant)
    paths, index = _complete(source.folder, variant, by_variant[variant])
    if not is_pickle(paths[0]):
        headers = tuple(read_header(path) for path in paths)
        if index is not None:
            _check_index(*index, headers)
        return Weights(variant, paths, headers)
    renamed = {}
    for path in paths:
        renamed |= _meta_tensors(path, source.allow_pickle)
    return Weights(variant, paths, (), renamed)


def _chosen(source: Source, by_variant: dict[str | None, list[Path]]) -> str | None:
    """The variant to read."""
    if source.variant is not None and source.variant not in by_variant:
        named = sorted(name for name in by_variant if name is not None)
        there = ", ".join(named) or "none"
        raise InputError(
            f"{source.folder} has no weights of variant {source.variant!r}{nearest(source.variant, named)}; "
            f"the variants there: {there}"
        )
    return choose_variant(source.folder, by_variant, source.variant)


def _complete(
    folder: Path, variant: str | None, found: list[Path]
) -> tuple[tuple[Path, ...], tuple[Path, dict[str, str]] | None]:
    """The files to read, one whole file or all the shards, and the index of shards with what it says.

    Where there are both, shards with an index come first, as for diffusers: what is checked is what it loads.

    Raises:
        InputError: naming a shard, or their index, that is missing or broken.
    """
    suffix = found[0].suffix.removeprefix(".")
    indices = [folder / name for name in index_names(variant, suffix)]
    index = next((path for path in indices if path.is_file()), None)
    shards = [path for path in found if re.search(r"-\d+-of-\d+", path.name)]
    if index is None and len(shards) < len(found):
        return (next(path for path in found if path not in shards),), None
    weight_map = {} if index is None else read_shard_index(index)
    names = sorted(set(weight_map.values())) or _numbered(shards[0].name)
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: {len(shards)} of the model's files are there; copy it again")
    if index is None:
        raise InputError(f"{indices[0]} is missing: it says which weight is in which file; copy it again")
    return tuple(folder / name for name in names), (index, weight_map)


def _numbered(shard: str) -> list[str]:
    """The names of all shards, told from that of one."""
    total = re.search(r"-\d+-of-(\d+)", shard)
    assert total is not None
    return [
        re.sub(r"-(\d+)-of-", lambda match, n=number: f"-{n:0{len(match[1])}d}-of-", shard)
        for number in range(1, int(total[1]) + 1)
    ]


def _check_index(index: Path, weight_map: dict[str, str], headers: tuple[Header, ...]) -> None:
    """Raise `InputError` unless the index names every weight where it is: diffusers makes up those it does not."""
    held = {name: header.path.name for header in headers for name in header.tensors}
    for name in sorted(held.keys() | weight_map.keys()):
        if held.get(name) != weight_map.get(name):
            raise InputError(
                f"{index} and the files beside it disagree: {name!r} is in {held.get(name, 'none of them')}, "
                f"and by the index in {weight_map.get(name, 'none')}; copy the folder again"
            )


def index_names(variant: str | None, suffix: str) -> tuple[str, ...]:
    """The names that the index of shards may have."""
    if variant is None:
        return (f"{DIFFUSERS_STEM}.{suffix}.index.json",)
    return (f"{DIFFUSERS_STEM}.{suffix}.index.{variant}.json", f"{DIFFUSERS_STEM}.{variant}.{suffix}.index.json")


def check_weights(source: Source, weights: Weights, image_model: Any) -> None:
    """Compare every name and shape in the files with what the config builds, `image_model` (meta device is enough).

    Raises:
        InputError: naming the first weight that is missing, unknown or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in image_model.state_dict().items()}
    found = {current_name(name, expected): shape for name, shape in weights.shapes.items()}
    fits = "its config.json" if source.single_file is None else source.config_name
    where = f"the weights in {source.folder} do not fit {fits}"
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{where}: {name!r} is missing")
        if found[name] != shape:
            raise InputError(f"{where}: {name!r} has shape {found[name]} and should have {shape}")
    for name in found:
        if name not in expected:
            raise InputError(f"{where}: {name!r} is unknown{nearest(name, list(expected))}")


def current_name(name: str, expected: Container[str]) -> str:
    """`name`, or what diffusers calls it now if it is none of the names `expected`."""
    if name not in expected:
        for pattern, replacement in _OLD_ATTENTION_NAMES:
            name = pattern.sub(replacement, name)
    return name
