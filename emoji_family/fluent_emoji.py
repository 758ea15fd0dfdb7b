"""Microsoft's Fluent animated emoji as a data set: what ``inflate prepare fluent-emoji`` does.

The pictures come from LobeHub's npm packages (MIT), the captions from emojibase-data (MIT, from Unicode CLDR).
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import product, repeat
from pathlib import Path
from typing import Any

from emoji_family.captions import Caption, caption_key, find_caption, read_captions
from emoji_family.packages import Package, content_sha256, default_npm_cache, find_packages, pack_packages
from inflate.data.decode import fit_square
from inflate.data.reading.pictures import on_white, picture_at
from inflate.data.shards import Sample, metadata_row, write_metadata, write_shards, write_videofolder_clip
from inflate.data.split import has_skin_tone, is_test_name
from inflate.errors import InputError
from inflate.staging import put_in_place, staged
from inflate.workers import worker_pool

DATASET_FORMAT = "inflate-dataset-1"
CAPTION_PACKAGE = "emojibase-data"
PACKAGES = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "@lobehub/fluent-emoji-anim-1": "1.0.0",
    "@lobehub/fluent-emoji-anim-2": "1.0.0",
    "@lobehub/fluent-emoji-anim-3": "1.0.0",
    "@lobehub/fluent-emoji-anim-4": "1.0.0",
    CAPTION_PACKAGE: "17.0.0",
}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """What to write.

    ``skin_tones`` adds the variants with a skin tone; ``only`` keeps these code-point names; ``still_size`` makes
    stills smaller, on white (None keeps their bytes); ``videofolder`` also writes mp4 files.
    """

    skin_tones: bool = False
    only: tuple[str, ...] = ()
    still_size: int | None = None
    videofolder: bool = True
    workers: int = 2


def prepare_fluent_emoji(
    folder: Path,
    source: Path | None = None,
    npm_cache: Path | None = None,
    options: PrepareOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the data set to ``folder`` and return its summary, which is also ``folder/dataset.json``.

    The packages are taken from ``source`` (packed or unpacked) or, without one, packed by npm into ``npm_cache``. The
    folder appears whole or not at all. Raises ``InputError`` for an existing folder without ``force``, packages that
    are missing or broken, unknown names in ``only``, and a full disk.
    """
    options = options or PrepareOptions()
    report = progress or (lambda task, done, total: None)
    _check_target(folder, force)
    try:
        with staged(folder) as building:
            _check_target(folder, force)
            if source is not None:
                packages = find_packages(source, list(PACKAGES))
            else:
                packages = pack_packages(PACKAGES, npm_cache or default_npm_cache())
            summary = _build(packages, building / "new", building / "scratch", options, report)
            put_in_place(building / "new", folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder} ({error.strerror}); nothing was kept, free some space or name another folder"
        ) from error
    return summary


