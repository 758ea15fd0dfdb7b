import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.cascade import Cascade
from inflate.cascade.roles import check_fit
from inflate.checkpoint import convert
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.unclip import UnclipPriorStage
from inflate.video import Video
from interp.stage import InterpolationStage
from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import ALL_KARLO, KANDINSKY, role_file, seeded
from tests.models.tiny_family import save_tiny_family, tiny_unet

PROMPT = "red sun"
FRAME = foreign.FRAME


def test_karlo_has_no_image_encoder_unless_one_is_named(karlo: Any, kandinsky: Any) -> None:
    folder, _ = karlo
    video = Video(np.zeros((1, FRAME, FRAME, 3), np.uint8), 8.0)
    with pytest.raises(InputError, match=r"no image encoder.*\[prior.components\]"):
        Cascade.from_pretrained(role_file(folder.parent, ALL_KARLO), device="cpu").vary(video)
    named = f'image_encoder = "{kandinsky[0] / "prior" / "image_encoder"}"'
    text = ALL_KARLO.replace("[decoder]", f"[prior.components]\n{named}\n[decoder]")
    cascade = Cascade.from_pretrained(role_file(folder.parent, text), device="cpu")
    out = cascade.vary(video, num_frames=1, frame_skip=1, until="decoder", num_inference_steps=2, output_type="pt")
    assert isinstance(out.frames, torch.Tensor) and out.frames.shape == (1, 1, 3, FRAME, FRAME)


