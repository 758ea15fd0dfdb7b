"""Folders in, folders out: convert, deflate and inspect, without ever holding the image weights in memory.

Where the plan of an architecture is kept (``inflate.checkpoint.plans``), headers are all that is read, and neither
torch nor diffusers is imported.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inflate.checkpoint.fingerprint import shapes_fingerprint, tensors_fingerprint, weights_fingerprint
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.plans import Plan, keep_plan, plan_path, read_plan, wanted
from inflate.checkpoint.source import (
    Source,
    Weights,
    check_weights,
    find_source,
    find_weights,
    index_names,
    shapes_of,
)
from inflate.checkpoint.temporal import TemporalInfo, check_made_for, read_temporal_header, read_temporal_info
from inflate.checkpoint.writing import check_destination, copy_file, files_below, new_folder, write_model
from inflate.components import DIFFUSERS_STEM, files_by_variant
from inflate.errors import InputError
from inflate.figures import Report

if TYPE_CHECKING:
    from torch import Tensor

    from inflate.checkpoint.recording import Makers
    from inflate.schemes import Scheme


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote."""

    destination: Path
    temporal_file: Path
    num_files_copied: int
    report: Report
    rewritten: bool = False  # image weights of a single file or a pickle, now in a model's folder

    def to_json(self) -> str:
        """All of it as indented JSON."""
        values = {
            "destination": str(self.destination),
            "temporal_file": str(self.temporal_file),
            "num_files_copied": self.num_files_copied,
            "rewritten": self.rewritten,
            "report": self.report.as_dict(),
        }
        return json.dumps(values, indent=2)


@dataclass(frozen=True)
class Inspection:
    """What is in a model's folder, or in a single file."""

    folder: Path  # or the file
    image_model_class: str
    variant: str | None
    dtypes: tuple[str, ...]
    image_bytes: int
    fingerprint: str
    temporal: dict[str, Any] | None  # header of the temporal file, None for an image model
    report: Report  # of the scheme in the temporal file, or of the scheme asked for
    noise: str = ""  # what a single file says of its prediction and noise, in words

    def to_json(self) -> str:
        """All of it as indented JSON."""
        return json.dumps({**asdict(self), "folder": str(self.folder), "report": self.report.as_dict()}, indent=2)


def convert(
    source: str | Path,
    destination: str | Path,
    scheme: "str | Scheme" = "make-a-video",
    num_frames: int = 16,
    temporal_only: bool = False,
    force: bool = False,
    config: str | Path | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    hard_link: bool = False,
    prediction: str = "",
) -> Conversion:
    """Make an inflated model's folder of an image model's, of a whole pipeline's, or of a single file.

    Every file of a folder is copied byte for byte; `temporal.safetensors`, with new layers that change nothing yet, is
    written beside the image model's config. The image weights are compared with the config by their headers and never
    loaded. Only those of a single file or a pickle are rewritten, values and dtypes kept, as a model folder's.

    Args:
        source: whatever `find_source` finds an image model in; the three arguments from `config` on are for it.
        destination: the folder to make. It appears when it is complete.
        scheme: which temporal layers.
        num_frames: frames of a clip in training.
        temporal_only: write `temporal.safetensors` alone.
        force: replace a model folder that is there.
        config: for a single file: the config.json of its image model, or a folder with it.
        variant: which of a folder's weights; those of other variants are left out then.
        allow_pickle: read weights from a pickle where there are no others.
        hard_link: large files become second names of the source's, as `copy_file` says; for weights nobody writes into.
        prediction: for a single file: what its network predicts, "epsilon" or "v_prediction". Where it is given, or the
            file itself says it (`v_pred`, `ztsnr`, modelspec), the scheduler goes beside the network.

    Raises:
        InputError: bad input, contradictions about what is predicted, or a full disk; nothing has been written then.
    """
    scheme, destination = _checked_scheme(scheme, num_frames), Path(destination).expanduser()
    found = _not_inflated(find_source(source, config, variant, allow_pickle))
    check_apart(found.root, destination)
    check_destination(destination, force)
    weights = find_weights(found)
    plan, layers, kept = _plan(found, weights, scheme, num_frames)
    scheduler = _scheduler_of(found, prediction)
    rewritten, fingerprint = _rewritten(found, weights, plan)
    if temporal_only:
        rewritten = None
    copied = [] if temporal_only else files_to_copy(found, weights)
    copied_bytes = 0 if hard_link else sum((found.root / path).stat().st_size for path in copied)
    num_bytes = 4 * plan.report.new_parameters + (0 if rewritten is None else weights.num_bytes) + copied_bytes
    temporal = (Path() if temporal_only else found.folder.relative_to(found.root)) / TEMPORAL_FILE
    # New layers are made anew as easily as files are copied: neither is waited for until the disk has it.
    with new_folder(destination, force, num_bytes, [*copied, temporal]) as partial:
        with _beside(layers is None, partial / temporal, plan, fingerprint):
            for path in copied:
                copy_file(found.root / path, partial / path, hard_link)
        if rewritten is not None:
            write_model((partial / temporal).parent, found.config, rewritten, scheduler)
        recorded = None if layers is None else _write_layers(partial / temporal, plan, layers, fingerprint, kept)
    _keep(recorded, found, num_frames, kept)
    return Conversion(destination, destination / temporal, len(copied), plan.report, rewritten is not None)


