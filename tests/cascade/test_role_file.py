"""One format says what plays each stage, whichever command reads it; files of the two formats before still load."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.cascade import Cascade
from inflate.cascade.assembling import assemble
from inflate.cascade.role_file import read_role_file
from inflate.checkpoint import resolve_path
from inflate.cli.app import main
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from interp.folder import is_partial
from tests.models.tiny_family import WIDTH, save_tiny_family, tiny_unet

# The same decoder, as each of the ways to write it says it: "f" is the folder of a family.
FROM = '[decoder]\nfrom = "f"\nnum_inference_steps = 2\nguidance_scale = 1.5\noverlap = 0.25\n'
PARTS = (
    FROM.replace('from = "f"\n', "")
    + '[decoder.components]\nunet = "f/unet"\nscheduler = "f/scheduler"\nvae = "f/vae"\n'
)
ROLES = '[roles]\nunet = "f/unet"\nscheduler = "f/scheduler"\nvae = "f/vae"\n'
SHARED = FROM.replace('from = "f"\n', "") + ROLES
OLD = ROLES + "[stage_defaults.decoder]\nnum_inference_steps = 2\nguidance_scale = 1.5\n"
OLD += "[stage_configs.decoder]\noverlap = 0.25\n"
WAYS = {"from": FROM, "components": PARTS, "shared": SHARED, "before": OLD}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_tiny_family(tmp_path / "f", tiny_unet())
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_makes_the_same_cascade_for_every_command(
    place: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = place / "roles.toml"
    path.write_text(f'name = "tiny"\nhalf = false\n{WAYS[way]}')
    assert main(["assemble", str(path), str(place / "made"), "--quiet"]) == 0
    made = [frames_of(Cascade.from_pretrained(one, device="cpu")) for one in (path, place / "made")]
    wanted = Cascade.from_pretrained(place / "f", device="cpu")
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.5}
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], frames_of(wanted, **options))
    index = json.loads((place / "made" / "model_index.json").read_text())
    assert (index["family"], index["stage_defaults"]["decoder"]["guidance_scale"]) == ("tiny", 1.5)
    assert index["stage_configs"]["decoder"]["overlap"] == 0.25
    # The same file from elsewhere: what does not lie beside it is looked for where the program runs.
    (place / "files").mkdir()
    path.rename(place / "files" / "roles.toml")
    with pytest.raises(InputError, match="there is no folder"):
        Cascade.from_pretrained(place / "files" / "roles.toml", device="cpu")
    monkeypatch.chdir(place)
    assert torch.equal(frames_of(Cascade.from_pretrained("files/roles.toml", device="cpu")), made[0])


def frames_of(cascade: Cascade, **options: Any) -> torch.Tensor:
    embeds = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1)
    generator = torch.Generator().manual_seed(0)
    frames = cascade(image_embeds=embeds, num_frames=2, generator=generator, output_type="pt", **options).frames
    assert isinstance(frames, torch.Tensor)
    return frames


def test_what_is_beside_the_file_comes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "files" / "f").mkdir(parents=True)
    (place / "files" / "roles.toml").write_text(FROM)
    monkeypatch.chdir(place)
    [role] = read_role_file(Path("files/roles.toml")).roles
    assert role.folder == Path("files/f")


@pytest.mark.parametrize("recipe", ["emoji", "emoji-fast"])
def test_the_bundled_familys_own_file_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    root, bundled = Path(__file__).parents[2], resolve_path("bundled:emoji")
    text = (root / "recipes" / "families" / f"{recipe}.toml").read_text(encoding="utf-8")
    for name in tomllib.loads(text)["roles"]:
        folder = "clip" if name == "text_encoder" else name
        text = re.sub(rf"(?m)^{name} = .*$", f'{name} = "bundled:emoji/{folder}"', text)
    # Frame interpolation without image weights of its own, away from the network that has them.
    shutil.copytree(bundled / "interpolation_unet", tmp_path / "own")
    path = tmp_path / "roles.toml"
    path.write_text(text.replace("bundled:emoji/interpolation_unet", "own"))
    monkeypatch.chdir(root)  # where the card's path is from
    stages: Any = Cascade.from_pretrained(path, device="cpu").stages
    stages[2].load(torch.device("cpu"), torch.float32, ["interpolation_unet"])
    assert isinstance(stages[2].components["interpolation_unet"], InflatedModel)
    assemble(path, tmp_path / "made")
    assert is_partial(tmp_path / "made" / "interpolation_unet")
    made, index = (json.loads((one / "model_index.json").read_text()) for one in (tmp_path / "made", bundled))
    assert {name for name in index if isinstance(index[name], list)} <= set(made) and made["family"] == recipe
    if recipe == "emoji":
        assert {key: made[key] for key in index if isinstance(index[key], list)} == {
            key: index[key] for key in index if isinstance(index[key], list)
        }
        for stage, settings in index["stage_defaults"].items():
            assert settings.items() <= made["stage_defaults"][stage].items()
    assert made["stage_configs"]["super_resolution"]["window"] == 16
    assert (tmp_path / "made" / "README.md").read_text() == (root / f"recipes/families/{recipe}.md").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = 3", "roles.toml, name should be a valid string, got 3."),
        (f'half = "no"\n{FROM}', "roles.toml, half should be a valid boolean, got 'no'."),
        (f'card = "gone.md"\n{FROM}', "roles.toml: the card is to be gone.md, and there is no such file."),
        ("decoder = 3", "roles.toml, decoder should be a table, got 3."),
        ("[decoder]\nfrom = 3", "roles.toml, decoder.from should be a valid string, got 3."),
        ('[decoder]\nfrom = ""', "roles.toml, decoder.from should have at least 1 character, got ''."),
        (FROM + "[decoder.components]\nunet = 1", "decoder.components.unet should be a valid string, got 1."),
        (FROM + "components = []", "decoder.components should be a table, got []."),
        (FROM.replace("1.5", '"high"'), "[decoder], guidance_scale should be a valid number, got 'high'."),
        (FROM.replace("1.5", "true"), "[decoder], guidance_scale should be a valid number, got True."),
        (FROM.replace("1.5", "nan"), "[decoder], guidance_scale should be a finite number, got nan."),
        (FROM.replace("= 2", "= 2.0"), "[decoder], num_inference_steps should be a valid integer, got 2.0."),
        (FROM.replace("= 2", "= 0"), "[decoder]: num_inference_steps must lie between 1 and 1000, got 0."),
        (FROM.replace("overlap", "overlp"), "[decoder]: unknown key 'overlp' (did you mean 'overlap'?)"),
        ("nmae = 1\n" + FROM, "there is no role 'nmae' (did you mean 'name'?)"),
        ("[decoder]", 'must say which folder plays it: from = "FOLDER", or a folder for each of unet, scheduler under'),
        ('[decoder.components]\nunet = "f/unet"', "the stage 'decoder' lacks its component 'scheduler'; name it."),
        ('[decoder.components]\nunet = "f/u"', "there is no folder {place}/f/u, which is to be its 'unet'; train it"),
        (
            PARTS + 'vea = "f"',
            "[decoder]: it has no component 'vea' (did you mean 'vae'?); it has unet, scheduler, vae.",
        ),
        ('[roles]\nunett = "f"', "[roles]: no stage has a component 'unett' (did you mean 'unet'?)."),
        (FROM + ROLES, "[roles]: no stage here takes the component 'unet'; leave it out."),
        (FROM + "[stage_defaults.decodr]\ncost = 1", "[stage_defaults]: there is no stage 'decodr' (did you mean"),
        (OLD.replace("1.5", "[]"), "[decoder], guidance_scale should be a valid number, got []."),
        (ROLES + "[roles]", "is not valid TOML"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "assemble"])
def test_every_mistake_is_one_sentence_with_its_place(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, sentence: str
) -> None:
    path, out = place / "roles.toml", place / "out.mp4"
    path.write_text(text)
    arguments = {
        "generate": ["generate", "x", "--model", str(path), "-o", str(out)],
        "assemble": ["assemble", str(path), str(out)],
    }
    assert main(arguments[command]) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence.replace("{place}", str(place)) in printed and str(path) in printed and "\n" not in printed
    assert not out.exists()
