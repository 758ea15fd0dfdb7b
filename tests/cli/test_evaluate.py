"""``inflate evaluate`` on a family of tiny networks and a data set of six random pictures that fade."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PriorTransformer, UNet2DConditionModel
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from PIL import Image

import inflate
from inflate.cli.app import main
from inflate.evaluate import features
from inflate.inflater import deflate
from inflate.models.clip import ClipConfig, TextImageEncoder
from inflate.models.decoder import DecoderStage
from inflate.models.prior import PriorStage
from inflate.stages import StageSettings
from tests.cli.toys import write_cache
from tests.inflater.tiny_models import perturb

SIZE, WIDTH = 16, 16


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A frame cache as ``build_frame_cache`` writes it: stills and clips of six things, the last of the test split."""
    return write_cache(tmp_path / "frames", SIZE)


def tiny_family() -> inflate.Cascade:
    torch.manual_seed(0)
    clip = TextImageEncoder.create(
        ClipConfig(
            embed_dim=WIDTH,
            image_size=SIZE,
            patch_size=8,
            vision_width=16,
            vision_layers=1,
            vision_head_width=8,
            context_length=8,
            vocab_size=600,
            text_width=WIDTH,
            text_heads=2,
            text_layers=1,
        )
    )
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=8,
        additional_embeddings=4,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
    )
    vae = AutoencoderKL.from_config(
        {
            "block_out_channels": (4, 4),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 2,
            "sample_size": SIZE,
        }
    )
    prior_parts = {
        "text_encoder": clip.eval(),
        "prior": prior,
        "prior_scheduler": UnCLIPScheduler(prediction_type="sample", variance_type="fixed_small_log"),
    }
    decoder_parts = {
        "unet": inflate.inflate(unet, num_frames=4),
        "scheduler": DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
        "vae": vae,
    }
    settings = StageSettings(num_inference_steps=2, guidance_scale=1.0)
    stages: list[Any] = [PriorStage(prior_parts, defaults=settings), DecoderStage(decoder_parts, defaults=settings)]
    return inflate.Cascade(stages)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> inflate.Cascade:
    """What ``Cascade.from_pretrained("toys")`` returns, without files; and a small network in EfficientNet's place."""

    class Network(torch.nn.Module):
        def extract_features(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)[:, :, None, None]

    made = tiny_family()
    monkeypatch.setattr(inflate.Cascade, "from_pretrained", lambda *arguments, **options: made)
    monkeypatch.setattr(features, "load_network", lambda device: Network())
    return made


COMMON = ["--frames", "4", "--quiet"]


