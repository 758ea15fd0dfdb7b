"""The page in a real browser (Debian's chromium, driven by Playwright): every tab to a finished video.

The networks are tiny and untrained; the bundled family itself is tried by hand and by ``make demo``.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inflate.data.writing import write_video
from tests.cascade.test_applications import Doubling, RecordingInterpolation
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet
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


class SlowInterpolation(RecordingInterpolation):
    """Takes its time, so that there is something to cancel."""

    seconds = 0.0

    def __call__(self, state: Any, settings: Any, on_step: Any) -> Any:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            on_step(0, 0, None, state.frames)
        return super().__call__(state, settings, on_step)


@pytest.fixture(scope="module")
def slow() -> SlowInterpolation:
    return SlowInterpolation()


@pytest.fixture(scope="module")
def server(slow: SlowInterpolation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    offered = tmp_path_factory.mktemp("offered")
    save_tiny_family(offered / "own", tiny_unet())
    with served((*tiny_cascade().stages, slow, Doubling()), offered, max_size=20_000_000) as running:
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


def wait_for_status(tab: Any, start: str) -> str:
    tab.wait_for_function(f"document.querySelector('#status').innerText.trim().startsWith({start!r})")
    return tab.inner_text("#status").strip()


def finished(tab: Any) -> list[str]:
    """Wait for the video; returns the names of the files offered."""
    wait_for_status(tab, "done")
    tab.wait_for_selector("#result video")
    tab.wait_for_function("document.querySelectorAll('#files a').length >= 4")
    return sorted({link.get_attribute("download") or "" for link in tab.query_selector_all("#files a")})


def go_to(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name, exact=True).click()


def upload(tab: Any, where: str, path: Path) -> None:
    tab.set_input_files(f"{where} input[type=file]", str(path))
    tab.wait_for_selector(f"{where} img, {where} video")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "cat.png"
    Image.new("RGB", (32, 32), (200, 30, 30)).save(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.stack([np.full((16, 16, 3), 20 * index, np.uint8) for index in range(6)])
    return write_video(tmp_path_factory.mktemp("video") / "in.mp4", frames, 10)


def test_a_prompt_becomes_a_video_with_files_slider_and_seed(tab: Any) -> None:
    tab.fill("#prompt textarea", "party popper")
    tab.click("#go-prompt")
    assert finished(tab) == ["inflate.gif", "inflate.json", "inflate.mp4", "inflate.webp"]
    assert tab.locator("#preview img").count() == 1 and tab.locator("#slider img").count() == 2
    assert tab.evaluate("document.querySelector('#result video').videoWidth") == 32
    seed = tab.input_value("#last-seed input")
    tab.click("#reuse")
    tab.get_by_role("button", name="Settings").first.click()
    tab.wait_for_selector("#seed input")
    tab.wait_for_function(f"document.querySelector('#seed input').value === '{seed}'")
    assert not tab.is_checked("#random input")


@pytest.mark.parametrize(
    ("name", "button", "uploads"),
    [
        ("Animate", "#go-animate", [("#animate-image", "picture")]),
        ("Between two", "#go-between", [("#first-image", "picture"), ("#last-image", "picture")]),
        ("Extend", "#go-extend", [("#extend-video", "video")]),
        ("Vary", "#go-vary", [("#vary-video", "video")]),
        ("Upscale", "#go-upscale", [("#upscale-video", "video")]),
    ],
)
def test_every_tab_ends_with_a_video(
    tab: Any, name: str, button: str, uploads: list[tuple[str, str]], picture: Path, video: Path
) -> None:
    go_to(tab, name)
    for where, kind in uploads:
        upload(tab, where, {"picture": picture, "video": video}[kind])
    tab.click(button)
    assert len(finished(tab)) == 4


def test_the_key_frames_are_seen_while_the_next_stage_still_runs(tab: Any, slow: SlowInterpolation) -> None:
    slow.seconds = 4.0
    try:
        tab.fill("#prompt textarea", "rocket")
        tab.click("#go-prompt")
        tab.wait_for_selector("#preview img")
        assert "frames between" in wait_for_status(tab, "frames between")
        assert tab.locator("#result video").count() == 0
    finally:
        slow.seconds = 0.0
    finished(tab)


def test_cancel_stops_the_job(tab: Any, server: Any, slow: SlowInterpolation) -> None:
    slow.seconds = 30.0
    try:
        tab.fill("#prompt textarea", "rocket")
        tab.click("#go-prompt")
        wait_for_status(tab, "frames between")
        tab.click("#cancel")
        wait_for_status(tab, "cancelled")
        wait_until(lambda: server.handlers.running() == 0)
    finally:
        slow.seconds = 0.0


def test_closing_the_tab_cancels_the_job(server: Any, browser: Any, slow: SlowInterpolation) -> None:
    slow.seconds = 60.0
    try:
        gone = open_tab(server, browser)
        gone.fill("#prompt textarea", "rocket")
        gone.click("#go-prompt")
        wait_for_status(gone, "frames between")
        assert server.handlers.running() == 1
        gone.close()
        wait_until(lambda: server.handlers.running() == 0, seconds=20)
    finally:
        slow.seconds = 0.0


def test_three_visitors_at_once_each_get_their_own_video(server: Any, browser: Any) -> None:
    tabs = [open_tab(server, browser) for _ in range(3)]
    for number, opened in enumerate(tabs):
        opened.fill("#prompt textarea", ["sun", "red heart", "blue rocket"][number])
        opened.click("#go-prompt")
    seeds = set()
    for opened in tabs:
        assert len(finished(opened)) == 4
        seeds.add(opened.input_value("#last-seed input"))
        opened.close()
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("prompt", "sentence"), [("", "The prompt is empty"), ("ракета", "The model has learned English words only")]
)
def test_bad_prompts_are_one_sentence_and_the_server_lives_on(tab: Any, prompt: str, sentence: str) -> None:
    tab.fill("#prompt textarea", prompt)
    tab.click("#go-prompt")
    wait_for_status(tab, sentence)
    tab.fill("#prompt textarea", "sun")
    tab.click("#go-prompt")
    finished(tab)


def test_a_missing_upload_is_one_sentence(tab: Any) -> None:
    go_to(tab, "Animate")
    tab.click("#go-animate")
    wait_for_status(tab, "There is no picture: upload one first.")


def test_a_model_that_is_offered_is_opened(tab: Any) -> None:
    go_to(tab, "Models")
    tab.click("#go-model")
    tab.get_by_text("with the stages prior, decoder").wait_for()
    go_to(tab, "Prompt")
    tab.fill("#prompt textarea", "sun")
    tab.click("#go-prompt")
    finished(tab)
    assert tab.evaluate("document.querySelector('#result video').videoWidth") == 16


def test_it_fits_a_phone(server: Any, browser: Any) -> None:
    phone = open_tab(server, browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.fill("#prompt textarea", "sun")
    phone.tap("#go-prompt")
    assert len(finished(phone)) == 4
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.05)
