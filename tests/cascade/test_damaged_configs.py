"""Configs of single components that are damaged, or another's: a sentence or a model, and never a word to the hub."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inflate.cascade import Cascade
from inflate.errors import InputError
from tests.cascade import foreign_pipelines as foreign
from tests.models.tiny_family import save_tiny_family, tiny_unet

DAMAGED = {
    "gone": None,
    "no json": "not json",
    "no object": "[]",
    "null": "null",
    "empty": "{}",
    "no such class": '{"_class_name": "Nope", "model_type": "nope", "architectures": ["Nope"]}',
    "code of a repository": '{"auto_map": {"AutoModel": "a/b--c.D"}, "model_type": "nope", "tokenizer_class": "Nope"}',
    "a list for a class": '{"_class_name": ["UNet2DConditionModel"], "model_type": ["t5"], "architectures": 3}',
    "a list in a list": "[" * 100_000,
    "another folder": '{"_name_or_path": "org/name", "base_model_name_or_path": "org/name"}',
}
MAKERS: dict[str, Callable[[Path], Any]] = {
    "family": lambda folder: save_tiny_family(folder, tiny_unet()),
    "stable diffusion": foreign.stable_diffusion,
}


@pytest.mark.filterwarnings("ignore:Sampled by")  # of a scheduler's config that names another class
@pytest.mark.parametrize("maker", MAKERS)
def test_a_damaged_config_never_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str) -> None:
    asked: list[Any] = []

    def never(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    MAKERS[maker](tmp_path / "model")
    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    refused = 0
    for path in sorted((tmp_path / "model").rglob("*.json")):
        whole = path.read_text(encoding="utf-8")
        assert json.loads(whole) is not None
        for content in DAMAGED.values():
            path.unlink() if content is None else path.write_text(content)
            try:
                cascade = Cascade.from_pretrained(str(tmp_path / "model"), device="cpu", keep_loaded=True)
                for stage in cascade.stages:
                    with cascade.running(stage):
                        pass
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
            path.write_text(whole, encoding="utf-8")
    assert refused > 10 and not asked
