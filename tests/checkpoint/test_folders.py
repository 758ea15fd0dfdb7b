"""Models on disk: convert, deflate, save, load, and everything that may be wrong with a folder."""

import errno
import hashlib
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import inflate.checkpoint.writing as writing
from inflate.checkpoint import (
    architecture_fingerprint,
    convert,
    deflate_folder,
    inspect,
    load,
    load_temporal,
    save,
    save_temporal,
)
from inflate.checkpoint.header import read_header
from inflate.errors import InputError
from inflate.inflater import SCHEMES, InflatedModel, inflate, random_inputs
from tests.inflater.tiny_models import as_video, build, perturb

FRAMES = 3
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    """A pipeline's folder: an index, a denoiser, other parts, a link as in a hub cache, hidden files."""
    folder = tmp_path / "pipeline"
    build("karlo-decoder").save_pretrained(folder / "decoder")
    (folder / "model_index.json").write_text('{"_class_name": "UnCLIPPipeline"}')
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("not part of the model")
    blob = tmp_path / "blob"
    shutil.move(folder / "decoder" / WEIGHTS, blob)
    (folder / "decoder" / WEIGHTS).symlink_to(blob)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@torch.no_grad()
def answer(model: InflatedModel) -> torch.Tensor:
    inputs = random_inputs(model.image_model, FRAMES, None, torch.Generator().manual_seed(0))
    sample, timestep = as_video(inputs.pop("sample"), FRAMES), inputs.pop("timestep")
    return model(sample, timestep, fps=8 if model.scheme.fps_range else None, **inputs).sample


