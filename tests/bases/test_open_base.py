"""What a folder of each family says of itself, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch

from inflate.bases import drop, open_base, predict
from inflate.errors import InputError
from inflate.inflater import inflate
from tests.bases import families
from tests.inflater.tiny_models import build

# family of the table, reads, channels, pixels per cell, patch, multiple, size
FACTS = {
    "stable-diffusion": ("stable-diffusion", "text", 4, 2, 1, 16, (16, 16)),
    "stable-diffusion-v": ("stable-diffusion", "text", 4, 2, 1, 16, (16, 16)),
    "stable-diffusion-xl": ("stable-diffusion-xl", "text", 4, 2, 1, 8, (16, 16)),
    "pixart": ("pixart", "text", 4, 2, 2, 4, (16, 16)),
    "pixart-sigma": ("pixart", "text", 4, 2, 2, 4, (16, 16)),
    "sana": ("sana", "text", 4, 4, 1, 4, (32, 32)),
    "sd3": ("sd3", "text", 16, 2, 2, 4, (16, 16)),
    "flux": ("flux", "text", 16, 2, 2, 4, (16, 16)),
    "dit": ("dit", "class", 4, 2, 2, 4, (16, 16)),
    "karlo": ("karlo", "image", 3, 1, 1, 8, (8, 8)),
    "kandinsky": ("kandinsky", "image", 4, 8, 1, 64, (64, 64)),
    "inflate": ("inflate", "image", 4, 4, 1, 8, (16, 16)),
    "unconditional": ("unconditional", "nothing", 3, 1, 1, 2, (16, 16)),
}


@pytest.mark.parametrize("family", FACTS)
def test_every_family_opens_encodes_and_predicts(family: str, folders: Path) -> None:
    base = open_base(folders / family, families.parts_of(family, folders / family))
    conditioner, autoencoder = base.conditioner(), base.autoencoder()
    facts = (base.family, conditioner.reads, autoencoder.channels, autoencoder.factor)
    assert (*facts, base.patch, base.multiple, base.sample_size) == FACTS[family]
    assert base.process == ("flow" if family in ("sana", "sd3", "flux") else "diffusion")
    assert base.scheduler_config["num_train_timesteps"] == 1000

    device, dtype = torch.device("cpu"), torch.float32
    fingerprint = conditioner.fingerprint()
    conditioner.load(device, dtype)
    autoencoder.load(device, dtype)
    height, width = base.sample_size
    pictures = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoding = conditioner.encode(["red sun", "blue moon"], pictures, [1, 2])
    nothing = conditioner.unconditional(2)
    latents = autoencoder.encode(pictures)
    # In company as alone, to the last bit: what is cached is what is not.
    alone = conditioner.encode(["blue moon"], pictures[1:], [2])
    assert all(torch.equal(value, encoding[name][1:]) for name, value in alone.items())
    assert torch.equal(latents[1:], autoencoder.encode(pictures[1:]))
    assert autoencoder.decode(latents).shape == pictures.shape
    dropped = drop(encoding, nothing, torch.tensor([True, False]))
    for name, value in dropped.items():
        assert torch.equal(value[0], nothing[name][0]) and torch.equal(value[1], encoding[name][1])
    conditioner.release()
    assert not conditioner.components and conditioner.fingerprint() == fingerprint

    network = base.load_network(device, dtype)
    arguments = conditioner.arguments(dropped, height, width)
    noisy = latents[:, :, None].repeat(1, 1, 3, 1, 1)
    timestep = torch.tensor([500, 10])
    with torch.no_grad():
        plain = predict(network, noisy, timestep, arguments, None)
        assert plain.shape == noisy.shape and bool(plain.isfinite().all())
        other = conditioner.arguments(encoding, height, width)
        changed = predict(network, noisy, timestep, other, None)
        if base.conditioner().reads != "nothing":
            assert not torch.allclose(changed[0], plain[0], atol=1e-4), "it is told something"
        torch.testing.assert_close(changed[1], plain[1], rtol=1e-4, atol=1e-4)
        scheme = "lean" if base.patch == 1 else "latte"
        video = predict(inflate(network, scheme, 3), noisy, timestep, arguments, 8.0)
    torch.testing.assert_close(video, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


def without(folder: Path, copy: Path, *roles: str) -> Path:
    """A pipeline's folder without some of its parts."""
    copy.mkdir()
    index = json.loads((folder / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({name: one for name, one in index.items() if name not in roles}))
    for path in folder.iterdir():
        if path.is_dir() and path.name not in roles:
            (copy / path.name).symlink_to(path)
    return copy


@pytest.mark.parametrize(
    ("family", "role", "message"),
    [
        ("stable-diffusion", "text_encoder", "has no text encoder ('text_encoder'), which Stable Diffusion needs"),
        ("stable-diffusion", "vae", "has no autoencoder ('vae')"),
        ("stable-diffusion", "scheduler", "has no scheduler ('scheduler')"),
        ("sd3", "tokenizer_2", "has no tokenizer 2 ('tokenizer_2'), which Stable Diffusion 3 needs"),
        ("unconditional", "scheduler", "has no scheduler ('scheduler')"),
    ],
)
def test_a_missing_part_is_named(family: str, role: str, message: str, folders: Path, tmp_path: Path) -> None:
    folder = without(folders / family, tmp_path / "less", role)
    with pytest.raises(InputError, match=re.escape(message)):
        open_base(folder)
    lent = open_base(folder, {"base": folders / family})
    assert lent.parts[role] == folders / family / role and lent.root == folder
    assert open_base(folder, {role: folders / family / role}).parts == lent.parts


@pytest.mark.parametrize("family", ["karlo", "kandinsky"])
def test_an_image_encoder_is_asked_for(family: str, folders: Path) -> None:
    where = "karlo-v1-alpha-image-variations has it" if family == "karlo" else "the prior's folder"
    with pytest.raises(InputError, match=f"has no image encoder \\('image_encoder'\\).*{where}"):
        open_base(folders / family)


def test_what_cannot_be_fine_tuned_is_refused(folders: Path, tmp_path: Path) -> None:
    index = json.loads((folders / "stable-diffusion" / "model_index.json").read_text())
    other = without(folders / "stable-diffusion", tmp_path / "other")
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionInpaintPipeline"}))
    with pytest.raises(InputError, match="is a StableDiffusionInpaintPipeline, which cannot be fine-tuned; known"):
        open_base(other)
    with pytest.raises(InputError, match="Stable Diffusion has no part 'movq'"):
        open_base(folders / "stable-diffusion", {"movq": folders / "kandinsky" / "movq"})
    with pytest.raises(InputError, match="is Stable Diffusion 3 and the model is Stable Diffusion; name a base of"):
        open_base(folders / "stable-diffusion", {"base": folders / "sd3"})
    with pytest.raises(InputError, match="takes 4 channels, and its autoencoder gives 16"):
        open_base(folders / "stable-diffusion", {"vae": folders / "sd3" / "vae"})
    with pytest.raises(InputError, match="no such folder"):
        open_base(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"There is no folder .*nowhere, which is to be a part"):
        open_base(folders / "stable-diffusion", {"vae": tmp_path / "nowhere"})


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-xl", "pixart", "sana", "sd3", "flux", "dit"])
def test_a_lone_network_takes_its_parts_from_a_base(family: str, folders: Path) -> None:
    whole = open_base(folders / family)
    lone = open_base(whole.network.folder, {"base": folders / family})
    assert (lone.family, lone.root, lone.parts) == (whole.family, None, whole.parts)
    assert lone.conditioner().fingerprint() == whole.conditioner().fingerprint()


def test_a_ddpm_with_everything_in_one_folder(folders: Path, tmp_path: Path) -> None:
    for path in (folders / "unconditional").rglob("*.*"):
        (tmp_path / path.name).symlink_to(path)
    base = open_base(tmp_path)
    assert base.family == "unconditional" and base.parts["scheduler"] == tmp_path and base.sample_size == (16, 16)


def test_fingerprints_tell_parts_apart(folders: Path) -> None:
    bases = {name: open_base(folders / name, families.parts_of(name, folders / name)) for name in FACTS}
    prints = [base.conditioner().fingerprint() for base in bases.values()]
    assert len(set(prints)) == len(prints)
    vaes = {base.autoencoder().fingerprint() for base in bases.values()}
    assert len(vaes) == len(bases) - 1  # two families draw pixels


def test_a_bundled_family_is_a_base() -> None:
    base = open_base("bundled:emoji")
    assert (base.family, base.multiple, base.sample_size) == ("inflate", 16, (64, 64))
    assert base.parts["text_encoder"].name == "clip" and base.network.temporal_file.is_file()


def test_kolors_is_not_taken_for_stable_diffusion_xl(tmp_path: Path) -> None:
    build("kolors").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be fine-tuned: it is none of Stable Diffusion"):
        open_base(tmp_path)
