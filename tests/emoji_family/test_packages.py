"""npm packages are found packed or unpacked, fetched by npm only when they must be, and never trusted."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from emoji_family.packages import content_sha256, find_packages, pack_packages
from inflate.errors import InputError


def unpacked(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    for file_name, content in {
        "package.json": json.dumps({"name": name, "version": version}).encode(),
        **files,
    }.items():
        path = folder / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def packed(path: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    described = json.dumps({"name": name, "version": version}).encode()
    with tarfile.open(path, "w:gz") as archive:
        for file_name, content in {"package/package.json": described, **files}.items():
            member = tarfile.TarInfo(file_name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_packed_and_unpacked_are_the_same_thing(tmp_path: Path) -> None:
    files = {"assets/a.webp": b"A", "assets/b.webp": b"BB", "other/c.webp": b"C", "assets/deep/d.webp": b"D"}
    unpacked(tmp_path / "loose" / "one", "@x/one", "1.2.3", files)
    (tmp_path / "tight").mkdir()
    packed(tmp_path / "tight" / "x-one-1.2.3.tgz", "@x/one", "1.2.3", {f"package/{k}": v for k, v in files.items()})
    hashes = []
    for home in ("loose", "tight"):
        package = find_packages(tmp_path / home, ["@x/one"])["@x/one"]
        found = package.files("assets", tmp_path / "scratch")
        assert package.version == "1.2.3"
        assert {name: path.read_bytes() for name, path in found.items()} == {"a.webp": b"A", "b.webp": b"BB"}
        hashes.append(content_sha256(found))
    assert hashes[0] == hashes[1]


def test_the_hash_sees_names_and_contents(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")
    assert len({content_sha256({"a": a}), content_sha256({"b": b}), content_sha256({"a": c}), content_sha256({})}) == 4


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hostile = {"package/assets/../../../evil.webp": b"!", "../evil.webp": b"!", "package/assets/a.webp": b"A"}
    packed(home / "one.tgz", "one", "1.0.0", hostile)
    scratch = tmp_path / "scratch"
    found = find_packages(home, ["one"])["one"].files("assets", scratch)
    assert list(found) == ["a.webp"]
    assert not list(tmp_path.rglob("evil*"))


def test_missing_packages_are_named(tmp_path: Path) -> None:
    unpacked(tmp_path / "one", "one", "1.0.0", {})
    with pytest.raises(InputError, match=r"lacks the npm packages two, three; add them"):
        find_packages(tmp_path, ["one", "two", "three"])
    with pytest.raises(InputError, match="there is no folder"):
        find_packages(tmp_path / "nothing", ["one"])


def test_two_versions_are_not_chosen_between(tmp_path: Path) -> None:
    for version in ("1.0.0", "2.0.0"):
        unpacked(tmp_path / version, "one", version, {})
    with pytest.raises(InputError, match=r"has one 1\.0\.0 and 2\.0\.0"):
        find_packages(tmp_path, ["one"])


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "one.tgz", "one", "1.0.0", {"package/assets/a.webp": bytes(range(256)) * 40})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"one\.tgz is not a whole packed npm package"):
        find_packages(tmp_path, ["one"])["one"].files("assets", tmp_path / "scratch")


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called npm that copies ``tmp_path/registry/*.tgz`` and writes its arguments down."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "registry").mkdir()
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n/bin/cp {tmp_path}/registry/*.tgz "$4" || exit 1\n'
    (programs / "npm").write_text(script)
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def test_npm_packs_what_the_cache_lacks_and_only_that(fake_npm: Path) -> None:
    packed(fake_npm / "registry" / "x-one-1.0.0.tgz", "@x/one", "1.0.0", {})
    cache = fake_npm / "cache"
    for _ in range(2):
        assert pack_packages({"@x/one": "1.0.0"}, cache)["@x/one"].path == cache / "x-one-1.0.0.tgz"
    assert (fake_npm / "calls").read_text() == f"pack @x/one@1.0.0 --pack-destination {cache} --silent\n"


def test_npm_that_fails(fake_npm: Path) -> None:
    (fake_npm / "bin" / "npm").write_text("#!/bin/sh\necho 'npm error network is down' >&2\nexit 7\n")
    with pytest.raises(InputError, match=r"`npm pack one@1\.0\.0` failed \(network is down\); .*--from FOLDER"):
        pack_packages({"one": "1.0.0"}, fake_npm / "cache")


def test_npm_that_packs_something_else(fake_npm: Path) -> None:
    packed(fake_npm / "registry" / "one-1.0.0.tgz", "two", "1.0.0", {})
    with pytest.raises(InputError, match=r"is not one 1\.0\.0; delete it"):
        pack_packages({"one": "1.0.0"}, fake_npm / "cache")


def test_no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"npm is not installed.*--from FOLDER"):
        pack_packages({"one": "1.0.0"}, tmp_path / "cache")
