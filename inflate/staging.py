"""One process at a time per folder; folders and files are made beside their place, whatever was killed half way."""

import os
import re
import secrets
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from inflate.errors import InputError

IN_USE = ".in-use"
"""The lock in a temporary folder, which the process that uses the folder holds."""
_SCRATCH = "inflate-scratch-"
_YOUNG_SECONDS = 60.0  # a folder may have been made by another process that has not locked it yet
# A file that a process has begun, by the process's number.
_BEGUN = re.compile(r"\.inflate-[0-9a-f]{8}-(\d+)-[0-9a-f]{8}(\..*)?", re.ASCII)


@contextmanager
def held(lock: Path, doing: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the file ``lock`` inside the block. The kernel lets go of it however the process ends, also by SIGKILL.

    Args:
        lock: a file that is there only while it is held, or after its holder was killed; its folder exists.
        doing: what its holder does and what to do about it, to follow "Process 123 on the machine ".
        tell: is told so where another process holds it, and the lock is waited for. Without it, nothing waits.

    Raises:
        InputError: another process holds it, and nothing tells.
    """
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout as error:
        sentence = f"{_holder(lock)} {doing}"
        if tell is None:
            raise InputError(f"{sentence}.") from error
        tell(f"{sentence}.")
        file.acquire()
    try:
        if not isinstance(file, SoftFileLock):  # where there are no locks, filelock writes the same two lines itself
            with suppress(OSError):  # Windows lets nobody write into a locked file; the sentence is poorer there
                lock.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        if not isinstance(file, SoftFileLock):
            with suppress(OSError):  # before it is let go: whoever holds it next has made it anew
                lock.unlink()
        file.release()


def _holder(lock: Path) -> str:
    try:
        number, machine, *_ = lock.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):  # it has not written its name yet
        return "Another process"
    return f"Process {number} on {machine}"


@contextmanager
def staged(destination: Path, tell: Callable[[str], None] | None = None) -> Iterator[Path]:
    """A new folder beside ``destination``, to write and then to :func:`put_in_place`; it is gone after the block.

    One process at a time makes ``destination``. What one that was killed left there is removed, and what it had moved
    aside is put back, before the block begins.

    Args:
        destination: the folder to make; its parents are made.
        tell: is told who makes it already, and that process is waited for. Without it, nothing waits.

    Raises:
        InputError: another process makes ``destination``, and nothing tells.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    doing = "waiting for it" if tell else "wait for it, or choose another name"
    with held(_beside(destination, "lock"), f"is writing {destination}; {doing}", tell):
        partial, aside = _beside(destination, "partial"), _beside(destination, "old")
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not destination.exists():
            os.replace(aside, destination)
        _remove(aside)
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def put_in_place(partial: Path, destination: Path) -> None:
    """Rename a staged folder to ``destination``; what was there is moved aside first, and back if renaming fails."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        os.replace(partial, destination)  # an empty folder is replaced by the rename itself
        return
    aside = _beside(destination, "old")
    os.replace(destination, aside)
    try:
        os.replace(partial, destination)
    except OSError:
        os.replace(aside, destination)
        raise
    _remove(aside)


def abandoned(folder: Path, prefix: str) -> list[Path]:
    """Staged folders for places in ``folder`` whose names begin so, which a process that was killed has left there.

    Ask where nobody else makes any.
    """
    return sorted(folder.glob(f".{prefix}*.inflate-partial"))


def check_free(path: Path, overwrite: bool = False) -> None:
    """Raise ``InputError`` where something has the name ``path``, unless it may be replaced."""
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path} exists; choose another name, or replace it with --force.")


@contextmanager
def new_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A file beside ``path``, to be written, which takes its place when the block ends, or vanishes if it fails.

    What processes of this machine that were killed had begun in its folder is removed first.

    Args:
        path: the file to make; its parents are made.
        overwrite: replace what is there by then. Without it, of two that make one file the first to end has made it.

    Raises:
        InputError: something is there, if not before the block then after it, and ``overwrite`` is not set.
    """
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_files(path.parent)
    # Its name has a length of its own, so that any name that ``path`` may have will do.
    partial = path.with_name(f".inflate-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = partial.stat().st_mode & 0o777
        yield partial
        partial.chmod(mode)  # the user's; safetensors makes its files readable by their owner alone
        flush(partial)
        if overwrite:
            os.replace(partial, path)
        else:
            _take(path, partial)
    finally:
        partial.unlink(missing_ok=True)


def _machine() -> str:
    """A word for this machine: other ones may write into the same folder, with processes of the same numbers."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove_abandoned_files(folder: Path) -> None:
    for path in folder.glob(f".inflate-{_machine()}-*"):
        begun = _BEGUN.fullmatch(path.name)
        if begun and not _runs(int(begun[1])):
            with suppress(OSError):  # another user's; or somebody else has removed it just now
                path.unlink()


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere to ask is to end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def flush(path: Path) -> None:
    """Wait until the disk has a file's contents, or a folder's names."""
    if os.name != "posix" and path.is_dir():  # folders cannot be opened elsewhere
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(path: Path, partial: Path) -> None:
    """Give a finished file its name, which it gets only if nothing has it: renaming would replace what has."""
    try:
        os.link(partial, path)
        return
    except FileExistsError:
        check_free(path)
        raise
    except OSError:  # a file system without hard links; there an empty file holds the name until it is replaced
        pass
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        check_free(path)
        raise
    try:
        os.replace(partial, path)
    except BaseException:
        path.unlink()
        raise


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for the block; those of processes that were killed are removed first."""
    base = Path(tempfile.gettempdir())
    remove_abandoned(base, _SCRATCH)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=base, ignore_cleanup_errors=True) as folder:
        with FileLock(Path(folder, IN_USE)):
            yield Path(folder)


def remove_abandoned(base: Path, prefix: str, young_seconds: float = _YOUNG_SECONDS) -> None:
    """Remove folders of ``base`` whose name begins with ``prefix`` and whose lock ``IN_USE`` nobody holds any more,
    except those made less than ``young_seconds`` ago."""
    for folder in base.glob(f"{prefix}*"):
        with suppress(OSError, Timeout):  # another user's, or one that a process holds
            ours = not folder.is_symlink() and (folder / IN_USE).is_file()
            if ours and time.time() - folder.stat().st_ctime >= young_seconds:
                with FileLock(folder / IN_USE, timeout=0):
                    shutil.rmtree(folder)


def write_whole(path: Path, payload: bytes) -> None:
    """Write a file that appears whole or not at all.

    One process at a time writes files into its folder; what one that was killed left there is removed.
    """
    with held(path.parent / ".writing.lock", "is writing there", tell=lambda sentence: None):
        for litter in path.parent.glob(".writing-*"):
            litter.unlink()
        partial = path.with_name(f".writing-{path.name}")
        try:
            with partial.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(destination: Path, what: str) -> Path:
    """The same for every spelling of the way to ``destination``, and no name that a user would choose."""
    return destination.parent.resolve() / f".{destination.name}.inflate-{what}"
