"""ModelScope's temporal convolutions against diffusers' with the same weights, and as the identity at the start."""

import pytest
import torch
from diffusers.models.resnet import TemporalConvLayer

from inflate.inflater import SCHEMES, Scheme, inflate
from inflate.layers import identity_layers
from inflate.layers.conv_stack import TemporalConvStack
from tests.inflater.tiny_models import as_video, build, perturb
from tests.layers.test_identity import bits, hard_pictures, train_a_little


@pytest.mark.reference
@pytest.mark.parametrize("num_frames", [1, 4])
def test_equals_diffusers(num_frames: int) -> None:
    ours, theirs = TemporalConvStack(12, 4).double(), TemporalConvLayer(12, norm_num_groups=4).double().eval()
    train_a_little(ours)
    theirs.load_state_dict(ours.state_dict())
    pictures = torch.randn(8, 12, 5, 6, dtype=torch.float64)
    found = ours(pictures, num_frames)
    assert not torch.allclose(found, pictures, atol=1e-3)
    torch.testing.assert_close(found, theirs(pictures, num_frames), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_new_stack_is_the_identity_and_is_left_out_until_trained(dtype: torch.dtype) -> None:
    layer, pictures = TemporalConvStack(12, 4).to(dtype).eval(), hard_pictures(dtype)
    assert torch.equal(bits(layer(pictures, 4)), bits(pictures))
    assert identity_layers([layer]) == {layer}
    layer.get_parameter("conv4.3.weight").data[0, 0, 1] = 0.5
    assert not identity_layers([layer]) and not torch.equal(layer(pictures, 4), pictures)


@torch.no_grad()
def test_the_scheme_puts_it_after_residual_blocks_and_its_file_names_it() -> None:
    image_model = build("sd15")
    model = inflate(image_model, "modelscope", 2)
    stacks = [site for site in model.sites if site.placed.layer is TemporalConvStack]
    assert {site.name.rpartition(".")[0].rpartition(".")[2] for site in stacks} == {"resnets"} and len(stacks) == 8
    sample, states = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 12)
    expected = as_video(image_model(sample, 5, encoder_hidden_states=states).sample, 2)
    assert torch.equal(model(as_video(sample, 2), 5, encoder_hidden_states=states).sample, expected)
    perturb(model)
    assert not torch.allclose(model(as_video(sample, 2), 5, encoder_hidden_states=states).sample, expected, atol=1e-3)
    assert '["residual_block", "TemporalConvStack", {"norm_num_groups": 32}]' in model.scheme.to_json()
    assert Scheme.from_json(model.scheme.to_json()) == SCHEMES["modelscope"]
