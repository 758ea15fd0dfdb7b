"""Encodings kept on disk: tensors by name in safetensors shards, checked before they are used."""

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from inflate.data.kept import ELSEWHERE
from inflate.errors import InputError
from inflate.staging import write_whole

_FORMAT = "inflate-encodings-1"
_SHARD_BYTES = 64 << 20
_SPARE_BYTES = 16 << 20
_OPEN_SHARDS = 16
_BLOCK = 1 << 20


class EncodingStore:
    """Tensors by name, for one ``key`` (a fingerprint of the models and the preprocessing that made them).

    Added tensors wait in memory until a shard of 64 MiB is full or :meth:`flush` is called; a shard appears whole or
    not at all, with its SHA-256 beside it, so that a run that was killed loses what it had not yet flushed and nothing
    else. :meth:`get` maps shards into memory and checks each one before its first use.

    Raises:
        InputError: a damaged shard, one of another key, a full disk, a folder that cannot be written; in one sentence.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.folder = Path(folder) / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._waiting_bytes = 0
        self._shards: dict[str, dict[str, Any]] = {}
        self._places: dict[str, str] = {}
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._checked: set[str] = set()
        for card in sorted(self.folder.glob("shard-*.json")):
            self._read_card(card)

    def __len__(self) -> int:
        return len(self._places) + len(self._waiting)

    def __contains__(self, name: str) -> bool:
        return name in self._places or name in self._waiting

    def __getstate__(self) -> dict[str, Any]:
        # A data loader's worker opens the shards for itself.
        return {**self.__dict__, "_open": OrderedDict()}

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that are not kept yet, each once, in order."""
        return [name for name in dict.fromkeys(names) if name not in self]

    def add(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep copies of ``tensors`` under ``name``; a name that is kept already is left as it is."""
        if name in self:
            return
        if not tensors:
            raise InputError(f"there are no tensors to keep under {name!r}; give at least one")
        copies = {field: tensor.detach().cpu().contiguous().clone() for field, tensor in tensors.items()}
        self._waiting[name] = copies
        self._waiting_bytes += sum(t.numel() * t.element_size() for t in copies.values())
        if self._waiting_bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits in memory."""
        if not self._waiting:
            return
        names = sorted(self._waiting)
        flat = {f"{i}/{field}": t for i, name in enumerate(names) for field, t in self._waiting[name].items()}
        # One metadata entry: safetensors writes several in random order, and equal shards are to be equal files.
        payload = save(flat, {"inflate": json.dumps({"format": _FORMAT, "key": self.key})})
        digest = hashlib.sha256(payload).hexdigest()
        shard = f"shard-{digest[:20]}.safetensors"
        card = {"format": _FORMAT, "key": self.key, "shard": shard, "bytes": len(payload), "sha256": digest}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < len(payload) + _SPARE_BYTES:
                raise InputError(
                    f"{self.folder} needs {len(payload) >> 20} MiB more and the disk has {free >> 20} MiB left; free "
                    "some space or set data.cache to another disk, and start again: what was written is kept"
                )
            write_whole(self.folder / shard, payload)
            text = json.dumps({**card, "names": names}, ensure_ascii=False)
            write_whole(self.folder / f"{Path(shard).stem}.json", text.encode())
        except OSError as error:
            raise InputError(
                f"cannot write the encodings to {self.folder} ({error.strerror}); free some space, or {ELSEWHERE}, "
                "and start again: what was written is kept"
            ) from error
        self._shards[shard] = card
        self._places.update((name, shard) for name in names)
        self._numbers(shard, names)
        self._checked.add(shard)
        self._waiting, self._waiting_bytes = {}, 0

    def get(self, name: str) -> dict[str, Tensor]:
        """The tensors kept under ``name``, on the CPU, mapped from the disk; do not write into them."""
        if name in self._waiting:
            return dict(self._waiting[name])
        if name not in self._places:
            raise InputError(f"{self.folder} keeps nothing under {name!r}; encode the data again")
        shard = self._places[name]
        file = self._shard(shard)
        prefix = f"{self._shards[shard]['numbers'][name]}/"
        return {key[len(prefix) :]: file.get_tensor(key) for key in self._shards[shard]["fields"][prefix]}

    def _numbers(self, shard: str, names: list[str]) -> None:
        self._shards[shard]["numbers"] = {name: i for i, name in enumerate(names)}

    def _read_card(self, path: Path) -> None:
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            shard, names, size = str(card["shard"]), list(card["names"]), int(card["bytes"])
            foreign = card["format"] != _FORMAT or card["key"] != self.key
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path) from error
        if foreign:
            raise InputError(f"{path} belongs to encodings of another model or preprocessing; delete {self.folder}")
        file = self.folder / shard
        if not file.is_file() or file.stat().st_size != size:
            raise self._damaged(file)
        self._shards[shard] = card
        self._places.update((name, shard) for name in names)
        self._numbers(shard, names)

    def _shard(self, shard: str) -> Any:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        path = self.folder / shard
        try:
            if shard not in self._checked and _sha256(path) != self._shards[shard]["sha256"]:
                raise self._damaged(path)
            file = safe_open(str(path), framework="pt")
            said = json.loads((file.metadata() or {})["inflate"])
            keys = list(file.keys())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(path) from error
        if said != {"format": _FORMAT, "key": self.key}:
            raise InputError(f"{path} belongs to encodings of another model or preprocessing; delete {self.folder}")
        self._checked.add(shard)
        fields: dict[str, list[str]] = {}
        for key in keys:
            fields.setdefault(key.partition("/")[0] + "/", []).append(key)
        self._shards[shard]["fields"] = fields
        self._open[shard] = file
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return file

    def _damaged(self, path: Path) -> InputError:
        return InputError(f"{path} is damaged or was changed; delete {self.folder} and start again to encode anew")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