def _plan(
    found: Source, weights: Weights, scheme: "str | Scheme", num_frames: int
) -> "tuple[Plan, Makers | None, Path | None]":
    """The plan for weights that fit it, new layers where only torch can make them, and where the plan is to be kept."""
    kept = plan_path(found, scheme, num_frames) if isinstance(scheme, str) and wanted() else None
    plan = read_plan(kept)
    if plan is None or plan.starts is None:
        return *_planned(found, weights, scheme, num_frames), kept
    check_weights(found, weights, plan.shapes)
    return plan, None, kept


def _planned(found: Source, weights: Weights, scheme: "str | Scheme", num_frames: int) -> "tuple[Plan, Makers]":
    """The plan of an image model, which is built without weights and compared with them; and its new layers."""
    import torch

    from inflate.checkpoint.temporal import entries_of
    from inflate.inflater import find_sites, report, resolve_scheme, temporal_layer_makers

    scheme = resolve_scheme(scheme)
    image_model = found.meta_model()
    shapes = shapes_of(image_model)
    check_weights(found, weights, shapes)
    what = report(image_model, scheme, num_frames)
    layers = temporal_layer_makers(find_sites(image_model, scheme), num_frames, image_model)
    with torch.device("meta"):
        tensors = {f"{key}.{name}": tensor for key, make in layers for name, tensor in make().state_dict().items()}
    info = TemporalInfo(scheme, num_frames, found.class_name, shapes_fingerprint(shapes), "")
    return Plan(shapes, what, info.to_metadata(), entries_of(tensors)), layers


def _rewritten(found: Source, weights: Weights, plan: Plan) -> "tuple[dict[str, Tensor] | None, str]":
    """The weights of a single file or a pickle, None for a folder's; and the fingerprint of either."""
    if weights.renamed is None:
        return None, weights_fingerprint(weights)
    from inflate.checkpoint.reading import read_tensors

    tensors = read_tensors(found, weights, plan.shapes)
    return tensors, tensors_fingerprint(tensors)


def _keep(plan: Plan | None, found: Source, num_frames: int, kept: Path | None) -> None:
    """Keep a plan by the name of its scheme, and by the scheme's fields, which whoever looks at what was made knows."""
    if plan is not None:
        for path in (kept, plan_path(found, plan.metadata["scheme_fields"], num_frames)):
            keep_plan(path, plan)


@contextmanager
def _beside(planned: bool, path: Path, plan: Plan, fingerprint: str) -> Iterator[None]:
    """Write the temporal file by the plan while files are copied inside the block, if it is ``planned``."""
    if not planned:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(plan.write_layers, path, fingerprint)
        yield
        writing.result()


def _write_layers(path: Path, plan: Plan, layers: "Makers", fingerprint: str, kept: Path | None) -> Plan | None:
    """The temporal file, by torch; returns the plan if it is to be kept."""
    from inflate.checkpoint.recording import record_starts, seeded
    from inflate.checkpoint.temporal import write_new_layers

    metadata = plan.metadata | {"weights_fingerprint": fingerprint}
    if kept is None:
        write_new_layers(path, layers, metadata)
        return None
    with seeded():
        write_new_layers(path, layers, metadata)
    return replace(plan, starts=record_starts(layers))


def _checked_scheme(scheme: "str | Scheme", num_frames: int) -> "str | Scheme":
    """A name stays one as long as there is no torch, which schemes need: a plan may be there for it."""
    if num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
    if wanted():
        return scheme
    from inflate.schemes import resolve_scheme

    return resolve_scheme(scheme)


def _scheduler_of(found: Source, prediction: str) -> dict[str, Any] | None:
    """The config of the scheduler that a single file's UNet was trained under, where the file or the user says it."""
    if found.single_file is None or "UNet" not in found.class_name:
        if prediction:
            raise InputError(
                f"--prediction (prediction=) goes with the single file of a UNet, and {found.root} is none; what it "
                "predicts stands in its scheduler's folder"
            )
        return None
    return found.single_file.noise.scheduler(found.root, prediction)


