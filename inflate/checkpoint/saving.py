"""Saving and loading an inflated model."""

from pathlib import Path
from typing import Any

import torch

from inflate.building import alone
from inflate.checkpoint.fingerprint import architecture_fingerprint, weights_fingerprint
from inflate.checkpoint.header import TORCH_DTYPES
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.narrowing import check_holds
from inflate.checkpoint.reading import load_image_model
from inflate.checkpoint.source import (
    Source,
    find_source,
    find_weights,
    read_config,
    resolve_path,
)
from inflate.checkpoint.temporal import (
    TemporalInfo,
    check_fits,
    read_temporal_info,
    read_temporal_tensors,
    write_temporal,
)
from inflate.checkpoint.writing import new_folder
from inflate.errors import InputError, a
from inflate.inflater import InflatedModel, deflate, inflate, meta_image_model


def save(video_model: InflatedModel, folder: str | Path, force: bool = False, dtype: torch.dtype | None = None) -> Path:
    """Write an inflated model: the image model as diffusers writes it, and `temporal.safetensors` beside it.

    Args:
        video_model: the model; temporal weights are written in its dtype.
        folder: the folder to make. It appears when it is complete. Of a pipeline's folder (with `model_index.json`),
            the `unet` or `transformer` is written, and nothing else is touched.
        force: replace the model that is there; files beside it stay.
        dtype: of the image weights; by default that of the files which `load` read, where all of them are still numbers
            of that dtype, else the model's.

    Raises:
        InputError: the folder is taken, or a pipeline's whose network is of another class; the disk is full, or the
            image model holds weights that its config does not describe (a LoRA, an IP-Adapter), or numbers that
            ``dtype`` cannot hold; nothing has been written then.
    """
    folder = Path(folder).expanduser()
    _check_plain(video_model.image_model)
    if (folder / "model_index.json").is_file() and force:
        network = find_source(folder)
        ours = type(video_model.image_model)
        if network.image_model_class is not ours:
            raise InputError(
                f"{folder} is a pipeline whose network is {a(network.image_model_class.__name__)}, and the model to "
                f"save is {a(ours.__name__)}; save it in another folder"
            )
        save(video_model, network.folder, force=True, dtype=dtype)
        return folder
    num_bytes = sum(p.numel() * p.element_size() for p in video_model.parameters())
    with new_folder(folder, force, num_bytes) as partial:
        _image_model_in(video_model, dtype).save_pretrained(partial, safe_serialization=True)
        config, image_model_class = read_config(partial / "config.json")
        weights = find_weights(Source(partial, partial, config, image_model_class))
        info = _info(video_model, weights_fingerprint(weights))
        write_temporal(partial / TEMPORAL_FILE, video_model.temporal_state_dict(), info)
    return folder


def _image_model_in(video_model: InflatedModel, dtype: torch.dtype | None) -> Any:
    """The image model, or one with its weights in another dtype: the one asked for, or that of its files if nothing is
    lost."""
    image_model, wanted = video_model.image_model, dtype or video_model.stored_dtype
    if wanted in (None, video_model.dtype):
        return image_model
    own = image_model.state_dict()
    if dtype is not None:
        check_holds(own, dtype)
    made = {name: one.to(wanted) if one.is_floating_point() else one for name, one in own.items()}
    if dtype is None and not all(torch.equal(made[name].to(one.dtype), one) for name, one in own.items()):
        return image_model
    other = _plain(image_model)
    other.load_state_dict(made, assign=True)
    return other


def save_temporal(video_model: InflatedModel, path: str | Path) -> Path:
    """Write the temporal weights alone, in a new folder `path`, as `inflate convert --temporal-only` does."""
    path = Path(path).expanduser()
    with new_folder(
        path, num_bytes=sum(p.numel() * p.element_size() for p in video_model.temporal_parameters())
    ) as partial:
        write_temporal(partial / TEMPORAL_FILE, video_model.temporal_state_dict(), _info(video_model, ""))
    return path / TEMPORAL_FILE


