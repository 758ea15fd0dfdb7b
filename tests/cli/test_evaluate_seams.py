import json
from pathlib import Path

import pytest
from PIL import Image

from inflate.cli.app import main
from tests.models.tiny_family import save_tiny_family


def test_seams_of_windows_and_of_clips_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, report, sheet = tmp_path / "family", tmp_path / "seams.json", tmp_path / "seams.png"
    save_tiny_family(family)
    arguments = ["evaluate", "seams", str(family), "--prompt", "sun", "--frames", "40", "--steps", "1", "--quiet"]
    code = main([*arguments, "--json", str(report), "--sheet", str(sheet), "--device", "cpu"])
    found = json.loads(report.read_text())
    assert code == (0 if found["windows"]["passes"] else 1)
    assert found["windows"]["seams"] > found["end to end"]["seams"] > 0
    printed = capsys.readouterr().out
    assert "windows: " in printed and "clips end to end: " in printed and "95th percentile" in printed
    with Image.open(sheet) as picture:
        assert picture.width > 2 * 16
    assert main([*arguments, "--frames", "4"]) == 2
    assert "more frames than it sees at once" in capsys.readouterr().err
