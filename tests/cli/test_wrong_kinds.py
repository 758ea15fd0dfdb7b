"""What people name by mistake: every command says what it is, and what is wanted in its place, in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from inflate.checkpoint import convert
from inflate.cli.app import main
from tests.inflater.tiny_models import build


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    image_model = build("sd15")
    image_model.save_pretrained(folder / "network")
    convert(folder / "network", folder / "inflated", num_frames=3)
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html>")
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    save_file(dict(image_model.state_dict()), folder / "model.safetensors")
    save_file(dict(image_model.state_dict()), folder / "diffusion_pytorch_model-00001-of-00003.safetensors")
    (folder / "clips").mkdir()
    (folder / "clip.mp4").write_bytes(bytes(range(256)))
    (folder / "prior").mkdir()
    index = {"_class_name": "Cascade", "prior": ["diffusers", "PriorTransformer"]}
    (folder / "prior" / "model_index.json").write_text(json.dumps(index))
    (folder / "role.toml").write_text('[decoder]\nfrom = "network"\n')
    return folder


Command = Callable[[Path, Path], list[str]]
COMMANDS: dict[str, Command] = {
    "convert": lambda path, out: ["convert", str(path), str(out)],
    "inspect": lambda path, out: ["inspect", str(path)],
    "verify": lambda path, out: ["verify", str(path)],
    "deflate": lambda path, out: ["deflate", str(path), str(out)],
    "generate": lambda path, out: ["generate", "a dog", "--model", str(path), "-o", f"{out}.mp4"],
    "finetune": lambda path, out: ["finetune", "--model", str(path), "--data", str(path.parent), "-o", str(out)],
    "recipe": lambda path, out: ["recipe", str(path), "--data", str(path.parent)],
    "assemble": lambda path, out: ["assemble", str(path), str(out)],
}
PAGE, GGUF = "is a web page, perhaps one that asks to sign in", "is a GGUF file, weights quantised for llama.cpp"
NETWORK, PIPELINE = "without a network that can be inflated", "and a whole pipeline is wanted here"
ALONE = "and not a cascade's or a pipeline's: it has no model_index.json"
OTHER = "is a file of a kind that inflate does not read"
READERS = ("convert", "inspect", "verify", "deflate", "generate", "finetune", "recipe")
NETWORKS = ("convert", "inspect", "verify", "deflate", "finetune", "recipe")
CASES = [
    *((name, "page.safetensors", PAGE) for name in (*READERS, "assemble")),
    *((name, "model.gguf", GGUF) for name in (*READERS, "assemble")),
    *((name, "clip.mp4", OTHER) for name in NETWORKS if name != "inspect"),
    *((name, "role.toml", "is a role file or a recipe") for name in NETWORKS),
    *((name, "prior", f"is a cascade's folder, {NETWORK}") for name in NETWORKS),
    *((name, "clips", f"is no model's folder, {NETWORK}") for name in NETWORKS),
    *((name, "diffusion_pytorch_model-00001-of-00003.safetensors", "one of 3 parts of a model") for name in NETWORKS),
    ("inspect", "clip.mp4", "is not a safetensors file, nor any other kind of weights"),
    ("generate", "clip.mp4", f"{OTHER}, {PIPELINE}"),
    ("generate", "model.safetensors", f"is a single file of weights, {PIPELINE}"),
    ("generate", "network", f"is the folder of a network alone (UNet2DConditionModel) {ALONE}"),
    ("generate", "inflated", f"is the folder of an inflated network alone {ALONE}"),
    ("generate", "clips", f"is no model's folder {ALONE}"),
    ("convert", "inflated", "is inflated already"),
    ("deflate", "network", "is not inflated: it has no temporal.safetensors"),
    ("assemble", "clip.mp4", f"{OTHER}, and a role file (.toml)"),
    ("assemble", "network", "is the folder of a network alone (UNet2DConditionModel), and a role file (.toml)"),
]


@pytest.mark.parametrize(("command", "thing", "said"), CASES)
def test_what_was_named_is_told(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, thing: str, said: str
) -> None:
    assert main(COMMANDS[command](things / thing, tmp_path / "out")) == 2
    sentence = capsys.readouterr().err.strip()
    assert said in sentence and "\n" not in sentence and str(things / thing) in sentence
    assert not list(tmp_path.iterdir())
