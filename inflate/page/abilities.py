"""What an opened model can do on the page, known before any weight is read; and why it cannot do the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inflate.cascade import Cascade

INTERPOLATION, RECONSTRUCTION, ENLARGING = "interpolation", "reconstruction", "super-resolution"

APPLICATIONS = {
    "generate": "Prompt",
    "animate": "Animate",
    "between": "Between two",
    "faster": "More frames",
    "extend": "Extend",
    "infill": "Fill gaps",
    "vary": "Vary",
    "upscale": "Upscale",
}


@dataclass(frozen=True)
class Abilities:
    """``why_not``: for each application that it cannot do, the reason. ``methods``: of an application, the usual first.

    ``told``: what its frames follow from: "text", "class", "image" (an embedding, of a prompt or of pictures) or
    "nothing". ``completes_by_prompt``: whether reconstruction needs a prompt.
    """

    why_not: Mapping[str, str]
    methods: Mapping[str, tuple[str, ...]]
    told: str
    completes_by_prompt: bool
    interpolates: bool

    @classmethod
    def of(cls, cascade: Cascade) -> "Abilities":
        """Those of a cascade."""
        decoder: Any = cascade.stage("decoder")
        told = str(getattr(getattr(decoder, "conditioner_class", None), "reads", "image"))
        interpolates = cascade.stage("interpolation") is not None
        blind = _why_blind(cascade)
        enlarges = bool(cascade.enlargers())
        no_interpolation = "" if interpolates else "it has no frame interpolation"
        no_completing = _why_incomplete(decoder, blind)
        ways = {
            "extend": {INTERPOLATION: no_interpolation or blind, RECONSTRUCTION: no_completing},
            "faster": {INTERPOLATION: no_interpolation or blind, RECONSTRUCTION: no_completing},
            "upscale": {
                ENLARGING: "" if enlarges else "it has no super-resolution",
                RECONSTRUCTION: no_completing,
            },
        }
        why_not = {
            "generate": _why_unprompted(cascade),
            "animate": no_interpolation or blind,
            "between": no_interpolation or blind,
            "infill": no_completing,
            "vary": _why_unvaried(decoder, blind),
        }
        why_not |= {name: "" if "" in each.values() else next(iter(each.values())) for name, each in ways.items()}
        return cls(
            {name: why_not[name] for name in APPLICATIONS if why_not[name]},
            {name: tuple(way for way, reason in each.items() if not reason) for name, each in ways.items()},
            told,
            not no_completing and bool(decoder.reads_prompt()),
            interpolates,
        )

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of the applications that it can do."""
        return [(label, name) for name, label in APPLICATIONS.items() if name not in self.why_not]

    def excuses(self) -> str:
        """One line on those that it cannot, by reason; empty if there are none."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.why_not.items():
            by_reason.setdefault(reason, []).append(APPLICATIONS[name])
        parts = [f"{', '.join(labels)} ({reason})" for reason, labels in by_reason.items()]
        return f"This model cannot do: {'; '.join(parts)}." if parts else ""


def _why_blind(cascade: Cascade) -> str:
    """Why pictures cannot be turned into what the networks are told; empty if they can, as CLIP's embeddings."""
    prior: Any = cascade.stage("prior")
    if prior is None:
        return "it has no CLIP model, which looks at pictures"
    encoder = prior.image_roles[0]
    return "" if encoder in prior.index or encoder in prior.components else "its prior has no image encoder"


def _why_unprompted(cascade: Cascade) -> str:
    decoder: Any = cascade.stage("decoder")
    if decoder is None:
        return "it has no decoder, which makes frames"
    return "it has no prior, which reads prompts" if decoder.needs_embeds and cascade.stage("prior") is None else ""


def _why_incomplete(decoder: Any, blind: str) -> str:
    if decoder is None:
        return "it has no decoder, which makes frames"
    if not decoder.has_temporal_layers():
        return "its decoder has no temporal layers"
    return blind if decoder.needs_embeds else ""


def _why_unvaried(decoder: Any, blind: str) -> str:
    if decoder is None:
        return "it has no decoder, which makes frames"
    return blind or ("" if decoder.needs_embeds else "its decoder is told no picture")
