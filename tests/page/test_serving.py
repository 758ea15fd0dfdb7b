"""What the owner of a page may set: who enters, where, how many wait, how much they bring, which models they open."""

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from inflate.cli.app import main
from inflate.errors import InputError
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet
from tests.page.serve import served

pytest.importorskip("gradio", reason="the page needs the app extra")
from inflate.page.jobs import Models
from inflate.page.offered import Offered
from inflate.page.serving import read_auth, read_root_path, read_size, seen_by_others

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--auth", "nobody"], "--auth takes USER:PASSWORD"),
        (["--auth", ":secret"], "neither part may be empty"),
        (["--auth", "nobody:"], "neither part may be empty"),
        (["--auth", "@none.txt"], "--auth @none.txt names a file that cannot be read"),
        (["--root-path", ""], "--root-path '' is not where a page can be"),
        (["--root-path", "videos"], "write /path or https://host/path"),
        (["--root-path", "/a b"], "write /path or https://host/path"),
        (["--root-path", "ftp://host/videos"], "write /path or https://host/path"),
        (["--max-queue", "0"], "--max-queue"),
        (["--max-queue", "some"], "--max-queue"),
        (["--max-size", "0"], "--max-size '0' is not a size"),
        (["--max-size", "-5MB"], "is not a size"),
        (["--max-size", "5 TB"], "is not a size"),
        (["--max-size", "inf"], "is not a size"),
        (["--allow-models", "none"], "--allow-models none is not a folder"),
        (["--allow-models", "file.txt"], "--allow-models file.txt is not a folder"),
        (["--port", "70000"], "--port"),
    ],
)
def test_bad_values_are_one_sentence_and_exit_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("no folder")
    assert main(["app", "--port", "0", *arguments]) == 2  # whatever listens on the usual one
    error = capsys.readouterr().err
    assert sentence in error and error.count("error:") == 1 and error.count("\n") == 1
    assert "nobody:" not in error.replace("--auth", "") and "secret" not in error


def test_a_port_in_use_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another with --port" in capsys.readouterr().err


def test_an_unknown_host_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["app", "--host", "none.invalid"]) == 2
    assert "Port 7860 of none.invalid cannot be used (Name or service not known)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "seen"),
    [("127.0.0.1", False), ("localhost", False), ("127.0.0.2", False), ("0.0.0.0", True), ("192.0.2.1", True)],
)
def test_who_lets_other_machines_in_is_warned(host: str, seen: bool) -> None:
    told = seen_by_others(host, None)
    assert bool(told) == seen and (not seen or ("without a password" in told and host in told))
    assert ("without a password" in seen_by_others(host, ("ann", "secret"))) is False


