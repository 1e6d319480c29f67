"""``benchmarks/speed.py``: its arithmetic on results that are known, and the whole of it at the smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import speed
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps
from tests.support.stored import MANIFEST_REST

ROOT = Path(__file__).parents[1]


def stored(folder: Path, depth: np.ndarray, c2w: np.ndarray) -> Path:
    """A result with these depths and cameras."""
    count, height, width = depth.shape
    writer = StoreWriter(folder, count, (height, width), "float32")
    for t in range(count):
        map_t = torch.from_numpy(depth[t].astype(np.float32))
        writer.write(FrameMaps(t, map_t, torch.ones_like(map_t), torch.zeros_like(map_t)))
    arrays = {
        "c2w": c2w.astype(np.float32),
        "intrinsics": np.tile(
            np.array([[50.0, 0, width / 2], [0, 50, height / 2], [0, 0, 1]], np.float32), (count, 1, 1)
        ),
        "times_s": np.arange(count) / 24.0,
        "source_frames": np.arange(count),
    }
    writer.finish(arrays, MANIFEST_REST, {})
    return folder


@pytest.fixture
def truth(tmp_path):
    """Five frames of 16x24 shown back and forth as eight, and where their truth is kept."""
    generator = np.random.default_rng(0)
    depth = generator.uniform(1, 9, (5, 16, 24)).astype(np.float32)
    c2w = np.tile(np.eye(4), (5, 1, 1))
    c2w[:, :3, 3] = generator.uniform(-1, 1, (5, 3))
    order = speed.back_and_forth(5, 8)
    step, half = speed.PIXELS, speed.PIXELS // 2
    np.savez(tmp_path / "truth.npz", depth=depth[:, half::step, half::step], c2w=c2w, order=order)
    return depth, c2w, order


def test_frames_go_back_and_forth() -> None:
    assert speed.back_and_forth(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert speed.back_and_forth(4, 3).tolist() == [0, 1, 2]
    assert speed.back_and_forth(1, 3).tolist() == [0, 0, 0]


def test_the_truth_in_another_unit_has_no_error_and_a_false_depth_has_its_own(tmp_path, truth) -> None:
    depth, c2w, order = truth
    turned = c2w.copy()
    turned[:, :3, 3] *= 3
    exact = stored(tmp_path / "exact", 3 * depth[order], turned[order])
    scores = speed.accuracy(exact, tmp_path / "truth.npz")
    assert scores["abs_rel"] < 1e-5
    assert scores["delta_125"] == 1
    assert scores["ate"] < 1e-4
    false = 3 * depth[order]
    false[:, :, :7] *= 1.5  # fewer than half of the pixels: the factor stays
    scores = speed.accuracy(stored(tmp_path / "false", false, c2w[order]), tmp_path / "truth.npz")
    share = np.mean(np.arange(2, 24, 4) < 7)
    assert scores["abs_rel"] == pytest.approx(0.5 * share, abs=1e-4)
    assert scores["delta_125"] == pytest.approx(1 - share, abs=1e-4)
    apart = speed.difference(exact, tmp_path / "false")
    assert apart["median_relative"] < 1e-5
    assert apart["share_beyond_1_percent"] == pytest.approx(np.mean(np.arange(0, 24, 4) < 7), abs=1e-4)


def test_medians_and_ratios() -> None:
    def run(wall: float, network: float) -> dict:
        return {"first_line_s": 1.0, "wall_s": wall, "cpu_s": 2 * wall, "peak_mb": 100, "network_wall_s": network,
                "stages_s": {"write": wall / 2}, "stages_cpu_s": {}}  # fmt: skip

    middle = {
        "before": speed.summary([run(10, 2), run(12, 3), run(30, 4)], 5.0),
        "after": speed.summary([run(6, 2), run(6, 1), run(6, 3)], 5.0),
    }
    assert middle["before"]["wall_s"] == 12
    assert middle["before"]["wall_without_network_s"] == 9
    assert middle["before"]["cpu_without_network_s"] == 19
    ratio = speed.ratios(middle)
    assert ratio["wall_s"] == 0.5
    assert ratio["stages write"] == 0.5


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a git checkout")
def test_the_whole_at_the_smallest_size(tmp_path) -> None:
    pytest.importorskip("numba")
    size = ["--frames", "4", "--size", "96", "64", "--repeat", "1", "--fusion", "24x64x96"]
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--against", "HEAD", *size]
    command += ["--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.glob("*-speed.json")
    found = json.loads(written.read_text())
    process, fusion = found["cases"]["clip.mp4, 4 frames"], found["cases"]["fusion 24x64x96"]
    for side in ("before", "after"):
        (run,) = process["runs"][side]
        assert 0 < run["first_line_s"] < run["wall_s"]
        assert (
            0 < run["network_wall_s"] < run["stages_s"]["predict"] + 0.1
        )  # the network is part of its stage
        assert 0 < process["network_cpu_s"][side] < run["cpu_s"]
        assert process["accuracy"][side]["abs_rel"] < 1
        assert fusion["median"][side]["abs_rel"] < 0.1
    assert {"cpu_s", "wall_without_network_s", "first_line_s"} <= set(process["ratio"])
    assert {"median_relative", "share_beyond_1_percent"} <= set(process["difference"])
    assert found["machine_before"]["cores"] > 0
