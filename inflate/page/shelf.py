"""The page's own folder, in which everything lies that visitors hand in and take away, for a stated time."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "inflate-page-"
_LOCK = ".in-use"
_YOUNG_SECONDS = 60.0  # a folder may have been made by another server that has not locked it yet


class Shelf:
    """A folder below ``below`` that a running server holds; files in it are removed ``keep_seconds`` after they came.

    What servers that crashed left in folders like it is removed at the start, and this one's with the server.
    """

    def __init__(self, below: Path | None, keep_seconds: float) -> None:
        base = below or Path(tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        remove_abandoned(base)
        self.keep_seconds = keep_seconds
        self._whole = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=base, ignore_cleanup_errors=True)
        self.folder = Path(self._whole.name)
        self._lock = FileLock(self.folder / _LOCK)
        self._lock.acquire()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_on, name="inflate-shelf", daemon=True)
        self._sweeper.start()

    def sweep(self, now: float | None = None) -> None:
        """Remove what is older than it may be; ``now`` in seconds since 1970, as files have it."""
        limit = (time.time() if now is None else now) - self.keep_seconds
        for folder, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):  # somebody else may have removed it just now
                    # The time of its last change: a copy may have taken over when the original was written.
                    if name != _LOCK and path.lstat().st_ctime <= limit:
                        path.unlink()
            with contextlib.suppress(OSError):  # not empty
                if Path(folder) != self.folder and Path(folder).lstat().st_ctime <= limit:
                    Path(folder).rmdir()

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._closed.set()
        self._sweeper.join()
        self._lock.release()
        self._whole.cleanup()

    def _sweep_on(self) -> None:
        while not self._closed.wait(min(600.0, self.keep_seconds / 10)):
            self.sweep()


def remove_abandoned(base: Path, young_seconds: float = _YOUNG_SECONDS) -> None:
    """Remove the folders of servers that run no more, except those made less than ``young_seconds`` ago."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):  # another user's, or one that a server holds
            ours = not folder.is_symlink() and (folder / _LOCK).is_file()
            if ours and time.time() - folder.stat().st_ctime >= young_seconds:
                with FileLock(folder / _LOCK, timeout=0):
                    shutil.rmtree(folder)
