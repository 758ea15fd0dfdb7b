"""Our arithmetic, preprocessing and networks beside those of the packages whose figures people publish."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.estimates import kernel_distance
from inflate.evaluate.frechet import frechet_of_samples
from inflate.evaluate.inception import Inception, new_inception
from inflate.evaluate.resizing import square
from inflate.evaluate.scripted import resized_to
from inflate.evaluate.videomae import VideoMae
from tests.evaluate.references import inputs

pytestmark = pytest.mark.reference
SAID: dict[str, Any] = json.loads(Path(__file__).with_name("references").joinpath("references.json").read_text())
CD_FVD = SAID["cd-fvd"]


@pytest.mark.parametrize("biased", [True, False])
def test_distances_are_those_of_cd_fvd(biased: bool) -> None:
    expected = CD_FVD["arithmetic"]["biased" if biased else "unbiased"]
    assert frechet_of_samples(*inputs.features(), biased=biased) == pytest.approx(expected, abs=1e-6)
    assert abs(CD_FVD["arithmetic"]["biased"] - CD_FVD["arithmetic"]["unbiased"]) > 1e-2, "the two conventions differ"


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    made, real = inputs.features()
    assert kernel_distance(made, real[: len(made)]) == pytest.approx(SAID["kernel"], abs=1e-9)
    assert kernel_distance(made, real[: len(made)], block=7) == pytest.approx(SAID["kernel"], abs=1e-9)


def test_preprocessing_is_that_of_cd_fvd() -> None:
    clip = inputs.clips(1, 3, 40, 56)
    said = CD_FVD["preprocessing"]
    planes, large = (resized_to(one, 224).permute(0, 4, 1, 2, 3) for one in (clip, inputs.clips(1, 1, 256, 300)))
    made = {"i3d": planes * (2 / 255) - 1, "i3d_large": large * (2 / 255) - 1, "videomae": planes / 255}
    for name, ours in made.items():
        flat = ours.flatten()
        assert flat[:: -(-flat.numel() // 97)].tolist() == pytest.approx(said[name], abs=1e-3)


def test_the_loaders_cut_is_that_of_cd_fvd() -> None:
    clip, said = inputs.clips(1, 3, 40, 56)[0].numpy(), CD_FVD["preprocessing"]
    ours = np.stack([square(frame, 24, "cd-fvd") for frame in clip])
    assert list(ours.shape) == said["loader_shape"]
    apart = np.abs(ours[0].flatten()[::37].astype(int) - said["loader"])
    # A value that lies on a whole number may be cut to either side of it.
    assert apart.max() <= 1 and apart.mean() < 0.05
    rounded = square(clip[0], 24, "bilinear").flatten()[::37].astype(int)
    assert np.abs(rounded - said["loader"]).mean() > 0.3, "the filters differ"


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VideoMAE in its authors' layout, inside ``module`` as their file has it."""
    shapes = {name: torch.empty(shape) for name, shape in CD_FVD["videomae"]["shapes"].items()}
    path = tmp_path_factory.mktemp("videomae") / "tiny.pth"
    torch.save({"module": inputs.weights(shapes)}, path)
    return path


def test_videomae_has_the_features_of_cd_fvd(videomae: Path, tmp_path: Path) -> None:
    clips, said = inputs.clips(2, 16, 20, 24), CD_FVD["videomae"]["features"]
    network = VideoMae(str(videomae))
    made = network(clips)
    assert made.shape == (2, 64) and made.flatten().tolist() == pytest.approx(said, abs=1e-4)
    assert network.model.fc_norm.eps == 1e-6, "VideoMAE's own, which is not transformers'"
    assert not network.published and network.preprocessing == "cd-fvd"
    network.model.save_pretrained(tmp_path / "folder")
    again = VideoMae(str(tmp_path / "folder"))
    assert torch.allclose(again(clips), made, atol=1e-4)
    other = VideoMae(str(videomae), "imagenet")(clips)
    assert not torch.allclose(other, made, atol=1e-2), "the two preprocessings differ"


def test_a_videomae_that_does_not_fit_is_refused(videomae: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes clips of 16 frames, got 8; set --frames"):
        VideoMae(str(videomae))(inputs.clips(1, 8, 20, 24))
    with pytest.raises(InputError, match=r"'cdfvd' \(did you mean 'cd-fvd'\?\)"):
        VideoMae(str(videomae), "cdfvd")
    torch.save({"module": {"head.weight": torch.zeros(3, 64)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no VideoMAE classifier"):
        VideoMae(str(tmp_path / "other.pth"))
    network = VideoMae(str(videomae))
    network.model.videomae.save_pretrained(tmp_path / "headless")
    with pytest.raises(InputError, match=r"lacks fc_norm"):
        VideoMae(str(tmp_path / "headless"))


def test_inception_has_the_features_of_pytorch_fid(tmp_path: Path) -> None:
    blank = {
        name.replace("branch_pool.1.", "branch_pool."): value for name, value in new_inception().state_dict().items()
    }
    # What the published file has and we have no use for; it counts in the order of the closed form's weights.
    blank |= {"fc.weight": torch.empty(1008, 2048), "fc.bias": torch.empty(1008)}
    path = tmp_path / "inception.pth"
    torch.save({name: value for name, value in inputs.weights(blank).items() if "num_batches" not in name}, path)
    pictures = inputs.clips(1, 2, 24, 32)[0]
    for preprocessing, expected in SAID["inception"]["features"].items():
        network = Inception(path, preprocessing)
        made = network(pictures)
        assert made.shape == (2, 2048) and not network.published
        for ours, theirs in zip(made[:, ::64].tolist(), expected, strict=True):
            assert ours == pytest.approx(theirs, abs=5e-6)
    apart = [abs(a - b) for a, b in zip(*(rows[0] for rows in SAID["inception"]["features"].values()), strict=True)]
    assert max(apart) > 1e-4, "the two preprocessings differ"
    with pytest.raises(InputError, match="no weights of FID's Inception"):
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
        Inception(path)