def test_the_whole_chain_with_an_inflated_decoder(karlo: Any, upscaler: Any, tmp_path: Path) -> None:
    convert(karlo[0], tmp_path / "karlo-video", num_frames=3)
    text = f"""
    [prior]
    from = "{karlo[0]}"
    [decoder]
    from = "karlo-video"
    [super_resolution]
    from = "{karlo[0]}"
    [upscaler]
    from = "{upscaler[0]}"
    """
    cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
    assert [stage.name for stage in cascade.stages] == ["prior", "decoder", "super_resolution", "upscaler"]
    steps = {"prior": 2, "decoder": 2, "super_resolution": 2, "upscaler": 1}
    held: dict[str, set[str]] = {}

    def look(cascade: Cascade, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> None:
        loaded: Any = [stage for stage in cascade.stages if stage.components]  # pyright: ignore[reportAttributeAccessIssue]
        held[values["progress"].stage] = {stage.name for stage in loaded}
        if loaded[0].name == "decoder":
            assert isinstance(loaded[0].components["unet"], InflatedModel)

    options: dict[str, Any] = {"generator": seeded(), "num_inference_steps": steps, "output_type": "pt"}
    frames = cascade(PROMPT, 2, callback_on_step_end=look, **options).frames
    assert isinstance(frames, torch.Tensor) and frames.shape == (1, 2, 3, 16 * FRAME, 16 * FRAME)
    assert not torch.equal(frames[:, 0], frames[:, 1])
    assert held == {name: {name} for name in steps}, "a stage's weights are there while it runs, and no others"

    cascade.save_pretrained(tmp_path / "saved")
    loaded = Cascade.from_pretrained(tmp_path / "saved", device="cpu")
    assert [stage.defaults for stage in loaded.stages] == [stage.defaults for stage in cascade.stages]
    options["generator"] = seeded()
    again = loaded(PROMPT, 2, **options).frames
    assert isinstance(again, torch.Tensor) and torch.equal(again, frames)


def test_a_network_may_come_from_a_folder_of_its_own(karlo: Any, tmp_path: Path) -> None:
    convert(karlo[0] / "decoder", tmp_path / "network", num_frames=3)
    text = f'[decoder]\nfrom = "{karlo[0]}"\n[decoder.components]\nunet = "network"'
    cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu", keep_loaded=True)
    embeds = torch.randn(1, foreign.WIDTH, generator=seeded(1))
    cascade(image_embeds=embeds, num_frames=2, num_inference_steps=2)
    [stage] = cascade.stages
    assert isinstance(stage.components["unet"], InflatedModel)  # pyright: ignore[reportAttributeAccessIssue]
    # Saved while it is loaded, and loaded again.
    cascade.save_pretrained(tmp_path / "saved")
    again = Cascade.from_pretrained(tmp_path / "saved", device="cpu")
    made = [
        one(image_embeds=embeds, num_frames=2, generator=seeded(), num_inference_steps=2, output_type="np")
        for one in (cascade, again)
    ]
    assert isinstance(made[0].frames, np.ndarray) and isinstance(made[1].frames, np.ndarray)
    assert np.array_equal(made[0].frames, made[1].frames)


def test_the_command_line_takes_a_role_file(kandinsky: Any, tmp_path: Path) -> None:
    path = role_file(kandinsky[0], KANDINSKY.replace("VERSION", "2.2"))
    out = tmp_path / "out.gif"
    arguments = ["--model", str(path), "--frames", "2", "--steps", "2", "--device", "cpu", "--quiet", "--no-sheet"]
    assert main(["generate", PROMPT, "-o", str(out), *arguments]) == 0
    assert out.stat().st_size > 0


def test_a_cascade_of_ours_lends_a_stage(karlo: Any, tmp_path: Path) -> None:
    save_tiny_family(tmp_path / "tiny", tiny_unet())
    text = f'[prior]\nfrom = "{karlo[0]}"\n[decoder]\nfrom = "tiny"\nguidance_scale = 3.0'
    cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
    assert cascade.settings()["decoder"].guidance_scale == 3.0
    frames = cascade(PROMPT, 2, num_inference_steps=2, output_type="pt").frames
    assert isinstance(frames, torch.Tensor) and frames.shape == (1, 2, 3, 16, 16)
    text += '\n[interpolation]\nfrom = "tiny"'
    with pytest.raises(InputError, match="has no interpolation; it has prior, decoder"):
        Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")


def test_the_bundled_family_lends_a_stage(tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(role_file(tmp_path, '[decoder]\nfrom = "bundled:emoji"'), device="cpu")
    assert cascade.frame_size() == 64 and [stage.name for stage in cascade.stages] == ["decoder"]


def configs_alone(folder: Path, pipeline: str, components: dict[str, tuple[str, str]]) -> None:
    """A pipeline's folder of published configs without any weights."""
    index: dict[str, Any] = {"_class_name": pipeline}
    for component, (published, class_name) in components.items():
        (folder / component).mkdir(parents=True)
        index[component] = ["diffusers", class_name]
        if published:
            (folder / component / "config.json").write_text(json.dumps(foreign.published(published)))
    (folder / "model_index.json").write_text(json.dumps(index))


def test_published_sizes_are_checked_before_any_weights_are_read(tmp_path: Path) -> None:
    networks = {"decoder": "karlo_decoder", "text_proj": "karlo_text_proj", "prior": "karlo_prior"}
    networks |= {name: f"karlo_{name}" for name in ("super_res_first", "super_res_last")}
    empty = ("text_encoder", "tokenizer", "prior_scheduler", "decoder_scheduler", "super_res_scheduler")
    configs_alone(
        tmp_path / "karlo",
        "UnCLIPPipeline",
        {name: (networks.get(name, ""), "UNet2DModel") for name in (*networks, *empty)},
    )
    configs_alone(
        tmp_path / "kandinsky",
        "KandinskyV22Pipeline",
        {
            "unet": ("kandinsky22_unet", "UNet2DConditionModel"),
            "movq": ("kandinsky_movq", "VQModel"),
            "scheduler": ("", ""),
        },
    )

    def cascade(**folders: str) -> Cascade:
        text = "\n".join(f'[{stage}]\nfrom = "{folder}"' for stage, folder in folders.items())
        return Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")

    assert cascade(prior="karlo", decoder="karlo", super_resolution="karlo").frame_size() == 64
    assert cascade(decoder="kandinsky").frame_size() == 512
    with pytest.raises(InputError, match="embeddings of 768 numbers, the decoder takes 1280"):
        cascade(prior="karlo", decoder="kandinsky")
    with pytest.raises(InputError, match="frames of 512 px, super_resolution was trained on 64 px"):
        cascade(decoder="kandinsky", super_resolution="karlo")


def test_frame_interpolation_of_another_family_does_not_fit() -> None:
    stages: list[Any] = [
        UnclipPriorStage({"prior": foreign.prior("karlo_prior")}),
        InterpolationStage({"interpolation_unet": tiny_unet()}),
    ]
    stages[0].components["prior"].register_to_config(embedding_dim=24)
    with pytest.raises(InputError, match="embeddings of 24 numbers, the interpolation takes 16"):
        check_fit(stages, "roles.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[decoder", "is not valid TOML"),
        ("", "names no role"),
        ('name = "x"', "names no role"),
        ('[decodr]\nfrom = "karlo"', r"no role 'decodr' \(did you mean 'decoder'\?\)"),
        ("[decoder]\nsteps = 3", 'must say which folder plays it: from = "FOLDER"'),
        ('[decoder]\nfrom = "nowhere"', "there is no folder .*nowhere"),
        ('[decoder]\nfrom = "karlo/decoder"', "and not a cascade's or a pipeline's: it has no model_index.json"),
        ('[decoder]\nfrom = "flux"', "is a HunyuanVideoPipeline, which plays no role; known: Cascade, UnCLIPPipeline"),
        ('[upscaler]\nfrom = "karlo"', "is an UnCLIPPipeline, which cannot be the upscaler; it can be: prior, decoder"),
        ('[decoder]\nfrom = "karlo"\nguidance = 3', r"unknown key 'guidance' \(did you mean 'guidance_scale'\?\)"),
        ('[decoder]\nfrom = "karlo"\nnum_inference_steps = 0', r"\[decoder\]: num_inference_steps must lie between"),
        (
            '[decoder]\nfrom = "karlo"\n[decoder.components]\nunett = "karlo/decoder"',
            r"no component 'unett' \(did you mean 'unet'\?\)",
        ),
        (
            '[decoder]\nfrom = "karlo"\n[decoder.components]\nunet = "gone"',
            "no folder .*gone, which is to be its 'unet'",
        ),
        ('[decoder]\nfrom = "karlo"\n[decoder.components]\ntext_proj = "empty"', "cannot be loaded as UnCLIPTextProj"),
        (
            '[prior]\nfrom = "wide"\n[decoder]\nfrom = "karlo"',
            "the prior gives image embeddings of 24 numbers, the decoder takes 16; both must be of one family",
        ),
        (
            '[decoder]\nfrom = "decoder-2.2"\n[super_resolution]\nfrom = "karlo"',
            "the decoder makes frames of 64 px, super_resolution was trained on 8 px",
        ),
    ],
)
def test_bad_role_files_are_named_in_a_sentence(
    karlo: Any, kandinsky: Any, tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "karlo").symlink_to(karlo[0])
    (tmp_path / "decoder-2.2").symlink_to(kandinsky[0] / "decoder-2.2")
    for name in ("flux", "wide/prior", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "HunyuanVideoPipeline"}')
    # A prior of another width: nothing but configs is read before a stage runs.
    index = (kandinsky[0] / "prior" / "model_index.json").read_text()
    (tmp_path / "wide" / "model_index.json").write_text(index)
    for component in ("text_encoder", "tokenizer", "scheduler", "image_encoder", "image_processor"):
        (tmp_path / "wide" / component).symlink_to(kandinsky[0] / "prior" / component)
    (tmp_path / "wide" / "prior" / "config.json").write_text('{"_class_name": "PriorTransformer", "embedding_dim": 24}')
    with pytest.raises(InputError, match=sentence) as raised:
        embeds = torch.zeros(1, foreign.WIDTH)
        Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")(image_embeds=embeds, num_frames=1)
    assert "\n" not in str(raised.value)


