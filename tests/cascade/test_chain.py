import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inflate.cancelling import CancelledError
from inflate.cascade import Cascade, Progress, family_folder
from inflate.errors import InputError
from inflate.models.decoder import DecoderStage
from inflate.models.prior import PriorStage
from inflate.stages import StageSettings, stage_class, stage_generator
from tests.models.tiny_family import WIDTH, save_tiny_family, tiny_cascade, tiny_scheduler, tiny_unet

PROMPT = "party popper"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames(cascade: Cascade, seed: int = 0, prompt: Any = PROMPT, num_frames: int = 4, **options: Any) -> torch.Tensor:
    made = cascade(prompt, num_frames, generator=seeded(seed), output_type="pt", **options).frames
    assert isinstance(made, torch.Tensor)
    return made


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    return tiny_cascade()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The image model alone, so that these tests are of the cascade and not of the temporal file.
    return save_tiny_family(tmp_path_factory.mktemp("family") / "tiny", tiny_unet())


def test_output_types_agree_in_shape_range_and_content(cascade: Cascade) -> None:
    made = frames(cascade)
    assert made.shape == (1, 4, 3, 16, 16) and made.dtype == torch.float32
    assert 0 <= made.min() < made.max() <= 1
    array = cascade(PROMPT, 4, generator=seeded(0), output_type="np").frames
    assert isinstance(array, np.ndarray) and array.shape == (1, 4, 16, 16, 3)
    assert np.array_equal(array, made.permute(0, 1, 3, 4, 2).numpy())
    pictures = cascade(PROMPT, 4, generator=seeded(0)).frames
    assert isinstance(pictures, list) and isinstance(pictures[0][0], Image.Image) and len(pictures[0]) == 4
    assert np.abs(np.asarray(pictures[0][3]) / 255 - array[0, 3]).max() <= 0.5 / 255 + 1e-6


def test_the_same_seed_gives_the_same_video_and_another_seed_another(cascade: Cascade) -> None:
    assert torch.equal(frames(cascade), frames(cascade))
    assert not torch.allclose(frames(cascade), frames(cascade, seed=1), atol=1e-3)


def test_prompts_change_the_video_and_do_not_depend_on_their_company(cascade: Cascade) -> None:
    both = frames(cascade, prompt=[PROMPT, "red heart"])
    assert both.shape[0] == 2 and torch.equal(both[:1], frames(cascade))
    same_seeds = cascade([PROMPT, "red heart"], 4, generator=[seeded(5), seeded(5)], output_type="pt").frames
    assert isinstance(same_seeds, torch.Tensor)
    assert torch.equal(same_seeds[1:], frames(cascade, seed=5, prompt="red heart"))


def test_a_stages_noise_does_not_depend_on_other_stages_steps(cascade: Cascade) -> None:
    embeds = cascade(PROMPT, 4, generator=seeded(0), until="prior").image_embeds
    first_latents = {}

    def remember(which: str) -> Any:
        def callback(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> None:
            if values["progress"].stage == "decoder" and step == 0:
                first_latents[which] = values["latents"]

        return callback

    assert embeds is not None
    for which, prior_steps in (("one", 2), ("other", 7)):
        cascade(
            PROMPT,
            4,
            generator=seeded(0),
            callback_on_step_end=remember(which),
            guidance_scale=0.0,
            num_inference_steps={"prior": prior_steps, "decoder": 3},
        )
    # At g = 0 the decoder does not see what the prior made; what is left is its own noise.
    torch.testing.assert_close(first_latents["one"], first_latents["other"], atol=1e-5, rtol=0)


def test_until_stops_after_a_stage(cascade: Cascade) -> None:
    out = cascade(PROMPT, 4, generator=seeded(0), until="prior")
    assert out.frames is None and out.image_embeds is not None
    assert out.image_embeds.shape == (1, WIDTH)
    full = cascade(PROMPT, 4, generator=seeded(0), until="decoder")
    assert full.frames is not None and torch.equal(full.image_embeds, out.image_embeds)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"until='decodr' is no stage here .did you mean 'decoder'"):
        cascade(PROMPT, until="decodr")


