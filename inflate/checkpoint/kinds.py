"""What a file or a folder is, in words, where another kind was wanted."""

import json
from pathlib import Path

from inflate.checkpoint.header import is_pickle
from inflate.components import refuse_stand_in

TEMPORAL_FILE = "temporal.safetensors"
SAFETENSORS_SUFFIXES = (".safetensors", ".sft")  # the second is how FLUX.1 was first published


def what_it_is(path: Path) -> str:
    """What a file or folder is that stands where another kind was wanted, for a sentence; no weights are read.

    Raises:
        InputError: it stands in for a file.
    """
    if path.is_file():
        refuse_stand_in(path)
        if path.suffix.lower() == ".toml":
            return "a role file or a recipe (.toml)"
        weights = path.suffix.lower() in SAFETENSORS_SUFFIXES or is_pickle(path)
        return "a single file of weights" if weights else "a file of a kind that inflate does not read"
    kind = _class_in(path / "model_index.json")
    if kind == "Cascade":
        return "a cascade's folder"
    if kind:
        return f"the folder of a pipeline ({kind})"
    if (path / TEMPORAL_FILE).is_file():
        return "the folder of an inflated network alone"
    kind = _class_in(path / "config.json")
    return f"the folder of a network alone ({kind})" if kind else "no model's folder"


def _class_in(path: Path) -> str:
    """The class that a config or an index names, or nothing."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(config.get("_class_name") or "") if isinstance(config, dict) else ""
