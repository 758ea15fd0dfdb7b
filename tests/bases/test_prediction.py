"""One evaluation for training and sampling: gradients, number formats, frame rates; and where networks come from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inflate.bases import open_base, predict
from inflate.errors import InputError
from inflate.inflater import inflate
from tests.bases.test_pipelines import opened
from tests.checkpoint.original_layouts import ldm_unet

CPU = torch.device("cpu")


def example(family: str, folders: Path, dtype: torch.dtype = torch.float32):
    base = open_base(folders / family)
    conditioner = base.conditioner()
    conditioner.load(CPU, dtype)
    arguments = conditioner.arguments(conditioner.encode(["red sun", "blue moon"]), 16, 16)
    channels, factor = base.autoencoder().channels, base.autoencoder().factor
    noisy = torch.randn(2, channels, 3, 16 // factor, 16 // factor, generator=torch.Generator().manual_seed(0))
    return base, arguments, noisy, torch.tensor([900, 20])


# Of torch, under autocast: weights of a norm that are float32 as they should be.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("family", ["pixart", "flux", "stable-diffusion"])
def test_gradients_and_number_formats(family: str, folders: Path) -> None:
    base, arguments, noisy, timestep = example(family, folders)
    scheme = "make-a-video" if family == "stable-diffusion" else "latte"
    model = inflate(base.load_network(CPU, torch.float32), scheme, 3)
    model.freeze_image_model()
    exact = predict(model, noisy, timestep, arguments, 8.0)
    exact.square().mean().backward()
    gradients = [one.grad for one in model.temporal_parameters() if one.grad is not None]
    assert gradients and all(bool(one.isfinite().all()) for one in gradients)
    assert any(bool(one.any()) for one in gradients)
    exact = exact.detach()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            mixed = predict(model, noisy, timestep, arguments, 8.0)
        model.to(torch.bfloat16)
        rounded = predict(model, noisy, timestep, arguments, 8.0)
    for other in (mixed, rounded):
        assert other.dtype == torch.float32 and other.shape == noisy.shape
        # These random networks make much of a rounding; with another condition they are further off than this.
        assert 0 < float((other - exact).norm() / exact.norm()) < 0.8


def test_flux_is_told_a_thousandth_of_the_schedulers_time(folders: Path) -> None:
    base, arguments, noisy, timestep = example("flux", folders)
    network = base.load_network(CPU, torch.float32)
    pipeline = opened("FluxPipeline", folders / "flux")
    packed = pipeline._pack_latents(noisy[:, :, 0], 2, *noisy.shape[1:2], *noisy.shape[3:])
    places = pipeline._prepare_latent_image_ids(2, 4, 4, CPU, torch.float32)
    with torch.no_grad():
        made = predict(network, noisy, timestep, arguments, None)[:, :, 0]
        text = torch.zeros(arguments["encoder_hidden_states"].shape[1], 3)
        wanted = network(
            hidden_states=packed, timestep=timestep / 1000, img_ids=places, txt_ids=text, **arguments, return_dict=False
        )[0]
    wanted = pipeline._unpack_latents(wanted, 16, 16, 2)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)


def test_a_frame_rate_is_told_to_schemes_that_take_it(folders: Path) -> None:
    base, arguments, noisy, timestep = example("stable-diffusion", folders)
    model = inflate(base.load_network(CPU, torch.float32), "make-a-video", 3)
    with torch.no_grad():
        for parameter in model.temporal["time_embedding"].parameters():
            parameter.add_(0.1)
        slow, fast, both = (
            predict(model, noisy, timestep, arguments, fps) for fps in (2.0, 30.0, torch.tensor([2.0, 30.0]))
        )
    assert not torch.allclose(slow, fast, atol=1e-4)
    torch.testing.assert_close(both[0], slow[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(both[1], fast[1], rtol=1e-4, atol=1e-3)


def test_a_repository_in_the_hubs_cache(folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("inflate.checkpoint.hub.download", lambda name, variant: folders / "sd3")
    base = open_base("someone/sd3")
    assert (base.family, base.root) == ("sd3", folders / "sd3") and base.parts == open_base(folders / "sd3").parts
    monkeypatch.setattr("inflate.bases.base.download", lambda name: folders / "sd3")
    assert open_base(folders / "sd3" / "transformer", {"base": "someone/sd3"}).parts == base.parts


def test_a_tokenizer_that_needs_another_library(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"a vocabulary")
    monkeypatch.setattr("inflate.bases.parts.find_spec", lambda name: None)
    conditioner = open_base(folders / "pixart", {"tokenizer": tmp_path / "tokenizer"}).conditioner()
    with pytest.raises(InputError, match=r"spiece.model alone.*pip install sentencepiece protobuf"):
        conditioner.load(CPU, torch.float32)


def test_a_single_file_takes_its_parts_from_a_base(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_base(folders / "stable-diffusion")
    network = whole.load_network(CPU, torch.float32)
    state = ldm_unet(network.state_dict(), 1)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    # A file is recognised by its shapes, and no published model is as small as this one.
    from inflate.checkpoint.single_file import recognise_layout

    config = whole.network.folder / "config.json"
    monkeypatch.setattr(
        "inflate.checkpoint.single_file.recognise",
        lambda path, shapes, metadata: (
            recognise_layout(path, shapes, config, "UNet2DConditionModel"),
            whole.network.config,
        ),
    )
    with pytest.raises(InputError, match=r"model.safetensors has no scheduler \('scheduler'\)"):
        open_base(tmp_path / "model.safetensors")
    base = open_base(tmp_path / "model.safetensors", {"base": folders / "stable-diffusion"})
    assert (base.family, base.root, base.parts) == ("stable-diffusion", None, whole.parts)
    for name, tensor in base.load_network(CPU, torch.float32).state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
