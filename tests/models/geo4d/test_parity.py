"""Equality with recorded outputs of the authors' code, through the same command that checks whole folders."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
SLOW = ("ddim", "end_to_end")
CASES = sorted([*GOLDEN.glob("*.npz"), *GOLDEN.glob("windows*.json")])


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=[pytest.mark.slow] if f.name.startswith(SLOW) else [], id=f.stem) for f in CASES],
)
def test_recorded_case(parity: ModuleType, file: Path) -> None:
    cases = parity.load_cases()
    comparisons = cases[parity.match_prefix(file.name, cases)].check(file, GOLDEN)
    assert comparisons
    missed = [c for c in comparisons if not c.passed]
    assert not missed


def test_command_counts_failures(
    parity: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(GOLDEN / "train_loss.npz") as arrays:
        data = dict(arrays)
    np.savez(tmp_path / "normalise_unknown.npz", nothing=np.zeros(1))
    np.savez(tmp_path / "mystery.npz", nothing=np.zeros(1))
    (tmp_path / "windows.json").write_text('{"T20_stride4": [[0, 16], [4, 20], [4, 20]]}')
    (tmp_path / "windows_wrong.json").write_text('{"T20_stride4": [[0, 16], [4, 20]]}')
    np.savez(tmp_path / "train_loss_a.npz", **data)
    assert parity.main(["--reference", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    for name in ("normalise_unknown.npz", "mystery.npz", "windows_wrong.json"):
        assert f"failed: {name}" in printed
    assert "failed: windows.json" not in printed
    assert parity.main(["--reference", str(tmp_path), "--only", "windows.json"]) == 0


@pytest.mark.parametrize(
    ("predicted", "reference", "passed"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, 2.0], [1.0, np.nan], False),
        ([1.0, np.nan], [1.0, 2.0], False),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1.0], [1.0, 2.0], False),
        ([1.0, 2.0 + 1e-4], [1.0, 2.0], False),
        ([1.0, 2.0 + 1e-6], [1.0, 2.0], True),
    ],
)
def test_compare(parity: ModuleType, predicted: list[float], reference: list[float], passed: bool) -> None:
    assert parity.compare("x", predicted, reference, "module").passed is passed


def test_longest_prefix_wins(parity: ModuleType) -> None:
    cases = {"unet_": 1, "unet_small_": 2}
    assert parity.match_prefix("unet_small_a.npz", cases) == "unet_small_"
    assert parity.match_prefix("unet_a.npz", cases) == "unet_"
    assert parity.match_prefix("other.npz", cases) is None
