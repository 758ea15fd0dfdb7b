"""What inflating an image model adds, in figures; ``inflate.inflater.report`` counts them."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class SiteReport:
    """One place where a temporal layer goes."""

    name: str
    kind: str
    layer: str
    channels: int
    new_parameters: int


@dataclass(frozen=True)
class Report:
    """What went where, and what one video costs over the image model on the same frames."""

    image_model_class: str
    scheme: str
    num_frames: int
    height: int
    width: int
    sites: tuple[SiteReport, ...]
    image_parameters: int
    new_parameters: int
    image_flops: int | None  # of the image model on `num_frames` pictures; None where it does not run without weights
    new_flops: int | None  # of the temporal layers for one video of them; None likewise

    @property
    def parameter_ratio(self) -> float:
        """New parameters over the image model's."""
        return self.new_parameters / self.image_parameters

    @property
    def flop_ratio(self) -> float | None:
        """New arithmetic over the image model's; None where it was not counted."""
        return None if self.image_flops is None or self.new_flops is None else self.new_flops / self.image_flops

    def count(self, kind: str) -> int:
        """Number of sites of a kind."""
        return sum(site.kind == kind for site in self.sites)

    def as_dict(self) -> dict[str, Any]:
        """All figures, with the ratios, as plain values."""
        return {**asdict(self), "parameter_ratio": self.parameter_ratio, "flop_ratio": self.flop_ratio}

    def to_json(self) -> str:
        """`as_dict` as indented JSON."""
        return json.dumps(self.as_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """The figures that ``as_dict`` gave."""
        known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
        known["sites"] = tuple(SiteReport(**site) for site in values["sites"])
        return cls(**known)
