"""What happens when a button is pressed: a wish, a place in the line, and updates until the video is there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from inflate.errors import InputError
from inflate.page.abilities import Abilities
from inflate.page.estimate import Paces
from inflate.page.jobs import Job, Models
from inflate.page.line import Line
from inflate.page.making import work_for
from inflate.page.results import ResultArea, Updates
from inflate.page.wishes import Settings, Wish

_LOOK_SECONDS = 0.4  # between two looks at a job

MakeWish = Callable[..., Wish]
"""(cascade, model, the application's own inputs, settings) -> what is to be made."""


class Handlers:
    """The page's actions over a set of models and one line; results appear in ``area``."""

    def __init__(self, models: Models, line: Line, folder: Path, area: ResultArea) -> None:
        self.models, self.line, self.folder, self.area = models, line, folder, area
        self._paces = Paces()

    async def start(
        self, make_wish: MakeWish, token: str, tab: str, model: str, *inputs: Any, num_controls: int
    ) -> AsyncIterator[Updates]:
        """Enter the line, and follow the job; ``inputs`` end with the controls that :meth:`Settings.read` takes."""
        own, controls = inputs[:-num_controls], inputs[-num_controls:]
        try:
            cascade = self.models.for_visitor(model)
            wish = make_wish(cascade, model, *own, Settings.read(*controls))
            kind = f"{model} {wish.request.command} {wish.request.options.get('method', '')}"
            job = Job(kind, wish.title, work_for(wish, cascade, self.folder), self._paces)
            finished = self.line.finished(token, tab)
            self.line.enter(token, tab, job)
        except InputError as error:
            # Not of a job that may be running: that goes on, and its own followers say so.
            yield {self.area.status: self.area.stopped(str(error), wrong=True)[self.area.status]}
            return
        yield self.area.begun(finished)
        async for updates in self._watch(job, token, tab):
            yield updates

    async def resume(self, token: str, tab: str) -> AsyncIterator[Updates]:
        """What a page shows that was loaded again: the job that is waiting or running, or the last video."""
        job, finished = self.line.job_of(token, tab), self.line.finished(token, tab)
        if job is not None and not job.over:
            yield self.area.begun(finished)
            async for updates in self._watch(job, token, tab):
                yield updates
        elif finished:
            yield self.area.done(finished[-1], finished)
        else:  # Gradio empties what a generator says nothing of
            yield self.area.stopped("ready")

    def cancel(self, token: str, tab: str) -> Updates:
        """Cancel the visitor's job; the next click works at once."""
        self.line.cancel(token, tab)
        return self.area.stopped("cancelled")

    def show(self, token: str, tab: str, number: int | None) -> Updates:
        """One of a visitor's earlier videos, counted from 1."""
        finished = self.line.finished(token, tab)
        job = self.line.job_of(token, tab)
        if not number or not 1 <= number <= len(finished) or (job is not None and not job.over):
            return {}
        return self.area.done(finished[number - 1], finished)

    def open_model(self, name: str) -> tuple[str, str, Abilities]:
        """Open a model that is offered; returns the name to use from now on, what to say, and what it can do."""
        chosen = (name or "").strip()
        cascade = self.models.for_visitor(chosen)
        stages = ", ".join(stage.name for stage in cascade.stages)
        return chosen, f"Opened **{cascade.family or chosen}** with the stages {stages}.", Abilities.of(cascade)

    async def _watch(self, job: Job, token: str, tab: str) -> AsyncIterator[Updates]:
        shown = None
        while not job.over:
            if job.unwanted:
                if self.line.job_of(token, tab) is None:  # else a next one is shown already
                    yield self.area.stopped("cancelled")
                return
            if job.phase == "waiting":
                yield self.area.waiting(self.line.place(job), self.line.seconds_until(job))
            else:
                preview = job.preview
                yield self.area.running(job.status(), preview if preview != shown else None)
                shown = preview
            await asyncio.sleep(_LOOK_SECONDS)
        if job.result is not None:
            yield self.area.done(job.result, self.line.finished(token, tab))
        elif job.wrong:
            yield self.area.stopped(job.wrong, wrong=True)
