"""LoRAs in a cascade: what diffusers and PEFT make of the same files, motion modules, and what does not fit."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

import inflate
from inflate.bases.lora import read_image_lora
from inflate.cascade import Cascade
from inflate.checkpoint import convert
from inflate.checkpoint.formats.layouts import ANIMATEDIFF
from inflate.checkpoint.formats.motion_lora import add_lora
from inflate.checkpoint.temporal import read_temporal_info
from inflate.cli.app import main
from inflate.cli.generate import parse_lora
from inflate.errors import InputError
from tests.bases import families
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import assert_same, seeded
from tests.inflater.tiny_models import perturb
from tests.models.tiny_family import save_tiny_family, tiny_video_unet

PROMPT = "red sun"
OPTIONS: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}
RANK, ALPHA = 2, 6
BUILDERS = {
    "sd": foreign.stable_diffusion,
    "sdxl": foreign.stable_diffusion_xl,
    "sd3": families.sd3,
    "flux": families.flux,
    "pixart": families.pixart,
}
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


@pytest.fixture(scope="module", params=BUILDERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name, folder and diffusers' pipeline."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param) / request.param
    return request.param, folder, BUILDERS[request.param](folder)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd") / "sd"
    return folder, foreign.stable_diffusion(folder)


def changes_of(module: Any, targets: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    """Random halves of changes under PEFT's names, with an effect one can see."""
    twin = inject_adapter_in_model(LoraConfig(r=RANK, target_modules=list(targets)), copy.deepcopy(module))
    generator = torch.Generator().manual_seed(seed)
    named = get_peft_model_state_dict(twin, adapter_name="default")
    return {key: torch.randn(value.shape, generator=generator) * 0.25 for key, value in named.items()}


def network_of(pipeline: Any) -> Any:
    return getattr(pipeline, "unet", None) or pipeline.transformer


def inject(module: Any, changes: dict[str, Tensor], weight: float) -> None:
    """PEFT's own way, for networks that diffusers has no loader for."""
    scaled: Any = weight * ALPHA
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=scaled, target_modules=["to_q", "to_v"]), module)
    set_peft_model_state_dict(module, changes)


def frames_of(folder: Path, *loras: tuple[Path, float]) -> np.ndarray:
    cascade = Cascade.from_pretrained(folder, device="cpu")
    for path, weight in loras:
        assert cascade.load_lora(path, weight) == "image"
    made: Any = cascade(PROMPT, 1, **OPTIONS).frames
    return made[0]


def wanted_of(pipeline: Any, noise: Tensor, name: str) -> Any:
    latents = noise[:, :, 0]
    if name == "flux":
        latents = pipeline._pack_latents(latents, 1, *latents.shape[1:])
    options = {"use_resolution_binning": False, "clean_caption": False} if name == "pixart" else {}
    size = {"height": families.SIDE, "width": families.SIDE}
    return pipeline(PROMPT, latents=latents, **size, **options, **OPTIONS).images