@pytest.mark.parametrize("scheme", ["make-a-video", "vdm", "animatediff-v2", "video-ldm", "text2video-zero", "lean"])
def test_converted_loaded_and_deflated(unet_folder: Path, tmp_path: Path, scheme: str) -> None:
    done = convert(unet_folder, tmp_path / "video", scheme, FRAMES)
    assert done.temporal_file == tmp_path / "video" / "temporal.safetensors"
    kept = hashes(tmp_path / "video")
    assert kept.pop("temporal.safetensors") and kept == hashes(unet_folder)
    header = read_header(done.temporal_file).metadata
    assert (header["format"], header["scheme"], header["num_frames"]) == ("inflate-temporal-1", scheme, "3")
    assert json.loads(header["fps_range"]) == ([1.0, 30.0] if SCHEMES[scheme].fps_range else None)
    assert len(header["weights_fingerprint"].removeprefix("sampled-")) == 64

    model = load(tmp_path / "video")
    assert not model.training and model.scheme == SCHEMES[scheme] and model.num_frames == FRAMES
    pictures = random_inputs(model.image_model, FRAMES, None, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = build("sd15")(**pictures).sample
    same = torch.equal(answer(model), as_video(expected, FRAMES))
    assert same == SCHEMES[scheme].starts_as_image_model  # text2video-zero mixes frames without training

    assert deflate_folder(tmp_path / "video", tmp_path / "again") == len(kept)
    assert hashes(tmp_path / "again") == hashes(unet_folder)


def test_a_pipeline_keeps_every_file(pipeline_folder: Path, tmp_path: Path) -> None:
    done = convert(pipeline_folder, tmp_path / "video", num_frames=FRAMES)
    assert done.temporal_file == tmp_path / "video" / "decoder" / "temporal.safetensors"
    kept = hashes(tmp_path / "video")
    assert kept.pop("decoder/temporal.safetensors") and kept == hashes(pipeline_folder)
    assert not (tmp_path / "video" / ".git").exists()
    assert not (tmp_path / "video" / "decoder" / WEIGHTS).is_symlink()
    assert load(tmp_path / "video").image_model.config.class_embed_type == "identity"
    assert deflate_folder(tmp_path / "video", tmp_path / "again") == 4
    assert hashes(tmp_path / "again") == hashes(pipeline_folder)


def test_image_weights_are_never_loaded_by_convert(
    unet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("diffusers.ModelMixin.from_pretrained", refuse)
    convert(unet_folder, tmp_path / "video")
    assert (tmp_path / "video" / WEIGHTS).stat().st_size == (unet_folder / WEIGHTS).stat().st_size


def test_trained_weights_survive_saving(unet_folder: Path, tmp_path: Path) -> None:
    model = inflate(build("sd15"), num_frames=FRAMES).eval()
    new = answer(model)
    perturb(model)
    trained = answer(model)
    assert not torch.equal(new, trained)
    save(model, tmp_path / "saved")
    torch.manual_seed(99)
    again = load(tmp_path / "saved")
    assert torch.equal(answer(again), trained)
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", WEIGHTS, "temporal.safetensors"}
    (tmp_path / "plain").write_text("")
    usual = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "saved").iterdir()} == {usual}, "others may read it too"
    half = load(tmp_path / "saved", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and {p.dtype for p in half.parameters()} == {torch.bfloat16}
    with pytest.raises(InputError, match="saved exists already; choose another name, or replace it with --force"):
        save(model, tmp_path / "saved")
    perturb(model, seed=7)
    save(model, tmp_path / "saved", force=True)
    assert torch.equal(answer(load(tmp_path / "saved")), answer(model))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_temporal_weights_alone_fit_another_model_of_the_architecture(unet_folder: Path, tmp_path: Path) -> None:
    trained = inflate(build("sd15", seed=0), num_frames=FRAMES).eval()
    perturb(trained)
    file = save_temporal(trained, tmp_path / "alone")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["temporal.safetensors"]
    other = build("sd15", seed=5)
    model = load_temporal(other, tmp_path / "alone")
    assert model.image_model is other
    for name, tensor in trained.temporal_state_dict().items():
        assert torch.equal(model.temporal_state_dict()[name], tensor)
    stranger = build("inpainting")
    with pytest.raises(InputError, match=r"was made for a UNet2DConditionModel of another architecture \(fingerprint"):
        load_temporal(stranger, file)
    with pytest.raises(InputError, match="was made for a UNet2DConditionModel and does not fit this UNet2DModel"):
        load_temporal(build("unconditional"), file)
    assert not any(module._forward_hooks for module in stranger.modules())
    done = convert(unet_folder, tmp_path / "only", num_frames=FRAMES, temporal_only=True)
    assert [path.name for path in (tmp_path / "only").iterdir()] == ["temporal.safetensors"]
    assert done.num_files_copied == 0 and load_temporal(build("sd15"), tmp_path / "only").num_frames == FRAMES


def test_a_scheme_of_ones_own_is_stored_whole(tmp_path: Path) -> None:
    scheme = SCHEMES["make-a-video"].changed(name="mine", position="rotary", extra_in_channels=2)
    save(inflate(build("sd15"), scheme, FRAMES), tmp_path / "mine")
    assert load(tmp_path / "mine").scheme == scheme


@pytest.mark.parametrize("layout", ["fp16", "sharded", "sharded fp16"])
def test_variants_and_shards(tmp_path: Path, layout: str) -> None:
    options: dict[str, Any] = {}
    if "fp16" in layout:
        options["variant"] = "fp16"
    if "sharded" in layout:
        options["max_shard_size"] = "20KB"
    image_model = build("sd15").to(torch.float16 if "fp16" in layout else torch.float32)
    image_model.save_pretrained(tmp_path / "image", **options)
    assert len(list((tmp_path / "image").glob("*.safetensors"))) > (1 if "sharded" in layout else 0)
    convert(tmp_path / "image", tmp_path / "video", num_frames=FRAMES)
    model = load(tmp_path / "video")
    for name, tensor in image_model.state_dict().items():
        assert torch.equal(model.image_model.state_dict()[name], tensor.float())
    assert inspect(tmp_path / "video").variant == ("fp16" if "fp16" in layout else None)
    deflate_folder(tmp_path / "video", tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "image")
    if "sharded" in layout:
        next(path for path in sorted((tmp_path / "image").iterdir()) if "-00002-of" in path.name).unlink()
        with pytest.raises(InputError, match=r"-00002-of-\d+.*is missing: \d+ of the model's files are there"):
            convert(tmp_path / "image", tmp_path / "broken")


def test_attention_names_from_before_diffusers_renamed_them(tmp_path: Path) -> None:
    image_model = build("unconditional")
    image_model.save_pretrained(tmp_path / "image")
    renames = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(tmp_path / "image" / WEIGHTS).items():
        for new, old in renames.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, tmp_path / "image" / WEIGHTS, metadata={"format": "pt"})
    convert(tmp_path / "image", tmp_path / "video")
    loaded = load(tmp_path / "video").image_model.state_dict()
    for name, tensor in image_model.state_dict().items():
        assert torch.equal(loaded[name], tensor)