def test_the_chain_may_start_from_an_image_embedding(cascade: Cascade) -> None:
    embeds = cascade(PROMPT, 4, generator=seeded(0), until="prior").image_embeds
    made = cascade(image_embeds=embeds, num_frames=4, generator=seeded(0), output_type="pt").frames
    assert isinstance(made, torch.Tensor) and torch.equal(made, frames(cascade))


def test_steps_and_guidance_are_for_all_stages_or_by_name(cascade: Cascade) -> None:
    assert cascade.settings(5, 3.0) == {name: StageSettings(5, 3.0) for name in ("prior", "decoder")}
    mixed = cascade.settings({"decoder": 9}, {"prior": 4.0})
    assert mixed == {"prior": StageSettings(3, 4.0), "decoder": StageSettings(9, 2.0)}
    with pytest.raises(InputError, match=r"num_inference_steps names 'deocder' .did you mean 'decoder'"):
        cascade.settings({"deocder": 9})


def test_a_callback_after_a_stage_hears_of_each_and_may_cancel(cascade: Cascade) -> None:
    heard: list[str] = []
    frames(cascade, callback_on_stage_end=lambda _, name, state: heard.append(name))
    assert heard == ["prior", "decoder"]
    with pytest.raises(CancelledError, match=r"^cancelled after prior$"):
        frames(cascade, callback_on_stage_end=lambda *_: False)


def test_a_number_for_an_option_of_guidance_is_the_decoders_alone(cascade: Cascade) -> None:
    found = cascade.settings(guidance_rescale=0.7)
    assert (found["decoder"].guidance_rescale, found["prior"].guidance_rescale) == (0.7, 0.0)
    assert cascade.settings(guidance_rescale={"decoder": 0.7}) == found


