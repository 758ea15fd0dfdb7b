"""``inflate evaluate fvd``, ``kvd``, ``is``, … on folders of made videos, and two results side by side."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inflate.cli.app import main
from inflate.evaluate import weights
from inflate.evaluate.clips import ClipFolder, ClipProtocol
from inflate.evaluate.frechet import frechet_of_samples
from inflate.evaluate.scripted import I3d
from inflate.evaluate.videos import Effort, features_of
from tests.evaluate.tiny_networks import TinyC3d, TinyI3d, TinyInception, moving, scripted, write_videos


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``made`` and ``real`` videos, which move alike and do not, and tiny networks."""
    folder = tmp_path_factory.mktemp("sets")
    write_videos(folder / "made", 5, step=1)
    write_videos(folder / "real", 6, step=3, split=True)
    scripted(folder / "i3d.pt", TinyI3d())
    scripted(folder / "c3d.pt", TinyC3d())
    scripted(folder / "inception.pt", TinyInception())
    return folder


def run(sets: Path, measure: str, *options: str, made: str = "made") -> dict[str, Any]:
    report = sets / f"{measure}.json"
    arguments = ["evaluate", measure, str(sets / made), *options, "--quiet", "--resamples", "8", "--json", str(report)]
    assert main(arguments) == 0
    return json.loads(report.read_text())