def _check_target(folder: Path, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise InputError(f"{folder} exists; name another folder, or use --force to replace it")
    if not (folder / "dataset.json").is_file():
        raise InputError(f"{folder} is not a data set of ours, so --force does not delete it; name another folder")


def _build(
    packages: dict[str, Package], target: Path, scratch: Path, options: PrepareOptions, report: Progress
) -> dict[str, Any]:
    scratch.mkdir()
    target.mkdir()
    report("reading packages", 0, len(packages))
    inputs: list[dict[str, str]] = []
    pictures: list[tuple[Package, dict[str, Path]]] = []
    captions: dict[str, Caption] = {}
    for done, package in enumerate(packages.values(), start=1):
        under = "en" if package.name == CAPTION_PACKAGE else "assets"
        found = package.files(under, scratch)
        if package.name == CAPTION_PACKAGE:
            found = {name: path for name, path in found.items() if name == "data.json"}
            captions = read_captions(found["data.json"].read_bytes() if found else b"")
        else:
            found = {name: path for name, path in found.items() if name.endswith(".webp")}
            pictures.append((package, found))
        sha256 = content_sha256(found)
        inputs.append({"package": package.name, "version": package.version, "sha256": sha256})
        report("reading packages", done, len(packages))
    clips, stills = _collect(pictures, captions, options)
    if options.videofolder and clips:
        _write_videofolder(clips, target / "videofolder", options.workers, report)
    shards = write_shards(clips, target / "shards")
    (target / "shards").mkdir(exist_ok=True)
    _write_stills(stills, target / "stills", options.still_size, report)
    summary = {
        "format": DATASET_FORMAT,
        "name": "fluent-emoji",
        "licence": "MIT",
        "inputs": inputs,
        "options": {key: value for key, value in asdict(options).items() if key != "workers"},
        "shards": [path.name for path in shards],
        "counts": _counts(clips, stills),
        "without_caption": sorted({s.key for s in (*clips, *stills) if not s.metadata["caption"]}),
    }
    (target / "NOTICE").write_text(
        files("emoji_family").joinpath("FLUENT_EMOJI_NOTICE.txt").read_text("utf-8"), "utf-8"
    )
    (target / "dataset.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return summary


def _collect(
    pictures: list[tuple[Package, dict[str, Path]]], captions: dict[str, Caption], options: PrepareOptions
) -> tuple[list[Sample], list[Sample]]:
    """One clip and one still for each thing that has them; a still in the animation packages repeats the 3D one.

    The packages spell sixteen things twice (``26a7`` and ``26a7-fe0f``, ``0039-fe0f-20e3`` and ``39-fe0f-20e3``). Both
    spellings are one sample, in the test split if the name of either is.
    """
    wanted = {caption_key(name) for name in options.only}
    spellings: dict[str, set[str]] = {}
    for _, found in pictures:
        for file_name in found:
            name = file_name.removesuffix(".webp")
            if caption_key(name) in wanted or (not wanted and (options.skin_tones or not has_skin_tone(name))):
                spellings.setdefault(caption_key(name), set()).add(name)
    clips: dict[str, Sample] = {}
    stills: dict[str, Sample] = {}
    for key, names in spellings.items():
        # The test spelling comes first, so that the name alone still tells the split.
        in_order = sorted(names, key=lambda name: (not is_test_name(name), name))
        for name, (package, found) in product(in_order, pictures):
            path = found.get(f"{name}.webp")
            if path is not None:
                kind = clips if _is_animated(path) else stills
                kind.setdefault(key, _sample(in_order[0], path, package, find_caption(name, captions)))
    unknown = sorted(name for name in options.only if caption_key(name) not in {*clips, *stills})
    if unknown:
        raise InputError(f"the packages have no emoji called {', '.join(unknown)}; names are code points such as 1f389")
    if not clips and not stills:
        raise InputError("the packages hold no pictures; pack them again")
    return sorted(clips.values(), key=_by_key), sorted(stills.values(), key=_by_key)


def _by_key(sample: Sample) -> str:
    return sample.key


def _is_animated(path: Path) -> bool:
    try:
        with picture_at(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except OSError as error:
        raise InputError(f"{path.name} is not a whole webp picture; pack its package again") from error


def _sample(name: str, path: Path, package: Package, caption: Caption | None) -> Sample:
    metadata = {
        "name": name,
        "caption": caption.text if caption else "",
        "keywords": list(caption.keywords) if caption else [],
        "loop": True,
        "licence": "MIT",
        "package": f"{package.name}@{package.version}",
    }
    return Sample(name, path, "test" if is_test_name(name) else "train", metadata)


def _write_videofolder(clips: Sequence[Sample], folder: Path, workers: int, report: Progress) -> None:
    report("writing videos", 0, len(clips))
    for done, _ in enumerate(_in_processes(clips, folder, workers), start=1):
        report("writing videos", done, len(clips))
    _write_tables(clips, folder, ".mp4")


def _in_processes(clips: Sequence[Sample], folder: Path, workers: int) -> Iterator[tuple[int, float]]:
    if workers <= 1:
        yield from (write_videofolder_clip(clip, folder) for clip in clips)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(write_videofolder_clip, clips, repeat(folder))


def _write_stills(stills: Sequence[Sample], folder: Path, size: int | None, report: Progress) -> None:
    for done, still in enumerate(stills, start=1):
        path = folder / still.split / f"{still.key}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        if size is None:
            shutil.copyfile(still.path, path)
        else:
            with picture_at(still.path) as image:
                fit_square(on_white(image), size, "pad").save(path, quality=90, method=6)
        if done % 50 == 0 or done == len(stills):
            report("writing stills", done, len(stills))
    _write_tables(stills, folder, ".webp")


def _write_tables(samples: Sequence[Sample], folder: Path, suffix: str) -> None:
    for split in sorted({sample.split for sample in samples}):
        rows = [metadata_row(sample, f"{sample.key}{suffix}") for sample in samples if sample.split == split]
        write_metadata(folder / split, rows)


def _counts(clips: Sequence[Sample], stills: Sequence[Sample]) -> dict[str, int]:
    things = {caption_key(sample.key): sample.split for sample in (*clips, *stills)}
    return {
        "clips_train": sum(clip.split == "train" for clip in clips),
        "clips_test": sum(clip.split == "test" for clip in clips),
        "stills_train": sum(still.split == "train" for still in stills),
        "stills_test": sum(still.split == "test" for still in stills),
        "things": len(things),
        "things_test": sum(split == "test" for split in things.values()),
    }
