"""Visitors' files go after the stated time, and with the server; nobody else's do."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inflate.page.shelf import Shelf
from inflate.staging import remove_abandoned


def test_files_are_removed_after_the_stated_time_and_younger_ones_stay(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep_seconds=100)
    folder = shelf.folder / "made-1"
    folder.mkdir()
    (folder / "inflate.mp4").write_bytes(b"video")
    os.utime(folder / "inflate.mp4", (0, 0))  # as old as the file it was copied from; it came now
    shelf.sweep()
    assert (folder / "inflate.mp4").is_file()
    shelf.sweep(time.time() + 101)
    assert not folder.exists() and shelf.folder.is_dir()
    with pytest.raises(TimeoutError):
        shelf_is_free(shelf)
    shelf.close()
    assert not shelf.folder.exists() and tmp_path.is_dir()


def shelf_is_free(shelf: Shelf) -> None:
    from filelock import FileLock

    with FileLock(shelf.folder / ".in-use", timeout=0, is_singleton=False):
        pass


def test_sweeping_goes_on_by_itself(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep_seconds=0.2)
    (shelf.folder / "x").write_bytes(b"x")
    end = time.monotonic() + 60
    while (shelf.folder / "x").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    shelf.close()


CRASH = """
import os, pathlib, sys
from inflate.page.shelf import Shelf
shelf = Shelf(pathlib.Path(sys.argv[1]), 3600)
(shelf.folder / "upload.png").write_bytes(b"x")
print(shelf.folder, flush=True)
os._exit(9)
"""


def test_what_a_crashed_server_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], capture_output=True, text=True, check=False)
    left = Path(told.stdout.strip())
    assert told.returncode == 9 and (left / "upload.png").is_file()
    alive = Shelf(tmp_path, 3600)
    others = tmp_path / "inflate-page-notes"  # a name like it, without a server's mark
    others.mkdir()
    (others / "mine.txt").write_text("mine")
    remove_abandoned(tmp_path, "inflate-page-")
    assert left.is_dir(), "it is so young that its server may be about to hold it"
    remove_abandoned(tmp_path, "inflate-page-", young_seconds=0)
    assert not left.exists() and alive.folder.is_dir() and (others / "mine.txt").is_file()
    alive.close()