def drawn(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Tensor:
    """The noise that both start from."""
    stage: Any = Cascade.from_pretrained(folder, device="cpu").stage("decoder")
    channels, height, width = stage.picture_shape()
    noise = torch.randn(1, channels, 1, height, width, generator=seeded(5))
    monkeypatch.setattr("inflate.models.decoder.frame_noise", lambda *rest: noise)
    return noise


@pytest.mark.parametrize("weight", [1.0, -0.6])
def test_frames_are_those_of_diffusers_with_the_same_lora(
    model: Any, weight: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder, built = model
    noise, pipeline = drawn(monkeypatch, folder), copy.deepcopy(built)
    plain = frames_of(folder)
    changes, path = changes_of(network_of(pipeline), ("to_q", "to_v"), 1), tmp_path / "lora.safetensors"
    if name == "pixart":
        path = tmp_path / "adapter_model.safetensors"
        save_file({f"base_model.model.{key}": value for key, value in changes.items()}, path)
        (tmp_path / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": {ALPHA}}}')
        inject(pipeline.transformer, changes, weight)
    else:
        part = "transformer" if name in ("sd3", "flux") else "unet"
        metadata = {
            f"{part}_lora_adapter_metadata": {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["to_q", "to_v"]}
        }
        layers = {f"{part}_lora_layers": changes}
        type(pipeline).save_lora_weights(tmp_path, **layers, **metadata, weight_name=path.name)
        pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="style")
        pipeline.set_adapters(["style"], [weight])
    made = frames_of(folder, (path, weight))
    assert_same(made, wanted_of(pipeline, noise, name))
    assert not np.allclose(made, plain, atol=1e-2)
    assert np.array_equal(frames_of(folder, (path, 0.0)), plain), "weight 0 changes no bit"
    assert not np.allclose(frames_of(folder, (path, weight / 3)), made, atol=1e-3)


def write_kohya(path: Path, network: dict[str, Tensor], text: dict[str, Tensor]) -> Path:
    tensors: dict[str, Tensor] = {}
    for before, changes in (("lora_unet_", network), ("lora_te_text_model_", text)):
        for key, value in changes.items():
            module, half, _ = key.removeprefix("text_model.").rsplit(".", 2)
            target = before + module.replace(".", "_")
            tensors[f"{target}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"] = value
            tensors[f"{target}.alpha"] = torch.tensor(float(ALPHA))
    save_file(tensors, path)
    return path


def test_kohyas_files_with_alpha_change_the_text_encoder_too(
    stable_diffusion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pipeline = stable_diffusion[0], copy.deepcopy(stable_diffusion[1])
    noise = drawn(monkeypatch, folder)
    network = changes_of(pipeline.unet, ("to_q", "to_out.0", "conv1", "proj_in"), 1)
    text = changes_of(pipeline.text_encoder, TEXT, 2)
    both = write_kohya(tmp_path / "both.safetensors", network, text)
    alone = write_kohya(tmp_path / "alone.safetensors", network, {})
    pipeline.load_lora_weights(tmp_path, weight_name=both.name, adapter_name="style")
    pipeline.set_adapters(["style"], [0.8])
    made = frames_of(folder, (both, 0.8))
    assert_same(made, wanted_of(pipeline, noise, "sd"))
    assert not np.allclose(made, frames_of(folder, (alone, 0.8)), atol=1e-3), "the text encoder changed"
    # two at once
    pipeline.load_lora_weights(tmp_path, weight_name=alone.name, adapter_name="other")
    pipeline.set_adapters(["style", "other"], [0.5, 0.3])
    assert_same(frames_of(folder, (both, 0.5), (alone, 0.3)), wanted_of(pipeline, noise, "sd"))


def test_names_of_the_original_sdxl_are_those_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kohya names SDXL's blocks as its first release did; which is which diffusers knows."""
    torch.manual_seed(0)
    folder = tmp_path / "sdxl"
    pipeline = foreign.stable_diffusion_xl(folder)
    noise = drawn(monkeypatch, folder)
    tensors = {}
    for key, value in changes_of(pipeline.unet, ("to_q",), 1).items():
        module, half, _ = key.rsplit(".", 2)
        if module.startswith("down_blocks.1.attentions.0."):
            # of one layer per block the blocks count 1, 2 (down), 3 (down_blocks.1), …
            old = "lora_unet_" + module.replace("down_blocks.1.attentions.0", "input_blocks.3.1").replace(".", "_")
            tensors[f"{old}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"] = value
            tensors[f"{old}.alpha"] = torch.tensor(float(ALPHA))
    assert tensors
    save_file(tensors, tmp_path / "old.safetensors")
    pipeline.load_lora_weights(tmp_path, weight_name="old.safetensors", adapter_name="style")
    assert_same(frames_of(folder, (tmp_path / "old.safetensors", 1.0)), wanted_of(pipeline, noise, "sdxl"))
    # diffusers' own conversion renames the text encoder's projections, and transformers then leaves them out.
    text = changes_of(pipeline.text_encoder, ("q_proj", "out_proj", "fc1"), 2)
    alone = write_kohya(tmp_path / "text.safetensors", {}, text)
    save_file(tensors | load_file(alone), tmp_path / "both.safetensors")
    parts = {"network": pipeline.unet, "text_encoder": pipeline.text_encoder}
    found, wanted = (
        read_image_lora(path, parts, "StableDiffusionXLPipeline").changes["text_encoder"]
        for path in (tmp_path / "both.safetensors", alone)
    )
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        assert found[name].share == change.share == ALPHA / RANK
        assert torch.equal(found[name].up, change.up) and torch.equal(found[name].down, change.down)


def test_networks_in_memory_change_at_once_and_videos_too(stable_diffusion: Any, tmp_path: Path) -> None:
    folder, pipeline = stable_diffusion
    convert(folder, tmp_path / "video", "make-a-video", num_frames=3)
    path = write_kohya(tmp_path / "one.safetensors", changes_of(pipeline.unet, ("to_q", "to_v"), 1), {})
    early = Cascade.from_pretrained(tmp_path / "video", device="cpu")
    late = Cascade.from_pretrained(tmp_path / "video", device="cpu", keep_loaded=True)

    def video(cascade: Cascade) -> Any:
        return cascade(PROMPT, 3, generator=seeded(0), **OPTIONS).frames

    plain = video(late)
    early.load_lora(path)
    late.load_lora(path)
    assert np.array_equal(video(early), video(late)) and not np.allclose(video(late), plain, atol=1e-2)
    assert np.array_equal(video(early), video(late)), "it is added once"
    with pytest.raises(InputError, match="has LoRAs, which its files on disk have not"):
        early.save_pretrained(tmp_path / "saved")


def motion_lora(folder: Path, path: Path) -> Path:
    """A change of every query of a motion module, under AnimateDiff's names."""
    shapes = read_temporal_info(folder / "unet" / "temporal.safetensors")[1].tensors
    tensors = {}
    for name, stored in shapes.items():
        if name.endswith("to_q.weight"):
            site = str(ANIMATEDIFF.from_ours(name)).removesuffix(".weight").replace(".to_q", ".processor.to_q")
            generator = torch.Generator().manual_seed(len(tensors))
            tensors[f"{site}_lora.down.weight"] = torch.randn(RANK, stored.shape[1], generator=generator)
            tensors[f"{site}_lora.up.weight"] = torch.randn(stored.shape[0], RANK, generator=generator)
    assert tensors
    save_file(tensors, path)
    return path


def test_motion_loras_change_the_motion_module(stable_diffusion: Any, tmp_path: Path) -> None:
    convert(stable_diffusion[0], tmp_path / "video", "animatediff-v2", num_frames=3)
    trained = inflate.load(tmp_path / "video" / "unet")
    perturb(trained)
    inflate.save(trained, tmp_path / "video" / "unet", force=True)
    path = motion_lora(tmp_path / "video", tmp_path / "motion.safetensors")
    cascade = Cascade.from_pretrained(tmp_path / "video", device="cpu", keep_loaded=True)
    assert cascade.load_lora(path, 0.5) == "motion"
    cascade(PROMPT, 3, **OPTIONS)
    loaded: Any = cascade.stage("decoder")
    found = loaded.components["unet"].temporal_state_dict()
    wanted = add_lora(trained.temporal_state_dict(), path, 0.5)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert any(not torch.equal(found[name], value) for name, value in trained.temporal_state_dict().items())
    image_model = Cascade.from_pretrained(stable_diffusion[0], device="cpu")
    with pytest.raises(InputError, match="is a MotionLoRA, and this decoder has no temporal layers"):
        image_model.load_lora(path)


def test_our_own_decoder_takes_loras_by_the_names_of_its_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = save_tiny_family(tmp_path / "family", tiny_video_unet())
    image_model = inflate.load(folder / "unet").image_model
    changes = changes_of(image_model, ("conv1", "conv2"), 1)
    save_file({f"unet.{key}": value for key, value in changes.items()}, tmp_path / "own.safetensors")
    cascade = Cascade.from_pretrained(folder, device="cpu")
    plain: Any = cascade("sun", 4, generator=seeded(0), output_type="np").frames
    cascade.load_lora(tmp_path / "own.safetensors", 1.0)
    made: Any = cascade("sun", 4, generator=seeded(0), output_type="np").frames
    assert not np.allclose(made, plain, atol=1e-3)
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 16)}
    save_file(text, tmp_path / "text.safetensors")
    with pytest.raises(InputError, match=r"changes the text encoder .*, and this model has none"):
        cascade.load_lora(tmp_path / "text.safetensors")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"unet.elsewhere.to_q.lora_A.weight": (2, 16), "unet.elsewhere.to_q.lora_B.weight": (16, 2)},
            "it changes 'else",
        ),
        ({"unet.conv_in.lora_A.weight": (2, 99, 3, 3), "unet.conv_in.lora_B.weight": (16, 2, 1, 1)}, "of size"),
        ({"unet.conv_in.lora_A.weight": (2, 4, 3, 3)}, "half of its change of 'conv_in' is missing"),
        ({"unet.conv_in.lora_A.weight": (3, 4, 3, 3), "unet.conv_in.lora_B.weight": (16, 2, 1, 1)}, "do not belong"),
        (
            {
                f"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_{half}.weight": shape
                for half, shape in {"down": (2, 99), "up": (99, 2)}.items()
            },
            r"it changes '.*self_attn.q_proj' of size \(99, 99\), and this model's has",
        ),
        ({"unet.conv_in.weight": (4, 4)}, "is no half of a change"),
        ({"unet.conv_in.dora_scale": (4, 4)}, "is a DoRA, which is not supported"),
        ({"lora_unet_conv_in.hada_w1_a": (4, 4)}, "is a LoHa, which is not supported"),
        ({"text_encoder_2.x.lora_A.weight": (2, 16)}, "it changes the text encoder .the second."),
        ({}, "is no LoRA: it has 0 tensors"),
    ],
)
def test_what_does_not_fit_is_named(
    tensors: dict[str, tuple[int, ...]], words: str, stable_diffusion: Any, tmp_path: Path
) -> None:
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "lora.safetensors")
    cascade = Cascade.from_pretrained(stable_diffusion[0], device="cpu")
    with pytest.raises(InputError, match=words):
        cascade.load_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(value: float, stable_diffusion: Any, tmp_path: Path) -> None:
    halves = {"A": torch.ones(2, 4, 3, 3), "B": torch.full((16, 2, 1, 1), value)}
    save_file({f"unet.conv_in.lora_{half}.weight": one for half, one in halves.items()}, tmp_path / "lora.safetensors")
    cascade = Cascade.from_pretrained(stable_diffusion[0], device="cpu")
    with pytest.raises(InputError, match=r"its change of 'conv_in' holds values that are not numbers"):
        cascade.load_lora(tmp_path / "lora.safetensors")


