"""Published measures of folders of videos, each with its protocol in the result file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.evaluate.options import Device, Dtype, Json, Quiet, check_asked, progress_bar, write_json
from inflate.errors import InputError

if TYPE_CHECKING:
    from inflate.evaluate.clips import ClipFolder
    from inflate.evaluate.results import Result
    from inflate.evaluate.videos import Effort

Made = Annotated[Path, typer.Argument(help="Videos to measure: a folder, table or shard, or clips as .npy.")]
Real = Annotated[Path, typer.Option("--real", help="Videos to hold them against, likewise.")]
ClipFrames = Annotated[int, typer.Option("--frames", help="Frames of a clip.")]
Stride = Annotated[int, typer.Option(help="Take every so manieth frame of a video.")]
Start = Annotated[str, typer.Option(help="Where in a video clips begin: first, middle or random.")]
PerVideo = Annotated[int, typer.Option("--clips-per-video", help="Clips of each video; more than one needs random.")]
Clips = Annotated[int | None, typer.Option(help="At most so many videos of each set, drawn; default: all.", min=2)]
Side = Annotated[int | None, typer.Option("--size", help="Side in pixels that frames are cut and resized to first.")]
Resize = Annotated[str, typer.Option(help="How: lanczos, bicubic, bilinear, area, or cd-fvd.")]
RealSplit = Annotated[str, typer.Option("--split", help="Of the real set: all, train or test; whole videos.")]
Draws = Annotated[int, typer.Option("--resamples", help="Bootstrap draws of videos for the interval; 0: none.", min=0)]
Batch = Annotated[int, typer.Option("--batch-size", help="Clips in one call of the network.", min=1)]
Seed = Annotated[int, typer.Option(help="Draws clips, subsets and resamples.", min=0, max=2**63 - 1)]
Preprocessing = Annotated[
    str, typer.Option(help="styleganv or videogpt (I3D), cd-fvd or imagenet (VideoMAE); default: the first of them.")
]
VideoNetwork = Annotated[
    str,
    typer.Option(
        "--network",
        help="i3d_torchscript.pt by its path, VideoMAE's folder, .pth or repository; or, by another name than FVD, "
        "efficientnet-lite0 or bundled:clip. None is fetched unasked.",
    ),
]
Covariance = Annotated[
    str, typer.Option(help="biased (StyleGAN-V, cd-fvd) or unbiased (VideoGPT); default: as the preprocessing's.")
]


def fvd(
    made: Made,
    real: Real,
    network: VideoNetwork = "",
    preprocessing: Preprocessing = "",
    covariance: Covariance = "",
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips_per_video: PerVideo = 1,
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    split: RealSplit = "all",
    resamples: Draws = 200,
    batch_size: Batch = 8,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Fréchet video distance: of I3D or VideoMAE features it is FVD, of others it is named after them."""
    from inflate.evaluate.choosing import video_network
    from inflate.evaluate.videos import frechet_video

    check_asked(json_file)
    sets = _two(made, real, split, clips, cut_as(frames, stride, start, clips_per_video, size, resize, seed))
    features = video_network(_asked(network), preprocessing, *place_of(device, dtype))
    biased = _biased(covariance, features.preprocessing)
    with effort_of(sets, resamples, batch_size, dtype, quiet) as effort:
        result = frechet_video(*sets, features, effort, biased)
    tell(result, features.weights.sentence(), json_file)


