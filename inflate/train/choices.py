"""What the words of a recipe's [options] may be: by the name of the option, whichever step has it."""

from collections.abc import Sequence
from typing import Any

from inflate.diffusion.weights import WEIGHTINGS
from inflate.errors import InputError, nearest
from inflate.inflater import SCHEMES
from inflate.train.noising import PREDICTION_TYPES

CHOICES: dict[str, Sequence[str]] = {
    "weighting": WEIGHTINGS,
    "scheme": tuple(SCHEMES),
    "trainable": ("temporal", "all"),
    "predict": ("", *PREDICTION_TYPES),
    "loss": ("psnr", "l2"),
    "told": ("states", "looks"),
}


def check_choices(options: Any, **own: Sequence[str]) -> None:
    """Raise ``InputError`` where an option is none of its words: those in ``own``, or else in ``CHOICES``."""
    for name, allowed in (CHOICES | own).items():
        value = getattr(options, name, allowed[0])
        if value not in allowed:
            *others, last = map(repr, allowed)
            hint = nearest(value, list(allowed))
            raise InputError(f"options.{name} is {value!r}{hint}; use {', '.join(others)} or {last}.")
