"""What somebody brings to be made a video model of: its network, its parts, and what they say of sizes and noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from inflate.adapters import ADAPTERS, Adapter
from inflate.bases.autoencoder import Autoencoder
from inflate.bases.conditioner import Conditioner
from inflate.bases.families import FAMILIES, PIPELINES, Pipeline, cascade_pipeline, family_of
from inflate.bases.parts import INDEX_NAME, OURS, part_config
from inflate.checkpoint import Source, find_source, load_image_model, read_config, resolve_path
from inflate.checkpoint.hub import download, is_hub_name
from inflate.configs import read_object
from inflate.errors import InputError, a, nearest

_SCHEDULER = "scheduler_config.json"
_LENDS_ALL = "base"
_WORDS = {
    "vae": "autoencoder",
    "scheduler": "scheduler",
    "image_encoder": "image encoder",
    "text_encoder": "text encoder",
}
_IMAGE_ENCODERS = {
    "karlo": "karlo-v1-alpha-image-variations has it",
    "kandinsky": "the prior's folder, kandinsky-2-2-prior, has it",
}


@dataclass(frozen=True)
class Base:
    """An image model with all that training and sampling need.

    Attributes:
        family: one of ``FAMILIES``.
        root: the pipeline's folder; None for a network without one.
        network: where the image model is.
        parts: folder of each part by role.
        scheduler_config: the scheduler's, its ``_class_name`` among it.
        process: how it goes from noise to pictures: diffusion, or the straight lines of flow matching.
        options: what the pipeline's index says beside its parts.
    """

    family: str
    root: Path | None
    network: Source
    parts: dict[str, Path]
    scheduler_config: dict[str, Any]
    process: Literal["diffusion", "flow"]
    options: dict[str, Any] = field(default_factory=dict)

    def conditioner(self) -> Conditioner:
        """What makes the network's arguments; not loaded yet."""
        kind = FAMILIES[self.family].conditioner
        return kind(self.network.config, self.parts, options=self.options, variant=self.network.variant)

    def autoencoder(self) -> Autoencoder:
        """Not loaded yet; one that leaves pixels as they are, for networks of pixels."""
        folder = self.parts.get("vae")
        return Autoencoder(folder, None if folder is None else part_config(folder), self.network.variant)

    def load_network(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The image model, in eval mode."""
        return load_image_model(self.network, device, dtype)

    @property
    def adapter(self) -> Adapter:
        """Of the network's class."""
        return ADAPTERS[self.network.image_model_class.__name__](self.network.config)

    @property
    def patch(self) -> int:
        """Latent cells along a side of what is one token; 1 for UNets."""
        return self.adapter.patch_size

    @property
    def multiple(self) -> int:
        """What heights and widths in pixels must be divisible by."""
        blocks = self.network.config.get("down_block_types")
        halvings = 2 ** (len(blocks) - 1) if self.patch == 1 and blocks else 1
        return self.autoencoder().factor * self.patch * halvings

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width in pixels that the model was made for."""
        height, width = self.options.get("height"), self.options.get("width")
        if height and width:
            return int(height), int(width)
        native = self.adapter.native_cells
        height, width = self.adapter.sample_size or (native, native)
        factor = self.autoencoder().factor
        return height * factor, width * factor


def open_base(model: str | Path, parts: Mapping[str, str | Path] | None = None, variant: str | None = None) -> Base:
    """Find out what somebody brings; configs are read, and no weights.

    Args:
        model: a diffusers pipeline's folder, a network's own folder, a single file, a repository in the hub's cache, a
            cascade's folder, or ``bundled:NAME``.
        parts: folders of parts by role, where the model's own lacks them or others are wanted; ``base`` is a folder
            that lends all that is missing.
        variant: which weights, such as "fp16"; the plain ones by default.

    Raises:
        InputError: no such model, none that can be fine-tuned, or one without a part that it needs.
    """
    named = {role: _folder(path, role) for role, path in (parts or {}).items()}
    pipeline, index, root = _pipeline_of(model)
    source = _network(model, root, index, variant)
    if pipeline is None and source.folder != source.root and (source.root / INDEX_NAME).is_file():
        pipeline, index, root = _pipeline_of(source.root)  # a repository of the hub
    where = str(source.root)
    family = family_of(source.config) if pipeline is None else pipeline.family
    if family not in FAMILIES:
        raise InputError(
            f"{where} cannot be fine-tuned: it is none of {', '.join(one.title for one in FAMILIES.values())}."
        )
    found = {} if root is None or pipeline is None else _parts_in(root, index, pipeline, family)
    # The second is what `inflate convert` writes for a single file that says what it predicts.
    for beside in (source.folder, source.folder / "scheduler"):
        if (beside / _SCHEDULER).is_file():
            found.setdefault("scheduler", beside)
    _check_roles(named, family)
    lent = _lent(named[_LENDS_ALL], family) if _LENDS_ALL in named else {}
    found = lent | found | {role: path for role, path in named.items() if role != _LENDS_ALL}
    _check_complete(where, family, found)
    scheduler = read_object(found["scheduler"] / _SCHEDULER)
    _check_prediction(source, scheduler, found["scheduler"])
    options = {} if pipeline is None else dict(pipeline.options) | _said(index)
    base = Base(family, root, source, found, scheduler, _process(scheduler), options)
    _check_channels(base, where)
    return base


def _pipeline_of(model: str | Path) -> tuple[Pipeline | None, dict[str, Any], Path | None]:
    """What a folder's index says it is: (None, {}, None) where there is none."""
    root = resolve_path(model)
    if not (root / INDEX_NAME).is_file():
        return None, {}, None
    index = read_object(root / INDEX_NAME)
    name = str(index.get("_class_name"))
    if name == "Cascade":
        return cascade_pipeline(index), index, root
    pipeline = PIPELINES.get(name)
    if pipeline is None or not pipeline.family:
        known = ", ".join(("Cascade", *(name for name, one in PIPELINES.items() if one.family)))
        raise InputError(f"{root} is {a(name)}, which cannot be fine-tuned; known: {known}.")
    return pipeline, index, root


def _network(model: str | Path, root: Path | None, index: dict[str, Any], variant: str | None) -> Source:
    """Where the image model is; in the oldest repositories of DDPMs it lies beside the index itself."""
    if root is not None and (root / "config.json").is_file() and not (root / "unet").is_dir() and "unet" in index:
        config, image_model_class = read_config(root / "config.json")
        return Source(root, root, config, image_model_class, None, variant)
    return find_source(model, None, variant)


def _parts_in(root: Path, index: Mapping[str, Any], pipeline: Pipeline, family: str) -> dict[str, Path]:
    """The parts of a family that a pipeline's folder has."""
    found = {}
    for role in FAMILIES[family].roles:
        name = pipeline.folders.get(role, role)
        entry = index.get(name, index.get(role))
        if name and entry != [None, None] and (root / name).is_dir():
            found[role] = root / name
        elif role == "scheduler" and isinstance(entry, list) and (root / _SCHEDULER).is_file():
            found[role] = root
    return found


def _lent(folder: Path, family: str) -> dict[str, Path]:
    """What another pipeline's folder has of a family's parts."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError(f"{folder} cannot lend parts: it is no pipeline's folder, for it has no {INDEX_NAME}.")
    index = read_object(path)
    name = str(index.get("_class_name"))
    lender = cascade_pipeline(index) if name == "Cascade" else PIPELINES.get(name, Pipeline(""))
    if lender.family and lender.family != family:
        raise InputError(
            f"{folder} is {FAMILIES[lender.family].title} and the model is {FAMILIES[family].title}; name a base of "
            "the model's own family."
        )
    return _parts_in(folder, index, lender, family)


def _folder(path: str | Path, role: str) -> Path:
    """A part's folder, or that part of a whole pipeline's; of a repository in the hub's cache it is named by that."""
    found = resolve_path(path)
    if not found.exists() and is_hub_name(str(path)):
        found = download(str(path))
    found = found.parent if found.is_file() else found
    if not found.is_dir():
        raise InputError(f"There is no folder {found}, which is to be a part of the model.")
    return found / role if (found / INDEX_NAME).is_file() and (found / role).is_dir() else found


def _said(index: Mapping[str, Any]) -> dict[str, Any]:
    """What an index says beside its parts."""
    ours = index.get(OURS)
    said = {name: value for name, value in index.items() if not name.startswith("_") and not isinstance(value, list)}
    return said | (dict(ours) if isinstance(ours, dict) else {})


def _process(scheduler: Mapping[str, Any]) -> Literal["diffusion", "flow"]:
    flows = "FlowMatch" in str(scheduler.get("_class_name"))
    return "flow" if flows or scheduler.get("prediction_type") == "flow_prediction" else "diffusion"


def _check_roles(named: Mapping[str, Path], family: str) -> None:
    known = (_LENDS_ALL, *FAMILIES[family].roles)
    for role in named:
        if role not in known:
            raise InputError(
                f"{FAMILIES[family].title} has no part {role!r}{nearest(role, known)}; it has {', '.join(known)}."
            )


def _check_complete(where: str, family: str, found: Mapping[str, Path]) -> None:
    for role in FAMILIES[family].needs:
        if role in found:
            continue
        what = _WORDS.get(role, role.replace("_", " "))
        hint = f" ({_IMAGE_ENCODERS[family]})" if role == "image_encoder" else ""
        raise InputError(
            f"{where} has no {what} ({role!r}), which {FAMILIES[family].title} needs; name its folder as the part "
            f"{role!r}, or as the part {_LENDS_ALL!r} a pipeline's folder that has one{hint}."
        )


def _check_prediction(source: Source, scheduler: Mapping[str, Any], folder: Path) -> None:
    """A single file's own word for what it predicts must be that of the scheduler it is lent."""
    said = None if source.single_file is None else source.single_file.noise.scheduler(source.root)
    for key, usual in (("prediction_type", "epsilon"), ("rescale_betas_zero_snr", False)):
        if said is not None and said[key] != (scheduler.get(key) or usual):
            raise InputError(
                f"{source.root} says that its {key} is {said[key]!r}, and the scheduler in {folder} that it is "
                f"{scheduler.get(key) or usual!r}; run 'inflate convert' on the file, which writes its own scheduler, "
                "and fine-tune that folder"
            )


def _check_channels(base: Base, where: str) -> None:
    """The network must take what its autoencoder gives and nothing beside it."""
    config = base.network.config
    if config.get("num_class_embeds") and base.family == "unconditional":
        raise InputError(
            f"{where} is told classes (num_class_embeds), and only UNet2DModels that are told nothing will do."
        )
    taken = base.adapter.channels
    given = base.autoencoder().channels
    if taken != given:
        source = "its autoencoder gives" if "vae" in base.parts else "pictures have"
        raise InputError(
            f"The network in {where} takes {taken} channels, and {source} {given}: a model that is shown more than "
            "noise (inpainting, super-resolution) cannot be fine-tuned here, nor one with another's autoencoder."
        )
