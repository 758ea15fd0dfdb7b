"""Frames that will not belong together are told of: no temporal layers, or none that is trained."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.inflater import inflate
from inflate.models.apart import NO_LAYERS, NOT_TRAINED, FramesApartWarning, why_apart
from tests.inflater.tiny_models import perturb
from tests.models.tiny_family import save_tiny_family, tiny_unet


@pytest.mark.parametrize("scheme", ["make-a-video", "animatediff-v2", "lean"])
def test_new_layers_are_told_from_trained_ones(scheme: str) -> None:
    image_model = tiny_unet().eval()
    assert why_apart(image_model) == NO_LAYERS
    video_model = inflate(image_model, scheme, 4).eval()
    assert why_apart(video_model) == NOT_TRAINED
    perturb(video_model)
    assert why_apart(video_model) == ""


def test_schemes_without_training_are_never_untrained() -> None:
    assert why_apart(inflate(tiny_unet().eval(), "tune-a-video", 4).eval()) == ""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top, trained = tmp_path_factory.mktemp("families"), inflate(tiny_unet(), num_frames=4)
    perturb(trained)
    networks: dict[str, Any] = {"image": tiny_unet(), "new": inflate(tiny_unet(), num_frames=4), "trained": trained}
    return {name: save_tiny_family(top / name, network) for name, network in networks.items()}


@pytest.mark.parametrize(("name", "sentence"), [("image", NO_LAYERS), ("new", NOT_TRAINED), ("trained", "")])
def test_python_warns_and_generate_says_it_once(
    name: str, sentence: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cascade = Cascade.from_pretrained(folders[name], device="cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FramesApartWarning)
        cascade("sun", 1)  # one frame belongs to no other
        before = len(_said(caught))
        cascade("sun", 2)
    assert before == 0 and _said(caught) == ([sentence] if sentence else [])
    arguments = ["generate", "sun", "moon", "--model", str(folders[name]), "--frames", "4", "--device", "cpu"]
    assert main([*arguments, "-o", str(tmp_path / "out.gif")]) == 0
    assert capsys.readouterr().err.splitlines()[:-1] == ([sentence] if sentence else [])
    assert main([*arguments, "-o", str(tmp_path / "quiet.gif"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def _said(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught if one.category is FramesApartWarning]
