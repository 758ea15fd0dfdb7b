"""Which clips of a folder are measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inflate.data import decode_video
from inflate.errors import InputError
from inflate.evaluate.clips import ClipFolder, ClipProtocol
from inflate.evaluate.resizing import FILTERS, square
from tests.evaluate.tiny_networks import moving, write_videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_videos(tmp_path_factory.mktemp("clips") / "set", 6, split=True)
    (folder / "train" / "damaged.mp4").write_bytes(b"no video at all")
    return folder


def test_frames_are_those_of_the_file_so_far_apart(videos: Path) -> None:
    folder = ClipFolder(videos, ClipProtocol(num_frames=4, stride=3))
    clips = list(folder)
    assert [clip.video for clip in clips] == [
        *("test/v00", "test/v03", "train/v01", "train/v02", "train/v04", "train/v05")
    ]
    assert clips[2].caption == "thing 1"
    whole = decode_video(videos / "train" / "v01.mp4").frames
    assert np.array_equal(clips[2].frames, whole[[0, 3, 6, 9]])
    assert folder.taken == 6 and [name for name, _ in folder.left_out] == ["train/damaged"]
    facts = folder.facts()
    assert (facts["clips"], facts["videos"], facts["left_out"]) == (6, 7, 1)
    assert (facts["containers"], facts["frame_rate"], facts["frames_as_stored"]) == ([".mp4"], 8.0, "32x32")


def test_clips_in_the_middle_and_at_places_drawn(videos: Path) -> None:
    whole = decode_video(videos / "train" / "v01.mp4").frames
    middle = next(iter(ClipFolder(videos / "train" / "v01.mp4", ClipProtocol(4, start="middle"))))
    assert np.array_equal(middle.frames, whole[4:8])
    protocol = ClipProtocol(4, start="random", clips_per_video=3, seed=1)
    drawn = list(ClipFolder(videos, protocol, split="train"))
    assert len(drawn) == 12 and len({clip.frames.tobytes() for clip in drawn}) == 12
    again = list(ClipFolder(videos, protocol, split="train"))
    assert all(np.array_equal(one.frames, other.frames) for one, other in zip(drawn, again, strict=True))
    other = list(ClipFolder(videos, ClipProtocol(4, start="random", clips_per_video=3, seed=2), split="train"))
    assert {clip.frames.tobytes() for clip in other} != {clip.frames.tobytes() for clip in drawn}


def test_a_split_is_of_whole_videos(videos: Path) -> None:
    named = {
        split: {clip.video for clip in ClipFolder(videos, ClipProtocol(2), split=split)} for split in ("train", "test")
    }
    assert named["test"] == {"test/v00", "test/v03"} and len(named["train"]) == 4
    with pytest.raises(InputError, match="names no splits"):
        ClipFolder(videos / "train" / "v01.mp4", ClipProtocol(2), split="test")
    with pytest.raises(InputError, match=r"'tests' \(did you mean 'test'\?\)"):
        ClipFolder(videos, ClipProtocol(2), split="tests")


def test_some_of_the_videos(videos: Path) -> None:
    chosen = [{clip.video for clip in ClipFolder(videos, ClipProtocol(2, seed=seed), 3)} for seed in range(6)]
    assert all(len(names) <= 3 for names in chosen) and len({frozenset(names) for names in chosen}) > 1


def test_videos_that_are_too_short_are_told(videos: Path) -> None:
    folder = ClipFolder(videos, ClipProtocol(13))
    assert not list(folder) and ("test/v00", "12 frames, and a clip takes 13") in folder.left_out


def test_frames_kept_as_pictures_and_as_arrays(tmp_path: Path) -> None:
    clip = moving(0, 6, 1)
    for name in ("a", "b"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number, frame in enumerate(clip):
            Image.fromarray(frame).save(tmp_path / "frames" / name / f"{number:03d}.png")
    np.save(tmp_path / "clips.npy", np.stack([clip, clip[::-1]]))
    pictures, array = (ClipFolder(tmp_path / name, ClipProtocol(4)) for name in ("frames", "clips.npy"))
    assert [len(list(one)) for one in (pictures, array)] == [2, 2]
    assert np.array_equal(next(iter(pictures)).frames, clip[:4]) and np.array_equal(next(iter(array)).frames, clip[:4])
    assert pictures.containers() == ["frames .png"] and array.containers() == [".npy"]
    assert not pictures.lossy and not array.lossy
    assert pictures.fingerprint() != array.fingerprint()
    np.save(tmp_path / "floats.npy", np.zeros((2, 3, 4, 4, 3)))
    with pytest.raises(InputError, match=r"holds float64 of shape \(2, 3, 4, 4, 3\); save uint8"):
        ClipFolder(tmp_path / "floats.npy", ClipProtocol(2))
    (tmp_path / "pickled.npy").write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match="cannot be read as an array"):
        ClipFolder(tmp_path / "pickled.npy", ClipProtocol(2))


def test_the_fingerprint_tells_sets_apart(videos: Path, tmp_path: Path) -> None:
    kept = ClipFolder(videos, ClipProtocol(2))
    assert kept.fingerprint() == ClipFolder(videos, ClipProtocol(4, seed=5)).fingerprint()
    assert kept.fingerprint() != ClipFolder(videos, ClipProtocol(2), split="train").fingerprint()


@pytest.mark.parametrize("resize", FILTERS)
def test_every_filter_makes_the_centre_square(resize: Any) -> None:
    frame = np.zeros((40, 64, 3), np.uint8)
    frame[:, 12:52] = 200  # the centre square alone
    made = square(frame, 20, resize)
    assert made.shape == (20, 20, 3) and made.dtype == np.uint8
    assert (np.abs(made[:, 2:-2].astype(int) - 200) <= 1).all() and made[:, 0].min() >= (
        90 if resize == "cd-fvd" else 199
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_frames": 0}, "num-frames is 0"),
        ({"start": "midle"}, r"--start is 'midle' \(did you mean 'middle'\?\)"),
        ({"resize": "lanzcos"}, r"--resize is 'lanzcos' \(did you mean 'lanczos'\?\)"),
        ({"size": 4}, "--size is 4; give pixels from 8"),
        ({"clips_per_video": 2}, "2 clips of each video need --start random"),
    ],
)
def test_protocols_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ClipProtocol(**options)