def kvd(
    made: Made,
    real: Real,
    network: VideoNetwork = "",
    preprocessing: Preprocessing = "",
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips_per_video: PerVideo = 1,
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    split: RealSplit = "all",
    resamples: Draws = 200,
    batch_size: Batch = 8,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Kernel video distance: the unbiased polynomial MMD of the same features."""
    from inflate.evaluate.choosing import video_network
    from inflate.evaluate.videos import kernel_video

    check_asked(json_file)
    sets = _two(made, real, split, clips, cut_as(frames, stride, start, clips_per_video, size, resize, seed))
    features = video_network(_asked(network), preprocessing, *place_of(device, dtype))
    with effort_of(sets, resamples, batch_size, dtype, quiet) as effort:
        result = kernel_video(*sets, features, effort)
    tell(result, features.weights.sentence(), json_file)


def fid(
    made: Made,
    real: Real,
    network: Annotated[
        str,
        typer.Option(
            help="pt_inception-2015-12-05-6726825d.pth by its path, or Inception as TorchScript; or, by another name "
            "than FID, efficientnet-lite0 or bundled:clip. None is fetched unasked."
        ),
    ] = "",
    preprocessing: Annotated[str, typer.Option(help="torchmetrics (antialiasing) or tensorflow (none).")] = "",
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    split: RealSplit = "all",
    resamples: Draws = 200,
    batch_size: Batch = 8,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Fréchet distance of single frames: of Inception's features it is FID, of others it is named after them."""
    from inflate.evaluate.choosing import picture_network
    from inflate.evaluate.videos import frechet_pictures

    check_asked(json_file)
    sets = _two(made, real, split, clips, cut_as(frames, stride, start, 1, size, resize, seed))
    features = picture_network(_asked(network), preprocessing, *place_of(device, dtype))
    with effort_of(sets, resamples, batch_size, dtype, quiet) as effort:
        result = frechet_pictures(*sets, features, effort)
    tell(result, features.weights.sentence(), json_file)


def inception_score(
    made: Made,
    network: Annotated[str, typer.Option(help="c3d_ucf101.pt or another classifier of clips, as TorchScript.")] = "",
    pixels: Annotated[str, typer.Option(help="What it takes: bytes (0 to 255), unit (0 to 1), signed.")] = "bytes",
    splits: Annotated[int, typer.Option(help="Parts that the score is the mean over.", min=1)] = 10,
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    resamples: Draws = 200,
    batch_size: Batch = 8,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Inception Score of clips under a classifier that you bring."""
    from inflate.evaluate.scripted import Classifier
    from inflate.evaluate.videos import inception

    check_asked(json_file)
    folder = one_set(made, clips, cut_as(frames, stride, start, 1, size, resize, seed))
    classifier = Classifier(Path(_asked(network)), pixels, *place_of(device, dtype))
    with effort_of([folder], resamples, batch_size, dtype, quiet) as effort:
        result = inception(folder, classifier, effort, splits)
    tell(result, classifier.weights.sentence(), json_file)


def _asked(network: str) -> str:
    if not network:
        raise InputError(
            "name a feature network with --network: a file or folder of yours, for none is fetched unasked; "
            "docs/evaluation.md says where the published ones are, and which need no download"
        )
    return network


def place_of(device: str | None, dtype: str) -> tuple[Any, Any]:
    """Where networks run, and their number format, both checked."""
    import torch

    from inflate.cli.checks import check_device, check_dtype

    return check_device(device) or ("cuda" if torch.cuda.is_available() else "cpu"), check_dtype(dtype)


def _biased(covariance: str, preprocessing: str) -> bool:
    if covariance not in ("", "biased", "unbiased"):
        raise InputError(f"--covariance is {covariance!r}; use biased or unbiased")
    return covariance == "biased" if covariance else preprocessing in ("styleganv", "cd-fvd")


def cut_as(frames: int, stride: int, start: str, per_video: int, size: int | None, resize: str, seed: int) -> Any:
    """How clips are cut."""
    from inflate.evaluate.clips import ClipProtocol

    return ClipProtocol(frames, stride, start, per_video, size, resize, seed)  # pyright: ignore[reportArgumentType]  # it checks the words


def one_set(made: Path, clips: int | None, protocol: Any) -> "ClipFolder":
    """The clips of one folder."""
    from inflate.evaluate.clips import ClipFolder

    return ClipFolder(made, protocol, clips)


def _two(made: Path, real: Path, split: str, clips: int | None, protocol: Any) -> "tuple[ClipFolder, ClipFolder]":
    """The made and the real clips."""
    from inflate.evaluate.clips import ClipFolder

    return ClipFolder(made, protocol, clips), ClipFolder(real, protocol, clips, split)


@contextmanager
def effort_of(
    sets: "Sequence[ClipFolder]", resamples: int, batch_size: int, dtype: str, quiet: bool
) -> "Iterator[Effort]":
    """A bar over the clips of some sets, and how much is done."""
    from inflate.evaluate.videos import Effort

    advance: Callable[[], None]
    with progress_bar("clips", sum(len(folder) * folder.protocol.clips_per_video for folder in sets), quiet) as advance:
        yield Effort(batch_size, resamples, dtype, advance)


def tell(result: "Result", weights: str, json_file: Path | None) -> None:
    """Print a result, and write it where that was asked for."""
    typer.echo(result.sentence())
    if weights:
        typer.echo(f"weights: {weights}")
    for sentence in result.warnings:
        typer.echo(f"warning: {sentence}", err=True)
    write_json(json_file, result.as_dict())
