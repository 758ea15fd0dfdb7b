"""Wrong values of recipes, through the real command: one sentence, exit code 2, and nothing made or read for them."""

import dataclasses
import json
import math
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from inflate.cli.app import main
from inflate.errors import InputError
from inflate.train.recipe import parse_table
from inflate.train.step import STEP_OPTIONS

ABOUT = dict.fromkeys(("purpose", "command", "hardware", "time", "figure"), "x")
TRAIN = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}
# The least [options] that a run of each step can start with; the folders are those of `places`.
OPTIONS: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "clip": {},
    "prior": {"clip": "clip"},
    "decoder": {"clip": "clip", "vae": "vae"},
    "video": {"model": "bundled:emoji"},
    "video-decoder": {"clip": "clip", "vae": "vae", "image_model": "unet"},
    "interpolation": {"clip": "clip", "vae": "vae", "image_model": "unet", "init": "unet"},
    "frame-decoder": {"vae": "vae"},
    "image-super-resolution": {},
    "video-super-resolution": {"image_model": "unet"},
    "autoencoder-kl": {"teacher": "vae"},
    "text-encoder": {"clip": "clip"},
    "text-to-image": {"unet": "unet", "text": "text", "vae": "vae"},
    "distillation": {
        "of": "decoder",
        "method": "progressive",
        "num_inference_steps": 4,
        "step": {"clip": "clip", "vae": "vae", "init": "unet"},
    },
    "distill": {
        "of": "decoder",
        "phases": ["8", "4"],
        "updates": [10],
        "step": {"clip": "clip", "vae": "vae", "init": "unet"},
    },
}
DECODER, VIDEO = "decoder", "video"

