"""Fifty visitors of `inflate app` at once: what do they get, does memory grow, is anything left lying about?

The server runs in a process of its own, with the bundled family at two steps a stage, so that many videos are made:
what is measured is the page and not the networks. Visitors come, ask for a video by a prompt, a picture or a clip,
follow it and fetch it; some close their tab on the way, some hand in what is refused (a playlist called mp4, a file
that is too large, a path of the server). Every answer is one of: made, refused in a sentence, left, or an error.

Memory is the server's resident set: the median of ten seconds about the first minute's end, and of the last ten. Files
are counted once the time has passed for which they are kept. Exits with 1 where there is an error, memory has grown by
10 % or more, or a file is left.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

API = "/gradio_api"
MAX_SIZE = 2_000_000
ALLOWED = 0.10
# Frames per second, frames, skip, guidance, a seed of its own, seed, weight, negative prompt.
SETTINGS = [5, 2, 2, 1, True, 0, 1, ""]
WISHES = {"prompt": 50, "animate": 10, "vary": 10, "upscale": 10, "leave": 10, "playlist": 4, "large": 3, "path": 3}
_MADE = re.compile(r'"path": ?"([^"]*inflate\.mp4)"')
_WRONG = re.compile(r"inflate-wrong[^>]*>([^<]*)<")


def serve(steps: int, max_queue: int, keep_seconds: float) -> None:
    """The server's process: say where it listens, then serve until standard input ends."""
    from inflate.page.jobs import Models
    from inflate.page.layout import build_page
    from inflate.page.serving import Serving

    models = Models("cpu")
    for stage in models.get("bundled:emoji").stages:
        stage.defaults = replace(stage.defaults, num_inference_steps=steps)
    page: Any = build_page(models, max_waiting=max_queue, keep_seconds=keep_seconds)
    options = Serving(max_size=MAX_SIZE).options(page.shelf.folder)
    _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **options)
    print(json.dumps({"url": url.rstrip("/"), "folder": str(page.shelf.folder)}), flush=True)
    sys.stdin.read()
    page.close()
    page.shelf.close()


@dataclass
class Tally:
    """What became of every visit, and how long the made ones took, in seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def error(self, what: str) -> None:
        """Something that is neither a video nor a sentence."""
        self.counts["error"] += 1
        self.errors.append(what)

    def refused(self, sentence: str) -> None:
        """A sentence in place of a video."""
        self.counts["refused"] += 1
        self.refusals[re.sub(r"\d+", "N", sentence)[:120]] += 1


class Visitor:
    """One person with one browser, who comes back as long as the load lasts."""

    def __init__(self, number: int, url: str, events: dict[str, int], tally: Tally, inputs: dict[str, bytes]) -> None:
        self.random, self.number, self.url = random.Random(number), number, url
        self.events, self.tally, self.inputs = events, tally, inputs
        self.visits = 0

    async def stay(self, until: float) -> None:
        """Visit after visit."""
        await asyncio.sleep(self.random.uniform(0, 5))
        while time.monotonic() < until:
            [wish] = self.random.choices(list(WISHES), list(WISHES.values()))
            await self.visit(wish)
            await asyncio.sleep(self.random.uniform(0, 3))

    async def visit(self, wish: str) -> None:
        """Open the page, ask, follow, fetch, and go."""
        self.visits += 1
        session = f"visitor{self.number}x{self.visits}"
        async with httpx.AsyncClient(base_url=self.url, timeout=300) as browser:
            for path in ("/", "/config"):
                (await browser.get(path)).raise_for_status()
            alive = asyncio.create_task(_stay_alive(browser, session))
            try:
                await self._ask(browser, session, wish)
            except httpx.HTTPError as error:
                self.tally.error(f"{wish}: {type(error).__name__} {error}")
            finally:
                alive.cancel()

    async def _ask(self, browser: httpx.AsyncClient, session: str, wish: str) -> None:
        start = time.monotonic()
        button, values = "go-prompt", ["beating heart"]
        if wish in self.inputs:
            name = {"animate": "a.png"}.get(wish, "a.mp4")
            sent = await browser.post(f"{API}/upload", files={"files": (name, self.inputs[wish])})
            if sent.status_code != 200:
                self._refusal_or_error(wish, sent.status_code, sent.text)
                return
            button = f"go-{wish}" if wish in ("animate", "upscale") else "go-vary"
            values = [_file(sent.json()[0])]
        elif wish == "path":
            button, values = "go-vary", [_file(__file__)]
        values += [None, None] if button == "go-upscale" else []
        body = {"data": ["", None, *values, *SETTINGS], "fn_index": self.events[button], "session_hash": session}
        answer = await browser.post(f"{API}/queue/join", json=body)
        if answer.status_code != 200:
            self._refusal_or_error(wish, answer.status_code, answer.json().get("detail", ""))
            return
        patience = self.random.uniform(0.5, 4) if wish == "leave" else None
        try:
            told = await asyncio.wait_for(_follow(browser, session), patience)
        except TimeoutError:
            self.tally.counts["left"] += 1
            return
        await self._judge(browser, wish, told, start)

    async def _judge(self, browser: httpx.AsyncClient, wish: str, told: str, start: float) -> None:
        made, wrong = _MADE.findall(told), _WRONG.findall(told)
        if made:
            video = await browser.get(f"{API}/file={made[-1]}")
            if video.status_code == 200 and video.content[4:8] == b"ftyp":
                self.tally.counts["made"] += 1
                self.tally.seconds.append(time.monotonic() - start)
            else:
                self.tally.error(f"{wish}: its video cannot be fetched ({video.status_code})")
        elif wrong and "Something went wrong" not in wrong[-1]:
            self.tally.refused(wrong[-1])
        else:
            self.tally.error(f"{wish}: {wrong or told[-300:]}")

    def _refusal_or_error(self, wish: str, status: int, sentence: str) -> None:
        if status in (403, 413, 503, 507) and sentence:
            self.tally.refused(sentence)
        else:
            self.tally.error(f"{wish}: HTTP {status} {sentence[:100]}")


async def _stay_alive(browser: httpx.AsyncClient, session: str) -> None:
    async with browser.stream("GET", f"{API}/heartbeat/{session}") as stream:
        async for _ in stream.aiter_bytes():
            pass


async def _follow(browser: httpx.AsyncClient, session: str) -> str:
    """Everything that is said until the job has ended."""
    told = []
    async with browser.stream("GET", f"{API}/queue/data?session_hash={session}") as stream:
        async for line in stream.aiter_lines():
            told.append(line)
            if '"process_completed"' in line or '"close_stream"' in line:
                break
    return "\n".join(told).replace('\\"', '"')


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def events_of(url: str) -> dict[str, int]:
    """Numbers of what the page's buttons do, by button."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
    clicks = [(names.get(t[0]), d["id"]) for d in config["dependencies"] for t in d["targets"] if t[1] == "click"]
    return {name: number for name, number in reversed(clicks) if name}


