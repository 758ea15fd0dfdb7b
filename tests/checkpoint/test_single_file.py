"""Single files in the layouts of their makers: what is read out of them, and how each family is recognised."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors.torch import load_file, save_file
from torch import Tensor

from inflate.checkpoint import convert, find_source, inspect, load, load_image_model, load_temporal
from inflate.checkpoint.header import read_header
from inflate.checkpoint.single_file import CONFIGS, recognise
from inflate.checkpoint.source import check_weights, find_weights, shapes_of
from inflate.errors import InputError
from inflate.inflater import IMAGE_MODEL_CLASSES, call_image_model, meta_image_model, random_inputs
from tests.checkpoint.original_layouts import PREFIX, flux, ldm_unet, sd3, write_hollow
from tests.inflater.tiny_models import CONFIGS as TINY
from tests.inflater.tiny_models import build

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY_UNETS = ("sd15", "sd21", "sd21-unclip", "inpainting", "sdxl", "sd-x4-upscaler")


def originals(name: str, image_model: Any) -> dict[str, Tensor]:
    """The weights of a tiny model in its maker's layout."""
    state = image_model.state_dict()
    return sd3(state) if name.startswith("sd3") else ldm_unet(state, TINY[name][1]["layers_per_block"])


def whole(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As in a whole checkpoint, beside an autoencoder and a text encoder."""
    others = {
        "first_stage_model.decoder.conv_in.weight": torch.ones(2),
        "cond_stage_model.model.logit_scale": torch.ones(1),
    }
    return {**{PREFIX + name: tensor.contiguous() for name, tensor in weights.items()}, **others}


@pytest.mark.parametrize("name", [*TINY_UNETS, "sd3", "sd35"])
@pytest.mark.parametrize("bare", [False, True], ids=["whole", "bare"])
def test_pictures_are_the_same_bit_for_bit(tmp_path: Path, name: str, bare: bool) -> None:
    image_model = build(name)
    image_model.save_config(tmp_path)
    weights = {key: tensor.contiguous() for key, tensor in originals(name, image_model).items()}
    save_file(weights if bare else whole(weights), tmp_path / "model.safetensors")
    loaded = load_image_model(find_source(tmp_path / "model.safetensors", config=tmp_path / "config.json"))
    assert type(loaded) is type(image_model) and not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for key, tensor in image_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    inputs = random_inputs(image_model, 2, None, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (call_image_model(model, **inputs).sample for model in (image_model, loaded))
    assert torch.equal(expected, found)


def test_convert_writes_a_model_folder(tmp_path: Path) -> None:
    image_model = build("sd15").half()
    image_model.save_pretrained(tmp_path / "image")
    file = tmp_path / "model.safetensors"
    save_file(whole(originals("sd15", image_model)), file)
    before = file.read_bytes()
    done = convert(file, tmp_path / "video", num_frames=3, config=tmp_path / "image")
    assert {path.name for path in (tmp_path / "video").iterdir()} == {"config.json", WEIGHTS, "temporal.safetensors"}
    written = load_file(tmp_path / "video" / WEIGHTS)
    assert written.keys() == image_model.state_dict().keys()
    for key, tensor in image_model.state_dict().items():
        assert written[key].dtype == torch.float16 and torch.equal(written[key], tensor)
    assert file.read_bytes() == before and done.num_files_copied == 0
    model = load(tmp_path / "video", dtype=torch.float16)
    assert model.image_model.config["block_out_channels"] == [8, 16] and model.image_model.config["sample_size"] == 8
    # the same fingerprint as that of the same weights in a folder
    convert(tmp_path / "image", tmp_path / "other", num_frames=3)
    one, other = (read_header(tmp_path / folder / "temporal.safetensors").metadata for folder in ("video", "other"))
    assert one == other
    convert(file, tmp_path / "alone", num_frames=3, temporal_only=True, config=tmp_path / "image")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["temporal.safetensors"]
    assert read_header(tmp_path / "alone" / "temporal.safetensors").metadata == one
    assert load_temporal(build("sd15"), tmp_path / "alone").num_frames == 3
    found = inspect(file, config=tmp_path / "image")
    assert found.temporal is None and found.dtypes == ("F16",) and found.folder == file
    assert found.image_bytes == 2 * sum(parameter.numel() for parameter in image_model.parameters())


def test_training_a_loaded_model_leaves_the_file_alone(tmp_path: Path) -> None:
    image_model = build("sd15")
    image_model.save_config(tmp_path)
    weights = ldm_unet(image_model.state_dict(), 1)
    for file in (tmp_path / "model.sft", tmp_path / "model.ckpt"):
        save_file(weights, file) if file.suffix == ".sft" else torch.save(weights, file)
        before = file.read_bytes()
        loaded = load_image_model(find_source(file, tmp_path / "config.json", allow_pickle=True))
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.add_(1)
        del loaded
        assert file.read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16])
def test_weights_keep_their_dtype_until_they_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    image_model = build("sd35")
    weights = {PREFIX + key: tensor.to(dtype).contiguous() for key, tensor in originals("sd35", image_model).items()}
    save_file(weights, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "video", "lean", 3)
    written = load_file(tmp_path / "video" / WEIGHTS)
    loaded = load(tmp_path / "video").image_model.state_dict()
    for key, tensor in image_model.state_dict().items():
        assert written[key].dtype == dtype
        assert torch.equal(loaded[key], tensor.to(dtype).float())


def test_diffusers_own_names_in_one_file(tmp_path: Path) -> None:
    for name in ("sd15", "unconditional", "dit", "flux-dev"):
        image_model = build(name)
        image_model.save_config(tmp_path / name)
        save_file(image_model.state_dict(), tmp_path / f"{name}.safetensors")
        loaded = load_image_model(find_source(tmp_path / f"{name}.safetensors", config=tmp_path / name))
        for key, tensor in image_model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor)


def true_model(config_name: str, changes: dict[str, Any]) -> Any:
    config = {**json.loads((CONFIGS / f"{config_name}.json").read_text()), **changes}
    return meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)


SD35_MEDIUM = {
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
SD35_LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
# the carried config, what differs from it, the family found, what diffusers itself takes the file for
TRUE_MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "sd15": ("sd15_unet", {}, "Stable Diffusion 1.x", "v1"),
    "sd15-inpainting": ("sd15_unet", {"in_channels": 9}, "Stable Diffusion 1.x", "inpainting"),
    "sd21": ("sd21_unet", {}, "Stable Diffusion 2.x", "v2"),
    "sd2-inpainting": ("sd21_unet", {"in_channels": 9}, "Stable Diffusion 2.x", "inpainting_v2"),
    "sd21-unclip": ("sd21_unclip_unet", {}, "Stable Diffusion 2.1 unCLIP", "v2"),
    "sdxl": ("sdxl_unet", {}, "Stable Diffusion XL", "xl_base"),
    "sd-x4-upscaler": ("sd_x4_upscaler_unet", {}, "the Stable Diffusion x4 upscaler", "upscale"),
    "sd3-medium": ("sd3_medium_transformer", {}, "Stable Diffusion 3", "sd3"),
    "sd35-medium": ("sd3_medium_transformer", SD35_MEDIUM, "Stable Diffusion 3", "sd35_medium"),
    "sd35-large": ("sd3_medium_transformer", SD35_LARGE, "Stable Diffusion 3", "sd35_large"),
    "flux-dev": ("flux1_dev_transformer", {}, "FLUX.1", "flux-dev"),
    "flux-schnell": ("flux1_dev_transformer", {"guidance_embeds": False}, "FLUX.1", "flux-schnell"),
    "flux-fill": ("flux1_dev_transformer", {"in_channels": 384, "out_channels": 64}, "FLUX.1", "flux-fill"),
}


@pytest.mark.parametrize("name", TRUE_MODELS)
def test_families_are_recognised_at_their_true_size(tmp_path: Path, name: str) -> None:
    config_name, changes, family, diffusers_says = TRUE_MODELS[name]
    image_model = true_model(config_name, changes)
    state = image_model.state_dict()
    weights = sd3(state) if "sd3_" in config_name else flux(state) if "flux" in config_name else ldm_unet(state, 2)
    shapes = {PREFIX + key: tuple(tensor.shape) for key, tensor in weights.items()}
    if name == "sdxl":
        shapes["conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"] = (1280,)
    on_meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert infer_diffusers_model_type(on_meta) == diffusers_says, "the test's own renaming is wrong"
    write_hollow(tmp_path / "model.safetensors", shapes)
    found = find_source(tmp_path / "model.safetensors")
    assert found.single_file is not None and found.single_file.family == family
    for key, value in changes.items():
        assert found.config[key] == (list(value) if isinstance(value, tuple) else value)
    held = find_weights(found)
    check_weights(found, held, shapes_of(image_model))
    assert held.shapes == {key: tuple(tensor.shape) for key, tensor in state.items()}
    # what the recognised config builds has these very weights
    rebuilt = true_model(config_name, found.config).state_dict()
    assert {key: tensor.shape for key, tensor in rebuilt.items()} == {key: state[key].shape for key in state}


@pytest.mark.parametrize("name", ["sd15-inpainting", "sd21-unclip", "sdxl", "sd-x4-upscaler"])
def test_unets_under_diffusers_names_are_recognised_too(tmp_path: Path, name: str) -> None:
    config_name, changes, family, _ = TRUE_MODELS[name]
    image_model = true_model(config_name, changes)
    shapes = {key: tuple(tensor.shape) for key, tensor in image_model.state_dict().items()}
    write_hollow(tmp_path / "model.safetensors", shapes)
    found = find_source(tmp_path / "model.safetensors")
    assert found.single_file is not None and found.single_file.family == family
    check_weights(found, find_weights(found), shapes_of(image_model))


def test_the_values_of_flux_go_where_they_belong() -> None:
    """Its true rows, which diffusers splits by number, and two columns; one block of each kind."""
    state = {}
    model = true_model("flux1_dev_transformer", {"num_layers": 1, "num_single_layers": 1})
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        state[name] = torch.randn((tensor.shape[0], *([2] if tensor.ndim == 2 else [])), generator=generator)
    weights = flux(state)
    found, config = recognise(
        Path("model.safetensors"), {name: tuple(tensor.shape) for name, tensor in weights.items()}
    )
    renamed = found.to_diffusers(weights, config)
    assert renamed.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(renamed[name], tensor), name


def test_unknown_and_unfitting_files_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"encoder.layers.0.weight": torch.ones(2)}, file)
    with pytest.raises(
        InputError, match=r"holds no image model that inflate knows; single files may be of Stable Diff"
    ):
        find_source(file)
    save_file(build("sd3").state_dict(), file)
    with pytest.raises(InputError, match=r"family whose config inflate does not carry"):
        find_source(file)
    save_file({"cap_embedder.0.weight": torch.ones(2)}, file)
    with pytest.raises(InputError, match=r"knows \(it looks like 'lumina2' to diffusers\); single files"):
        find_source(file)
    image_model = build("sd15")
    image_model.save_config(tmp_path / "config")
    weights = originals("sd15", image_model)
    save_file(weights, file)
    with pytest.raises(InputError, match=r"family whose config inflate does not carry; name a config.json .*--config"):
        find_source(file)
    with pytest.raises(InputError, match=r"--config is .*empty, which has no config.json of an image model"):
        (tmp_path / "empty").mkdir()
        find_source(file, config=tmp_path / "empty")
    with pytest.raises(InputError, match=r"no such file: .*nowhere"):
        find_source(file, config=tmp_path / "nowhere")
    build("sd3").save_config(tmp_path / "sd3")
    with pytest.raises(InputError, match=r"holds a UNet2DConditionModel, and .* describes an SD3Transformer2DModel"):
        find_source(file, config=tmp_path / "sd3")
    with pytest.raises(InputError, match=r"--variant .* chooses among the files of a folder"):
        find_source(file, config=tmp_path / "config", variant="fp16")
    build("inpainting").save_config(tmp_path / "inpainting")
    with pytest.raises(InputError, match=r"do not fit .*inpainting/config.json: 'conv_in.weight' has shape"):
        inspect(file, config=tmp_path / "inpainting")
    save_file(
        {**weights, "input_blocks.1.0.time_stack.weight": torch.ones(1), "label_emb.0.0.weight": torch.ones(1)}, file
    )
    with pytest.raises(InputError, match=r"do(es)? not fit .*'label_emb.0.0.weight'"):
        convert(file, tmp_path / "video", config=tmp_path / "config")
    assert not (tmp_path / "video").exists()


def test_a_layer_of_sd3_that_is_missing_is_named(tmp_path: Path) -> None:
    image_model = build("sd35")
    weights = {key: tensor.contiguous() for key, tensor in originals("sd35", image_model).items()}
    del weights["joint_blocks.1.x_block.mlp.fc1.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    source = find_source(tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=r"config of Stable Diffusion 3: 'joint_blocks.1.x_block.mlp.fc1.bias' is missing"
    ):
        find_weights(source)
    weights["joint_blocks.1.x_block.mlp.fc1.bias"] = torch.ones(64)
    weights["joint_blocks.1.x_block.mlp.fc9.bias"] = torch.ones(64)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"it has no place for 'joint_blocks.1.x_block.mlp.fc9.bias'; give the right"):
        find_weights(source)


@pytest.mark.parametrize("prefix", ["diffusion_model.", "unet.", "module.", "model.", "_orig_mod.", "module.unet."])
@pytest.mark.parametrize("theirs", [True, False], ids=["original", "diffusers"])
def test_what_trainers_wrap_a_network_in_is_taken_off(tmp_path: Path, prefix: str, theirs: bool) -> None:
    image_model = build("sd15")
    image_model.save_config(tmp_path)
    weights = originals("sd15", image_model) if theirs else image_model.state_dict()
    save_file({prefix + key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / "model.safetensors")
    loaded = load_image_model(find_source(tmp_path / "model.safetensors", config=tmp_path / "config.json"))
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in image_model.state_dict().items())


STAND_INS = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
        "Git LFS's pointer to the file.*pull",
    ),
    "page": (
        b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
        "a web page, perhaps one that asks to",
    ),
    "message": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a server's message in XML"),
    "gguf": (b"GGUF" + bytes(60), "a GGUF file.*get the model as safetensors"),
}


@pytest.mark.parametrize("kind", STAND_INS)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".gguf"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_what_stands_in_for_a_file_is_named(tmp_path: Path, suffix: str, kind: str, allow_pickle: bool) -> None:
    path = tmp_path / f"model{suffix}"
    content, said = STAND_INS[kind]
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        convert(path, tmp_path / "video", allow_pickle=allow_pickle)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"diffusion_pytorch_model{suffix.replace('.ckpt', '.bin')}").write_bytes(content)
    build("sd15").save_config(tmp_path / "folder")
    if suffix != ".gguf":
        with pytest.raises(InputError, match=said):
            convert(tmp_path / "folder", tmp_path / "video", allow_pickle=allow_pickle)


def test_flux_of_any_width_is_read(tmp_path: Path) -> None:
    image_model = build("flux-dev")
    image_model.save_config(tmp_path)
    weights = {PREFIX + key: tensor.contiguous() for key, tensor in flux(image_model.state_dict()).items()}
    save_file(weights, tmp_path / "model.safetensors")
    source = find_source(tmp_path / "model.safetensors", config=tmp_path / "config.json")
    loaded = load_image_model(source).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in image_model.state_dict().items())
    save_file(weights | {PREFIX + "double_blocks.0.strange.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no place for 'double_blocks.0.strange.weight'"):
        find_weights(find_source(tmp_path / "model.safetensors", config=tmp_path / "config.json"))


@pytest.mark.parametrize("spelling", [("scale_weight", "scale_input"), ("weight_scale", "input_scale")])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_scaled_8_bit_floats_are_multiplied_out(
    tmp_path: Path, spelling: tuple[str, str], rows: bool, dtype: torch.dtype
) -> None:
    image_model = build("flux-dev")
    image_model.save_config(tmp_path)
    weights, expected = {"scaled_fp8": torch.empty(2, dtype=dtype)}, {}
    for number, (key, tensor) in enumerate(flux(image_model.state_dict()).items()):
        expected[key] = tensor
        if tensor.ndim != 2:
            weights[key] = tensor.contiguous()
            continue
        scale = 0.5 + torch.rand(tensor.shape[0], 1) if rows else torch.tensor(0.25 + number / 16)
        stored, stem = (tensor / scale).to(dtype), key.removesuffix(".weight")
        weights |= {key: stored, f"{stem}.{spelling[0]}": scale, f"{stem}.{spelling[1]}": torch.ones(())}
        expected[key] = (stored.float() * scale).to(torch.bfloat16)
    save_file({PREFIX + key: tensor for key, tensor in weights.items()}, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "video", "lean", 3, config=tmp_path / "config.json")
    written = flux(load_file(tmp_path / "video" / WEIGHTS))
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key].float(), tensor.float()) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("weight.quant_state.bitsandbytes__nf4", r"bitsandbytes \(nf4\)"),
        ("weight.absmax", "bitsandbytes"),
        ("qweight", "GPTQ, AWQ or SVDQuant"),
        ("weight_scale_2", "NVFP4"),
        ("weight_scale", "a way that inflate does not know"),
    ],
)
def test_packed_weights_are_refused_by_name(tmp_path: Path, beside: str, said: str) -> None:
    image_model = build("flux-dev")
    image_model.save_config(tmp_path)
    weights = {key: tensor.contiguous() for key, tensor in flux(image_model.state_dict()).items()}
    save_file(weights | {f"double_blocks.0.img_attn.qkv.{beside}": torch.ones(4)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"is quantised (by|in) {said}.*get the model in 16 bits"):
        convert(tmp_path / "model.safetensors", tmp_path / "video", config=tmp_path / "config.json")


V = {"modelspec.prediction_type": "v"}
EPS = {"modelspec.prediction_type": "epsilon"}
# flags and metadata of a file, what the user says, and the scheduler's (prediction type, zero SNR), or the sentence
PREDICTED: dict[str, tuple[list[str], dict[str, str], str, tuple[str, bool] | str | None]] = {
    "nothing": ([], {}, "", None),
    "v": (["v_pred"], {}, "", ("v_prediction", False)),
    "v and zero": (["v_pred", "ztsnr"], V, "", ("v_prediction", True)),
    "modelspec v": ([], V, "", ("v_prediction", False)),
    "modelspec epsilon": ([], EPS, "", ("epsilon", False)),
    "asked for": ([], {}, "v_prediction", ("v_prediction", False)),
    "asked for what it says": (["v_pred"], {}, "v_prediction", ("v_prediction", False)),
    "asked for another": (
        ["v_pred"],
        {},
        "epsilon",
        "'epsilon', but .* predicts 'v_prediction' .by its tensor 'v_pred'",
    ),
    "contradicts itself": (["v_pred"], EPS, "", "contradicts itself: .*; say which it is with --prediction"),
    "decided": (["v_pred"], EPS, "epsilon", ("epsilon", False)),
    "zero alone": (["ztsnr"], {}, "", "leaves no signal .'ztsnr'.* and not what it predicts"),
    "zero, decided": (["ztsnr"], {}, "v_prediction", ("v_prediction", True)),
    "zero and epsilon": (["ztsnr"], EPS, "", "only a model that predicts v can do, and that it predicts 'epsilon'"),
    "misspelt": ([], {}, "v_predicton", "--prediction is 'v_predicton'.*did you mean|use epsilon or v_prediction"),
}


@pytest.mark.parametrize("case", PREDICTED)
@pytest.mark.parametrize("bare", [False, True], ids=["whole", "bare"])
def test_what_a_file_says_it_predicts_is_kept(tmp_path: Path, case: str, bare: bool) -> None:
    flags, metadata, wanted, result = PREDICTED[case]
    image_model = build("sd15")
    image_model.save_config(tmp_path)
    weights = {key: tensor.contiguous() for key, tensor in originals("sd15", image_model).items()}
    weights = (weights if bare else whole(weights)) | {flag: torch.empty(0) for flag in flags}
    save_file(weights, tmp_path / "model.safetensors", metadata=metadata)
    arguments = (tmp_path / "model.safetensors", tmp_path / "video")
    told = inspect(arguments[0], config=tmp_path / "config.json").noise
    marks = [flag for flag in ("v_pred", "ztsnr") if f"'{flag}'" in told]
    assert sorted(flags) == marks and ("modelspec.prediction_type" in told) == bool(metadata)
    if isinstance(result, str):
        with pytest.raises(InputError, match=result):
            convert(*arguments, config=tmp_path / "config.json", prediction=wanted)
        return
    convert(*arguments, config=tmp_path / "config.json", prediction=wanted)
    loaded = load(tmp_path / "video").image_model.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in image_model.state_dict().items())
    written = tmp_path / "video" / "scheduler"
    assert written.is_dir() is (result is not None)
    if result is not None:
        scheduler = DDIMScheduler.from_pretrained(written)
        assert isinstance(scheduler, DDIMScheduler)
        config = scheduler.config
        assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == result


def test_a_prediction_goes_with_a_single_file(tmp_path: Path) -> None:
    build("sd15").save_pretrained(tmp_path / "image")
    with pytest.raises(InputError, match=r"--prediction .* goes with the single file of a UNet"):
        convert(tmp_path / "image", tmp_path / "video", prediction="epsilon")