def test_fvd_with_its_protocol_inside(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--real", str(sets / "real"), "--network", str(sets / "i3d.pt"), "--frames", "10", "--split", "train")
    report = run(sets, "fvd", *options, "--seed", "3")
    digest = hashlib.sha256((sets / "i3d.pt").read_bytes()).hexdigest()
    assert report["measure"] == f"frechet-video-distance[i3d:{digest[:8]}]", "the hash is not the published one"
    said, folders = (
        report["protocol"],
        (ClipFolder(sets / "made", ClipProtocol(10)), ClipFolder(sets / "real", ClipProtocol(10), split="train")),
    )
    rows = [features_of(folder, I3d(sets / "i3d.pt"), Effort()).values for folder in folders]
    assert report["value"] == pytest.approx(frechet_of_samples(*rows, biased=True), rel=1e-6)
    assert said["network"] == {
        "name": "i3d",
        "weights": "i3d.pt",
        "sha256": digest,
        "published": None,
        "preprocessing": "styleganv",
        "dtype": "float32",
        "width": 16,
    }
    assert said["clip"]["num_frames"] == 10 and said["clip"]["stride"] == 1 and said["clip"]["resize"] == "none"
    assert (said["made"]["clips"], said["made"]["containers"]) == (5, [".mp4"])
    assert (said["real"]["split"], said["real"]["split_by"], said["real"]["clips"]) == ("train", "video", 4)
    assert said["estimator"]["covariance"] == "over N" and said["seed"] == 3
    assert report["interval"]["low"] < report["value"] < report["interval"]["high"]
    assert report["extrapolated_to_infinity"] is None
    printed = capsys.readouterr()
    assert "5 made clips are fewer than 2,048" in printed.err and "nothing is extrapolated" in printed.err
    assert "a round of lossy coding is measured along" in printed.err
    assert "not among the published files" in printed.out


def test_it_is_fvd_with_the_published_weights(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256((sets / "i3d.pt").read_bytes()).hexdigest()
    monkeypatch.setitem(weights.PUBLISHED, digest, "i3d_torchscript.pt")
    options = ("--real", str(sets / "real"), "--network", str(sets / "i3d.pt"), "--frames", "10")
    report = run(sets, "fvd", *options, "--preprocessing", "videogpt")
    assert report["measure"] == "fvd[i3d,videogpt]" and report["protocol"]["estimator"]["covariance"] == "over N - 1"
    assert run(sets, "kvd", *options)["measure"] == "kvd[i3d,styleganv]"


def test_a_set_is_at_no_distance_from_itself_and_the_measure_is_symmetric(sets: Path) -> None:
    network = ("--network", str(sets / "i3d.pt"), "--frames", "10", "--size", "24", "--resize", "bicubic")
    itself = run(sets, "fvd", "--real", str(sets / "made"), *network)
    assert itself["value"] == pytest.approx(0, abs=1e-6) and itself["protocol"]["clip"]["resize"] == "bicubic"
    there = run(sets, "fvd", "--real", str(sets / "real"), *network)
    back = run(sets, "fvd", "--real", str(sets / "made"), *network, made="real")
    assert there["value"] == pytest.approx(back["value"], rel=1e-9) and there["value"] > 1e-4


def test_many_short_clips_are_extrapolated(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, step in (("many", 1), ("others", 2)):
        np.save(sets / f"{name}.npy", np.stack([moving(number + 100 * step, 2, step, 8) for number in range(60)]))
    options = ("--real", str(sets / "others.npy"), "--network", str(sets / "inception.pt"), "--frames", "2")
    report = run(sets, "fid", *options, made="many.npy")
    beyond = report["extrapolated_to_infinity"]
    assert beyond["rows"][-1] == 120 and beyond["value"] < report["value"] and beyond["slope"] > 0
    assert report["measure"].startswith("frechet-image-distance[inception:")
    assert not any("lossy" in sentence for sentence in report["warnings"])
    assert "extrapolated to infinitely many clips" in capsys.readouterr().out


def test_is_of_a_classifier(sets: Path) -> None:
    report = run(sets, "is", "--network", str(sets / "c3d.pt"), "--splits", "2", "--frames", "10")
    assert report["measure"].startswith("is[c3d:") and 1 <= report["value"] <= 3
    assert report["protocol"]["estimator"] == {"splits": 2, "outputs": "probabilities"}
    assert report["deviation_over_splits"] >= 0 and report["protocol"]["real"] is None
    low, high = report["interval"]["low"], report["interval"]["high"]
    assert (low + high) / 2 == pytest.approx(report["value"])


def test_figures_of_each_clip(sets: Path) -> None:
    similar = run(sets, "clipsim", "--frames", "4")
    assert similar["measure"] == "clipsim[bundled:clip]" and -1 <= similar["value"] <= 1
    alike = run(sets, "consistency", "--frames", "4", "--start", "random")
    assert 0.5 < alike["value"] <= 1 and alike["protocol"]["clip"]["start"] == "random"
    assert run(sets, "warping", "--frames", "4")["value"] > 0


def test_motion_of_a_folder_beside_motion_of_a_family(sets: Path, tmp_path: Path) -> None:
    found = []
    for name in ("made", "real"):
        report = tmp_path / f"{name}.json"
        assert main(["evaluate", "motion", str(sets / name), "--frames", "6", "--quiet", "--json", str(report)]) == 0
        found.append(json.loads(report.read_text()))
    slow, fast = (report["value"] for report in found)
    assert found[0]["measure"] == "motion-magnitude[dis]" and fast > 2 * slow > 0


def test_videos_without_captions_have_no_clipsim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path / "made", 2)
    for text in (tmp_path / "made").glob("*.txt"):
        text.unlink()
    assert main(["evaluate", "clipsim", str(tmp_path / "made"), "--quiet", "--frames", "4"]) == 2
    assert "says nothing of its videos; put clip.txt beside clip.mp4" in capsys.readouterr().err


def test_results_are_compared_only_where_they_were_measured_alike(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ("--real", str(sets / "real"), "--network", str(sets / "i3d.pt"))
    files = []
    for name, options in (("a", ()), ("b", ()), ("c", ("--stride", "1", "--seed", "9")), ("d", ("--frames", "9"))):
        report = run(sets, "fvd", *network, *(options if "--frames" in options else ("--frames", "10", *options)))
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(report))
    capsys.readouterr()
    assert main(["evaluate", "compare", str(files[0]), str(files[1])]) == 0
    assert "difference 0" in capsys.readouterr().out
    assert main(["evaluate", "compare", str(files[0]), str(files[3])]) == 2
    error = capsys.readouterr().err
    assert "were measured differently: clip.num_frames (10 and 9); measure both alike" in error
    assert error.count("\n") == 1
    assert main(["evaluate", "compare", str(files[0]), str(files[2])]) == 2
    assert "seed (0 and 9)" in capsys.readouterr().err
    assert main(["evaluate", "compare", str(files[0]), str(files[3]), "--anyway"]) == 0
    printed = capsys.readouterr()
    assert "clip.num_frames is 10 and 9" in printed.err and printed.out.count("of made") == 2
    other = json.loads(files[1].read_text()) | {"measure": "kvd[i3d]"}
    files[1].write_text(json.dumps(other))
    assert main(["evaluate", "compare", str(files[0]), str(files[1])]) == 2
    assert "are different measures" in capsys.readouterr().err
    files[1].write_text('{"measure": "frechet"}')
    assert main(["evaluate", "compare", str(files[0]), str(files[1])]) == 2
    assert "is no result of inflate evaluate with a protocol inside" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "name a feature network with --network"),
        (("--network", "nowhere.pt"), "there is no nowhere.pt"),
        (("--network", "bundled:clip", "--split", "tset"), "--split is 'tset' (did you mean 'test'?)"),
        (("--network", "bundled:clip", "--covariance", "biassed"), "--covariance is 'biassed'; use biased or unbiased"),
        (("--network", "bundled:clip", "--frames", "99"), "gives no clip: v00 (12 frames, and a clip takes 99)"),
        (("--network", "bundled:clip", "--size", "2"), "--size is 2; give pixels from 8 to 8192"),
    ],
)
def test_bad_input_is_one_sentence(
    sets: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], sentence: str
) -> None:
    arguments = ["evaluate", "fvd", str(sets / "made"), "--real", str(sets / "real"), "--quiet", *options]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
