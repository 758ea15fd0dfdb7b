"""The page's own folder, in which everything lies that visitors hand in and take away, for a stated time."""

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

from filelock import FileLock

from inflate.staging import IN_USE, remove_abandoned

_PREFIX = "inflate-page-"


class Shelf:
    """A folder below ``below`` that a running server holds; files in it are removed ``keep_seconds`` after they came.

    What servers that crashed left in folders like it is removed at the start, and this one's with the server.
    """

    def __init__(self, below: Path | None, keep_seconds: float) -> None:
        base = below or Path(tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        remove_abandoned(base, _PREFIX)
        self.keep_seconds = keep_seconds
        self._whole = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=base, ignore_cleanup_errors=True)
        self.folder = Path(self._whole.name)
        self._lock = FileLock(self.folder / IN_USE)
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
                    if name != IN_USE and path.lstat().st_ctime <= limit:
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