@alone
def load(
    folder_or_name: "str | Path | Source",
    device: "str | torch.device | None" = None,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> InflatedModel:
    """An inflated model with its weights, in eval mode.

    Args:
        folder_or_name: a folder that `convert` or `save` made (a pipeline's or a model's own), `bundled:NAME`, a
            repository of such a folder on the model hub, or what `find_source` has found.
        device: CPU by default.
        dtype: float32 by default, whatever the files hold.
        variant: which of the image weights, such as "fp16"; the plain ones by default.
        allow_pickle: read image weights from a pickle too where there are no others; tensors only, nothing is run.

    Raises:
        InputError: no inflated model there, damaged files, or temporal weights of another architecture.
    """
    source = (
        folder_or_name
        if isinstance(folder_or_name, Source)
        else find_source(folder_or_name, None, variant, allow_pickle)
    )
    if not source.temporal_file.is_file():
        raise InputError(f"{source.folder} is not inflated: it has no {TEMPORAL_FILE}; make one with 'inflate convert'")
    # everything that headers can tell is checked before the first weight is read
    info, _ = read_temporal_info(source.temporal_file)
    meta_model = source.meta_model()
    check_fits(info, source.temporal_file, meta_model, architecture_fingerprint(meta_model))
    video_model = _attach(load_image_model(source, device, dtype), info, source.temporal_file)
    stored = find_weights(source).dtypes
    if dtype is None and len(stored) == 1:
        video_model.stored_dtype = TORCH_DTYPES.get(stored[0])
    return video_model


@alone
def load_temporal(image_model: Any, path: str | Path) -> InflatedModel:
    """Inflate `image_model` with the temporal weights of a file, or of a folder that has `temporal.safetensors`.

    Raises:
        InputError: no such file, damaged, or made for another architecture; `image_model` is unchanged then.
    """
    path = resolve_path(path)
    if path.is_dir():
        path = path / TEMPORAL_FILE if (path / TEMPORAL_FILE).is_file() else find_source(path).temporal_file
    info, _ = read_temporal_info(path)
    check_fits(info, path, image_model, _architecture_of(image_model))
    return _attach(image_model, info, path)


def _attach(image_model: Any, info: TemporalInfo, path: Path) -> InflatedModel:
    tensors = read_temporal_tensors(path)
    video_model = inflate(image_model, info.scheme, info.num_frames)
    try:
        video_model.load_temporal_state_dict(tensors)
    except InputError as error:
        deflate(video_model)
        raise InputError(f"{path}: {error}") from error
    return video_model


def _check_plain(image_model: Any) -> None:
    """Raise `InputError` if there is more in `image_model`, or less, than its config makes of it."""
    class_name = type(image_model).__name__
    if getattr(image_model, "peft_config", None):
        adapters = ", ".join(repr(name) for name in image_model.peft_config)
        raise InputError(
            f"this {class_name} has an adapter loaded ({adapters}), which a model folder cannot hold: fuse it "
            "(image_model.fuse_lora()) and unload it (image_model.unload_lora()), or unload it only, and save again"
        )
    if getattr(image_model.config, "encoder_hid_dim_type", None) == "ip_image_proj":
        raise InputError(
            f"this {class_name} holds an IP-Adapter, which a model folder cannot hold: "
            "unload it (pipeline.unload_ip_adapter()) and save again"
        )
    own, described = set(image_model.state_dict()), set(_plain(image_model).state_dict())
    for names, what in ((own - described, "more weights than"), (described - own, "fewer weights than")):
        if names:
            raise InputError(
                f"this {class_name} has {what} its config describes (the first is {min(names)!r}), as after quantising "
                "it or fusing its projections: undo that and save again, or save the temporal weights alone "
                "(inflate.checkpoint.save_temporal)"
            )


def _plain(image_model: Any) -> Any:
    return meta_image_model(type(image_model), image_model.config)


def _architecture_of(image_model: Any) -> str:
    """By config, so that adapters a user has loaded into the model do not count."""
    return architecture_fingerprint(_plain(image_model))


def _info(video_model: InflatedModel, weights: str) -> TemporalInfo:
    return TemporalInfo(
        scheme=video_model.scheme,
        num_frames=video_model.num_frames,
        image_model_class=type(video_model.image_model).__name__,
        fingerprint=_architecture_of(video_model.image_model),
        weights_fingerprint=weights,
    )
