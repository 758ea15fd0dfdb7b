"""The queue in front of the one worker, and the visitors: whose job is whose, and what of theirs is still kept."""

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from inflate.errors import InputError
from inflate.page.jobs import Job, Result

_PATIENCE_SECONDS = 2.0  # a page that is loaded again is back by then


@dataclass
class Visitor:
    """One browser: its open tabs, the job it looks at, and its jobs that were not cancelled, oldest first."""

    tabs: set[str] = field(default_factory=set)
    job: Job | None = None
    jobs: list[Job] = field(default_factory=list)
    seen: float = field(default_factory=time.monotonic)


class Line:
    """Jobs of all visitors, one at a time, in the order in which they came.

    A visitor is known by a token that his browser keeps, which nobody can guess; one that this server does not know is
    a tab by itself. Each has one job at most.
    """

    def __init__(self, max_waiting: int, keep_seconds: float, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self.max_waiting, self.keep_seconds, self.patience_seconds = max_waiting, keep_seconds, patience_seconds
        self._visitors: dict[str, Visitor] = {}
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._worker: threading.Thread | None = None
        self._changed = threading.Condition(threading.RLock())

    def arrive(self, token: str | None, tab: str) -> str:
        """A page was loaded; returns the token to keep, which is a new one where ``token`` is not known."""
        with self._changed:
            self._forget_old()
            known = token if token in self._visitors else None
            known = known or secrets.token_urlsafe(32)
            early = self._visitors.pop(f"tab {tab}", Visitor())  # one who clicked before his token was there
            visitor = self._visitors.setdefault(known, Visitor())
            visitor.jobs += early.jobs
            visitor.job = early.job or visitor.job
            visitor.tabs.add(tab)
            visitor.seen = time.monotonic()
            return known

    def leave(self, tab: str) -> None:
        """A tab was closed, or is being loaded again: if its visitor is not back soon, his job is cancelled."""
        with self._changed:
            for token, visitor in self._visitors.items():
                if tab in visitor.tabs:
                    visitor.tabs.remove(tab)
                    later = threading.Timer(self.patience_seconds, self._cancel_if_gone, (token,))
                    later.daemon = True
                    later.start()

    def enter(self, token: str | None, tab: str, job: Job) -> None:
        """Put a job at the end of the line.

        Raises:
            InputError: too many wait already, or this visitor's last job has not ended.
        """
        with self._changed:
            self._forget_old()
            visitor = self._visitors.setdefault(self._key(token, tab), Visitor())
            visitor.tabs.add(tab)
            visitor.seen = time.monotonic()
            if visitor.job is not None and not visitor.job.over:
                raise InputError("Your last video is still being made: wait for it, or cancel it first.")
            if self.running() > self.max_waiting:  # the first of them is made, or about to be
                raise InputError(f"{self.max_waiting} videos are waiting already: please try again in a while.")
            visitor.job = job
            visitor.jobs.append(job)
            self._waiting.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="inflate-line", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def cancel(self, token: str | None, tab: str) -> None:
        """Cancel a visitor's job; he may enter another at once."""
        with self._changed:
            visitor = self._visitors.get(self._key(token, tab))
            if visitor is not None:
                self._drop(visitor)

    def job_of(self, token: str | None, tab: str) -> Job | None:
        """A visitor's job, which may have ended."""
        with self._changed:
            visitor = self._visitors.get(self._key(token, tab))
            return None if visitor is None else visitor.job

    def finished(self, token: str | None, tab: str) -> list[Result]:
        """A visitor's videos whose files are still there, oldest first."""
        with self._changed:
            self._forget_old()
            visitor = self._visitors.get(self._key(token, tab))
            return [] if visitor is None else [job.result for job in visitor.jobs if job.result is not None]

    def place(self, job: Job) -> int:
        """How many come before it and itself, without the one that runs; 0 if it does not wait."""
        with self._changed:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def seconds_until(self, job: Job) -> float | None:
        """In how many seconds a waiting job will begin; None where nobody can tell."""
        with self._changed:
            before = list(self._waiting)[: max(0, self.place(job) - 1)]
            left, usual = self._left_of_running()
            each = [one.usual_seconds() or usual for one in before]
            return None if left is None or None in each else left + sum(one for one in each if one is not None)

    def running(self) -> int:
        """How many jobs wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def close(self) -> None:
        """Cancel everything."""
        with self._changed:
            for visitor in self._visitors.values():
                self._drop(visitor)

    def _left_of_running(self) -> tuple[float | None, float | None]:
        """Seconds that the running job still takes, and takes in all."""
        if self._running is None:
            return 0.0, None
        status, usual = self._running.status(), self._running.usual_seconds()
        if status.left is not None:
            return status.left, status.elapsed + status.left
        return (None if usual is None else max(1.0, usual - status.elapsed)), usual

    def _key(self, token: str | None, tab: str) -> str:
        if token is not None and token in self._visitors:
            return token
        return next((known for known, visitor in self._visitors.items() if tab in visitor.tabs), f"tab {tab}")

    def _cancel_if_gone(self, token: str) -> None:
        with self._changed:
            visitor = self._visitors.get(token)
            if visitor is not None and not visitor.tabs:
                self._drop(visitor)

    def _drop(self, visitor: Visitor) -> None:
        job, visitor.job = visitor.job, None
        if job is None or job.over:
            return
        job.cancel()
        visitor.jobs.remove(job)
        if job in self._waiting:
            self._waiting.remove(job)
            job.run()  # which only says that it is cancelled

    def _forget_old(self) -> None:
        now = time.monotonic()
        for token, visitor in list(self._visitors.items()):
            visitor.jobs = [job for job in visitor.jobs if self._kept(job, now)]
            if not visitor.jobs and now - visitor.seen > self.keep_seconds:
                del self._visitors[token]

    def _kept(self, job: Job, now: float) -> bool:
        return not job.over or (job.result is not None and now - job.result.ended < self.keep_seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                self._running = job = self._waiting.popleft()
            job.run()
            with self._changed:
                self._running = None
