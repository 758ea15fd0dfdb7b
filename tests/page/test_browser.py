"""The page in a real browser (Debian's chromium, driven by Playwright): every tab to a finished video.

The networks are tiny and untrained; the bundled family itself is tried by hand and by ``make demo``.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.data.writing import write_video
from inflate.page.abilities import APPLICATIONS
from tests.cascade.test_applications import Doubling
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet
from tests.page.gates import Gate, Gated
from tests.page.serve import served

pytest.importorskip("gradio", reason="the page needs the app extra")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
# Gradio and its servers warn of their own deprecations, which are not ours to mend.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
    pytest.mark.filterwarnings("ignore"),
]
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def gated() -> Gated:
    return Gated()


@pytest.fixture
def gate(gated: Gated) -> Iterator[Gate]:
    """Shut for one test, and open after it whatever happens."""
    gated.gate.shut()
    gated.calls = 0
    yield gated.gate
    gated.gate.open()


@pytest.fixture(scope="module")
def server(gated: Gated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    offered = tmp_path_factory.mktemp("offered")
    save_tiny_family(offered / "own", tiny_unet())
    with served((*tiny_cascade().stages, gated, Doubling()), offered, max_size=20_000_000) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def tab(server: Any, browser: Any) -> Iterator[Any]:
    opened = open_tab(server, browser)
    yield opened
    opened.close()


def open_tab(server: Any, browser: Any, **options: Any) -> Any:
    opened = browser.new_page(**options)
    opened.set_default_timeout(WAIT_MS)
    opened.goto(server.url)
    opened.wait_for_selector("#go-prompt")
    return opened


def wait_for_status(tab: Any, *parts: str) -> str:
    """Wait until the status says all of this; returns it."""
    for part in parts:
        tab.wait_for_function(f"document.querySelector('#status')?.innerText.includes({part!r})")
    return tab.inner_text("#status").strip()


def finished(tab: Any) -> list[str]:
    """Wait for the video; returns the names of the files offered."""
    wait_for_status(tab, "done")
    tab.wait_for_selector("#result video")
    tab.wait_for_function("document.querySelectorAll('#files a').length >= 4")
    return sorted({link.get_attribute("download") or "" for link in tab.query_selector_all("#files a")})


def wait_for_width(tab: Any, width: int) -> None:
    tab.wait_for_function(f"document.querySelector('#result video').videoWidth === {width}")


def go_to(tab: Any, name: str) -> None:
    tab.get_by_role("radio", name=name, exact=True).click()


def upload(tab: Any, where: str, path: Path) -> str:
    """Hand a file in; returns what the page says of it."""
    tab.wait_for_selector(f"{where} input[type=file]", state="attached")
    tab.set_input_files(f"{where} input[type=file]", str(path))
    tab.wait_for_selector(f"{where}-said")
    return tab.inner_text(f"{where}-said").strip()


def ask(tab: Any, prompt: str) -> None:
    tab.fill("#prompt textarea", prompt)
    tab.click("#go-prompt")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "cat.png"
    Image.new("RGB", (32, 32), (200, 30, 30)).save(path)
    return path


FRAMES = np.stack([np.full((16, 16, 3), 40 * index, np.uint8) for index in range(4)])


def video_file(folder: Path, suffix: str) -> Path:
    path = folder / f"in.{suffix}"
    if suffix in ("mp4", "gif", "webp"):
        return write_video(path, FRAMES, 10)
    if suffix == "avif":
        first, *more = (Image.fromarray(frame) for frame in FRAMES)
        first.save(path, save_all=True, append_images=more, duration=100)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9" if suffix == "webm" else "libx264", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_prompt_becomes_a_video_shown_once_with_files_and_seed(tab: Any) -> None:
    for empty in ("#preview", "#result", "#files", "#compare", "#last-seed", "#cancel", "#past"):
        assert not tab.is_visible(empty), f"{empty} has nothing to show yet"
    ask(tab, "party popper")
    assert finished(tab) == ["inflate.gif", "inflate.json", "inflate.mp4", "inflate.webp"]
    wait_for_width(tab, 32)
    assert not tab.is_visible("#preview") and not tab.is_visible("#slider") and not tab.is_visible("#cancel")
    tab.get_by_role("button", name="Compare before and after").click()
    tab.wait_for_function("document.querySelectorAll('#slider img').length == 2")
    seed = tab.input_value("#last-seed input")
    tab.click("#reuse")
    tab.get_by_role("button", name="Settings").first.click()
    tab.wait_for_selector("#seed input")
    tab.wait_for_function(f"document.querySelector('#seed input').value === '{seed}'")
    assert not tab.is_checked("#random input")


@pytest.mark.parametrize(
    ("name", "application", "uploads"),
    [
        ("Animate", "animate", ["animate-image"]),
        ("Between two", "between", ["first-image", "last-image"]),
        ("More frames", "faster", ["faster-video"]),
        ("Extend", "extend", ["extend-video"]),
        ("Fill gaps", "infill", ["infill-video"]),
        ("Vary", "vary", ["vary-video"]),
        ("Upscale", "upscale", ["upscale-video"]),
    ],
)
def test_every_application_ends_with_a_video(
    tab: Any, name: str, application: str, uploads: list[str], picture: Path, tmp_path: Path
) -> None:
    go_to(tab, name)
    for where in uploads:
        said = upload(tab, f"#{where}", picture if "image" in where else video_file(tmp_path, "mp4"))
        assert said == ("32 x 32 pixels" if "image" in where else "4 frames, 0.4 s, 16 x 16 pixels")
    if application == "infill":
        tab.fill("#infill-missing textarea, #infill-missing input", "1-2")
    if application == "extend":
        tab.get_by_role("radio", name="reconstruction", exact=True).click()
    tab.click(f"#go-{application}")
    assert len(finished(tab)) == 4


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif", "mov", "mkv", "webm"])
def test_videos_of_all_kinds_are_taken(tab: Any, suffix: str, tmp_path: Path) -> None:
    go_to(tab, "Upscale")
    assert upload(tab, "#upscale-video", video_file(tmp_path, suffix)) == "4 frames, 0.4 s, 16 x 16 pixels"
    tab.click("#go-upscale")
    assert len(finished(tab)) == 4
    wait_for_width(tab, 32)


def test_the_key_frames_are_seen_while_the_next_stage_still_runs(tab: Any, gate: Gate) -> None:
    ask(tab, "rocket")
    tab.wait_for_selector("#preview img")
    wait_for_status(tab, "key frames (D)", "%")
    assert not tab.is_visible("#result")
    gate.open()
    finished(tab)


def test_cancel_in_the_middle_of_a_network_and_the_next_click_works_at_once(
    tab: Any, server: Any, gated: Gated, gate: Gate
) -> None:
    ask(tab, "rocket")
    assert gate.reached.wait(60)
    tab.click("#cancel")
    wait_for_status(tab, "cancelled")
    assert not tab.is_visible("#cancel") and not tab.is_visible("#preview")
    tab.click("#go-prompt")
    wait_for_status(tab, "waiting: place 1 in the queue")
    gate.open()
    finished(tab)
    assert gated.calls == gated.layers, "the cancelled one went on to no further layer"
    wait_until(lambda: server.handlers.line.running() == 0)


def test_a_closed_tab_frees_the_worker_within_five_seconds(server: Any, browser: Any, gated: Gated, gate: Gate) -> None:
    gone = open_tab(server, browser)
    ask(gone, "rocket")
    assert gate.reached.wait(60)
    job = server.handlers.line._running
    gone.context.close()
    closed = time.monotonic()
    wait_until(lambda: job.unwanted)
    # On a busy machine the news of it takes longer; the page itself waits so long for a reload.
    assert (
        time.monotonic() - closed >= server.handlers.line.patience_seconds - 0.5
        and server.handlers.line.patience_seconds < 4
    )
    gate.open()
    assert job.wait(60) and job.phase == "cancelled" and gated.calls == 0


def test_a_queued_visitor_sees_a_place_and_a_time(server: Any, browser: Any, gate: Gate) -> None:
    tabs = [open_tab(server, browser) for _ in range(3)]
    for number, opened in enumerate(tabs):
        ask(opened, ["sun", "red heart", "blue rocket"][number])
        opened.wait_for_selector("#cancel")
        if number == 0:
            assert gate.reached.wait(60)
    wait_for_status(tabs[1], "waiting: place 1 in the queue", "begins in about")
    wait_for_status(tabs[2], "waiting: place 2 in the queue", "begins in about")
    tabs[1].click("#cancel")
    wait_for_status(tabs[1], "cancelled")
    wait_for_status(tabs[2], "waiting: place 1 in the queue")
    gate.open()
    seeds = set()
    for opened in (tabs[0], tabs[2]):
        assert len(finished(opened)) == 4
        seeds.add(opened.input_value("#last-seed input"))
    for opened in tabs:
        opened.context.close()
    assert len(seeds) == 2


def test_a_full_queue_is_a_polite_sentence(
    tab: Any, server: Any, browser: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.handlers.line, "max_waiting", 0)
    ask(tab, "rocket")
    assert gate.reached.wait(60)
    other = open_tab(server, browser)
    ask(other, "sun")
    wait_for_status(other, "0 videos are waiting already: please try again in a while")
    assert not other.is_visible("#cancel")
    other.context.close()
    gate.open()
    finished(tab)


def test_a_reload_finds_the_running_job_and_the_finished_videos(tab: Any, server: Any, gate: Gate) -> None:
    gate.open()
    ask(tab, "first sun")
    finished(tab)
    first_seed = tab.input_value("#last-seed input")
    gate.shut()
    ask(tab, "second sun")
    assert gate.reached.wait(60)
    tab.reload()
    tab.wait_for_selector("#preview img")
    wait_for_status(tab, "key frames (D)")
    tab.wait_for_selector("#cancel")
    tab.wait_for_selector("#past")
    gate.open()
    finished(tab)
    seed = tab.input_value("#last-seed input")
    tab.reload()
    assert len(finished(tab)) == 4 and tab.input_value("#last-seed input") == seed != first_seed
    tab.click("#past input")
    tab.get_by_role("option", name="1. first sun").click()
    tab.wait_for_function(f"document.querySelector('#last-seed input').value === '{first_seed}'")
    made = [path for one in visitors_of(server) for job in one.jobs for path in job.result.written.all()]
    assert made and all(Path(path).is_relative_to(server.folder) for path in made)


def test_another_visitor_sees_none_of_it(tab: Any, server: Any, browser: Any) -> None:
    ask(tab, "sun")
    finished(tab)
    other = open_tab(server, browser)
    other.wait_for_function("Object.keys(localStorage).some(key => key.includes('inflate-visitor'))")
    wait_for_status(other, "ready")
    assert not other.is_visible("#result") and not other.is_visible("#past")
    other.context.close()


@pytest.mark.parametrize(
    ("prompt", "sentence"), [("", "The prompt is empty"), ("ракета", "The model has learned English words only")]
)
def test_bad_prompts_are_one_sentence_and_the_server_lives_on(tab: Any, prompt: str, sentence: str) -> None:
    ask(tab, prompt)
    wait_for_status(tab, sentence)
    ask(tab, "sun")
    finished(tab)


def test_a_missing_upload_is_one_sentence(tab: Any) -> None:
    go_to(tab, "Animate")
    tab.click("#go-animate")
    wait_for_status(tab, "There is no picture: upload one first.")


@pytest.mark.parametrize(
    ("name", "where", "button", "file"),
    [("Animate", "#animate-image", "#go-animate", "cat.png"), ("Vary", "#vary-video", "#go-vary", "cat.mp4")],
)
def test_a_damaged_upload_is_one_sentence_and_no_traceback(
    tab: Any, name: str, where: str, button: str, file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "whole.png")
    (tmp_path / file).write_bytes((tmp_path / "whole.png").read_bytes()[:60] + bytes(200))
    go_to(tab, name)
    said = upload(tab, where, tmp_path / file)
    assert file in said and str(tmp_path) not in said and len(said) < 250
    tab.click(button)
    wait_for_status(tab, file)
    assert tab.locator(".inflate-wrong").count() == 2 and "Traceback" not in capfd.readouterr().err


def test_a_model_that_is_offered_is_opened_and_the_page_asks_for_what_it_can(tab: Any) -> None:
    assert tab.get_by_role("radio", name="Animate", exact=True).count() == 1 and not tab.is_visible("#excuses")
    go_to(tab, "Another model")
    tab.click("#go-model")
    tab.get_by_text("with the stages prior, decoder").wait_for()
    tab.get_by_text("its decoder has no temporal layers").wait_for()
    assert tab.get_by_role("radio", name="Animate", exact=True).count() == 0
    go_to(tab, "Prompt")
    ask(tab, "sun")
    finished(tab)
    wait_for_width(tab, 16)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_everything_is_in_sight_on_a_screen_and_on_a_phone(server: Any, browser: Any, width: int, height: int) -> None:
    small = width < 640
    options = {"viewport": {"width": width, "height": height}, "is_mobile": small, "has_touch": small}
    page = open_tab(server, browser, **options)
    for label in (*APPLICATIONS.values(), "Another model"):
        box = page.locator("#what label", has_text=label).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= height, label
    page.fill("#prompt textarea", "sun")
    (page.tap if small else page.click)("#go-prompt")
    assert len(finished(page)) == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator("#result video").bounding_box()
    assert shown["width"] >= 0.8 * min(width, 480), "the picture is large"
    page.context.close()


def visitors_of(server: Any) -> list[Any]:
    return list(server.handlers.line._visitors.values())


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.05)


def test_the_footer_offers_no_api(tab: Any) -> None:
    tab.wait_for_selector("footer >> text=Settings")
    assert "API" not in tab.inner_text("footer")