def _not_inflated(found: Source) -> Source:
    if found.temporal_file.exists():
        raise InputError(
            f"{found.folder} is inflated already: it has {TEMPORAL_FILE}; run 'inflate deflate' on it first"
        )
    return found


def deflate_folder(source: str | Path, destination: str | Path, force: bool = False) -> int:
    """Undo `convert`: copy every file of `source` but the temporal weights, byte for byte; returns how many.

    Raises:
        InputError: `source` is not an inflated folder, `destination` is taken, or the disk is full.
    """
    destination = Path(destination).expanduser()
    found = find_source(source)
    if not found.temporal_file.is_file():
        raise InputError(f"{found.folder} is not inflated: it has no {TEMPORAL_FILE}")
    check_apart(found.root, destination)
    files = [path for path in files_below(found.root) if found.root / path != found.temporal_file]
    num_bytes = sum((found.root / path).stat().st_size for path in files)
    with new_folder(destination, force, num_bytes, files) as partial:
        for path in files:
            copy_file(found.root / path, partial / path)
    return len(files)


def inspect(
    source: str | Path,
    scheme: "str | Scheme" = "make-a-video",
    num_frames: int = 16,
    config: str | Path | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> Inspection:
    """What is in a folder or a single file, from headers alone; for an image model, what `scheme` would add.

    `config`, `variant` and `allow_pickle` are those of `find_source`.

    Raises:
        InputError: not an image model, weights that do not fit, or temporal weights of another architecture.
    """
    found = find_source(source, config, variant, allow_pickle)
    weights, scheme = find_weights(found), _checked_scheme(scheme, num_frames)
    header = read_temporal_header(found.temporal_file) if found.temporal_file.exists() else None
    asked: str | Scheme = scheme if header is None else header.metadata.get("scheme_fields", "")
    frames = str(num_frames) if header is None else header.metadata.get("num_frames", "")
    kept = plan_path(found, asked, frames) if isinstance(asked, str) and wanted() else None
    plan = read_plan(kept)
    if plan is None:
        image_model = found.meta_model()
        shapes = shapes_of(image_model)
    else:
        image_model, shapes = None, plan.shapes
    check_weights(found, weights, shapes)
    fingerprint = shapes_fingerprint(shapes)
    temporal = None
    if header is not None:
        made_for = header.metadata.get("image_model_class", ""), header.metadata.get("fingerprint", "")
        check_made_for(made_for, found.temporal_file, found.class_name, fingerprint)
        temporal = {**header.metadata, "tensors": len(header.tensors)}
    if plan is None:
        plan = Plan(shapes, _report(image_model, scheme, num_frames, found.temporal_file))
        keep_plan(kept, plan)
    return Inspection(
        folder=found.folder,
        image_model_class=found.class_name,
        variant=weights.variant,
        dtypes=weights.dtypes,
        image_bytes=weights.num_bytes,
        fingerprint=fingerprint,
        temporal=temporal,
        report=plan.report,
        noise="" if found.single_file is None else found.single_file.noise.words(),
    )


def _report(image_model: Any, scheme: "str | Scheme", num_frames: int, temporal_file: Path) -> Report:
    """Of the scheme in a temporal file, where there is one, or of that which was asked for."""
    from inflate.inflater import report

    if temporal_file.exists():
        info, _ = read_temporal_info(temporal_file)
        scheme, num_frames = info.scheme, info.num_frames
    return report(image_model, scheme, num_frames)


def files_to_copy(found: Source, weights: Weights) -> list[Path]:
    """The files of a folder that go into a new one, relative to it: all, but for weights that will not be read there.

    Those are other variants than the one that was asked for, and pickles, whose weights are rewritten.
    """
    if found.single_file is not None:
        return []
    left_out: set[str] = set()
    for suffix in ("safetensors", "bin"):
        for variant, paths in files_by_variant(found.folder, DIFFUSERS_STEM, suffix).items():
            if weights.renamed is not None or (found.variant is not None and variant != found.variant):
                left_out |= {path.name for path in paths} | set(index_names(variant, suffix))
    folder = found.folder.relative_to(found.root)
    return [path for path in files_below(found.root) if path.parent != folder or path.name not in left_out]


def check_apart(source: Path, destination: Path) -> None:
    """Raise `InputError` if one folder is the other, or lies in it."""
    here, there = source.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"{destination} and {source} must be separate folders, neither inside the other")
