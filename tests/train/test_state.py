import errno
import shutil
from pathlib import Path

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


def test_no_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    _, parameters, optimizer, ema = _run(2)
    save_state(tmp_path, 2, parameters, optimizer, ema)
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(state_module, "save_file", lambda *arguments: pytest.fail("it was written"))
    with pytest.raises(InputError, match=r"it needs 17 MB, and 1 MB are free\); free some space"):
        save_state(tmp_path, 3, parameters, optimizer, ema)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def _truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.safetensors", _truncate),
        ("state.safetensors", _flip_a_bit),
        ("state.safetensors", Path.unlink),
        ("state.json", lambda path: path.write_text("{")),
        ("state.json", lambda path: path.write_text("[]")),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path, file, damage):
    _, parameters, optimizer, ema = _run(2)
    save_state(tmp_path, 1, parameters, optimizer, ema, keep=2)
    expected = {name: value.detach().clone() for name, value in parameters.items()}
    _, parameters, optimizer, ema = _run(3)
    save_state(tmp_path, 3, parameters, optimizer, ema, keep=2)
    damage(tmp_path / "step-00000003" / file)
    said = []
    _, parameters, optimizer, ema = _run(0, seed=1)
    assert load_state(tmp_path, parameters, optimizer, ema, tell=said.append) == 1
    assert all(torch.equal(value, expected[name]) for name, value in parameters.items())
    [sentence] = said
    assert "step-00000003 is damaged" in sentence and "step-00000001 is used instead" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-00000003", "step-00000001"]
    damage(tmp_path / "step-00000001" / file)
    with pytest.raises(InputError, match="cannot be read"):
        load_state(tmp_path, parameters, optimizer, ema)


def test_the_scaler_of_fp16_is_restored(tmp_path):
    _, parameters, optimizer, ema = _run(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    scaler.scale(torch.ones(1))
    scaler.load_state_dict({**scaler.state_dict(), "scale": 512.0, "_growth_tracker": 3})
    save_state(tmp_path, 1, parameters, optimizer, ema, scaler)
    other = torch.amp.GradScaler("cpu")
    assert load_state(tmp_path, parameters, optimizer, ema, other) == 1
    assert other.get_scale() == 512.0 and other.state_dict()["_growth_tracker"] == 3


def test_the_files_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    flush, put_in_place = state_module.flush, state_module.put_in_place
    monkeypatch.setattr(state_module, "flush", lambda path: done.append(path.name) or flush(path))
    monkeypatch.setattr(state_module, "put_in_place", lambda *paths: done.append("rename") or put_in_place(*paths))
    _, parameters, optimizer, ema = _run(1)
    save_state(tmp_path / "state", 1, parameters, optimizer, ema)
    assert done[:2] == ["state.safetensors", "state.json"] and done[3:] == ["rename", "state"]


def test_no_state_is_update_zero(tmp_path):
    _, parameters, optimizer, ema = _run(0)
    assert load_state(tmp_path / "none", parameters, optimizer, ema) == 0
