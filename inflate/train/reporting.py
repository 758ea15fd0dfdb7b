"""What a run says while it goes on: its log and trackers, and the diagnosis, each sentence when it first holds."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from inflate.staging import write_whole
from inflate.train.diagnosis import Finding, diagnose
from inflate.train.log import RunLog, tracker_arguments, tracker_settings
from inflate.train.recipe import Recipe
from inflate.train.step import Advises, StatesFacts, TrainStep


class Reporter:
    """Used by the main process only, after the state has been restored.

    ``start``: updates done; ``say`` prints a sentence.
    """

    def __init__(
        self, recipe: Recipe, step: TrainStep, accelerator: Accelerator, start: int, say: Callable[[str], None]
    ) -> None:
        self.folder, self.step, self.accelerator, self.say = recipe.output_folder, step, accelerator, say
        self.log = RunLog(self.folder / "log.jsonl", start)
        self.tracked = bool(recipe.train.trackers)
        if self.tracked:
            settings, arguments = (
                tracker_settings(recipe.resolved()),
                tracker_arguments(recipe.name, self.folder, start),
            )
            named = {name: arguments[name] for name in recipe.train.trackers}
            accelerator.init_trackers("inflate", settings if not start else None, named)
        self.advice = step.advice() if isinstance(step, Advises) else []
        self._since: dict[str, int] = {}
        for sentence in self.advice:
            say(sentence)

    def facts(self) -> dict[str, float]:
        """What the step knows now."""
        return self.step.facts() if isinstance(self.step, StatesFacts) else {}

    def line(self, update: int, values: Mapping[str, float | str]) -> None:
        """One line of the log, also for the trackers."""
        line = self.log.add(update, values)
        if self.tracked:
            shown = {
                key: value for key, value in line.items() if value is not None and key not in ("update", "seconds")
            }
            self.accelerator.log(shown, step=update)

    def diagnose(self, update: int, last: bool = False) -> None:
        """Say what has begun to hold (at the end: all that holds), and write ``diagnosis.json``."""
        facts = self.facts()
        findings = diagnose(self.log.lines, facts)
        holding = {finding.name for finding in findings}
        self._since = {name: first for name, first in self._since.items() if name in holding}
        for finding in findings:
            new = finding.name not in self._since
            self._since.setdefault(finding.name, update)
            if last or (new and not finding.good):
                self.say(finding.sentence)
        self._write(update, findings, facts)

    def _write(self, update: int, findings: list[Finding], facts: dict[str, float]) -> None:
        told: dict[str, Any] = {
            "update": update,
            "findings": [asdict(finding) | {"since": self._since[finding.name]} for finding in findings],
            "facts": facts,
            "advice": self.advice,
        }
        write_whole(self.folder / "diagnosis.json", (json.dumps(told, indent=2) + "\n").encode())

    def close(self) -> None:
        """Flush the trackers."""
        if self.tracked:
            self.accelerator.end_training()
