"""One job at a time, in order; visitors keep theirs over a reload and lose it with their last tab."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from inflate.cancelling import check_cancelled
from inflate.errors import InputError
from inflate.page.estimate import Countdown, Paces
from inflate.page.files import Written
from inflate.page.jobs import Job, Result
from inflate.page.line import Line

ANY = Written("a.mp4", "a.gif", "a.webp", "a.json")


class Held:
    """Work that begins, waits until it is let go, and asks on the way whether it is still wanted."""

    def __init__(self, paces: Paces | None = None, title: str = "x") -> None:
        self.begun, self.free = threading.Event(), threading.Event()
        self.job = Job("kind", title, self.work, paces or Paces())

    def work(self, job: Job) -> Result:
        self.begun.set()
        assert self.free.wait(60)
        check_cancelled()
        return Result(job.title, ANY, None, 4, 1.0, 7)

    def finish(self) -> None:
        assert self.begun.wait(60)
        self.free.set()
        assert self.job.wait(60)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(max_waiting=2, keep_seconds=3600, patience_seconds=3600)
    yield made
    made.close()


def entered(line: Line, token: str, tab: str, paces: Paces | None = None, title: str = "x") -> Held:
    held = Held(paces, title)
    line.enter(token, tab, held.job)
    return held


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.005)


def test_jobs_run_one_at_a_time_in_order_and_too_many_are_refused(line: Line) -> None:
    tokens = [line.arrive(None, f"tab {number}") for number in range(4)]
    first, second, third = (entered(line, tokens[number], f"tab {number}") for number in range(3))
    assert first.begun.wait(60)
    wait_until(lambda: line.place(first.job) == 0)
    assert [line.place(one.job) for one in (second, third)] == [1, 2] and line.running() == 3
    with pytest.raises(InputError, match="2 videos are waiting already: please try again in a while"):
        entered(line, tokens[3], "tab 3")
    assert not second.begun.is_set()
    first.finish()
    assert second.begun.wait(60) and not third.begun.is_set() and line.place(third.job) == 1
    second.finish()
    third.finish()
    wait_until(lambda: line.running() == 0)


def test_a_visitor_has_one_job_and_the_next_may_come_as_soon_as_it_is_cancelled(line: Line) -> None:
    token = line.arrive("", "tab")
    held = entered(line, token, "tab")
    assert held.begun.wait(60)
    with pytest.raises(InputError, match="still being made: wait for it, or cancel it first"):
        entered(line, token, "tab")
    line.cancel(token, "tab")
    following = entered(line, token, "tab", title="next")
    assert held.job.unwanted and not held.job.over and line.job_of(token, "tab") is following.job
    held.free.set()
    following.finish()
    assert held.job.phase == "cancelled" and [one.title for one in line.finished(token, "tab")] == ["next"]


def test_what_waits_leaves_at_once_when_it_is_cancelled(line: Line) -> None:
    first, second = entered(line, "", "one"), entered(line, "", "two")
    assert first.begun.wait(60) and line.place(second.job) == 1
    line.cancel("", "two")
    assert second.job.phase == "cancelled" and second.job.over and not second.begun.is_set() and line.running() == 1
    first.finish()


def test_tokens_cannot_be_guessed_and_foreign_ones_are_nobodys(line: Line) -> None:
    tokens = [line.arrive(guess, f"tab {number}") for number, guess in enumerate(["", None, "inflate", "x" * 43])]
    assert len(set(tokens)) == 4 and all(len(token) >= 43 for token in tokens) and "x" * 43 not in tokens
    owner, other = tokens[:2]
    held = entered(line, owner, "tab 0")
    held.finish()
    assert line.finished(owner, "any") and not line.finished(other, "tab 1")
    assert not line.finished("guess", "no tab of his")
    assert line.arrive(owner, "again") == owner


def test_a_click_before_the_token_came_is_the_visitors_all_the_same(line: Line) -> None:
    held = entered(line, "", "tab")
    assert held.begun.wait(60)
    token = line.arrive("", "tab")
    assert line.job_of(token, "after a reload") is held.job and line.job_of("", "tab") is held.job
    with pytest.raises(InputError, match="still being made"):
        entered(line, token, "tab")
    held.finish()
    assert len(line.finished(token, "after a reload")) == 1 and not line.finished("", "another tab")


def test_a_reload_finds_the_job_and_a_closed_tab_ends_it() -> None:
    line = Line(max_waiting=2, keep_seconds=3600, patience_seconds=0.05)
    token = line.arrive(None, "before")
    held = entered(line, token, "before")
    assert held.begun.wait(60)
    other = line.arrive(token, "second")
    line.leave("before")
    line.leave("nobody's")
    assert other == token and line.job_of(token, "second") is held.job
    threading.Event().wait(0.2)
    assert not held.job.unwanted, "another tab of his is open"
    line.leave("second")
    wait_until(lambda: held.job.unwanted)
    held.free.set()
    assert held.job.wait(60) and held.job.phase == "cancelled" and not line.finished(token, "before")


def test_a_reload_in_time_keeps_the_job() -> None:
    line = Line(max_waiting=2, keep_seconds=3600, patience_seconds=0.3)
    token = line.arrive(None, "before")
    held = entered(line, token, "before")
    line.leave("before")
    assert line.arrive(token, "after") == token
    threading.Event().wait(0.6)
    assert not held.job.unwanted
    held.finish()
    assert [one.seed for one in line.finished(token, "after")] == [7]


def test_finished_videos_and_visitors_are_forgotten_after_the_stated_time() -> None:
    line = Line(max_waiting=2, keep_seconds=0.0)
    token = line.arrive(None, "tab")
    held = entered(line, token, "tab")
    held.finish()
    assert line.finished(token, "tab") == [] and line.arrive(token, "tab") != token


def test_the_wait_is_what_runs_and_what_comes_before(line: Line) -> None:
    paces = Paces()
    held = [entered(line, "", f"tab {number}", paces) for number in range(3)]
    assert held[0].begun.wait(60)
    wait_until(lambda: line.place(held[1].job) == 1)
    assert line.seconds_until(held[2].job) is None, "nothing was ever made"
    paces.learn("another kind", [(0.5, 50.0)], 100.0)
    first, second = line.seconds_until(held[1].job), line.seconds_until(held[2].job)
    assert first == pytest.approx(100, abs=5) and second == pytest.approx(200, abs=5)
    for one in held:
        one.finish()


def test_time_left_only_falls_and_is_not_told_when_it_cannot_be_true() -> None:
    countdown = Countdown(None)
    assert countdown.left(1.0, 0.0) is None and countdown.left(1.0, 0.04) is None
    assert countdown.left(10.0, 0.25) == pytest.approx(30)
    assert countdown.left(14.0, 0.27) == pytest.approx(30), "slower: it stops"
    assert countdown.left(30.0, 0.27) is None, "much slower: it is not told"
    assert countdown.left(40.0, 0.6) == pytest.approx(80 / 3)
    assert countdown.left(60.0, 1.0) is None
    shown = [countdown.left(60 + second, 0.9 + second / 1000) for second in range(50)]
    known = [seconds for seconds in shown if seconds is not None]
    assert known == sorted(known, reverse=True) and known[-1] < 10


def test_shares_of_time_are_learned_from_the_last_of_the_kind() -> None:
    paces = Paces()
    assert paces.seconds("a") is None and paces.of("a") is None
    # Half of the work took a tenth of the time: a cheap first stage, then an expensive one and slow files.
    paces.learn("a", [(0.25, 5.0), (0.5, 10.0), (0.9, 60.0)], 100.0)
    pace = paces.of("a")
    assert pace is not None
    shares = [pace.time_share(fraction) for fraction in (0.0, 0.125, 0.5, 0.7, 0.9, 0.95, 1.0)]
    assert shares == pytest.approx([0.0, 0.025, 0.1, 0.35, 0.6, 0.8, 1.0])
    # The same again is told right from the first second to the last.
    countdown = Countdown(pace)
    for elapsed, fraction in ((0.0, 0.0), (5.0, 0.25), (10.0, 0.5), (35.0, 0.7), (60.0, 0.9), (80.0, 0.95)):
        assert countdown.left(elapsed, fraction) == pytest.approx(100 - elapsed, abs=1e-6)
    assert paces.seconds("b") == 100.0, "what others took, where there was none of the kind"