def test_pickles_and_weights_that_are_none(stable_diffusion: Any, tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(stable_diffusion[0], device="cpu")
    torch.save({"unet.conv_in.lora_A.weight": torch.ones(2, 4)}, tmp_path / "lora.ckpt")
    with pytest.raises(InputError, match="pickle"):
        cascade.load_lora(tmp_path / "lora.ckpt")
    with pytest.raises(InputError, match=r"There is no LoRA .*none\.safetensors"):
        cascade.load_lora(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_text("not one")
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        cascade.load_lora(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "style.safetensors"])
def test_a_folder_of_pefts_is_as_strong_as_peft_makes_it(
    rslora: bool, name: str, stable_diffusion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, built = stable_diffusion
    noise, pipeline = drawn(monkeypatch, folder), copy.deepcopy(built)
    changes = changes_of(pipeline.unet, ("to_q", "to_v"), 1)
    options: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "use_rslora": rslora}
    inject_adapter_in_model(LoraConfig(**options, target_modules=["to_q", "to_v"]), pipeline.unet)
    set_peft_model_state_dict(pipeline.unet, changes)
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **options}))
    save_file({f"base_model.model.{key}": value for key, value in changes.items()}, lora / name)
    wanted = wanted_of(pipeline, noise, "sd")
    for given in (lora, lora / name):
        assert_same(frames_of(folder, (given, 1.0)), wanted)
    assert not np.allclose(wanted, frames_of(folder), atol=1e-2)


