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
from inflate.stages import ChainState, StageSettings
from inflate.video import Video
from interp.stage import InterpolationStage
from tests.cascade import foreign_pipelines as foreign
from tests.models.tiny_family import save_tiny_family, tiny_unet

PROMPT = "red sun"
FRAME = foreign.FRAME


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def role_file(folder: Path, text: str) -> Path:
    path = folder / "roles.toml"
    path.write_text(text)
    return path


def one_generator(monkeypatch: pytest.MonkeyPatch, seed: int = 5) -> None:
    """Every stage draws from one generator, one after the other, as diffusers' pipelines do."""
    generator = seeded(seed)
    for module in ("inflate.models.prior", "inflate.models.foreign", "superres.spatiotemporal", "superres.spatial"):
        monkeypatch.setattr(f"{module}.stage_generator", lambda seed, name: generator)


def assert_same(made: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    """Equal pictures in [0, 1], many of whose pixels are neither black nor white, where clipping would hide errors."""
    within = wanted[(wanted > 0.01) & (wanted < 0.99)]
    assert within.size > 0.25 * wanted.size and within.std() > 0.05
    np.testing.assert_allclose(made, wanted, atol=tolerance)


@pytest.fixture(scope="module")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "karlo"
    return folder, foreign.karlo(folder)


ALL_KARLO = """
name = "karlo"
[prior]
from = "karlo"
num_inference_steps = 4
[decoder]
from = "karlo"
num_inference_steps = 3
read_prompt = true
[super_resolution]
from = "karlo"
num_inference_steps = 3
"""


def test_karlo_gives_what_its_own_pipeline_gives(karlo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = karlo
    cascade = Cascade.from_pretrained(role_file(folder.parent, ALL_KARLO), device="cpu")
    wanted = pipeline(
        PROMPT,
        prior_num_inference_steps=4,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=3,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    made = cascade(PROMPT, 1, frame_skip=1, output_type="np")
    assert isinstance(made.frames, np.ndarray) and made.frames.shape == (1, 1, 4 * FRAME, 4 * FRAME, 3)
    assert_same(made.frames[0], wanted)
    # The embedding keeps the norm that Karlo's decoder knows.
    assert made.image_embeds is not None and abs(made.image_embeds.norm().item() - 1) > 0.1


def test_without_a_prompt_karlos_decoder_reads_the_empty_text(karlo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = karlo
    text = ALL_KARLO.replace("read_prompt = true\n", "")
    cascade = Cascade.from_pretrained(role_file(folder.parent, text), device="cpu")
    wanted = pipeline(
        "",
        prior_num_inference_steps=4,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=3,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    embeds = cascade.stage("prior")
    assert embeds is not None
    # The pipeline's own embedding of the empty prompt, then frames without any prompt.
    with torch.no_grad(), cascade.loaded(embeds):
        state = ChainState(("",), (0,), 1, 8.0, frame_skip=1)
        made = embeds(state, StageSettings(4, 4.0), lambda video, step, timestep, sample: sample).image_embeds
    frames = cascade(image_embeds=made, num_frames=1, frame_skip=1, output_type="np").frames
    assert isinstance(frames, np.ndarray)
    assert_same(frames[0], wanted)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("foreign") / "x4"
    return folder, foreign.stable_diffusion_x4(folder)


def test_the_x4_upscaler_gives_what_its_own_pipeline_gives(upscaler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipeline = upscaler
    text = '[upscaler]\nfrom = "x4"\nnum_inference_steps = 3\nnoise_level = 0.1'
    cascade = Cascade.from_pretrained(role_file(folder.parent, text), device="cpu")
    low = torch.rand(1, 3, 16, 16, generator=seeded(1)) * 2 - 1
    wanted = pipeline(
        "",
        image=low / 2 + 0.5,
        num_inference_steps=3,
        guidance_scale=1.0,
        noise_level=100,
        generator=seeded(5),
        output_type="np",
    ).images
    one_generator(monkeypatch)
    [made] = cascade.upscale_chunks(iter([low.transpose(0, 1)]))
    assert made.shape == (3, 1, 64, 64)
    assert_same((made[:, 0].permute(1, 2, 0).numpy() + 1) / 2, wanted[0])


@pytest.fixture(scope="module")
def kandinsky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Any]:
    """The folder that three pipelines lie in, and those: the prior's, 2.2's and 2.1's."""
    folder = tmp_path_factory.mktemp("foreign")
    return (
        folder,
        foreign.kandinsky_prior(folder / "prior"),
        foreign.kandinsky_22(folder / "decoder-2.2"),
        foreign.kandinsky_21(folder / "decoder-2.1"),
    )


KANDINSKY = """
name = "kandinsky"
[prior]
from = "prior"
num_inference_steps = 4
[decoder]
from = "decoder-VERSION"
num_inference_steps = 3
"""


@pytest.mark.parametrize("version", ["2.2", "2.1", "2.1 with the prompt"])
def test_kandinsky_gives_what_its_own_pipelines_give(
    kandinsky: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prior, *decoders = kandinsky
    read_prompt = version.endswith("prompt")
    text = KANDINSKY.replace("VERSION", version[:3]) + ("read_prompt = true" if read_prompt else "")
    cascade = Cascade.from_pretrained(role_file(folder, text), device="cpu")
    generator = seeded(5)
    told = prior(PROMPT, num_inference_steps=4, generator=generator)
    options = {"num_inference_steps": 3, "generator": generator, "output_type": "np", "height": 64, "width": 64}
    if version == "2.2":
        wanted = decoders[0](told.image_embeds, told.negative_image_embeds, **options).images
    else:
        prompt = PROMPT if read_prompt else ""
        options["guidance_scale"] = 4.0
        wanted = decoders[1](prompt, told.image_embeds, told.negative_image_embeds, **options).images
    one_generator(monkeypatch)
    made = cascade(PROMPT, 1, output_type="np")
    assert cascade.frame_size() == 64
    assert made.image_embeds is not None and isinstance(made.frames, np.ndarray)
    torch.testing.assert_close(made.image_embeds, told.image_embeds)
    assert_same(made.frames[0], wanted)


def test_a_video_is_varied_by_kandinsky_from_its_own_image_encoder(kandinsky: Any) -> None:
    folder, prior, *_ = kandinsky
    cascade = Cascade.from_pretrained(role_file(folder, KANDINSKY.replace("VERSION", "2.2")), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    out = cascade.vary(Video(frames, 8.0), num_frames=2, generator=seeded(), num_inference_steps=2, output_type="pt")
    assert isinstance(out.frames, torch.Tensor) and out.frames.shape == (1, 2, 3, 64, 64)
    assert out.image_embeds is not None
    pixels = prior.image_processor(list(frames), return_tensors="pt").pixel_values
    embeds = prior.image_encoder(pixels).image_embeds
    cosine = torch.nn.functional.cosine_similarity(out.image_embeds, embeds.mean(0, keepdim=True))
    # The processor rounds resized pixels to whole levels; nothing else differs.
    assert cosine.item() > 0.999
    torch.testing.assert_close(out.image_embeds.norm(), embeds.norm(dim=1).mean(), atol=0.02, rtol=0.02)


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


def test_every_stage_runs_in_half_precision(karlo: Any, upscaler: Any, kandinsky: Any, tmp_path: Path) -> None:
    for prior, decoder in (
        (karlo[0], karlo[0]),
        (kandinsky[0] / "prior", kandinsky[0] / "decoder-2.2"),
        (kandinsky[0] / "prior", kandinsky[0] / "decoder-2.1"),
    ):
        text = f'[prior]\nfrom = "{prior}"\n[decoder]\nfrom = "{decoder}"\n[upscaler]\nfrom = "{upscaler[0]}"'
        cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu", dtype=torch.bfloat16)
        steps = {"prior": 2, "decoder": 2, "upscaler": 1}
        frames = cascade(PROMPT, 1, num_inference_steps=steps, output_type="pt").frames
        assert isinstance(frames, torch.Tensor) and frames.dtype == torch.float32 and bool(frames.isfinite().all())


@pytest.mark.parametrize("whose", ["karlo", "decoder-2.2"])
def test_new_temporal_layers_change_no_frame(karlo: Any, kandinsky: Any, tmp_path: Path, whose: str) -> None:
    source = karlo[0] if whose == "karlo" else kandinsky[0] / whose
    convert(source, tmp_path / "video", num_frames=3)
    frames = []
    for folder in (source, tmp_path / "video"):
        # Kandinsky's guidance needs the prior's image encoder, which nobody lends here.
        text = f'[decoder]\nfrom = "{folder}"\nguidance_scale = {8.0 if whose == "karlo" else 1.0}'
        cascade = Cascade.from_pretrained(role_file(tmp_path, text), device="cpu")
        embeds = torch.randn(1, foreign.WIDTH, generator=seeded(1))
        made = cascade(image_embeds=embeds, num_frames=3, generator=seeded(), num_inference_steps=2, output_type="np")
        assert isinstance(made.frames, np.ndarray)
        frames.append(made.frames[0])
    assert not np.allclose(frames[0][0], frames[0][1], atol=1e-2)
    # One frame rounds otherwise than three together, and these networks make more of it at each step.
    assert_same(frames[1], frames[0], tolerance=2e-3)


def test_equal_frames_are_upscaled_equally_however_they_are_cut(upscaler: Any) -> None:
    text = f'[upscaler]\nfrom = "{upscaler[0]}"\nnum_inference_steps = 2'
    cascade = Cascade.from_pretrained(role_file(upscaler[0].parent, text), device="cpu", keep_loaded=True)
    low = (torch.rand(3, 1, 12, 20, generator=seeded(1)) * 2 - 1).expand(3, 3, 12, 20).clone()
    low[:, 1] = -low[:, 1]
    one = torch.cat(list(cascade.upscale_chunks(iter([low]), generator=seeded())), 1)
    cut = torch.cat(list(cascade.upscale_chunks(iter([low[:, :1], low[:, 1:]]), generator=seeded())), 1)
    assert one.shape == (3, 3, 48, 80) and torch.equal(one, cut)
    assert torch.equal(one[:, 0], one[:, 2]) and not torch.allclose(one[:, 0], one[:, 1], atol=1e-2)


def test_large_pictures_are_upscaled_in_tiles(upscaler: Any) -> None:
    low = torch.rand(3, 1, 32, 32, generator=seeded(1)) * 2 - 1
    made = []
    for options in ("", "tile = 64\ntile_overlap = 32\ndecode_tile = 64\n"):
        text = f'[upscaler]\nfrom = "{upscaler[0]}"\nnum_inference_steps = 1\n{options}'
        cascade = Cascade.from_pretrained(role_file(upscaler[0].parent, text), device="cpu")
        made.append(torch.cat(list(cascade.upscale_chunks(iter([low]), generator=seeded())), 1))
    whole, tiled = made
    assert tiled.shape == whole.shape == (3, 1, 128, 128) and not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2 * whole.std()
    # No seam: the steps from pixel to pixel are no larger where tiles begin or end than elsewhere.
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().mean(dim=(0, 1, 2))
    assert steps[31::32].max() < 1.5 * steps.mean()


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
        ('[decoder]\nfrom = "karlo/decoder"', "is not a cascade's folder: it has no model_index.json"),
        ('[decoder]\nfrom = "flux"', "is a FluxPipeline, which plays no role; known: Cascade, UnCLIPPipeline"),
        ('[upscaler]\nfrom = "karlo"', "is a UnCLIPPipeline, which cannot be the upscaler; it can be: prior, decoder"),
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
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
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


def test_noise_beyond_training_is_refused(upscaler: Any) -> None:
    text = f'[upscaler]\nfrom = "{upscaler[0]}"\nnoise_level = 0.5'
    cascade = Cascade.from_pretrained(role_file(upscaler[0].parent, text), device="cpu")
    with pytest.raises(InputError, match=r"noise_level is 0.5; this upscaler was trained for up to 0.35"):
        list(cascade.upscale_chunks(iter([torch.zeros(3, 1, 8, 8)])))


def test_the_example_in_the_recipes_names_every_role(karlo: Any, upscaler: Any, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "recipes" / "families" / "karlo.toml"
    for name in ("karlo-v1-alpha", "karlo-video"):
        (tmp_path / name).symlink_to(karlo[0])
    (tmp_path / "stable-diffusion-x4-upscaler").symlink_to(upscaler[0])
    cascade = Cascade.from_pretrained(role_file(tmp_path, example.read_text(encoding="utf-8")), device="cpu")
    assert cascade.family == "karlo"
    settings = {name: (one.num_inference_steps, one.guidance_scale) for name, one in cascade.settings().items()}
    assert settings == {"prior": (25, 4), "decoder": (25, 8), "super_resolution": (7, 1), "upscaler": (50, 1)}
