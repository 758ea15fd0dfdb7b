"""Measures of folders of videos: Fréchet and kernel distances, Inception Scores, CLIPSIM, and what needs no other set.

Of each set only features are kept; one batch of clips is in memory. Every function gives a :class:`Result` with its
protocol inside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from inflate.cancelling import check_cancelled
from inflate.errors import InputError
from inflate.evaluate.clip_networks import ClipNetwork
from inflate.evaluate.clips import Clip, ClipFolder
from inflate.evaluate.estimates import (
    Extrapolated,
    Interval,
    Rows,
    Statistic,
    bootstrap,
    extrapolate,
    inception_score,
    kernel_distance,
    mean_of,
)
from inflate.evaluate.frechet import frechet_of_samples
from inflate.evaluate.over_time import (
    FLOW,
    as_column,
    clip_similarity,
    frame_consistency,
    motion_magnitude,
    warping_error,
)
from inflate.evaluate.results import ENOUGH_CLIPS, Result
from inflate.evaluate.weights import Weights

OnClip = Callable[[], None]


class FeatureNetwork(Protocol):
    """A network of clips or pictures, with what a result says of it; ``published`` is of the file people mean."""

    name: str
    weights: Weights
    preprocessing: str
    published: bool

    def __call__(self, clips: Tensor, /) -> Tensor:
        """Clips uint8 ``(B, F, H, W, 3)``, or pictures ``(N, H, W, 3)``, to rows ``(B, D)``."""
        ...


@dataclass(frozen=True)
class Effort:
    """How much is done: clips in one call of a network, bootstrap draws, and what is told after each clip."""

    batch_size: int = 8
    resamples: int = 200
    dtype: str = "float32"
    on_clip: OnClip = lambda: None


def frechet_video(
    made: ClipFolder, real: ClipFolder, network: FeatureNetwork, effort: Effort, biased: bool = False
) -> Result:
    """FVD with the published I3D or VideoMAE; with any other network a Fréchet video distance that is named by it.

    ``biased``: covariances over N (StyleGAN-V, cd-fvd) and not over N - 1 (VideoGPT).
    """
    sets = [features_of(folder, network, effort) for folder in (made, real)]
    measure = _named("fvd", "frechet-video-distance", network)
    return _distance(measure, made, real, network, effort, sets, _frechet(biased), _covariance(biased))


def kernel_video(made: ClipFolder, real: ClipFolder, network: FeatureNetwork, effort: Effort) -> Result:
    """KVD: the unbiased kernel distance of the same features."""
    sets = [features_of(folder, network, effort) for folder in (made, real)]
    measure = _named("kvd", "kernel-video-distance", network)
    kernel = {"kernel": "(x·y / D + 1)^3", "estimator": "unbiased, all pairs"}
    return _distance(measure, made, real, network, effort, sets, kernel_distance, kernel, extrapolates=False)


def frechet_pictures(made: ClipFolder, real: ClipFolder, network: FeatureNetwork, effort: Effort) -> Result:
    """FID over the clips' frames, covariances over N - 1 as everywhere for FID."""
    sets = [features_of(folder, network, effort, by_frame=True) for folder in (made, real)]
    measure = _named("fid", "frechet-image-distance", network)
    return _distance(measure, made, real, network, effort, sets, _frechet(False), _covariance(False))


def inception(made: ClipFolder, network: FeatureNetwork, effort: Effort, splits: int = 10) -> Result:
    """The Inception Score of clips under a classifier, over ``splits`` parts."""
    rows = features_of(made, network, effort)
    if len(rows.values) < splits:
        raise InputError(f"there are {len(rows.values)} clips for {splits} parts; lower --splits, or make more clips")
    whole: Statistic = lambda values: inception_score(values)[0]  # noqa: E731  # one line of the module's other names
    value, deviation = inception_score(rows.values, splits)
    estimator = {"splits": splits, "outputs": getattr(network, "outputs", "") or "probabilities"}
    protocol = _protocol(made, None, _described(network, rows, effort), estimator)
    result = _result(f"is[{_tag(network)}]", value, protocol, [rows], whole, effort, made, seed=made.protocol.seed)
    more = {"deviation_over_splits": deviation, "over_one_part": whole(rows.values)}
    # The interval is of the score over one part; it is moved to where the mean over parts is.
    return _with(result, more=more, interval=_around(value, result.interval))