def test_fingerprints(unet_folder: Path, tmp_path: Path) -> None:
    assert architecture_fingerprint(build("sd15", 0)) == architecture_fingerprint(build("sd15", 1).half())
    assert architecture_fingerprint(build("sd15")) != architecture_fingerprint(build("inpainting"))
    convert(unet_folder, tmp_path / "a")
    shutil.rmtree(unet_folder)
    build("sd15", seed=3).save_pretrained(unet_folder)
    convert(unet_folder, tmp_path / "b")
    one, other = (read_header(tmp_path / name / "temporal.safetensors").metadata for name in "ab")
    assert one["fingerprint"] == other["fingerprint"] and one["weights_fingerprint"] != other["weights_fingerprint"]


def test_inspect(unet_folder: Path, tmp_path: Path) -> None:
    found = inspect(unet_folder, "vdm", 5)
    assert found.temporal is None and found.report.scheme == "vdm" and found.report.num_frames == 5
    convert(unet_folder, tmp_path / "video", "imagen-video-sr", FRAMES)
    found = inspect(tmp_path / "video", "vdm", 5)
    assert found.temporal is not None and found.report.scheme == "imagen-video-sr"
    assert found.report.num_frames == FRAMES and found.dtypes == ("F32",)
    assert found.image_bytes == (unet_folder / WEIGHTS).stat().st_size
    assert json.loads(found.to_json())["temporal"]["scheme"] == "imagen-video-sr"


def test_destinations_that_are_refused(unet_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be separate folders"):
        convert(unet_folder, unet_folder / "inside", force=True)
    with pytest.raises(InputError, match="must be separate folders"):
        convert(unet_folder, unet_folder, force=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file exists and is not a folder"):
        convert(unet_folder, tmp_path / "file", force=True)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("mine")
    with pytest.raises(InputError, match="letters exists already"):
        convert(unet_folder, tmp_path / "letters")
    with pytest.raises(InputError, match=r"is no model folder, so it is not replaced even by force"):
        convert(unet_folder, tmp_path / "letters", force=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(unet_folder, tmp_path / "empty")
    convert(unet_folder, tmp_path / "empty", "vdm", force=True)
    assert load(tmp_path / "empty").scheme.name == "vdm"


def test_a_full_disk_leaves_nothing_behind(unet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(unet_folder, tmp_path / "video", "vdm")
    before = hashes(tmp_path / "video")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "_clone", lambda *_: False)
    for function in ("copyfile", "copy_file_range", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(writing.shutil if function == "copyfile" else writing.os, function, full)
            if function == "copyfile":
                patch.setattr(writing, "_copy_within", lambda *_: False)
            with pytest.raises(InputError, match=r"the disk of .*video is full; .*nothing was written"):
                convert(unet_folder, tmp_path / "video", force=True)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(writing.shutil, "disk_usage", lambda _: usage(1, 1, 5))
        with pytest.raises(
            InputError, match=r"is full: 0.\d\d MB are needed and 0.00 MB are free; nothing was written"
        ):
            convert(unet_folder, tmp_path / "video", force=True)
    assert hashes(tmp_path / "video") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "video"]


def test_an_interrupted_replacement_puts_the_old_folder_back(
    unet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(unet_folder, tmp_path / "video", "vdm")
    before, replace_file = hashes(tmp_path / "video"), os.replace

    def fail_on_new(source: Any, target: Any) -> None:
        if ".inflate-partial" in str(source):
            raise OSError(errno.EIO, "broken disk")
        replace_file(source, target)

    monkeypatch.setattr(writing.os, "replace", fail_on_new)
    with pytest.raises(OSError, match="broken disk"):
        convert(unet_folder, tmp_path / "video", force=True)
    assert hashes(tmp_path / "video") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "video"]