def make_inputs(folder: Path) -> dict[str, bytes]:
    """What visitors hand in, by what they want."""
    from inflate.data.writing import write_video

    frames = np.stack([np.full((64, 64, 3), 20 * number, np.uint8) for number in range(6)])
    clip = write_video(folder / "clip.mp4", frames, 10).read_bytes()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "a.png")
    picture = (folder / "a.png").read_bytes()
    playlist, large = b"#EXTM3U\n", bytes(MAX_SIZE + 10_000)
    return {"animate": picture, "vary": clip, "upscale": clip, "playlist": playlist, "large": large}


async def load(url: str, users: int, seconds: float, tally: Tally, inputs: dict[str, bytes], sample: Any) -> None:
    """All visitors for so long, ``sample()`` called each second; a first visit of each kind comes before the clock."""
    events = events_of(url)
    first = Visitor(users, url, events, Tally(), inputs)
    for wish in ("prompt", "animate", "vary", "upscale"):
        await first.visit(wish)
    if first.tally.counts["made"] != 4:
        raise SystemExit(f"the first visits failed: {first.tally}")
    until = time.monotonic() + seconds
    visitors = [Visitor(number, url, events, tally, inputs) for number in range(users)]
    working = asyncio.gather(*(visitor.stay(until) for visitor in visitors))
    while time.monotonic() < until:
        sample()
        await asyncio.sleep(1)
    await working


def resident_mib(process: int) -> float:
    """Resident memory of a process of Linux."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the server and the load; returns the report."""
    arguments = [
        __file__,
        "--serve",
        "--steps",
        options.steps,
        "--max-queue",
        options.max_queue,
        "--keep",
        options.keep,
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, *map(str, arguments)], **pipes)
    assert server.stdin and server.stdout
    memory, tally = [], Tally()
    with tempfile.TemporaryDirectory() as inputs:
        where = json.loads(server.stdout.readline())
        start = time.monotonic()
        sample = lambda: memory.append((time.monotonic(), resident_mib(server.pid)))  # noqa: E731
        made = make_inputs(Path(inputs))
        asyncio.run(load(where["url"], options.users, options.minutes * 60, tally, made, sample))
        taken = time.monotonic() - start
        folder = Path(where["folder"])
        most = sum(path.is_file() for path in folder.rglob("*"))
        time.sleep(1.3 * options.keep)  # a tenth of it lies between two looks
        left = [path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        settled = resident_mib(server.pid)
        server.stdin.close()
        server.wait(60)
    begin = memory[0][0]
    after_first = [mib for when, mib in memory if 55 <= when - begin <= 65] or [memory[0][1]]
    last = [mib for when, mib in memory if when >= memory[-1][0] - 10]
    return {
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}",
        "users": options.users,
        "minutes": options.minutes,
        "seconds_in_all": round(taken),
        "visits": dict(tally.counts),
        "refusals": dict(tally.refusals.most_common()),
        "errors": tally.errors[:20],
        "seconds_to_a_video": {
            "median": round(statistics.median(tally.seconds), 1),
            "longest": round(max(tally.seconds), 1),
        } if tally.seconds else {},
        "mib_after_the_first_minute": round(statistics.median(after_first)),
        "mib_at_the_end": round(statistics.median(last)),
        "mib_at_most": round(max(mib for _, mib in memory)),
        "mib_after_all_left": round(settled),
        "files_at_the_end": most,
        "files_after_their_time": len(left),
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steps", type=int, default=2, help="of each stage")
    parser.add_argument("--max-queue", type=int, default=24)
    parser.add_argument("--keep", type=float, default=120, help="seconds for which visitors' files are kept")
    parser.add_argument("--output", type=Path, help="where the report goes as JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.steps, options.max_queue, options.keep)
        return
    report = measure(options)
    text = json.dumps(report, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    growth = report["mib_at_the_end"] / report["mib_after_the_first_minute"] - 1
    if report["errors"] or growth >= ALLOWED or report["files_after_their_time"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