def clipsim(made: ClipFolder, network: ClipNetwork, effort: Effort) -> Result:
    """CLIPSIM: how near frames are to what is said of their video."""
    left: list[str] = []

    def one(clip: Clip) -> float | None:
        if not clip.caption:
            left.append(clip.video)
            return None
        return clip_similarity(_embedded(network, clip, effort), network.texts([clip.caption])[0])

    rows = per_clip(made, one, effort)
    if not rows.videos:
        raise InputError(f"{made.path} says nothing of its videos; put clip.txt beside clip.mp4, or a metadata.jsonl")
    warnings = [f"{len(left)} clips have no caption and are left out"] if left else []
    return _mean(f"clipsim[{network.name}]", made, rows, _clip_described(network, effort), effort, warnings)


def consistency(made: ClipFolder, network: ClipNetwork, effort: Effort) -> Result:
    """Frame consistency: mean cosine of neighbouring frames' CLIP embeddings."""
    rows = per_clip(made, lambda clip: frame_consistency(_embedded(network, clip, effort)), effort)
    return _mean(f"frame-consistency[{network.name}]", made, rows, _clip_described(network, effort), effort)


def warping(made: ClipFolder, effort: Effort) -> Result:
    """Warping error under optical flow, pixels in [0, 1]."""
    rows = per_clip(made, lambda clip: warping_error(clip.frames), effort)
    return _mean("warping-error[dis]", made, rows, {"flow": FLOW}, effort)


def motion(made: ClipFolder, effort: Effort) -> Result:
    """Mean length of optical flow between neighbouring frames, in shares of the diagonal."""
    rows = per_clip(made, lambda clip: motion_magnitude(clip.frames), effort)
    return _mean("motion-magnitude[dis]", made, rows, {"flow": FLOW}, effort)


def features_of(folder: ClipFolder, network: FeatureNetwork, effort: Effort, by_frame: bool = False) -> Rows:
    """Features of all clips of a folder, or of all their frames.

    Raises:
        InputError: no clip could be read; the sentence says why the first one could not.
    """
    made: list[Tensor] = []
    videos: list[str] = []
    for batch in _batches(folder, effort):
        clips = torch.stack([torch.from_numpy(clip.frames) for clip in batch])
        frames = clips.shape[1] if by_frame else 1
        flat = clips.flatten(0, 1) if by_frame else clips
        made += [network(part) for part in flat.split(max(1, effort.batch_size))]
        videos += [clip.video for clip in batch for _ in range(frames)]
    if not made:
        raise InputError(_nothing(folder))
    return Rows(torch.cat(made), tuple(videos))


def per_clip(folder: ClipFolder, measure: Callable[[Clip], float | None], effort: Effort) -> Rows:
    """One figure for each clip, None for a clip that has none."""
    found, videos = [], []
    for clip in folder:
        check_cancelled()
        value = measure(clip)
        if value is not None:
            found.append(value)
            videos.append(clip.video)
        effort.on_clip()
    if not folder.taken:
        raise InputError(_nothing(folder))
    return Rows(as_column(found), tuple(videos))


def _batches(folder: ClipFolder, effort: Effort) -> Iterator[list[Clip]]:
    """Clips of one shape together, at most a batch of them in memory."""
    held: list[Clip] = []
    for clip in folder:
        check_cancelled()
        if held and (len(held) == effort.batch_size or held[0].frames.shape != clip.frames.shape):
            yield held
            held = []
        held.append(clip)
        effort.on_clip()
    if held:
        yield held


def _nothing(folder: ClipFolder) -> str:
    why = f": {folder.left_out[0][0]} ({folder.left_out[0][1]})" if folder.left_out else ""
    return f"{folder.path} gives no clip{why}; give shorter clips with --frames or --stride, or other videos"


def _embedded(network: ClipNetwork, clip: Clip, effort: Effort) -> Tensor:
    frames = torch.from_numpy(np.ascontiguousarray(clip.frames))
    return torch.cat([network.pictures(part) for part in frames.split(max(1, effort.batch_size))])


def _frechet(biased: bool) -> Statistic:
    return lambda made, real: frechet_of_samples(made, real, biased=biased)


def _covariance(biased: bool) -> dict[str, Any]:
    return {"covariance": "over N" if biased else "over N - 1", "arithmetic": "float64"}


def _tag(network: FeatureNetwork) -> str:
    return network.name if network.published or network.weights.packaged else f"{network.name}:{network.weights.short}"


def _named(known: str, other: str, network: FeatureNetwork) -> str:
    if network.published:
        return f"{known}[{network.name},{network.preprocessing}]"
    return f"{other}[{_tag(network)}]"


