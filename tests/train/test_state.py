import errno

import pytest
import torch
from diffusers.training_utils import EMAModel

from inflate.errors import InputError
from inflate.train import state as state_module
from inflate.train.state import checkpoints, load_state, save_state


def _run(steps: int, seed: int = 0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 3)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    ema = EMAModel(list(parameters.values()), decay=0.5)
    for step in range(steps):
        _advance(model, optimizer, ema, step)
    return model, parameters, optimizer, ema


def _advance(model, optimizer, ema, step):
    generator = torch.Generator().manual_seed(step)
    model(torch.randn(5, 4, generator=generator)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    ema.step(list(model.parameters()))


def test_a_restored_run_goes_on_bit_for_bit(tmp_path):
    whole, _, _, whole_ema = _run(8)
    _, parameters, optimizer, ema = _run(5)
    save_state(tmp_path, 5, parameters, optimizer, ema)
    model, parameters, optimizer, ema = _run(0, seed=1)
    assert not torch.equal(model.weight, whole.weight)
    assert load_state(tmp_path, parameters, optimizer, ema) == 5
    for step in range(5, 8):
        _advance(model, optimizer, ema, step)
    assert torch.equal(model.weight, whole.weight) and torch.equal(model.bias, whole.bias)
    for made, expected in zip(ema.shadow_params, whole_ema.shadow_params, strict=True):
        assert torch.equal(made, expected)


def test_only_the_newest_checkpoint_stays(tmp_path):
    _, parameters, optimizer, ema = _run(1)
    for step in (1, 2, 3):
        save_state(tmp_path, step, parameters, optimizer, ema)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003"]


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    _, parameters, optimizer, ema = _run(2)
    save_state(tmp_path, 2, parameters, optimizer, ema)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_module, "save_file", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        save_state(tmp_path, 3, parameters, optimizer, ema)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert load_state(tmp_path, parameters, optimizer, ema) == 2


def test_no_state_is_update_zero(tmp_path):
    _, parameters, optimizer, ema = _run(0)
    assert load_state(tmp_path / "none", parameters, optimizer, ema) == 0