def test_a_folder_that_is_no_lora_is_told_what_it_holds(stable_diffusion: Any, tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(stable_diffusion[0], device="cpu")
    with pytest.raises(InputError, match=r"is a folder with no \.safetensors, and no adapter_model\.safetensors; name"):
        cascade.load_lora(tmp_path)
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin is a pickle"):
        cascade.load_lora(tmp_path)
    for part in ("unet", "text_encoder"):
        (tmp_path / part).mkdir()
        save_file({"a": torch.ones(1)}, tmp_path / part / "adapter_model.safetensors")
    (tmp_path / "adapter_model.bin").unlink()
    with pytest.raises(
        InputError, match=r"with text_encoder/adapter_model\.safetensors, unet/adapter_model\.safetensors"
    ):
        cascade.load_lora(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json has settings of a LoRA that cannot be read"):
        cascade.load_lora(tmp_path)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("style.safetensors", ("style.safetensors", 1.0)),
        ("style.safetensors:0.5", ("style.safetensors", 0.5)),
        ("a/b.safetensors:-2", ("a/b.safetensors", -2.0)),
        (r"C:\loras\x.safetensors:0.5", (r"C:\loras\x.safetensors", 0.5)),
        (r"C:\loras\x.safetensors", (r"C:\loras\x.safetensors", 1.0)),
        ("C:/x.safetensors:1e-1", ("C:/x.safetensors", 0.1)),
    ],
)
def test_a_file_and_its_weight(text: str, parsed: tuple[str, float]) -> None:
    assert parse_lora(text) == (Path(parsed[0]), parsed[1])