def _described(network: FeatureNetwork, rows: Rows, effort: Effort) -> dict[str, Any]:
    return {
        "name": network.name,
        "weights": network.weights.source,
        "sha256": network.weights.sha256,
        "published": network.weights.published or None,
        "preprocessing": network.preprocessing,
        "dtype": effort.dtype,
        "width": rows.values.shape[1],
    }


def _clip_described(network: ClipNetwork, effort: Effort) -> dict[str, Any]:
    weights = network.weights
    said = {"name": network.name, "weights": weights.source, "sha256": weights.sha256, "dtype": effort.dtype}
    return {**said, "published": weights.published or None, "preprocessing": network.preprocessing}


def _protocol(
    made: ClipFolder, real: ClipFolder | None, network: dict[str, Any], estimator: dict[str, Any]
) -> dict[str, Any]:
    clip = made.protocol.as_dict()
    seed = clip.pop("seed")
    sets = {"made": made.facts(), "real": None if real is None else real.facts()}
    return {"network": network, "estimator": estimator, "clip": clip, **sets, "seed": seed}


def _distance(
    measure: str,
    made: ClipFolder,
    real: ClipFolder,
    network: FeatureNetwork,
    effort: Effort,
    sets: list[Rows],
    statistic: Statistic,
    estimator: dict[str, Any],
    extrapolates: bool = True,
) -> Result:
    protocol = _protocol(made, real, _described(network, sets[0], effort), estimator)
    value = statistic(*(rows.values for rows in sets))
    width = sets[0].values.shape[1]
    return _result(
        measure, value, protocol, sets, statistic, effort, made, real, width, extrapolates, made.protocol.seed
    )


def _mean(
    measure: str,
    made: ClipFolder,
    rows: Rows,
    network: dict[str, Any],
    effort: Effort,
    warnings: list[str] | None = None,
) -> Result:
    protocol = _protocol(made, None, network, {"mean": "over clips"})
    interval = bootstrap(mean_of, [rows], effort.resamples, made.protocol.seed)
    return Result(measure, mean_of(rows.values), protocol, interval, None, (*(warnings or []), *_of_containers(made)))


def _result(
    measure: str,
    value: float,
    protocol: dict[str, Any],
    sets: list[Rows],
    statistic: Statistic,
    effort: Effort,
    made: ClipFolder,
    real: ClipFolder | None = None,
    width: int = 0,
    extrapolates: bool = True,
    seed: int = 0,
) -> Result:
    interval = bootstrap(statistic, sets, effort.resamples, seed)
    beyond: Extrapolated | None = extrapolate(statistic, sets, width, seed) if extrapolates else None
    warnings = [*_of_numbers(made, real), *_of_containers(made)]
    if extrapolates and beyond is None:
        warnings.append(
            f"{min(len(rows.videos) for rows in sets)} rows are too few for a line in 1/N with features {width} wide, "
            "so nothing is extrapolated"
        )
    if real is not None:
        warnings += _of_two_sets(made, real)
    return Result(measure, value, protocol, interval, beyond, tuple(warnings))


def _of_numbers(made: ClipFolder, real: ClipFolder | None) -> list[str]:
    said = []
    for what, folder in (("made", made), ("real", real)):
        if folder is not None and folder.taken < ENOUGH_CLIPS:
            said.append(
                f"{folder.taken} {what} clips are fewer than {ENOUGH_CLIPS:,}: the figure is biased, and compares "
                "only at the same numbers of clips"
            )
    return said


def _of_containers(made: ClipFolder) -> list[str]:
    if not made.lossy:
        return []
    return [
        f"the made clips come from {', '.join(made.lossy)}: a round of lossy coding is measured along with them; keep "
        "frames as folders of PNG or as .npy"
    ]


def _of_two_sets(made: ClipFolder, real: ClipFolder) -> list[str]:
    rates = [folder.facts()["frame_rate"] for folder in (made, real)]
    if all(rates) and abs(rates[0] - rates[1]) > 0.01 * rates[1]:
        return [
            f"made clips have {rates[0]:g} frames a second and real ones {rates[1]:g}: at one --stride they do "
            "not last as long"
        ]
    return []


def _around(value: float, interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    reach = (interval.high - interval.low) / 2
    return Interval(value - reach, value + reach, interval.deviation, interval.level, interval.resamples)


def _with(result: Result, more: dict[str, Any], interval: Interval | None) -> Result:
    return Result(result.measure, result.value, result.protocol, interval, result.extrapolated, result.warnings, more)