def test_good_values(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("ann:pass:word\nmore\n")
    assert read_auth(None) is None
    assert read_auth("ann:pass:word") == read_auth(f"@{tmp_path / 'auth'}") == ("ann", "pass:word")
    sizes = {"1": 1, "20MB": 20_000_000, "500 kb": 500_000, "1.5GB": 1_500_000_000, " 7B ": 7}
    assert {text: read_size(text) for text in sizes} == sizes
    assert [read_root_path(text) for text in ("/videos/", "https://a.org", "http://a.org:8/v/")] == [
        "/videos",
        "https://a.org",
        "http://a.org:8/v",
    ]


def test_options_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound to this machine unless told; a password from the environment; files in a folder that is gone in the end."""
    import gradio

    launched: dict[str, Any] = {}

    def launch(page: Any, **options: Any) -> None:
        launched.update(options, waiting=page.handlers.line.max_waiting, direct=page.api_open)
        gate = options["app_kwargs"]["middleware"][0].kwargs
        launched["gate"], launched["there"] = gate, gate["uploads"].is_dir()

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    monkeypatch.setenv("INFLATE_AUTH", "ann:secret")
    assert main(["app", "--port", "0", "--max-queue", "3", "--max-size", "2MB", "--root-path", "/videos"]) == 0
    assert launched["server_name"] == "127.0.0.1" and launched["auth"] == ("ann", "secret")
    assert launched["waiting"] == 3 and launched["root_path"] == "/videos" and not launched["direct"]
    assert launched["max_file_size"] == launched["gate"]["max_size"] == 2_000_000
    assert launched["there"] and not launched["gate"]["uploads"].exists()
    assert not launched.get("share") and not launched["enable_monitoring"]


def test_a_password_is_asked_for_before_anything_is_told() -> None:
    with served(tiny_cascade().stages, auth=("ann", "secret")) as running:
        with httpx.Client(base_url=running.url, timeout=30) as visitor:
            for path in ("/config", "/gradio_api/info", f"/gradio_api/file={running.folder}/x"):
                assert visitor.get(path).status_code in (401, 403)
            assert visitor.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
            assert visitor.post("/gradio_api/queue/join", json={"data": [], "session_hash": "a"}).status_code == 401
            assert visitor.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
            assert visitor.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
            assert visitor.get("/config").status_code == 200


def test_behind_a_proxy_addresses_begin_with_the_path_it_gives() -> None:
    with served(tiny_cascade().stages, root_path="https://example.org/videos") as running:
        assert httpx.get(f"{running.url}/config", timeout=30).json()["root"] == "https://example.org/videos"


# Models that visitors may open


@pytest.fixture
def offered(tmp_path: Path) -> Path:
    root = tmp_path / "offered"
    save_tiny_family(root / "own", tiny_unet())
    save_tiny_family(root / "deeper" / "second", tiny_unet())
    save_tiny_family(root / "third", tiny_unet())
    save_tiny_family(root / "pickled", tiny_unet())
    (root / "pickled" / "more.bin").write_bytes(b"")
    (root / "bare").mkdir()
    (root / "bare" / "model_index.json").write_text("{}")
    save_tiny_family(tmp_path / "private", tiny_unet())
    (root / "link").symlink_to(tmp_path / "private")
    return root


def test_only_what_is_below_the_folder_is_opened(offered: Path, tmp_path: Path) -> None:
    models = Models("cpu", offered=offered)
    assert models.offered.names() == ["bare", "deeper/second", "own", "pickled", "third"]
    assert models.for_visitor("own") is models.for_visitor("own")
    for name in (
        "deeper/../own",
        "./own",
        "own/",
        "deeper//second",
        "../private",
        str(tmp_path / "private"),
        "link",
        "own/../../private",
        "bundled:emoji",
        "org/name",
        "",
        ".",
        "~",
        "none",
        "own\0",
        "a" * 5000,
    ):
        with pytest.raises(InputError, match="is offered here; choose one of: bare") as caught:
            models.for_visitor(name)
        assert str(offered) not in str(caught.value)


@pytest.mark.parametrize(("name", "sentence"), [("pickled", "holds pickles"), ("bare", "holds no safetensors")])
def test_only_safetensors_are_opened(offered: Path, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Models("cpu", offered=offered).for_visitor(name)


def test_a_damaged_one_is_told_without_the_servers_path(offered: Path) -> None:
    (offered / "own" / "model_index.json").write_text("{")
    with pytest.raises(InputError) as caught:
        Models("cpu", offered=offered).for_visitor("own")
    assert str(offered) not in str(caught.value)


def test_visitors_models_do_not_fill_the_memory(offered: Path) -> None:
    models = Models("cpu", offered=offered)
    first = models.for_visitor("own")
    models.for_visitor("third")
    assert models.for_visitor("own") is first  # the one used last stays
    models.for_visitor("deeper/second")
    assert models.for_visitor("own") is first and len(models._visited) == 2
    models.for_visitor("third")
    models.for_visitor("deeper/second")
    assert models.for_visitor("own") is not first


def test_without_a_folder_nothing_is_opened(tmp_path: Path) -> None:
    folder = str(save_tiny_family(tmp_path / "own", tiny_unet()))
    models = Models("cpu")
    for name in (folder, "own", "bundled:emoji", "org/name"):
        with pytest.raises(InputError, match="one model only"):
            models.for_visitor(name)
    assert Offered().names() == []
    assert models.for_visitor(folder) if models.get(folder) else None  # the owner's own