def test_what_two_stages_share_is_saved_once(kandinsky: Any, tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(role_file(kandinsky[0], KANDINSKY.replace("VERSION", "2.2")), device="cpu")
    cascade.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["stage_players"] == {"prior": "unclip", "decoder": "kandinsky"}
    assert index["image_encoder"] == ["transformers", "CLIPVisionModelWithProjection"]
    again = Cascade.from_pretrained(tmp_path / "saved", device="cpu")
    made = [one(PROMPT, 1, generator=seeded(), output_type="np") for one in (cascade, again)]
    assert isinstance(made[0].frames, np.ndarray) and isinstance(made[1].frames, np.ndarray)
    assert np.array_equal(made[0].frames, made[1].frames)
    # A saved cascade lends its stages, and the prior its image encoder, as a pipeline's folder does.
    text = f'[prior]\nfrom = "saved"\n[decoder]\nfrom = "{kandinsky[0] / "decoder-2.2"}"\nnum_inference_steps = 3'
    lent = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
    frames = lent(PROMPT, 1, generator=seeded(), output_type="np").frames
    assert isinstance(frames, np.ndarray) and np.array_equal(frames, made[0].frames)


@pytest.mark.parametrize(
    ("players", "sentence"),
    [
        ({"decoder": "karol"}, r"No 'karol' plays the stage 'decoder' \(did you mean 'karlo'\?\)"),
        ({"decodr": "karlo"}, r"no stage 'decodr' \(did you mean 'decoder'\?\)"),
        ({"decoder": 3}, "stage_players must give the name of a player"),
    ],
)
def test_unknown_players_are_named_in_a_sentence(tmp_path: Path, players: Any, sentence: str) -> None:
    index = {"unet": ["diffusers", "X"], "scheduler": ["diffusers", "X"], "stage_players": players}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=sentence):
        Cascade.from_pretrained(tmp_path)


def test_two_different_components_of_one_name_cannot_be_saved(karlo: Any, kandinsky: Any, tmp_path: Path) -> None:
    text = f"""
    [prior]
    from = "{kandinsky[0] / "prior"}"
    [decoder]
    from = "{kandinsky[0] / "decoder-2.2"}"
    [decoder.components]
    image_encoder = "{karlo[0] / "text_encoder"}"
    """
    with pytest.raises(InputError, match="'prior' and 'decoder' both have a 'image_encoder', and these differ"):
        Cascade.from_pretrained(role_file(tmp_path, text), device="cpu").save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_the_example_in_the_recipes_names_every_role(karlo: Any, upscaler: Any, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "recipes" / "families" / "karlo.toml"
    for name in ("karlo-v1-alpha", "karlo-video"):
        (tmp_path / name).symlink_to(karlo[0])
    (tmp_path / "stable-diffusion-x4-upscaler").symlink_to(upscaler[0])
    cascade = Cascade.from_pretrained(role_file(tmp_path, example.read_text(encoding="utf-8")), device="cpu")
    assert cascade.family == "karlo"
    settings = {name: (one.num_inference_steps, one.guidance_scale) for name, one in cascade.settings().items()}
    assert settings == {"prior": (25, 4), "decoder": (25, 8), "super_resolution": (7, 1), "upscaler": (50, 1)}
