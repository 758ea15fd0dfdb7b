"""npm packages as inputs: found where they lie, or packed by the ordinary npm client; read without running anything."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inflate.errors import InputError


@dataclass(frozen=True)
class Package:
    """One package: its ``name`` and ``version``, and ``path``, a folder with ``package.json`` or a packed ``.tgz``."""

    name: str
    version: str
    path: Path

    def files(self, under: str, scratch: Path) -> dict[str, Path]:
        """The plain files directly in its folder ``under``, by file name; a packed one writes them to ``scratch``.

        Raises ``InputError`` for a broken archive.
        """
        if self.path.is_dir():
            return {path.name: path for path in sorted((self.path / under).glob("*")) if path.is_file()}
        target = scratch / f"{self.name}-{self.version}".replace("/", "-") / under
        target.mkdir(parents=True)
        found: dict[str, Path] = {}
        try:
            with tarfile.open(self.path, "r:gz") as archive:
                for member in archive:
                    place = PurePosixPath(member.name)
                    content = archive.extractfile(member) if member.isfile() else None
                    # Only the last part of the name is used, so no archive can write elsewhere.
                    if content is not None and place.parent == PurePosixPath("package", under):
                        found[place.name] = target / place.name
                        found[place.name].write_bytes(content.read())
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InputError(f"{self.path} is not a whole packed npm package ({error}); pack it again") from error
        return dict(sorted(found.items()))


def content_sha256(files: dict[str, Path]) -> str:
    """One hash over names and contents; a packed and an unpacked package give the same."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def default_npm_cache() -> Path:
    """Where packed packages are kept: ``$XDG_CACHE_HOME/inflate/npm``, or ``~/.cache/inflate/npm``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inflate" / "npm"


def find_packages(folder: Path, names: Sequence[str]) -> dict[str, Package]:
    """The packages called ``names``, packed (``*.tgz``) or unpacked (``*/package.json``), in ``folder``, by name.

    Raises ``InputError`` when ``folder`` is not there, lacks one of them, or has two versions of one.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one with packed or unpacked npm packages")
    found: dict[str, Package] = {}
    for package in _all_packages(folder):
        if package.name not in names:
            continue
        other = found.setdefault(package.name, package)
        if other.version != package.version:
            raise InputError(f"{folder} has {package.name} {other.version} and {package.version}; keep one of them")
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{folder} lacks the npm packages {', '.join(missing)}; add them with `npm pack`")
    return {name: found[name] for name in names}


def pack_packages(versions: dict[str, str], cache: Path) -> dict[str, Package]:
    """The packages at these ``versions`` from ``cache``, those that are not there yet packed into it by npm.

    Raises ``InputError`` when npm is missing or fails.
    """
    cache.mkdir(parents=True, exist_ok=True)
    packages: dict[str, Package] = {}
    for name, version in versions.items():
        tarball = cache / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
        if not tarball.is_file():
            _npm_pack(f"{name}@{version}", cache)
        package = _read_tarball(tarball) if tarball.is_file() else None
        if package is None or (package.name, package.version) != (name, version):
            raise InputError(f"{tarball} is not {name} {version}; delete it and run the command again")
        packages[name] = package
    return packages


def _npm_pack(wanted: str, cache: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"npm is not installed, so {wanted} cannot be fetched; install Node.js, or use --from FOLDER")
    command = [npm, "pack", wanted, "--pack-destination", str(cache), "--silent"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = lines[0].removeprefix("npm error ").strip() if lines else f"exit code {result.returncode}"
        raise InputError(f"`npm pack {wanted}` failed ({reason}); check the network, or use --from FOLDER")


def _all_packages(folder: Path) -> list[Package]:
    found = [_read_tarball(path) for path in sorted(folder.glob("*.tgz"))]
    for pattern in ("package.json", "*/package.json", "*/package/package.json", "@*/*/package.json"):
        for path in sorted(folder.glob(pattern)):
            found.append(_described(path.read_bytes(), path.parent))
    return [package for package in found if package]


def _read_tarball(path: Path) -> Package | None:
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name == "package/package.json" else None
                if content is not None:
                    return _described(content.read(), path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a whole packed npm package ({error}); delete it and pack it again") from error
    return None


def _described(package_json: bytes, path: Path) -> Package | None:
    try:
        row = json.loads(package_json)
        return Package(str(row["name"]), str(row["version"]), path)
    except (ValueError, KeyError, TypeError):
        return None