def test_retrieval_reports_counts_ceilings_and_a_sheet(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file, sheet = tmp_path / "out" / "retrieval.json", tmp_path / "sheet.png"
    arguments = ["evaluate", "retrieval", "toys", str(data), "--prompts", "3", "--top", "2", *COMMON]
    assert main([*arguments, "--json", str(report_file), "--sheet", str(sheet)]) == 0
    report = json.loads(report_file.read_text())
    assert (report["measure"], report["split"]) == ("retrieval", "train")
    assert report["score"]["queries"] == 3 and report["score"]["gallery"] == 6
    assert len(report["prompts"]) == 3
    for prompt in report["prompts"]:
        assert prompt["caption"] == f"thing {int(prompt['name'], 16)}" and len(prompt["nearest"]) == 2
        assert (prompt["name"] in prompt["nearest"]) == (prompt["rank"] <= 2)
    assert report["ceilings"]["middle frames of real clips"]["queries"] == 3
    assert "stills through the autoencoder" in report["ceilings"]
    printed = capsys.readouterr().out
    found = report["score"]["top_k"]
    assert f"within the 2 nearest of 6 stills for {found} of 3 prompts" in printed
    with Image.open(sheet) as picture:
        assert picture.width > 2 * SIZE

    again = tmp_path / "again.json"
    assert main([*arguments, "--json", str(again)]) == 0
    assert json.loads(again.read_text()) == report


def test_from_image_does_without_the_prior(
    family: inflate.Cascade, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the prior ran")

    monkeypatch.setattr(PriorStage, "__call__", refuse)
    arguments = ["evaluate", "retrieval", "toys", str(data), "--prompts", "1", "--top", "1", *COMMON]
    report_file = tmp_path / "report.json"
    assert main([*arguments, "--from-image", "--json", str(report_file)]) == 0
    assert json.loads(report_file.read_text())["from_image"] is True
    assert main(arguments) == 1


def test_denoising_ties_before_fine_tuning(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file = tmp_path / "denoising.json"
    arguments = ["evaluate", "denoising", "toys", str(data), "--fps", "8,30", "--timesteps", "50,950", *COMMON]
    assert main([*arguments, "--json", str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    assert (report["split"], report["clips"], len(report["rows"])) == ("test", 1, 4)
    for row in report["rows"]:
        assert row["video_model"] == pytest.approx(row["image_model"], rel=1e-5) and row["image_model"] > 0
    assert "| t | image model | video model | video / image | at 8 fps | at 30 fps |" in capsys.readouterr().out


def test_reconstruction_beside_replacement(
    family: inflate.Cascade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, report_file, sheet = write_cache(tmp_path / "two", SIZE, 2), tmp_path / "r.json", tmp_path / "r.png"
    decoder: Any = family.stage("decoder")
    perturb(decoder.components["unet"])  # at its start a frame knows nothing of the others, and no gradient reaches it
    arguments = ["evaluate", "reconstruction", "toys", "--data", str(data), "--clips", "2", "--weights", "2", *COMMON]
    assert main([*arguments, "--json", str(report_file), "--sheet", str(sheet)]) == 0
    report = json.loads(report_file.read_text())
    assert (report["measure"], report["split"], report["clips"]) == ("reconstruction", "test", 2)
    rows = {(row["task"], row["weight"]): row for row in report["rows"] if row["name"] != "truth"}
    assert rows["extended", 2.0]["error"] != rows["extended", 0.0]["error"], "guidance does something"
    assert rows["extended", 0.0]["frechet"] > 0 and rows["filled in", 2.0]["frechet"] > 0
    assert "extended, " in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.height > 12 * SIZE
    assert main([*arguments[:-4], "--weights", "-1", "--quiet"]) == 2


def test_motion_of_things_prompted(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_file = tmp_path / "motion.json"
    arguments = ["evaluate", "motion", "toys", str(data), "--prompts", "2", "--fps", "8,30", *COMMON]
    assert main([*arguments, "--json", str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    assert [row["fps"] for row in report["rows"]] == [8, 30] and report["real_falls_with_fps"]
    # Without training the frame rate changes nothing, and the measure says so.
    assert report["rows"][0]["generated"] == pytest.approx(report["rows"][1]["generated"], rel=1e-5)
    assert report["passes"] is False
    assert "| 8 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (["--split", "tets"], "--split is 'tets' (did you mean 'test'?); use train or test"),
        (["--prompts", "9"], "cannot choose 9 prompts: the data has 5 names"),
        (["--dtype", "float"], "--dtype is 'float' (did you mean 'float32'?)"),
        (["--fps", "8,8"], "--fps is '8,8'; give different numbers"),
    ],
)
def test_bad_input_is_one_sentence_and_2(
    family: inflate.Cascade,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    sentence: str,
) -> None:
    assert main(["evaluate", "motion", "toys", str(data), "--quiet", *changed]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_data_that_does_not_fit_is_refused(
    family: inflate.Cascade, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "motion", "toys", str(tmp_path / "none"), "--quiet"]) == 2
    assert "inflate prepare fluent-emoji" in capsys.readouterr().err
    index = json.loads((data / "index.json").read_text())
    index["size"] = SIZE // 2
    (data / "frames.bin").write_bytes((data / "frames.bin").read_bytes()[: 78 * (SIZE // 2) ** 2 * 3])
    (data / "index.json").write_text(json.dumps(index))
    assert main(["evaluate", "motion", "toys", str(data), "--quiet"]) == 2
    assert "holds frames of 8 px and the model makes 16 px" in capsys.readouterr().err


def test_an_image_family_has_no_denoising_to_compare(
    family: inflate.Cascade, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = family.stages[1]
    assert isinstance(decoder, DecoderStage)
    decoder.components["unet"] = deflate(decoder.components["unet"])
    assert main(["evaluate", "denoising", "toys", str(data), "--quiet"]) == 2
    assert "without temporal layers" in capsys.readouterr().err
