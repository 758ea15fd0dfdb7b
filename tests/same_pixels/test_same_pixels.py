"""Same seeds, same pixels: rebuilding rooms of the house changes no result by a bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.train.loop import train
from tests.bases.families import build, parts_of
from tests.train.conftest import tiny_family, videos  # noqa: F401  # fixtures
from tests.train.family_recipes import FAMILY_STEPS, family_options, family_recipe
from tests.train.test_finetune_models import clips, settings  # noqa: F401  # a fixture

from .keeping import check
from .results import RESULTS

UPDATES = 10
FOREIGN = ("stable-diffusion", "sd3", "karlo")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads are rounded by their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def chain() -> Cascade:
    return Cascade.from_pretrained("bundled:emoji", "cpu", keep_loaded=True)


def weights(folder: Path) -> Tensor:
    """All weights below a folder, in the order of their names."""
    found = [load_file(path) for path in sorted(folder.rglob("*.safetensors"))]
    return torch.cat([table[name].flatten().float() for table in found for name in sorted(table)])


@pytest.mark.parametrize("name", RESULTS)
def test_the_bundled_family_makes_the_same(name: str, chain: Cascade) -> None:
    check(name, RESULTS[name](chain))


@pytest.mark.parametrize("step", FAMILY_STEPS)
def test_ten_updates_end_at_the_same_weights(step: str, videos: Path, tiny_family: Path, tmp_path: Path) -> None:  # noqa: F811
    changes = {"steps": UPDATES, "checkpoint_every": UPDATES}
    recipe = family_recipe(step, videos, tmp_path / "run", family_options(step, tiny_family), **changes)
    check(f"train-{step}", weights(train(recipe, device="cpu", quiet=True)))


@pytest.mark.parametrize("family", FOREIGN)
def test_image_checkpoints_become_the_same_video_models(family: str, clips: Path, tmp_path: Path) -> None:  # noqa: F811
    torch.manual_seed(0)
    folder = build(family, tmp_path / "model")
    named = ["--model", str(folder), "--data", str(clips), "-o", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    parts = [f'options.parts.{role}="{path}"' for role, path in parts_of(family, folder).items()]
    assert main(["finetune", *named, *settings(*parts, steps=UPDATES)]) == 0
    export = tmp_path / "run" / "export"
    check(f"finetune-{family}", weights(next(path for path in export.rglob("temporal.safetensors")).parent))
    made = Cascade.from_pretrained(export, "cpu")(
        "red", 3, generator=torch.Generator().manual_seed(7), num_inference_steps=2, output_type="pt"
    ).frames
    assert isinstance(made, Tensor)
    check(f"generate-{family}", made)
