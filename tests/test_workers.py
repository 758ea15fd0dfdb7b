"""Worker processes end with the one that started them, also where it was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inflate.data import build_frame_cache, frames
from inflate.errors import InputError

from .killed import ROOT

# A worker that has begun says so and then waits for ever, as if its file took hours: like the process that started it,
# it keeps the pipe open as long as it lives. Workers find what they do by its name, so the script is a file.
_SLOW = """
import os, sys, threading
if __name__ == "__main__":
    mine = open(sys.argv[2], "w")
def slow(*_):
    pipe = open(sys.argv[2], "w")
    pipe.write(f"{os.getpid()}\\n")
    pipe.flush()
    threading.Event().wait()
"""
_USERS = {
    "the frame cache": """
from inflate.data import frames
if __name__ == "__main__":
    frames._decode_item = slow
    frames.build_frame_cache(sys.argv[1], 8, workers=2)
""",
    "scanning clips": """
from inflate.data.clips import ClipOptions, cache, open_clips
if __name__ == "__main__":
    cache.scan_one = slow
    open_clips(ClipOptions(sys.argv[1], workers=2), 8)
""",
    "reading clips ahead": """
from inflate.data.clips import ClipOptions, ClipSet, PrefetchedClips, open_clips
ClipSet.read = slow
if __name__ == "__main__":
    clips = open_clips(ClipOptions(sys.argv[1], num_frames=2, fps=(8.0,), size=(16,), validation=0.0), 8)
    PrefetchedClips(clips, 0, 1, workers=2).batch(0)
""",
}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    ramp = np.tile(np.arange(16, dtype=np.uint8) * 8, (16, 1))
    for number in range(8):
        pictures = [Image.fromarray(np.roll(ramp, shift, axis=1)) for shift in range(8)]
        pictures[0].save(folder / f"{number}.gif", save_all=True, append_images=pictures[1:], duration=100)
    return folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("user", _USERS)
def test_workers_end_with_a_killed_parent(videos: Path, tmp_path: Path, user: str) -> None:
    script, pipe = tmp_path / "run.py", tmp_path / "pipe"
    script.write_text(_SLOW + _USERS[user])
    os.mkfifo(pipe)
    command = [sys.executable, "-W", "ignore", str(script), str(videos), str(pipe)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as run:
        with pipe.open() as told:
            worker = int(told.readline())
            assert worker != run.pid and run.poll() is None
            os.kill(worker, 0)
            run.kill()
            assert run.wait() == -signal.SIGKILL
            told.read()  # to the end, which comes when no worker is left that could write


def test_a_frame_cache_whose_worker_is_ended_says_so(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_decode_item", _end)
    with pytest.raises(InputError, match=r"was ended from outside.*start again"):
        build_frame_cache(videos, 8, workers=2)
    assert [path.name for path in (videos / ".inflate-cache").iterdir()] == [".gitignore"]


def _end(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