def test_progress_counts_up_to_the_whole(cascade: Cascade) -> None:
    seen: list[Progress] = []

    def callback(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> None:
        assert step == values["progress"].step
        seen.append(values["progress"])

    cascade([PROMPT, "sun"], 4, callback_on_step_end=callback, num_inference_steps={"prior": 2, "decoder": 3})
    assert [(p.stage, p.video, p.step) for p in seen] == [
        *[("prior", video, step) for video in range(2) for step in range(2)],
        *[("decoder", video, step) for video in range(2) for step in range(3)],
    ]
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    # 2 x 2 evaluations of the prior, 2 x 3 x 4 of the decoder.
    assert fractions[3] == pytest.approx(4 / 28)


def test_a_callback_may_replace_the_latents(cascade: Cascade) -> None:
    def empty(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
        last = values["progress"].stage == "decoder" and step == 2
        return {"latents": torch.zeros_like(values["latents"])} if last else {}

    made = frames(cascade, callback_on_step_end=empty)
    assert torch.allclose(made[:, 0], made[:, 3], atol=1e-6)
    assert not torch.allclose(frames(cascade)[:, 0], frames(cascade)[:, 3], atol=1e-3)


@pytest.mark.parametrize("how", ["false", "exception"])
def test_a_callback_cancels_and_the_weights_are_released(folder: Path, how: str) -> None:
    cascade = Cascade.from_pretrained(folder, device="cpu")
    calls = []

    def callback(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> bool | None:
        calls.append(values["progress"].stage)
        if values["progress"].stage == "decoder" and step == 1:
            if how == "exception":
                raise KeyboardInterrupt
            return False
        return None

    with pytest.raises(CancelledError if how == "false" else KeyboardInterrupt):
        cascade(PROMPT, 4, callback_on_step_end=callback)
    assert calls == ["prior"] * 3 + ["decoder"] * 2
    assert not any(stage.components for stage in cascade.stages)  # pyright: ignore[reportAttributeAccessIssue]


def test_only_the_running_stage_is_in_memory(folder: Path) -> None:
    cascade = Cascade.from_pretrained(folder, device="cpu")
    held: dict[str, set[str]] = {}

    def callback(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> None:
        held[values["progress"].stage] = {role for stage in cascade.stages for role in stage.components}  # pyright: ignore[reportAttributeAccessIssue]

    cascade(PROMPT, 4, callback_on_step_end=callback)
    assert held == {"prior": {"text_encoder", "prior", "prior_scheduler"}, "decoder": {"unet", "scheduler", "vae"}}
    keeper = Cascade.from_pretrained(folder, device="cpu", keep_loaded=True)
    keeper(PROMPT, 4)
    unet = keeper.stages[1].components["unet"]  # pyright: ignore[reportAttributeAccessIssue]
    keeper(PROMPT, 4)
    assert keeper.stages[1].components["unet"] is unet  # pyright: ignore[reportAttributeAccessIssue]


def assert_same_frames(made: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the last bits: weights that lie in a file start at another place of memory, and on some processors
    (AMD EPYC) that changes the order in which a matrix product sums."""
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_saved_and_loaded_again_it_makes_the_same_frames(folder: Path, tmp_path: Path) -> None:
    first = frames(tiny_cascade(tiny_unet()))
    loaded = Cascade.from_pretrained(folder, device="cpu")
    torch.manual_seed(1234)
    assert_same_frames(frames(loaded), first)
    loaded.save_pretrained(tmp_path / "again")
    assert_same_frames(frames(Cascade.from_pretrained(tmp_path / "again", device="cpu")), first)
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["_class_name"] == "Cascade" and index["family"] == "tiny"
    assert index["text_encoder"] == ["open_clip", "CLIP"] and index["unet"] == ["diffusers", "UNet2DConditionModel"]
    for name in ("unet/diffusion_pytorch_model.safetensors", "clip/model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_an_inflated_decoder_survives_the_folder(tmp_path: Path) -> None:
    cascade = tiny_cascade()
    save_tiny_family(tmp_path / "family")
    assert (tmp_path / "family" / "unet" / "temporal.safetensors").is_file()
    made = frames(Cascade.from_pretrained(tmp_path / "family", device="cpu"))
    assert_same_frames(made, frames(cascade))
    assert not torch.allclose(made, frames(tiny_cascade(tiny_unet())), atol=1e-3)


def test_saving_over_a_folder_needs_to_be_asked_for(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "family"
    target.mkdir()
    (target / "old.txt").write_text("old")
    loaded = Cascade.from_pretrained(folder, device="cpu")
    with pytest.raises(InputError, match="exists"):
        loaded.save_pretrained(target)
    assert (target / "old.txt").exists()
    loaded.save_pretrained(target, overwrite=True)
    assert (target / "old.txt").read_text() == "old" and (target / "model_index.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["family"]


def test_a_failed_save_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: DecoderStage, target: Path) -> dict[str, list[str]]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DecoderStage, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Cascade.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "family")
    assert not list(tmp_path.iterdir())


def test_threads_share_a_cascade(folder: Path) -> None:
    cascade = Cascade.from_pretrained(folder, device="cpu")
    made: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda n=n: made.update({n: frames(cascade, seed=n)})) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(made[2], frames(cascade, seed=2)) and not torch.equal(made[1], made[2])


def test_stage_seeds_differ_by_stage_and_seed() -> None:
    draws = {
        torch.randn((), generator=stage_generator(seed, name)).item()
        for seed in (0, 1)
        for name in ("prior", "decoder")
    }
    assert len(draws) == 4


def test_the_table_is_resolved_by_name() -> None:
    assert stage_class("prior") is PriorStage and stage_class("decoder") is DecoderStage
    with pytest.raises(InputError, match=r"no stage 'prio' .did you mean 'prior'"):
        stage_class("prio")


def test_a_decoder_alone_is_a_cascade(cascade: Cascade) -> None:
    stage = DecoderStage({"unet": tiny_unet(channels=3, size=8), "scheduler": tiny_scheduler()})
    alone = Cascade([stage], device="cpu")
    out = alone(image_embeds=torch.randn(1, WIDTH, generator=seeded(0)), num_frames=2, output_type="pt").frames
    assert isinstance(out, torch.Tensor) and out.shape == (1, 2, 3, 8, 8)
    with pytest.raises(InputError, match="needs image embeddings"):
        alone(PROMPT, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt": ""}, "A prompt is empty"),
        ({"prompt": ["sun", " \n"]}, "A prompt is empty"),
        ({}, "Give a prompt or image_embeds"),
        ({"prompt": "sun", "image_embeds": torch.zeros(1, WIDTH)}, "and not both"),
        ({"prompt": "sun", "num_frames": 0}, "num_frames must be a whole number from 1"),
        ({"prompt": "sun", "fps": 0}, "fps must be above 0"),
        ({"prompt": "sun", "fps": 60}, "fps is 60; this model was trained for 1 to 30"),
        ({"prompt": "sun", "output_type": "pill"}, "did you mean 'pil'"),
        ({"prompt": "sun", "num_inference_steps": 0}, "num_inference_steps must lie between"),
        ({"prompt": "sun", "num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"prompt": "sun", "guidance_scale": -1}, "guidance_scale must lie between"),
        ({"prompt": ["sun", "moon"], "generator": [torch.Generator()]}, "2 videos need one generator"),
    ],
)
def test_bad_arguments_are_named_in_a_sentence(cascade: Cascade, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        cascade(**options)


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in index.items() if value != "remove"}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def pickle_only(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save({}, path.with_suffix(".bin"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: (folder / "model_index.json").unlink(),
            "is no model's folder and not a cascade's or a pipeline's: it has no model_index.json",
        ),
        (lambda folder: (folder / "model_index.json").write_text("no"), "is not readable as JSON"),
        (lambda folder: edit_index(folder, unett=["diffusers", "X"]), "'unett' .did you mean 'unet'"),
        (lambda folder: edit_index(folder, prior="remove"), "the stage 'prior' lacks its component 'prior'"),
        (lambda folder: edit_index(folder, stage_defaults={"decodr": {}}), "did you mean 'decoder'"),
        (lambda folder: edit_index(folder, stage_defaults={"decoder": {"step": 3}}), "are not understood"),
        (lambda folder: edit_index(folder, vae=["os", "system"]), "only diffusers' own will do"),
        (lambda folder: edit_index(folder, vae=["diffusers", "logging"]), "only diffusers' own will do"),
        (lambda folder: edit_index(folder, vae=["diffusers"]), "must be an object that gives"),
        (lambda folder: edit_index(folder, text_encoder=["transformers", "Any"]), "must be open_clip's CLIP"),
        (lambda folder: cut(folder / "unet" / "diffusion_pytorch_model.safetensors"), "unet cannot be loaded"),
        (pickle_only, r"vae has its weights in a pickle alone .diffusion_pytorch_model.bin."),
        (lambda folder: (folder / "vae").rename(folder / "gone"), "vae is missing"),
    ],
)
def test_damaged_folders_are_named_in_a_sentence(folder: Path, tmp_path: Path, damage: Any, sentence: str) -> None:
    import shutil

    copy = tmp_path / "family"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(InputError, match=sentence):
        Cascade.from_pretrained(copy, device="cpu")(PROMPT, 2, num_inference_steps=2)


def test_folders_and_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        family_folder(tmp_path / "none")
    with pytest.raises(InputError, match="no bundled family 'emojis'"):
        family_folder("bundled:emojis")
    with pytest.raises(InputError, match="names no stage"):
        (tmp_path / "model_index.json").write_text("{}")
        Cascade.from_pretrained(tmp_path)
