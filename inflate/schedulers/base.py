"""What the samplers share: the noise schedule, timesteps, and reading a prediction; all sums are done in float64."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from inflate.diffusion.conversions import eps_from_v, eps_from_x, to_x, v_from_both, v_from_eps, v_from_x
from inflate.diffusion.schedules import Level, from_alphas_cumprod
from inflate.errors import InputError

Generator = torch.Generator | list[torch.Generator] | None
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class Reading:
    """What a network's output says at a level: clean sample, noise and velocity of one z, float64."""

    z: Tensor
    x: Tensor
    eps: Tensor
    v: Tensor


class LevelScheduler(SchedulerMixin, ConfigMixin):
    """A sampler over the levels of a discrete variance-preserving schedule; its children say how to step.

    The config's names and meanings are those of diffusers' ``DDIMScheduler``, and so is the schedule, number for
    number: a network is sampled with the levels of its training. Unlike there, nothing is clipped unless asked, a step
    goes to the next of the timesteps (``DDIMScheduler`` goes to ``t - T // N``, another one where N does not divide T
    or spacing is ``linspace``), and a clipped x carries eps and v with it.
    """

    _compatibles: ClassVar[list[str]] = [entry.name for entry in KarrasDiffusionSchedulers]
    order = 1
    config: Any

    def __init_subclass__(cls) -> None:
        # Pipelines write a component's module into their index: the public one, which stays.
        cls.__module__ = "inflate.schedulers"

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        clip_sample: bool = False,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        num_inference_steps: int | None = None,
    ) -> None:
        self._prepare()

    def _prepare(self) -> None:
        """Read the config that ``register_to_config`` has kept; children with more to say call this themselves."""
        config = self.config
        if config.prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"{type(self).__name__} cannot sample prediction_type {config.prediction_type!r}; "
                f"it must be one of {', '.join(PREDICTION_TYPES)}."
            )
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "timestep_spacing")
        names = (*names, "steps_offset", "rescale_betas_zero_snr")
        # diffusers' own betas and timesteps, in its own rounding.
        self._grid = diffusers.DDPMScheduler(**{name: config[name] for name in names})
        self.betas: Tensor = self._grid.betas
        self.alphas_cumprod: Tensor = self._grid.alphas_cumprod
        kept = self.alphas_cumprod.double()
        self.levels = from_alphas_cumprod(kept)
        self.final_level = from_alphas_cumprod(torch.ones_like(kept[0]) if config.set_alpha_to_one else kept[0])
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self.timesteps: Tensor = self._grid.timesteps

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler from the config of any diffusers scheduler with ``alphas_cumprod``; same noise schedule.

        What the config leaves out has the default of the class that wrote it, not ours.

        Raises:
            InputError: the config's class has no ``alphas_cumprod`` (flow matching, EDM), or samples a flow.
        """
        if isinstance(config, Mapping):
            config = _translated(config, set(inspect.signature(cls.__init__).parameters))
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device | None = None) -> None:
        """Choose ``num_inference_steps`` timesteps, falling, by the config's ``timestep_spacing``.

        None is the config's own number, which it has where a network was distilled for so many.

        Raises:
            ValueError: more steps than training timesteps, or less than one.
        """
        steps: int = num_inference_steps or getattr(self.config, "num_inference_steps", None) or 0
        if steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {steps}")
        self._grid.set_timesteps(steps, device=device)  # pyright: ignore[reportArgumentType]
        self.num_inference_steps = steps
        self.timesteps = self._grid.timesteps

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as it is: these networks see z."""
        return sample

    def level(self, timestep: Any) -> Level:
        """The level at a timestep, float64 on the CPU."""
        index = torch.as_tensor(timestep).long().cpu()
        return Level(self.levels.alpha[index], self.levels.sigma[index])

    def level_after(self, timestep: Any, steps: int = 1) -> Level:
        """The level ``steps`` timesteps later, which is cleaner; the final one beyond the last."""
        if self.num_inference_steps is None:
            raise ValueError("num_inference_steps is None: call set_timesteps first")
        ahead = self._ahead(timestep)
        return self.level(ahead[steps - 1]) if len(ahead) >= steps else self.final_level

    def is_last(self, timestep: Any) -> bool:
        """Whether no timestep comes after this one."""
        return not self._ahead(timestep)

    def _ahead(self, timestep: Any) -> list[int]:
        return sorted({step for step in self.timesteps.tolist() if step < int(timestep)}, reverse=True)

    def read(self, model_output: Tensor, sample: Tensor, at: Level) -> Reading:
        """x, eps and v from the network's output; where x is clipped or thresholded, eps and v are those of that x.

        An output with twice the channels holds a learned variance in its second half, which is not used.
        """
        if model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output.chunk(2, dim=1)[0]
        z, made = exact(sample), exact(model_output)
        kind = self.config.prediction_type
        x = to_x(z, made, at, kind)
        clipped = self._clipped(x)
        if clipped is not x or kind == "sample":
            return Reading(z, clipped, eps_from_x(z, clipped, at), v_from_x(z, clipped, at))
        if kind == "epsilon":
            return Reading(z, x, made, v_from_eps(z, made, at))
        return Reading(z, x, eps_from_v(z, made, at), made)

    def _clipped(self, x: Tensor) -> Tensor:
        if self.config.thresholding:
            return _thresholded(x, self.config.dynamic_thresholding_ratio, self.config.sample_max_value)
        bound = self.config.clip_sample_range
        return x.clamp(-bound, bound) if self.config.clip_sample else x

    def noise_like(self, sample: Tensor, generator: Generator) -> Tensor:
        """Standard normal of the sample's shape, drawn in float32 from one generator or one per first index."""
        drawn = randn_tensor(tuple(sample.shape), generator=generator, device=sample.device, dtype=torch.float32)
        return exact(drawn)

    def output(self, prev_sample: Tensor, x: Tensor, sample: Tensor, return_dict: bool) -> Any:
        """The step's result in the sample's dtype."""
        made, clean = prev_sample.to(sample.dtype), x.to(sample.dtype)
        return DDIMSchedulerOutput(prev_sample=made, pred_original_sample=clean) if return_dict else (made, clean)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``alpha x + sigma eps`` at each sample's timestep."""
        at = self.level(timesteps).like(original_samples)
        return at.alpha * original_samples + at.sigma * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``alpha eps - sigma x``, the target of v-prediction, at each sample's timestep."""
        return v_from_both(sample, noise, self.level(timesteps))

    def __len__(self) -> int:
        return self.config.num_train_timesteps


