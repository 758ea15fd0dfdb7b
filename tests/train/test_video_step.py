"""The step that fine-tunes any image model: what a batch is, what trains, what is kept, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import inflate
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.train.from_model import recipe_of_model, recipe_table, recipe_text
from inflate.train.loop import train
from inflate.train.recipe import Recipe, load_recipe
from inflate.train.steps.video import VideoStep, build
from tests.bases.families import build as build_folder

from .test_finetune_models import settings, sums, write_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number, caption in enumerate(("red", "a red bus", "see", "bus", "red sea", "see red")):
        write_clip(folder / f"clip{number}.mp4", number)
        (folder / f"clip{number}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_folder("stable-diffusion", tmp_path_factory.mktemp("sd") / "model")


def recipe(model: Path, clips: Path, run: Path, *more: str, steps: int = 2, scheme: str = "") -> Recipe:
    return recipe_of_model(str(model), str(clips), str(run), scheme, settings(*more, steps=steps)[1::2])


def temporal(run: Path) -> dict[str, torch.Tensor]:
    [path] = (run / "export").rglob("temporal.safetensors")
    return load_file(path)


def test_how_an_update_is_cut_changes_nothing(model: Path, clips: Path, tmp_path: Path) -> None:
    """Gradients, because Adam makes a whole step of the least rounding where a gradient is zero; the loop's own part,
    with weights, is in test_running.py. In float64, because kernels for other sizes round otherwise."""
    gradients = []
    for count in (4, 1):
        step = VideoStep(recipe(model, clips, tmp_path / "run", f"train.batch_size={count}"), CPU)
        step.trained.double()
        for first in range(0, 4, count):
            (step(doubled(step.draw(0, first, count))).total * count / 4).backward()
        gradients.append({name: p.grad for name, p in step.trained.temporal.named_parameters() if p.grad is not None})
    whole, parts = gradients
    assert whole.keys() == parts.keys() and max(float(value.abs().max()) for value in whole.values()) > 0.01
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], rtol=0, atol=1e-12), name


def doubled(batch: Any) -> Any:
    """A batch in float64."""
    if isinstance(batch, dict):
        return {name: doubled(value) for name, value in batch.items()}
    return batch.double() if isinstance(batch, torch.Tensor) and batch.dtype == torch.float32 else batch


def test_cached_equals_uncached_bit_for_bit(model: Path, clips: Path, tmp_path: Path) -> None:
    for name, cached in (("cached", "true"), ("live", "false")):
        train(recipe(model, clips, tmp_path / name, f"options.cache={cached}", "train.batch_size=2"), "cpu", True)
    one, other = temporal(tmp_path / "cached"), temporal(tmp_path / "live")
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("cached", "live")]
    made = [[json.loads(line).get("loss") for line in rows] for rows in lines]
    assert made[0] == made[1]


def test_condition_dropout_and_noise_follow_from_the_seed(model: Path, clips: Path, tmp_path: Path) -> None:
    step = build(recipe(model, clips, tmp_path / "run", "options.condition_dropout=0.5", "train.batch_size=4"), CPU)
    one, again = step.draw(3, 0, 4), step.draw(3, 0, 4)
    assert torch.equal(one["noise"], again["noise"]) and torch.equal(one["times"], again["times"])
    later = step.draw(3, 2, 2)
    assert torch.equal(one["noise"][2:], later["noise"]) and torch.equal(one["latents"][2:], later["latents"])
    assert not torch.equal(step.draw(4, 0, 4)["noise"], one["noise"])
    dropped = torch.cat([step.draw(update, 0, 4)["dropped"] for update in range(60)])
    assert 0.35 < dropped.float().mean() < 0.65
    # What is dropped is told what guidance's other branch is told: the empty text.
    batch = one | {"dropped": torch.tensor([True, False, False, False])}
    seen: list[torch.Tensor] = []
    attention = step.trained.image_model.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step(batch)
    states = seen[0][:: step.trained.num_frames]
    [empty] = step.encodings.unconditional().values()
    assert torch.equal(states[:1], empty) and not torch.equal(states[1:2], empty)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 40, 200)).save(folder / f"{number}.png")
    return folder


def test_pictures_leave_temporal_gradients_at_zero(model: Path, clips: Path, tmp_path: Path) -> None:
    more = (f'data.pictures="{pictures(tmp_path / "pictures")}"', "options.pictures_per_batch=2")
    both = recipe(model, clips, tmp_path / "run", *more, "options.trainable=all")
    step = build(both, CPU)
    batch = step.draw(0, 0, 1)
    assert batch["pictures"]["latents"].shape[:3:2] == (2, 1)
    # The first picture's noise and time are not those of the first clip.
    assert not torch.equal(batch["pictures"]["noise"].flatten()[:16], batch["noise"].flatten()[:16])
    assert batch["pictures"]["times"][0] != batch["times"][0]
    step._errors(batch["pictures"], step.trained.image_model).mean().backward()
    assert all(p.grad is None or not p.grad.abs().any() for p in step.trained.temporal_parameters())
    assert any(p.grad is not None and bool(p.grad.abs().any()) for p in step.trained.image_model.parameters())
    step(batch).total.backward()
    assert any(p.grad is not None and bool(p.grad.abs().any()) for p in step.trained.temporal_parameters())
    with pytest.raises(InputError, match="pictures_per_batch trains nothing"):
        build(replace(both, options=both.options | {"trainable": "temporal"}), CPU)


@pytest.mark.parametrize("trainable", ["temporal", "temporal+lora", "all"])
def test_only_what_was_asked_for_trains(model: Path, clips: Path, tmp_path: Path, trainable: str) -> None:
    made = recipe(model, clips, tmp_path / "run", f"options.trainable={trainable}", "options.lora_rank=2")
    step = VideoStep(made, CPU)
    before = {name: value.clone() for name, value in step.trained.image_model.state_dict().items()}
    trained = {name for name, value in step.trained.named_parameters() if value.requires_grad}
    assert {name for name in trained if name.startswith("temporal.")}
    image = {name for name in trained if name.startswith("image_model.")}
    assert bool(image) == (trainable != "temporal")
    assert all("lora_" in name for name in image) or trainable == "all"
    del step
    train(made, "cpu", True)
    export = tmp_path / "run" / "export"
    same = all(sums(export)[place] == value for place, value in sums(model).items())
    assert same == (trainable != "all")
    after = inflate.load(export / "unet").image_model.state_dict()
    equal = [torch.equal(after[name], value) for name, value in before.items() if name in after]
    assert all(equal) if trainable == "temporal" else equal and (trainable != "all" or not all(equal))
    adapter = export / "domain_adapter" / "pytorch_lora_weights.safetensors"
    assert adapter.is_file() == (trainable == "temporal+lora")
    if adapter.is_file():
        pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
        pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name)
        loaded = {name for name, _ in pipeline.unet.named_parameters() if "lora_" in name}
        assert len(loaded) == len(load_file(adapter))


def test_motion_lora_is_read_as_others_read_it(model: Path, clips: Path, tmp_path: Path) -> None:
    first = recipe(model, clips, tmp_path / "module", scheme="animatediff-v2")
    train(first, "cpu", True)
    module = tmp_path / "module" / "export"
    more = (f'options.init="{module / "unet"}"', "options.motion_lora_rank=2")
    train(recipe(model, clips, tmp_path / "lora", *more, scheme="animatediff-v2"), "cpu", True)
    from inflate.checkpoint.formats.motion_lora import add_lora

    lora = tmp_path / "lora" / "export" / "motion_lora.safetensors"
    merged = add_lora(temporal(tmp_path / "module"), lora, 1.0)
    trained = temporal(tmp_path / "lora")
    assert merged.keys() == trained.keys()
    assert any(not torch.equal(value, temporal(tmp_path / "module")[name]) for name, value in trained.items())
    for name, value in merged.items():
        assert torch.allclose(value, trained[name], atol=1e-6), name


def test_an_export_goes_on_as_a_model(model: Path, clips: Path, tmp_path: Path) -> None:
    train(recipe(model, clips, tmp_path / "first"), "cpu", True)
    again = recipe(tmp_path / "first" / "export", clips, tmp_path / "second")
    step = VideoStep(again, CPU)
    for name, value in temporal(tmp_path / "first").items():
        assert torch.equal(step.trained.temporal_state_dict()[name], value), name


def test_held_out_loss_begins_at_the_image_models(model: Path, clips: Path, tmp_path: Path) -> None:
    step = VideoStep(recipe(model, clips, tmp_path / "run"), CPU)
    values = step.validate()
    assert values["validation_loss"] == pytest.approx(values["image_model_loss"], rel=1e-5)
    assert sum(name.startswith("validation_0") for name in values) == 10
    assert values["validation_0.05"] != values["validation_0.95"]
    # Held out by video: no window of a held-out video is trained on.
    windows = step.clips.windows
    assert not {w.name for w in windows if w.split == "train"} & {w.name for w in windows if w.split == "validation"}


def test_a_lone_network_borrows_and_its_export_is_a_pipeline(model: Path, clips: Path, tmp_path: Path) -> None:
    alone = tmp_path / "unet"
    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipeline.unet.save_pretrained(alone)
    train(recipe(alone, clips, tmp_path / "run", f'options.parts.base="{model}"'), "cpu", True)
    export = tmp_path / "run" / "export"
    theirs = StableDiffusionPipeline.from_pretrained(export, local_files_only=True)
    assert torch.equal(theirs.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    made = inflate.Cascade.from_pretrained(export)("red", num_frames=4, num_inference_steps=2, output_type="np")
    assert made.frames is not None and len(made.frames[0]) == 4


def test_the_printed_recipe_is_the_one_used(model: Path, clips: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["recipe", str(model), "--data", str(clips), "--set", "train.steps=7"]) == 0
    printed = tmp_path / "my.toml"
    printed.write_text(capsys.readouterr().out)
    table = recipe_table(str(model), str(clips), overrides=["train.steps=7"])
    assert load_recipe(printed) == recipe_of_model(str(model), str(clips), overrides=["train.steps=7"])
    assert recipe_text(table) == printed.read_text()
    assert load_recipe(printed).train.steps == 7


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["options.trainable=temporl"], "temporal"),
        (["options.condition=image"], "reads text"),
        (["options.motion_lora_rank=4"], "options.init"),
        (["options.condition_dropout=1"], "condition_dropout"),
        (["options.image_dtype=fp16"], "float16"),
        (["options.validation_clips=-1"], "validation_clips"),
        (["options.timestep_density=normal"], "timestep_density"),
        (["options.weighting=min_snr"], "min-snr"),
        (["options.scheme=latte"], "latte"),
        (["options.pictures_per_batch=2"], "data.pictures"),
        (["data.size=[20]"], "data.size"),
        (["data.num_frames=1"], "num_frames"),
        (["train.mixed_precision=fp16"], "fp16"),
        (["options.parts.vae=/nowhere"], "/nowhere"),
    ],
)
def test_wrong_values_are_one_sentence(
    model: Path, clips: Path, tmp_path: Path, capsys: Any, more: list[str], named: str
) -> None:
    arguments = [
        "finetune",
        "--model",
        str(model),
        "--data",
        str(clips),
        "-o",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--quiet", *settings(*more)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and named in said


@pytest.mark.parametrize("part", ["text_encoder", "vae", "scheduler"])
def test_a_missing_part_is_named(clips: Path, tmp_path: Path, capsys: Any, part: str) -> None:
    import shutil

    folder = build_folder("stable-diffusion", tmp_path / "model")
    shutil.rmtree(folder / part)
    assert main(["finetune", "--model", str(folder), "--data", str(clips), "-o", str(tmp_path / "r"), "--quiet"]) == 2
    assert repr(part) in capsys.readouterr().err


def test_neither_recipe_nor_model(capsys: Any, model: Path) -> None:
    assert main(["finetune"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["finetune", "--model", str(model)]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_single_file_borrows_the_rest(model: Path, clips: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    assert main(["finetune", "--model", str(path), "--data", str(clips), "-o", str(tmp_path / "r"), "--quiet"]) == 2
    assert str(path) in capsys.readouterr().err
