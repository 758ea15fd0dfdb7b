"""What a single file says of the noise its model was trained under: ComfyUI's empty tensors, modelspec's metadata."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inflate.errors import InputError, nearest

FLAGS = ("v_pred", "ztsnr")  # names of empty tensors, outside any prefix
PREDICTIONS = ("epsilon", "v_prediction")
_SPECIFIED = "modelspec.prediction_type"
_SPELLINGS = {"v": "v_prediction", "v-prediction": "v_prediction", "vpred": "v_prediction", "eps": "epsilon"}


@dataclass(frozen=True)
class NoiseFlags:
    """``said`` is each prediction type that a file claims, with where; ``zero_terminal_snr`` whether it claims that."""

    said: tuple[tuple[str, str], ...] = ()
    zero_terminal_snr: bool = False

    def words(self) -> str:
        """What the file says, for people; empty where it says nothing."""
        said = [f"{kind} {where}" for kind, where in self.said]
        return ", ".join([*said, *(["zero terminal SNR by its tensor 'ztsnr'"] if self.zero_terminal_snr else [])])

    def scheduler(self, path: Path, wanted: str = "") -> dict[str, Any] | None:
        """The config of the scheduler that the file's network was trained under; None where nobody says anything.

        Args:
            path: the file.
            wanted: what the user says it predicts, which decides where the file contradicts itself.

        Raises:
            InputError: contradictions, by name.
        """
        if wanted and wanted not in PREDICTIONS:
            known = " or ".join(PREDICTIONS)
            raise InputError(f"--prediction is {wanted!r}{nearest(wanted, PREDICTIONS)}; use {known}")
        kinds = {kind: where for kind, where in reversed(self.said)}
        if len(kinds) > 1 and not wanted:
            both = " and ".join(f"{kind!r} ({where})" for kind, where in sorted(kinds.items()))
            raise InputError(f"{path} contradicts itself: it predicts {both}; say which it is with --prediction")
        if wanted and kinds and wanted not in kinds:
            kind, where = next(iter(kinds.items()))
            raise InputError(f"--prediction is {wanted!r}, but {path} predicts {kind!r} ({where}); leave it out")
        kind = wanted or next(iter(kinds), "")
        if self.zero_terminal_snr and kind != "v_prediction":
            claimed = f"that it predicts {kind!r}" if kind else "not what it predicts"
            raise InputError(
                f"{path} says that its last noise level leaves no signal ('ztsnr'), which only a model that predicts v "
                f"can do, and {claimed}; if it does, say so with --prediction v_prediction"
            )
        return _scheduler(kind, self.zero_terminal_snr) if kind else None


def noise_flags(names: Iterable[str], metadata: Mapping[str, str]) -> NoiseFlags:
    """The flags among a file's names and metadata."""
    present = set(names) & set(FLAGS)
    said = [("v_prediction", "by its tensor 'v_pred'")] if "v_pred" in present else []
    value = metadata.get(_SPECIFIED, "").strip().lower()
    kind = _SPELLINGS.get(value, value)
    if kind in PREDICTIONS:
        said.append((kind, f"by its {_SPECIFIED}"))
    return NoiseFlags(tuple(said), "ztsnr" in present)


def _scheduler(prediction_type: str, zero_terminal_snr: bool) -> dict[str, Any]:
    """Stable Diffusion's schedule, 1.x to XL (its configs of inference), for this prediction type."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": zero_terminal_snr,
        "timestep_spacing": "trailing" if zero_terminal_snr else "leading",
        "steps_offset": 0 if zero_terminal_snr else 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
