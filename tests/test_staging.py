"""One process at a time makes a folder; what a killed one left there goes, and what it had moved aside comes back."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from inflate.errors import InputError
from inflate.staging import held, new_file, put_in_place, remove_abandoned, scratch_folder, staged, write_whole

from .killed import Paused

_WRITING = """
from pathlib import Path
from inflate.staging import put_in_place, staged
with staged(Path(sys.argv[1])) as partial:
    (partial / "made").write_text("by the child")
    pause()
    put_in_place(partial, Path(sys.argv[1]))
"""
# Kills itself at its second renaming: the old folder is aside by then, and the new one is not yet in its place.
_KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from inflate.staging import put_in_place, staged
rename, calls = os.replace, []
def replace(source, target):
    calls.append(source)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
with staged(Path(sys.argv[1])) as partial:
    (partial / "made").write_text("new")
    put_in_place(partial, Path(sys.argv[1]))
"""
_KILLED_WRITING = """
import os, signal, sys
from pathlib import Path
from inflate import staging
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
staging.write_whole(Path(sys.argv[1]), b"half")
"""


def killed(script: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_the_second_process_is_told_who_is_first(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with Paused(_WRITING, place) as first:
        said = (
            rf"Process {first.pid} on {socket.gethostname()} is writing .*place; wait for it, or choose another name\."
        )
        with pytest.raises(InputError, match=said), staged(place):
            pass
        # another way to the same place
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(InputError, match=said), staged(tmp_path / "link" / ".." / tmp_path.name / "place"):
            pass
        first.go_on()
        assert first.process.wait() == 0
    assert (place / "made").read_text() == "by the child"
    assert {path.name for path in tmp_path.iterdir()} == {"place", "link"}


def test_one_that_waits_says_so_and_sees_what_the_first_made(tmp_path: Path) -> None:
    place, told = tmp_path / "place", []
    with Paused(_WRITING, place) as first:

        def tell(sentence: str) -> None:
            told.append(sentence)
            assert not place.exists()
            first.go_on()

        with staged(place, tell=tell) as partial:
            assert (place / "made").read_text() == "by the child"
            assert not list(partial.iterdir())
    [sentence] = told
    assert sentence == f"Process {first.pid} on {socket.gethostname()} is writing {place}; waiting for it."
    assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with Paused(_WRITING, place) as first:
        first.process.kill()
        first.process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {".place.inflate-partial", ".place.inflate-lock"}
    (tmp_path / ".other.inflate-partial").mkdir()  # another place's is not its business
    with staged(place) as partial:
        assert not list(partial.iterdir())
        (partial / "made").write_text("by the next")
        put_in_place(partial, place)
    assert {path.name for path in tmp_path.iterdir()} == {"place", ".other.inflate-partial"}
    assert (place / "made").read_text() == "by the next"


def test_killed_between_two_renamings_the_old_folder_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "made").write_text("old")
    killed(_KILLED_BETWEEN, place)
    assert not place.exists()
    with staged(place):
        assert (place / "made").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    place = tmp_path / "place"
    place.symlink_to(tmp_path / "real", target_is_directory=True)
    with staged(place) as partial:
        put_in_place(partial, place)
    assert place.is_dir() and not place.is_symlink() and not list(place.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"real", "place"} and (tmp_path / "real" / "kept").exists()


def test_a_holder_without_a_name_is_another_process(tmp_path: Path) -> None:
    with held(tmp_path / "lock", "is busy"):
        os.truncate(tmp_path / "lock", 0)
        with pytest.raises(InputError, match=r"^Another process is busy\.$"), held(tmp_path / "lock", "is busy"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_file_half_written_by_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    killed(_KILLED_WRITING, tmp_path / "one.bin")
    assert not (tmp_path / "one.bin").exists() and (tmp_path / ".writing-one.bin").exists()
    write_whole(tmp_path / "two.bin", b"whole")
    assert list(tmp_path.iterdir()) == [tmp_path / "two.bin"] and (tmp_path / "two.bin").read_bytes() == b"whole"


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "one.bin", b"old")
    monkeypatch.setattr("inflate.staging.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "one.bin", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "one.bin"] and (tmp_path / "one.bin").read_bytes() == b"old"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["links", "no links"])
def linking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a file system without hard links, such as that of a memory card."""

    def refused(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refused)


@pytest.mark.usefixtures("linking")
def test_of_two_that_make_one_file_the_second_is_told(tmp_path: Path) -> None:
    path, together, said = tmp_path / "out.txt", threading.Barrier(2), list[str]()

    def make(text: str) -> None:
        try:
            with new_file(path) as partial:
                partial.write_text(text)
                together.wait(60)  # both have found the name free
        except InputError as error:
            said.append(str(error))

    makers = [threading.Thread(target=make, args=(text,)) for text in ("one", "two")]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(60)
    assert said == [f"{path} exists; choose another name, or replace it with --force."]
    assert path.read_text() in ("one", "two") and names(tmp_path) == ["out.txt"]


@pytest.mark.usefixtures("linking")
def test_a_file_that_came_meanwhile_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    for force, left in ((False, "theirs"), (True, "ours")):
        path.unlink(missing_ok=True)

        def make(force: bool = force) -> None:
            with new_file(path, force) as partial:
                partial.write_text("ours")
                path.write_text("theirs")

        if force:
            make()
        else:
            with pytest.raises(InputError, match="exists; choose another name"):
                make()
        assert path.read_text() == left and names(tmp_path) == ["out.txt"]


@pytest.mark.usefixtures("linking")
def test_a_link_to_nothing_is_somebodys_too(tmp_path: Path) -> None:
    (tmp_path / "out.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="exists; choose another name"), new_file(tmp_path / "out.txt"):
        pytest.fail("this is known before any work")
    assert (tmp_path / "out.txt").is_symlink() and names(tmp_path) == ["out.txt"]


@pytest.mark.usefixtures("linking")
def test_a_file_whose_making_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "out.txt") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert not names(tmp_path)


@pytest.mark.usefixtures("linking")
def test_a_file_has_the_users_permissions_and_as_long_a_name_as_can_be(tmp_path: Path) -> None:
    path, usual = tmp_path / ("x" * 251 + ".txt"), tmp_path / "usual"
    usual.touch()
    with new_file(path) as partial:
        partial.touch()
        partial.chmod(0o600)  # as safetensors leaves its files
    assert path.stat().st_mode == usual.stat().st_mode


_BEGINNING = """
from pathlib import Path
from inflate.staging import new_file
with new_file(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    pause()
"""


def test_a_file_that_a_killed_process_had_begun_goes_with_the_next_one_and_no_other_does(tmp_path: Path) -> None:
    others = {".inflate-notes", f".inflate-00000000-{2**22 + 1}-0123abcd.mp4", ".inflate-cache"}
    for name in others:
        (tmp_path / name).touch()
    with Paused(_BEGINNING, tmp_path / "killed.mp4"), Paused(_BEGINNING, tmp_path / "running.mp4") as running:
        begun = set(names(tmp_path)) - others
        assert len(begun) == 2
        [mine] = {name for name in begun if f"-{running.pid}-" in name}
        with new_file(tmp_path / "out.mp4") as partial:
            partial.write_text("whole")
        assert set(names(tmp_path)) == {*others, *begun, "out.mp4"}, "both run"
    with Paused(_BEGINNING, tmp_path / "running.mp4") as running:
        with new_file(tmp_path / "next.mp4") as partial:
            partial.write_text("whole")
        [left] = set(names(tmp_path)) - others - {"out.mp4", "next.mp4"}
        assert f"-{running.pid}-" in left and left != mine


def test_a_scratch_folder_goes_with_the_block_and_that_of_a_killed_process_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "from inflate.staging import scratch_folder\nwith scratch_folder():\n    pause()"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Paused(script):
        [left] = tmp_path.iterdir()
        remove_abandoned(tmp_path, "inflate-scratch-", young_seconds=0)
        assert left.is_dir(), "it is in use"
    remove_abandoned(tmp_path, "inflate-scratch-", young_seconds=60)
    assert left.is_dir(), "it is young"
    remove_abandoned(tmp_path, "inflate-scratch-", young_seconds=0)
    assert not left.exists()
    with scratch_folder() as folder:
        assert [folder] == list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
