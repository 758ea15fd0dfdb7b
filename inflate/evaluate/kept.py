"""Clips that take minutes to make, kept in a folder: an interrupted run goes on, and several runs share the work."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inflate.errors import InputError
from inflate.staging import new_file

_SETTINGS = "settings.json"
_WEIGHTS = (".safetensors", ".json", ".txt")


class KeptClips:
    """Arrays uint8 ``(F, H, W, 3)`` by set and name, in memory, or in a folder made by one setting."""

    def __init__(self, folder: Path | None, settings: Mapping[str, object]) -> None:
        """Open ``folder`` or make it; None keeps the clips in memory.

        Raises:
            InputError: the folder holds clips that were made otherwise, or something else.
        """
        self.folder, self.memory = folder, {}
        if folder is None:
            return
        wanted = json.loads(json.dumps(settings))
        path = folder / _SETTINGS
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                found = None
            if found != wanted:
                differ = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
                raise InputError(
                    f"{folder} keeps clips that were made with another {' and another '.join(differ) or 'setting'}; "
                    "name another folder for --keep"
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds something other than kept clips; name another folder for --keep")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with new_file(path, overwrite=True) as partial:
                partial.write_bytes(json.dumps(wanted, indent=2).encode() + b"\n")

    def get(self, kind: str, name: str) -> np.ndarray | None:
        """A clip, or None where it is not made yet."""
        if self.folder is None:
            return self.memory.get((kind, name))
        path = self._path(kind, name)
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} is damaged; delete it and run the same command again") from error

    def has(self, kind: str, name: str) -> bool:
        """Whether a clip is there."""
        return (kind, name) in self.memory if self.folder is None else self._path(kind, name).is_file()

    def put(self, kind: str, name: str, frames: np.ndarray) -> None:
        """Keep a clip; its file appears whole or not at all."""
        if self.folder is None:
            self.memory[kind, name] = frames
            return
        path = self._path(kind, name)
        with new_file(path, overwrite=True) as partial:
            np.save(partial, frames, allow_pickle=False)

    def _path(self, kind: str, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{kind.replace(' ', '-')}.{name}.npy"


def folder_fingerprint(folder: Path | None) -> str:
    """What tells a family's weights from others of the same name; empty for a family that has no folder."""
    digest = hashlib.sha256()
    if folder is None:
        return ""
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
