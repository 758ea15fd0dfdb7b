"""A visitor reads, lists, fetches and opens nothing but what was uploaded or made here, whatever is sent."""

import io
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from inflate.data.writing import write_video
from tests.cascade.test_applications import RecordingInterpolation
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet
from tests.page.gates import Gated
from tests.page.serve import served

pytest.importorskip("gradio", reason="the page needs the app extra")
# Gradio and its servers warn of their own deprecations, which are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
API = "/gradio_api"
MAX_SIZE = 100_000


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with served((*tiny_cascade().stages, RecordingInterpolation()), max_size=MAX_SIZE) as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Any]:
    """An address on this machine that counts who comes."""
    seen: list[str] = []

    class Counting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", seen
    listening.shutdown()
    listening.server_close()


def picture(side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(file, "png")
    return file.getvalue()


def upload(server: Any, data: bytes, name: str = "cat.png") -> httpx.Response:
    return httpx.post(f"{server.url}{API}/upload", files={"files": (name, data)}, timeout=30)


def event_of(server: Any, button: str) -> tuple[int, int]:
    """Number of the action behind a button, and of its inputs."""
    config = httpx.get(f"{server.url}/config", timeout=30).json()
    number = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == button)
    found = next(d for d in config["dependencies"] if [number, "click"] in [list(t) for t in d["targets"]])
    return found["id"], len(found["inputs"])


# Frames per second, frames, skip, guidance, a seed of its own, seed, weight, negative prompt: quick ones.
SETTINGS: list[Any] = [5, 2, 1, 1, False, 7, 1, ""]


def ask(
    server: Any, button: str, values: list[Any], session: str, settings: Sequence[Any] = SETTINGS
) -> httpx.Response:
    number, _ = event_of(server, button)
    body = {"data": ["", None, *values, *settings], "fn_index": number, "session_hash": session}
    return httpx.post(f"{server.url}{API}/queue/join", json=body, timeout=30)


