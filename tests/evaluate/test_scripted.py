"""Feature networks that people bring as files."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from inflate.errors import InputError
from inflate.evaluate import weights
from inflate.evaluate.choosing import is_torchscript, picture_network, video_network
from inflate.evaluate.scripted import Classifier, I3d
from inflate.evaluate.weights import weights_of
from tests.evaluate.references import inputs
from tests.evaluate.tiny_networks import TinyC3d, TinyI3d, TinyInception, scripted

CLIPS = inputs.clips(2, 10, 24, 32)


@pytest.fixture
def i3d(tmp_path: Path) -> Path:
    return scripted(tmp_path / "i3d_torchscript.pt", TinyI3d())


def test_styleganv_leaves_scale_and_size_to_the_network(i3d: Path) -> None:
    planes = CLIPS.permute(0, 4, 1, 2, 3).float()
    with torch.no_grad():
        expected = TinyI3d()(planes, rescale=True, resize=True, return_features=True)
    made = I3d(i3d)(CLIPS)
    assert torch.allclose(made, expected, atol=1e-5)
    assert (made.sum(1) - 1).abs().min() > 1e-3, "features, and not their softmax"


def test_videogpt_scales_and_resizes_before_it(i3d: Path) -> None:
    frames = CLIPS.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = functional.interpolate(frames, (224, 224), mode="bilinear", align_corners=False) * 2 / 255 - 1
    planes = small.unflatten(0, (2, 10)).transpose(1, 2)
    with torch.no_grad():
        expected = TinyI3d()(planes, return_features=True)
    assert torch.allclose(I3d(i3d, "videogpt")(CLIPS), expected, atol=1e-5)


def test_the_published_file_is_known_by_its_hash(i3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(i3d.read_bytes()).hexdigest()
    other = I3d(i3d)
    assert other.weights.sha256 == digest and not other.published
    assert "not among the published files" in other.weights.sentence()
    monkeypatch.setitem(weights.PUBLISHED, digest, "i3d_torchscript.pt")
    assert I3d(i3d).published and "the published i3d_torchscript.pt" in I3d(i3d).weights.sentence()
    monkeypatch.setitem(weights.PUBLISHED, digest, "another.pt")
    assert not I3d(i3d).published
    monkeypatch.delitem(weights.PUBLISHED, digest)
    monkeypatch.setitem(weights.PUBLISHED, digest[:8], "short.pt")
    assert weights_of(i3d).published == "short.pt"


def test_a_file_without_the_flags_is_no_i3d(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FVD's I3D takes rescale, resize, return_features too"):
        I3d(scripted(tmp_path / "c3d.pt", TinyC3d()))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="is not a TorchScript file"):
        I3d(tmp_path / "state.pt")
    with pytest.raises(InputError, match="there is no"):
        I3d(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"'stylegan-v' \(did you mean 'styleganv'\?\)"):
        I3d(scripted(tmp_path / "i3d.pt", TinyI3d()), "stylegan-v")


def test_what_a_network_says_of_a_batch_is_one_sentence(tmp_path: Path) -> None:
    network = I3d(scripted(tmp_path / "i3d.pt", TinyI3d()), "videogpt")
    with pytest.raises(InputError, match=r"refused a batch of shape \(1, 1, 2, 224, 224\)"):
        network(torch.zeros(1, 2, 8, 8, 1, dtype=torch.uint8))


def test_classifiers_of_probabilities_and_of_logits(tmp_path: Path) -> None:
    colours = torch.zeros(3, 4, 8, 8, 3, dtype=torch.uint8)
    for number in range(3):
        colours[number, ..., number] = 160
    sure = Classifier(scripted(tmp_path / "c3d.pt", TinyC3d()))
    made = sure(colours)
    assert sure.outputs == "probabilities" and made.argmax(1).tolist() == [0, 1, 2]
    assert torch.allclose(made, (colours.float().mean((1, 2, 3)) / 16).softmax(1), atol=1e-6)
    logits = Classifier(scripted(tmp_path / "logits.pt", TinyC3d(logits=True)))
    assert torch.allclose(logits(colours), made, atol=1e-6) and logits.outputs == "logits"
    unit = Classifier(tmp_path / "c3d.pt", "unit")(colours)
    assert unit.max() < 0.4 < made.max()
    with pytest.raises(InputError, match="--pixels is 'byte'"):
        Classifier(tmp_path / "c3d.pt", "byte")


def test_inception_as_torchscript(tmp_path: Path) -> None:
    path = scripted(tmp_path / "inception.pt", TinyInception())
    pictures = CLIPS[0]
    expected = functional.adaptive_avg_pool2d(pictures.permute(0, 3, 1, 2).float(), 2).flatten(1) / 255
    assert torch.allclose(picture_network(str(path))(pictures), expected)
    with pytest.raises(InputError, match="takes no return_features"):
        picture_network(str(scripted(tmp_path / "c3d.pt", TinyC3d())))
    with pytest.raises(InputError, match="one preprocessing"):
        picture_network(str(path), "tensorflow")


def test_names_of_networks(tmp_path: Path, i3d: Path) -> None:
    assert is_torchscript(i3d) and isinstance(video_network(str(i3d)), I3d)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pth")
    assert not is_torchscript(tmp_path / "state.pth") and not is_torchscript(Path(__file__))
    with pytest.raises(InputError, match="name a feature network by its path, or efficientnet-lite0 or bundled:clip"):
        video_network("nowhere.pt")
    with pytest.raises(InputError, match="one preprocessing"):
        video_network("bundled:clip", "videogpt")


def test_packaged_features_are_of_frames_and_of_their_change() -> None:
    network = video_network("bundled:clip")
    made = network(CLIPS)
    assert network.weights.packaged and not network.published and made.shape == (2, 512)
    still = CLIPS[:, :1].expand(-1, 10, -1, -1, -1)
    assert network(still)[:, 256:].abs().max() < 1e-6 < made[:, 256:].abs().min()
    pictures = picture_network("bundled:clip")(CLIPS[0])
    assert torch.allclose(pictures.mean(0), made[0, :256], atol=1e-5)