# step, what is changed, what the sentence says
WRONG: list[tuple[str, str, str]] = [
    (DECODER, "train.learning_rate=nan", "train.learning_rate is nan; it must be a number from 0 to 1"),
    (DECODER, "train.learning_rate=inf", "train.learning_rate is inf"),
    (DECODER, "train.learning_rate=-1e-4", "train.learning_rate is -0.0001"),
    (DECODER, "train.learning_rate=1e300", "train.learning_rate is 1e+300"),
    (DECODER, "train.learning_rate=fast", "train: learning_rate must be of type float, not 'fast'"),
    (DECODER, "train.weight_decay=nan", "train.weight_decay is nan"),
    (DECODER, "train.weight_decay=-0.1", "train.weight_decay is -0.1"),
    (DECODER, "train.beta2=2.0", "train.beta2 is 2.0"),
    (DECODER, "train.beta2=nan", "train.beta2 is nan"),
    (DECODER, "train.ema_decay=2", "train.ema_decay is 2.0"),
    (DECODER, "train.ema_decay=nan", "train.ema_decay is nan"),
    (DECODER, "train.ema_decay=1.0", "train.ema_decay is 1.0"),
    (DECODER, "train.max_grad_norm=nan", "train.max_grad_norm is nan"),
    (DECODER, "train.max_grad_norm=0", "train.max_grad_norm is 0"),
    (DECODER, "train.seed=-1", "train.seed is -1"),
    (DECODER, f"train.seed={2**63}", "train.seed is 9223372036854775808"),
    (DECODER, "train.seed=0.5", "seed must be of type int, not 0.5"),
    (DECODER, "train.steps=0", "train.steps is 0; it must be a whole number from 1"),
    (DECODER, "train.steps=-5", "train.steps is -5"),
    (DECODER, "train.steps=1000000000000", "train.steps is 1000000000000"),
    (DECODER, "train.steps=true", "steps must be of type int, not True"),
    (DECODER, "train.batch_size=0", "train.batch_size is 0"),
    (DECODER, "train.batch_size=1000000000", "train.batch_size is 1000000000"),
    (DECODER, "train.gradient_accumulation_steps=0", "train.gradient_accumulation_steps is 0"),
    (DECODER, "train.warmup_steps=-5", "train.warmup_steps is -5"),
    (DECODER, "train.warmup_steps=5", "train.warmup_steps + train.decay_steps = 5 is more than train.steps = 4"),
    (DECODER, "train.decay_steps=-1", "train.decay_steps is -1"),
    (DECODER, "train.log_every=0", "train.log_every is 0"),
    (DECODER, "train.checkpoint_every=0", "train.checkpoint_every is 0"),
    (DECODER, "train.keep_checkpoints=0", "train.keep_checkpoints is 0"),
    (DECODER, "train.sample_every=-1", "train.sample_every is -1"),
    (DECODER, "train.validate_every=-1", "train.validate_every is -1"),
    (DECODER, "train.mixed_precision=int8", "train.mixed_precision is 'int8'; use 'no', 'fp16' or 'bf16'"),
    (DECODER, "train.optimizer=adam", "train.optimizer is 'adam'; use 'adamw' or 'adamw-8bit'"),
    (DECODER, "train.compile=1", "compile must be of type bool, not 1"),
    (DECODER, "train.gradient_checkpointing=yes", "gradient_checkpointing must be of type bool, not 'yes'"),
    (DECODER, "train.trackers=wandbb", "train.trackers names 'wandbb' (did you mean 'wandb'?)"),
    (DECODER, "train.learning_rate_scale={unet = nan}", "train.learning_rate_scale of 'unet' is nan"),
    (DECODER, "train.learning_rate_scale=2", "learning_rate_scale must be of type dict"),
    (DECODER, "train.lr=1e-4", "unknown key 'lr'"),
    (DECODER, "train=5", "train must be a table, not 5"),
    (DECODER, "data.path=''", "data.path is empty"),
    (DECODER, "data.path='   '", "data.path is empty"),
    (DECODER, "data.path=nowhere", "data.path is nowhere, which is not there"),
    (DECODER, "data.size=7", "data.size is 7; it must be from 8 to 4096"),
    (DECODER, "data.size=0", "data.size is 0"),
    (DECODER, "data.size=100000", "data.size is 100000"),
    (DECODER, "data.size=64.5", "size must be of type int, not 64.5"),
    (DECODER, "data.kinds=[]", "data.kinds is empty"),
    (DECODER, "data.kinds=['clips']", "data.kinds has 'clips' (did you mean 'clip'?)"),
    (DECODER, "data.kinds=[1]", "kinds must be of type str, not 1"),
    (DECODER, "data.split=trian", "data.split is 'trian' (did you mean 'train'?)"),
    (DECODER, "data=clips", "data must be a table, not 'clips'"),
    (DECODER, "name='../../x'", "name is '../../x'; it names a folder"),
    (DECODER, "name=''", "it names a folder"),
    (DECODER, "name='.'", "it names a folder"),
    (DECODER, "name=7", "name must be of type str, not 7"),
    (DECODER, "step=decodr", "The step 'decodr' is unknown (did you mean 'decoder'?)"),
    (DECODER, "step=''", "The step '' is unknown"),
    (DECODER, "step=distill", "run it with `inflate distill`"),
    (DECODER, "output=file.txt", "output is file.txt, which is a file; name a folder."),
    (DECODER, "output=file.txt/run", "which is a file; name another place."),
    (DECODER, "output=" + "x" * 300, "name cannot be used (File name too long)"),
    (DECODER, "output='https://example.com/run'", "is an address"),
    (DECODER, "output=5", "output must be of type str, not 5"),
    (DECODER, "about.time=3", "time must be of type str, not 3"),
    (DECODER, "options.vae=empty", "options.vae is empty, which has no config.json"),
    (DECODER, "options.vae=nowhere", "options.vae is nowhere, which is not there"),
    (DECODER, "options.vae=''", "options.vae is empty; say what it should be"),
    (DECODER, "options.vae=5", "vae must be of type str, not 5"),
    (DECODER, "options.clip=file.txt", "options.clip is file.txt, which has no config.json"),
    (DECODER, "options.scheduler=empty", "options.scheduler is empty, which has no scheduler_config.json"),
    (DECODER, "options.init=nowhere", "options.init is nowhere, which is not there"),
    (DECODER, "options.model={layers = 3}", "options.model does not fit UNet2DConditionModel"),
    (DECODER, "options.model={sample_size = 8, down_block_types = ['Down']}", "options.model does not fit"),
    (DECODER, "options.model=5", "model must be of type dict"),
    (DECODER, "options.condition_dropout=2", "options.condition_dropout is 2.0"),
    (DECODER, "options.condition_dropout=nan", "options.condition_dropout is nan"),
    (DECODER, "options.gamma=nan", "options.gamma is nan"),
    (DECODER, "options.gamma=0", "options.gamma is 0"),
    (DECODER, "options.timestep_power=nan", "options.timestep_power is nan"),
    (DECODER, "options.timestep_power=inf", "options.timestep_power is inf"),
    (DECODER, "options.weighting=min-snrr", "options.weighting is 'min-snrr' (did you mean 'min-snr'?)"),
    (DECODER, "options.predict=eps", "options.predict is 'eps'"),
    (DECODER, "options.zero_terminal_snr=1", "zero_terminal_snr must be of type bool"),
    (DECODER, "options.vea='vae'", "unknown key 'vea' (did you mean 'vae'?)"),
    ("video-decoder", "options.num_frames=1", "options.num_frames is 1; a clip has at least 2"),
    ("video-decoder", "options.num_frames=100000", "options.num_frames is 100000"),
    ("video-decoder", "options.trainable=spatial", "options.trainable is 'spatial'; use 'temporal' or 'all'"),
    ("video-decoder", "options.scheme=vdn", "options.scheme is 'vdn' (did you mean 'vdm'?)"),
    ("video-decoder", "options.shared_noise=1.5", "options.shared_noise is 1.5"),
    ("video-decoder", "options.noise_time=-1", "options.noise_time is -1.0"),
    ("prior", "options.text_dropout=-0.1", "options.text_dropout is -0.1"),
    ("prior", "options.model={wings = 2}", "options.model does not fit PriorTransformer"),
    ("interpolation", "options.curriculum_end=nan", "options.curriculum_end is nan"),
    ("interpolation", "options.masks={skipp = 1}", "options.masks names 'skipp' (did you mean 'skip'?)"),
    ("interpolation", "options.masks={skip = nan}", "options.masks of 'skip' is nan"),
    ("frame-decoder", "options.loss=l3", "use 'psnr' or 'l2'"),
    ("frame-decoder", "options.fps=inf", "options.fps is inf"),
    ("frame-decoder", "options.frames_per_clip=0", "options.frames_per_clip is 0"),
    ("image-super-resolution", "options.scale=0", "scale must be a whole number from 1 to 16"),
    ("image-super-resolution", "options.shrink=nearest", "options.shrink is 'nearest'"),
    ("image-super-resolution", "options.crop=-1", "options.crop is -1"),
    ("image-super-resolution", "options.vae_share=0.5", "options.vae_share needs options.vae"),
    ("video-super-resolution", "options.max_noise_level=1.5", "options.max_noise_level is 1.5"),
    ("autoencoder", "options.latent_noise=nan", "options.latent_noise is nan"),
    ("autoencoder", "options.shift_pixels=-1", "options.shift_pixels is -1"),
    ("autoencoder-kl", "options.log_variance=inf", "options.log_variance is inf"),
    ("autoencoder-kl", "options.teacher=empty", "options.teacher is empty, which has no config.json"),
    ("clip", "options.model={embed_dim = 100}", "text width 256 and embed_dim 100"),
    ("text-encoder", "options.extra_layers=-1", "options.extra_layers is -1"),
    ("text-to-image", "options.told=images", "use 'states' or 'looks'"),
    ("text-to-image", "options.text=empty", "options.text is empty, which has no text_encoder/config.json"),
    (VIDEO, "data.path=''", "data.path is empty"),
    (VIDEO, "data.path=nowhere", "data.path is nowhere, which is not there"),
    (VIDEO, "data.num_frames=1", "data.num_frames is 1; a clip has at least 2 frames"),
    (VIDEO, "data.num_frames=100000", "num_frames is 100000; it must be a whole number from 1 to 1024"),
    (VIDEO, "data.size=7", "data.size is [7], but this model takes multiples of"),
    (VIDEO, "data.size=[64,64,64]", "give one number of pixels, or [height, width]"),
    (VIDEO, "data.size=1000000", "data.size is [1000000]"),
    (VIDEO, "data.fps=0", "data.fps is [0.0]"),
    (VIDEO, "data.fps=nan", "fps is nan"),
    (VIDEO, "data.fps=[8,4]", "data.fps is [8.0, 4.0]"),
    (VIDEO, "data.fps=[]", "data.fps is []"),
    (VIDEO, "data.max_aspect=0.5", "data.max_aspect is 0.5"),
    (VIDEO, "data.cut_threshold=nan", "cut_threshold is nan"),
    (VIDEO, "data.min_motion=-1", "data.min_motion is -1"),
    (VIDEO, "data.validation=1.0", "data.validation is 1.0"),
    (VIDEO, "data.workers=-1", "data.workers is -1"),
    (VIDEO, "data.clips_per_video=-1", "data.clips_per_video is -1"),
    (VIDEO, "data.pictures=nowhere", "data.pictures is nowhere, which is not there"),
    (VIDEO, "data.kinds=['clip']", "unknown key 'kinds'"),
    (VIDEO, "options.model=''", "options.model is empty; say what it should be"),
    (VIDEO, "options.model=empty", "empty is no model's folder"),
    (VIDEO, "options.model=bundled:emojy", "no bundled family 'emojy' (did you mean 'emoji'?)"),
    (VIDEO, "options.parts={vae = 'nowhere'}", "nowhere"),
    (VIDEO, "options.parts={vea = 'vae'}", "vea"),
    (VIDEO, "options.scheme=lena", "options.scheme is 'lena' (did you mean 'lean'?)"),
    (VIDEO, "options.init=nowhere", "options.init is nowhere, which is not there"),
    (VIDEO, "options.trainable=none", "options.trainable is 'none'"),
    (VIDEO, "options.lora_rank=0", "options.lora_rank is 0"),
    (VIDEO, "options.lora_alpha=nan", "options.lora_alpha is nan"),
    (VIDEO, "options.motion_lora_rank=4", "options.motion_lora_rank trains a change to a motion module"),
    (VIDEO, "options.motion_lora_rank=-1", "options.motion_lora_rank is -1"),
    (VIDEO, "options.condition=txt", "options.condition is 'txt' (did you mean 'text'?)"),
    (VIDEO, "options.condition_dropout=1.0", "options.condition_dropout is 1.0"),
    (VIDEO, "options.timestep_density=normal", "options.timestep_density is 'normal'"),
    (VIDEO, "options.weighting=x0", "options.weighting is 'x0'"),
    (VIDEO, "options.guidance=nan", "options.guidance is nan"),
    (VIDEO, "options.pictures_per_batch=-1", "options.pictures_per_batch is -1"),
    (VIDEO, "options.image_dtype=int8", "options.image_dtype is 'int8'"),
    (VIDEO, "options.validation_clips=-1", "options.validation_clips is -1"),
    (VIDEO, "options.sample_prompts=[1]", "sample_prompts must be of type str, not 1"),
    (VIDEO, "options.sample_clips=-1", "options.sample_clips is -1"),
    (VIDEO, "options.sample_steps=0", "options.sample_steps is 0"),
    (VIDEO, "options.sample_guidance=inf", "options.sample_guidance is inf"),
    ("distillation", "options.method=fast", "options.method is 'fast'"),
    ("distillation", "options.num_inference_steps=0", "options.num_inference_steps is 0"),
    ("distillation", "options.guidance_range=[3,1]", "give [lowest, highest]"),
    ("distillation", "options.guidance_range=[nan,nan]", "options.guidance_range is nan"),
    ("distillation", "options.of=decodr", "The step 'decodr' is unknown"),
    ("distillation", "options.step.vae=empty", "options.vae is empty, which has no config.json"),
    ("distillation", "options.step.gamma=nan", "options.gamma is nan"),
    ("distill", "options.phases=[]", "numbers for 0 phases"),
    ("distill", "options.phases=['8','5']", "each phase halves their number"),
    ("distill", "options.phases=['quick']", "use 'guidance', 'consistency' or a number of steps"),
    ("distill", "options.updates=[0]", "options.updates is 0"),
    ("distill", "options.updates=[1,2,3]", "options.updates has 3 numbers for 2 phases"),
    ("distill", "options.of=autoencoder", "options.of is 'autoencoder'"),
    ("distill", "options.step.init=''", "options.step.init is missing"),
    ("distill", "options.step.vae=nowhere", "options.vae is nowhere, which is not there"),
    ("distill", "options.teacher_steps=0", "options.teacher_steps is 0"),
]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a command runs in, with all that the recipes name; a run that gets as far as building fails."""
    for name in ("clip", "vae", "unet", "text/text_encoder"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    for name in ("empty", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("inflate.train.loop.build_step", _no_work)
    return tmp_path


def _no_work(*_: Any) -> Any:
    raise RuntimeError("the run has begun")


def run(step: str, *overrides: str) -> int:
    table = {"name": "x", "step": step, "about": ABOUT, "data": {"path": "videos"}, "train": TRAIN}
    if step == VIDEO:
        table["data"] = {"path": "videos", "size": 64}
    sets = [f"{key}={_toml(value)}" for key, value in (table | {"options": OPTIONS[step]}).items()]
    Path("recipe.toml").write_text("\n".join(sets))
    changes = [part for override in overrides for part in ("--set", override)]
    return main(["distill" if step == "distill" else "finetune", "recipe.toml", "--device", "cpu", "--quiet", *changes])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def test_the_table_is_long_enough() -> None:
    assert len(WRONG) >= 95 and len(set(WRONG)) == len(WRONG)
    assert set(OPTIONS) == {*STEP_OPTIONS, "distill"}


@pytest.mark.parametrize("step", OPTIONS)
def test_right_values_begin(step: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(step) == 1
    assert "the run has begun" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "change", "words"), WRONG)
def test_wrong_values(step: str, change: str, words: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(places.rglob("*"))
    assert run(step, change) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and printed.out == ""
    assert words in printed.err and "Traceback" not in printed.err
    assert sorted(places.rglob("*")) == sorted([*before, places / "recipe.toml"])
    assert (places / "file.txt").read_text() == "mine"


def _rows() -> list[tuple[str, str, Any]]:
    """Each option of each step with values of the wrong type, and numbers that no such option can have."""
    found: list[tuple[str, str, Any]] = []
    for step, target in STEP_OPTIONS.items():
        module, name = target.split(":")
        options: Any = getattr(import_module(module), name)
        hints = typing.get_type_hints(options)
        for item in dataclasses.fields(options):
            found += [(step, item.name, value) for value in _wrong_for(hints[item.name])]
    return found


def _wrong_for(kind: Any) -> list[Any]:
    if kind is float:
        return [math.nan, math.inf, -math.inf, -1e9, 1e300, "x", True, [1.0]]
    if kind is int:
        return [-(10**9), 10**12, 1.5, math.nan, "x", True]
    if kind is str:
        return [5, 0.5, True, ["x"]]
    if kind is bool:
        return [1, "yes", 0.0]
    return [5] if typing.get_origin(kind) is dict else [{"x": 1}]


@pytest.mark.parametrize(("step", "name", "value"), _rows())
def test_no_option_of_any_step_takes_what_it_cannot_be(step: str, name: str, value: Any) -> None:
    module, target = STEP_OPTIONS[step].split(":")
    with pytest.raises(InputError) as caught:
        parse_table(getattr(import_module(module), target), OPTIONS[step] | {name: value}, "options")
    assert name in str(caught.value) and "\n" not in str(caught.value)
