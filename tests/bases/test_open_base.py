"""What a folder of each family says of itself, and what is refused."""

from pathlib import Path

import pytest
import torch

from inflate.bases import drop, open_base, predict
from inflate.inflater import inflate
from tests.bases import families

# family of the table, reads, channels, pixels per cell, patch, multiple, size
FACTS = {
    "stable-diffusion": ("stable-diffusion", "text", 4, 2, 1, 16, (16, 16)),
    "stable-diffusion-v": ("stable-diffusion", "text", 4, 2, 1, 16, (16, 16)),
    "stable-diffusion-xl": ("stable-diffusion-xl", "text", 4, 2, 1, 8, (16, 16)),
    "pixart": ("pixart", "text", 4, 2, 2, 4, (16, 16)),
    "pixart-sigma": ("pixart", "text", 4, 2, 2, 4, (16, 16)),
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
    assert base.process == ("flow" if family in ("sd3", "flux") else "diffusion")
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
        plain = predict(base.family, network, noisy, timestep, arguments, None)
        assert plain.shape == noisy.shape and bool(plain.isfinite().all())
        other = conditioner.arguments(encoding, height, width)
        changed = predict(base.family, network, noisy, timestep, other, None)
        if base.conditioner().reads != "nothing":
            assert not torch.allclose(changed[0], plain[0], atol=1e-4), "it is told something"
        torch.testing.assert_close(changed[1], plain[1], rtol=1e-4, atol=1e-4)
        scheme = "lean" if base.patch == 1 else "latte"
        video = predict(base.family, inflate(network, scheme, 3), noisy, timestep, arguments, 8.0)
    torch.testing.assert_close(video, plain, rtol=1e-3, atol=1e-3)