@pytest.mark.parametrize("text", ["x.safetensors:nan", "x.safetensors:inf", "x.safetensors:much", ":0.5", ""])
def test_a_weight_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="--lora is"):
        parse_lora(text)


def test_generate_takes_several_and_tells_them(
    stable_diffusion: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_kohya(tmp_path / "one.safetensors", changes_of(stable_diffusion[1].unet, ("to_q",), 1), {})
    base = ["generate", PROMPT, "--model", str(stable_diffusion[0]), "--frames", "1", "--steps", "2", "--device", "cpu"]
    names = {"plain": [], "none": ["--lora", f"{path}:0"], "twice": ["--lora", f"{path}:0.5", "--lora", f"{path}:0.5"]}
    names |= {"once": ["--lora", str(path)]}
    for name, loras in names.items():
        out = ["-o", str(tmp_path / f"{name}.gif"), "--save-settings", "--quiet", "--no-sheet"]
        assert main([*base, *out, *loras]) == 0
    read = {name: (tmp_path / f"{name}.gif").read_bytes() for name in names}
    assert read["plain"] == read["none"] and read["plain"] != read["once"]
    said = json.loads((tmp_path / "twice.json").read_text())["loras"]
    assert said == [{"file": str(path), "weight": 0.5, "kind": "image"}] * 2
    assert "loras" not in json.loads((tmp_path / "plain.json").read_text())
    assert main([*base, "-o", str(tmp_path / "x.gif"), "--lora", str(tmp_path / "none.safetensors")]) == 2
    assert "There is no LoRA" in capsys.readouterr().err and not (tmp_path / "x.gif").exists()
