"""Models named as on the model hub: out of a cache made here, and every way in which one cannot be had."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants, errors

import inflate.checkpoint.hub as hub
from inflate.checkpoint import convert, find_source, load, load_image_model
from inflate.cli.app import main
from inflate.errors import InputError
from tests.inflater.tiny_models import build

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two revisions of a pipeline, as huggingface_hub lays it out; an empty working folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    repository = tmp_path / "cache" / "models--someone--toy"
    (repository / "refs").mkdir(parents=True)
    for seed, (revision, commit) in enumerate({"main": COMMIT, "v2": OTHER}.items()):
        (repository / "refs" / revision).write_text(commit)
        snapshot = repository / "snapshots" / commit
        build("sd15", seed).save_pretrained(snapshot / "unet")
        (snapshot / "model_index.json").write_text("{}")
        blob = repository / "blobs" / commit
        blob.parent.mkdir(exist_ok=True)
        weights = snapshot / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(blob)
        weights.symlink_to(blob)
    return repository


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def list_repo_files(*_: Any, **__: Any) -> list[str]:
        raise error

    monkeypatch.setattr(hub.HfApi, "list_repo_files", list_repo_files)


def http_error(kind: type[Exception]) -> Exception:
    response: Any = SimpleNamespace(headers={}, status_code=404, request=None)
    return kind("the hub's own long words", response=response)  # type: ignore[call-arg]  # of HfHubHTTPError


def first_weight(model: Any) -> torch.Tensor:
    return model.state_dict()["conv_in.weight"]


@pytest.mark.parametrize(("name", "seed"), [("someone/toy", 0), ("someone/toy@v2", 1), (f"someone/toy@{OTHER}", 1)])
def test_a_cached_model_offline(cache: Path, name: str, seed: int) -> None:
    assert torch.equal(first_weight(load_image_model(find_source(name))), first_weight(build("sd15", seed)))


def test_convert_copies_out_of_the_cache(cache: Path, tmp_path: Path) -> None:
    convert("someone/toy", tmp_path / "video", num_frames=3)
    assert not (tmp_path / "video" / "unet" / "diffusion_pytorch_model.safetensors").is_symlink()
    assert torch.equal(first_weight(load(tmp_path / "video").image_model), first_weight(build("sd15")))


def test_a_local_folder_of_that_name_wins(cache: Path) -> None:
    build("sd15", 7).save_pretrained("someone/toy")
    assert torch.equal(first_weight(load_image_model(find_source("someone/toy"))), first_weight(build("sd15", 7)))


def test_a_model_that_cannot_be_listed_comes_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (http_error(errors.RepositoryNotFoundError), ConnectionError("cable"), hub._UNREACHABLE[1]("cable")):
        refuse(monkeypatch, error)
        assert find_source("someone/toy").folder == cache / "snapshots" / COMMIT / "unet"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, r"no such folder: no/body, and it is not in the hub's local cache; unset HF_HUB_OFFLINE to download it"),
        (ConnectionError("cable"), r"local cache; the hub cannot be reached to download it \(ConnectionError\)"),
        (errors.RepositoryNotFoundError, "no such folder: no/body, and no such repository on the hub; if it is a priv"),
        (
            errors.GatedRepoError,
            "the repository no/body is gated: accept its terms on its page on the hub, then log in",
        ),
        (errors.RevisionNotFoundError, "the repository no/body has no revision 'old'"),
        (errors.HfHubHTTPError, r"the hub cannot be reached to download it \(HfHubHTTPError\)"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Any,
    sentence: str,
) -> None:
    if error is not None:
        refuse(monkeypatch, http_error(error) if isinstance(error, type) else error)
    name = "no/body@old" if error is errors.RevisionNotFoundError else "no/body"
    with pytest.raises(InputError, match=sentence):
        find_source(name)
    assert main(["inspect", name]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "long words" not in printed


@pytest.mark.parametrize("name", ["./no/body", "/no/body", "no/such/body", "body", "~/body", "no/body@"])
def test_other_names_are_paths(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"^no such folder: [^,]*body@?$"):
        find_source(name)


FILES = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5.ckpt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/temporal.safetensors",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.fp16-00001-of-00001.safetensors",
    "text_encoder/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/spiece.model",
    "safety_checker/model.safetensors",
]


def test_only_what_is_needed_is_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(cache / "snapshots" / COMMIT)

    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *_, **__: FILES)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert find_source("some/one@v2").folder == cache / "snapshots" / COMMIT / "unet"
    small = {file for file in FILES if file.endswith((".json", ".txt", ".model"))}
    shards = {f"text_encoder/model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    beside = ("unet/temporal.safetensors", "safety_checker/model.safetensors")
    plain = "unet/diffusion_pytorch_model.safetensors"
    assert (asked["repo"], asked["revision"]) == ("some/one", "v2")
    assert set(asked["allow_patterns"]) == small | shards | {plain, *beside}
    assert set(hub.wanted_files("some/one", FILES, "fp16")) == small | {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16-00001-of-00001.safetensors",
        *beside,
    }
    with pytest.raises(
        InputError, match=r"no weights of variant 'fp61' \(did you mean 'fp16'\?\); the variants there: "
    ):
        hub.wanted_files("some/one", FILES, "fp61")
    without = [file for file in FILES if file != plain]
    with pytest.raises(
        InputError,
        match=r"variants of unet/\w+ \(fp16, non_ema\) and none without; choose one",
    ):
        hub.wanted_files("some/one", without, None)
    with pytest.raises(InputError, match="has no safetensors in diffusers' layout; nothing else is downloaded"):
        hub.wanted_files("some/one", FILES[:6], None)


def test_a_download_that_breaks_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> None:
        def snapshot_download(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(hub, "snapshot_download", snapshot_download)

    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *_, **__: FILES)
    failing(ConnectionError("cable"))
    with pytest.raises(
        InputError, match=r"the download of some/one broke off \(ConnectionError\); the same command goes"
    ):
        find_source("some/one")
    failing(http_error(errors.GatedRepoError))
    with pytest.raises(InputError, match="the repository some/one is gated"):
        find_source("some/one")
    failing(OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"):  # the program says it as of every full disk
        find_source("some/one")