def exact(sample: Tensor) -> Tensor:
    """As float64, or float32 on devices that have none."""
    return sample.to(torch.float32 if sample.device.type == "mps" else torch.float64)


def _thresholded(x: Tensor, ratio: float, largest: float) -> Tensor:
    """Dynamic thresholding per sample as diffusers does it: s is kept within [1, ``largest``]."""
    flat = x.flatten(1).abs()
    # torch.quantile refuses more than 16 million numbers, which a video has.
    position = ratio * (flat.shape[1] - 1)
    low = flat.kthvalue(int(position) + 1, dim=1).values
    high = flat.kthvalue(min(int(position) + 2, flat.shape[1]), dim=1).values
    s = torch.lerp(low, high, position - int(position)).clamp(1, max(1.0, largest))
    s = s.reshape(-1, *[1] * (x.ndim - 1))
    return torch.maximum(torch.minimum(x, s), -s) / s


def _written_by(config: Mapping[str, Any], known: set[str]) -> Any:
    """The diffusers class a config comes from; None for ours, and for one that says all in the words of ours."""
    name = config.get("_class_name")
    if name == "UnCLIPScheduler":  # left out of diffusers' front door
        from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

        return UnCLIPScheduler
    found = getattr(diffusers, str(name), None)
    if inspect.isclass(found) and issubclass(found, SchedulerMixin):
        return found
    # A scheduler made in memory leaves its class out.
    if "snr_shift_scale" in config:
        return diffusers.CogVideoXDDIMScheduler
    if config.get("beta_schedule") == "exp":
        return diffusers.HeunDiscreteScheduler
    foreign = sorted(key for key in set(config) - known if not key.startswith("_"))
    if foreign and "beta_schedule" not in config:
        raise InputError(
            f"A scheduler's config with {foreign[0]} and no beta_schedule has no alphas_cumprod; "
            "give one of a variance-preserving schedule."
        )
    return None


def _translated(config: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """A config with what its class takes for granted, in the words of ours."""
    # diffusers lets the new class's defaults win over values that were the old one's defaults: another noise schedule.
    given = {key: value for key, value in config.items() if key != "_use_default_values"}
    if given.get("use_flow_sigmas"):
        raise InputError("This scheduler samples a flow (use_flow_sigmas); give one of a variance-preserving schedule.")
    theirs = _written_by(given, known)
    if theirs is None:
        # What only the other class knows (a solver's order) is no mistake in a config that comes from elsewhere.
        ours = "_class_name" in given or "beta_schedule" not in given
        return given if ours else {key: value for key, value in given.items() if key in known}
    model = theirs.from_config(given)
    kept = getattr(model, "alphas_cumprod", None)
    if not isinstance(kept, Tensor):
        raise InputError(f"{theirs.__name__} has no alphas_cumprod; give one of a variance-preserving schedule.")
    plain = {key: value for key, value in model.config.items() if key in known}
    if model.config.get("final_sigmas_type") == "sigma_min":
        plain["set_alpha_to_one"] = False
    return plain | _schedule_of(plain, kept.double())


def _schedule_of(plain: Mapping[str, Any], kept: Tensor) -> dict[str, Any]:
    """The words for the schedule with the cumulative products ``kept``: its name, or else all its betas."""
    names = ("num_train_timesteps", "beta_start", "beta_end", "trained_betas", "rescale_betas_zero_snr")
    schedule = plain.get("beta_schedule", "linear")
    if schedule in ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"):
        same = {name: plain[name] for name in names if name in plain}
        ours = diffusers.DDPMScheduler(beta_schedule=schedule, **same).alphas_cumprod.double()
        if ours.shape == kept.shape and torch.allclose(ours, kept, rtol=0, atol=1e-6):
            return {"beta_schedule": schedule}
    # CogVideoX's shift, Heun's exponential: kept number by number.
    betas = 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
    return {"trained_betas": betas.tolist(), "beta_schedule": "linear", "rescale_betas_zero_snr": False}
