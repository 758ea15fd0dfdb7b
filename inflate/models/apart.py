"""Whether a network's frames will belong together, told once where they will not."""

import warnings
from typing import Any

from inflate.errors import Note
from inflate.inflater import InflatedModel
from inflate.layers.starting import StartsAsIdentity, identity_layers

NO_LAYERS = (
    "The image model has no temporal layers, so its frames will not belong together; `inflate finetune` trains some."
)
NOT_TRAINED = (
    "The temporal layers are not trained yet (all answer their input), so the frames will not belong together; "
    "`inflate finetune` trains them."
)


class FramesApartWarning(Note):
    """A video is made of frames that know nothing of each other."""


def why_apart(model: Any) -> str:
    """Why a network's frames do not belong together, in a sentence; empty where they may.

    A scheme whose frames look at others without any training is never untrained.
    """
    if not isinstance(model, InflatedModel):
        return NO_LAYERS
    layers = [layer for layer in model.temporal.values() if isinstance(layer, StartsAsIdentity)]
    quiet = identity_layers(model.temporal.values())
    untrained = bool(layers) and all(layer in quiet for layer in layers)
    return NOT_TRAINED if untrained and model.scheme.starts_as_image_model else ""


def warn_if_apart(model: Any, num_frames: int) -> None:
    """Warn of a video of several frames that will not belong together; Python shows the same warning once."""
    sentence = why_apart(model) if num_frames > 1 else ""
    if sentence:
        warnings.warn(sentence, FramesApartWarning, stacklevel=2)