def heard(server: Any, session: str) -> list[dict[str, Any]]:
    """Everything the server says to a visitor until the job has ended."""
    told = []
    with httpx.stream("GET", f"{server.url}{API}/queue/data?session_hash={session}", timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                told.append(json.loads(line[5:]))
                if told[-1]["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                    break
    return told


def as_file(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def inside(path: str) -> dict[str, Any]:
    return {"video": as_file(path), "subtitles": None}


def test_what_was_uploaded_is_used_and_handed_out(server: Any) -> None:
    [path] = upload(server, picture()).json()
    assert Path(path).is_relative_to(server.folder) and httpx.get(f"{server.url}{API}/file={path}").content == picture()
    assert ask(server, "go-animate", [as_file(path)], "good").status_code == 200
    made = json.dumps(heard(server, "good"))
    assert "inflate.mp4" in made and str(server.folder) in made


def test_a_prompt_is_answered(server: Any) -> None:
    assert ask(server, "go-prompt", ["sun"], "words").status_code == 200
    assert "inflate.mp4" in json.dumps(heard(server, "words"))


def outside(server: Any) -> list[str]:
    """Paths that nobody uploaded, in ways that get past careless checks."""
    link = server.folder / "link.txt"
    if not link.is_symlink():
        link.symlink_to(__file__)
    return [
        __file__,
        "/etc/hostname",
        str(server.folder / ".." / ".." / "hostname"),
        f"{server.folder}/../../../../../../etc/hostname",
        str(link),
        str(server.folder),
        os.path.relpath(__file__),
        "setup.py",
        f"file://{__file__}",
        "~/.bashrc",
        "/proc/self/environ",
        "a" * 5000,
        "nul\0byte",
    ]


def test_no_file_is_handed_out_that_was_not_uploaded(server: Any, elsewhere: Any) -> None:
    address, seen = elsewhere
    for path in [*outside(server), f"{address}/secret", f"{address.upper()}/secret", "//127.0.0.1/secret"]:
        quoted = str(httpx.QueryParams({"x": path}))[2:]
        for route in (f"{API}/file=", "/file=", f"{API}/file/", f"{API}/proxy=", "/proxy=", f"{API}//file="):
            for form in (quoted, path.replace("\0", "%00").replace("..", "%2e%2e")):
                answer = httpx.get(f"{server.url}{route}{form}", timeout=30)
                assert answer.status_code in (400, 403, 404), (route, path)
                assert "hostname" not in answer.text and "HOME=" not in answer.text
    assert not seen


@pytest.mark.parametrize("wrap", [as_file, inside])
def test_no_file_is_read_and_no_address_fetched_on_a_visitors_word(server: Any, elsewhere: Any, wrap: Any) -> None:
    address, seen = elsewhere
    button = "go-animate" if wrap is as_file else "go-vary"
    for path in [*outside(server), f"{address}/a.png", "http://169.254.169.254/latest", "ftp://none.invalid/a"]:
        answer = ask(server, button, [wrap(path)], "bad")
        assert answer.status_code == 403 and "upload it first" in answer.json()["detail"], path
    [good] = upload(server, picture()).json()
    for value in (
        as_file(good, url="data:image/png;base64,AAAA"),
        {"url": f"{address}/a.png", "meta": {"_type": "gradio.FileData"}},
        {"path": None, "url": f"{address}/a.png"},
        [{"image": as_file(__file__)}],
    ):
        assert ask(server, button, [value], "bad").status_code == 403
    assert not seen


def test_a_body_that_is_read_in_two_ways_is_read_in_one(server: Any, elsewhere: Any) -> None:
    """Spaces before it, other encodings, names given twice: what was checked is what arrives."""
    address, seen = elsewhere
    number, _ = event_of(server, "go-animate")
    start = f'{{"fn_index": {number}, "session_hash": "two", "data": ["", null, '
    end = ', 5, 2, 1, 1, false, 7, 1, ""]}'
    bad = json.dumps(as_file(f"{address}/a.png"))
    for body in (
        f"  \n{start}{bad}{end}".encode(),
        f"{start}{bad}{end}".encode("utf-16"),
        f"{start}{bad}{end}".replace("path", "\\u0070ath").encode(),
    ):
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{server.url}{API}/queue/join", content=body, headers=headers, timeout=30)
        assert answer.status_code == 403
    assert not seen


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/component_server"),
        ("GET", "/run-history/buckets"),
        ("POST", "/run-history/connect"),
        ("GET", "/deep_link?session_hash=a"),
        ("POST", "/process_recording"),
        ("POST", "/vibe-edit/"),
        ("GET", "/vibe-code/"),
        ("GET", "/profiling/traces"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/dev/reload"),
        ("POST", "/stream/none"),
        ("GET", "/custom_component/1/client/component/index.js"),
        ("POST", "/call/generate"),
        ("PUT", "/upload"),
        ("GET", "/openapi.json"),
    ],
)
def test_doors_that_no_visitor_needs_are_shut(server: Any, method: str, path: str) -> None:
    for start in ("", API):
        answer = httpx.request(method, f"{server.url}{start}{path}", json={} if method == "POST" else None, timeout=30)
        assert answer.status_code == 404 and answer.json()["detail"] == "This page has no such address."


def test_nobody_gets_past_the_queue(server: Any) -> None:
    number, _ = event_of(server, "go-prompt")
    body = {"data": ["", None, "sun", *SETTINGS], "fn_index": number, "session_hash": "past"}
    assert httpx.post(f"{server.url}{API}/run/predict", json=body, timeout=30).status_code == 404


def test_large_uploads_and_bodies_are_refused_in_a_sentence(server: Any) -> None:
    before = sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file())
    answer = upload(server, bytes(MAX_SIZE + 5000))
    assert answer.status_code == 413 and answer.text == "This is too large: at most 100 kB can be uploaded."
    several = [("files", (f"{n}.png", bytes(MAX_SIZE // 2))) for n in range(4)]
    assert httpx.post(f"{server.url}{API}/upload", files=several, timeout=30).status_code == 413
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{server.url}{API}/upload", content=iter([b"--x"]), headers=headers, timeout=30)
    assert answer.status_code == 411
    answer = ask(server, "go-prompt", ["a" * 70_000], "long")
    assert answer.status_code == 413 and "more than the page asks for" in answer.json()["detail"]
    deep = b"[" * 50_000
    assert httpx.post(f"{server.url}{API}/queue/join", content=deep, timeout=30).status_code == 400
    assert sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file()) == before


def test_the_server_keeps_no_more_files_than_it_has_room_for(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inflate.page.gate.UPLOADS_KEPT", 0)
    answer = upload(server, picture())
    assert answer.status_code == 507 and "no room for more files just now" in answer.text


def test_a_full_queue_says_so() -> None:
    """One runs, one waits, the third is asked to come back."""
    gated = Gated()
    gated.gate.shut()
    with served((*tiny_cascade().stages, gated), max_waiting=1) as running:
        twice_the_rate = [5, 2, 2, *SETTINGS[3:]]
        ask(running, "go-prompt", ["sun"], "first", twice_the_rate)
        assert gated.gate.reached.wait(60)
        ask(running, "go-prompt", ["sun"], "second", twice_the_rate)
        end = time.monotonic() + 60
        while running.handlers.line.running() < 2:
            assert time.monotonic() < end, "the second never came to wait"
            time.sleep(0.02)
        ask(running, "go-prompt", ["sun"], "third", twice_the_rate)
        refused = json.dumps(heard(running, "third"))
        gated.gate.open()
        assert "1 videos are waiting already: please try again in a while." in refused
        assert "inflate.mp4" in json.dumps(heard(running, "second"))


def test_disguised_and_damaged_uploads_get_a_sentence_and_the_server_lives_on(server: Any, tmp_path: Path) -> None:
    [path] = upload(server, b"#EXTM3U\n", "clip.mp4").json()
    assert ask(server, "go-vary", [as_file(path)], "disguised").status_code == 200
    told = json.dumps(heard(server, "disguised"))
    assert "HLS, m3u8" in told and "Traceback" not in told
    frames = np.stack([np.full((16, 16, 3), 20 * index, np.uint8) for index in range(4)])
    [path] = upload(server, write_video(tmp_path / "in.mp4", frames, 10).read_bytes(), "in.mp4").json()
    assert ask(server, "go-vary", [as_file(path)], "plain").status_code == 200
    assert "inflate.mp4" in json.dumps(heard(server, "plain"))


# Models


def test_the_footer_leads_to_nothing_that_the_gate_shuts(server: Any) -> None:
    # Left out are "api", whose page asks for the first of these, and "runs", whose pages ask for the second.
    assert httpx.get(f"{server.url}/config", timeout=30).json()["footer_links"] == ["gradio", "settings"]
    for path in ("/openapi.json", "/runs"):
        assert httpx.get(f"{server.url}{API}{path}", timeout=30).status_code == 404


def test_a_page_with_one_model_has_no_tab_for_others(server: Any) -> None:
    config = httpx.get(f"{server.url}/config", timeout=30).json()
    assert not [c for c in config["components"] if c["props"].get("elem_id") in ("model-name", "go-model")]


def test_the_model_in_a_request_is_not_believed(server: Any, tmp_path: Path) -> None:
    """The page's state names the model; what a request writes in its place is left alone."""
    folder = str(save_tiny_family(tmp_path / "own", tiny_unet()))
    number, _ = event_of(server, "go-prompt")
    body = {"data": ["", folder, "sun", *SETTINGS], "fn_index": number, "session_hash": "forged"}
    assert httpx.post(f"{server.url}{API}/queue/join", json=body, timeout=30).status_code == 200
    assert heard(server, "forged")[-1]["success"]
    assert folder not in server.handlers.models._open and not server.handlers.models._visited
