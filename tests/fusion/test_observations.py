from importlib import import_module

import numpy as np
import pytest
import torch

from geo4d.errors import OutputError
from geo4d.fusion import observations, start_cameras
from geo4d.fusion.observations import Observations
from geo4d.optimise import scratch
from tests.optimise.test_scratch import resident_bytes

align = import_module("geo4d.fusion.align")


def rows_of(windows, *, generator):
    return [
        {
            "points": torch.randn(count, 3, 7, generator=generator),
            "weight": torch.rand(count, 7, generator=generator),
        }
        for count in windows
    ]


@pytest.mark.parametrize("held", [0, 500, 10**6])
def test_rows_come_back_in_the_order_asked_for(tmp_path, monkeypatch, generator, held):
    monkeypatch.setattr(observations, "HELD_BYTES", held)
    monkeypatch.setattr(observations, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(scratch, "RESIDENT_BYTES", 64)
    windows = rows_of((4, 1, 5, 3), generator=generator)
    kept = Observations(tmp_path, "cpu")
    for maps in windows:
        kept.add(maps)
    order = torch.randperm(13, generator=generator)
    found, stores = kept.ordered(order)
    assert len(stores) == (0 if held == 10**6 else 2)
    for name, values in found.items():
        assert torch.equal(values, torch.cat([maps[name] for maps in windows])[order])
    assert list(tmp_path.iterdir()) == []


def test_many_rows_are_not_held_in_memory(tmp_path):
    kept, piece = Observations(tmp_path, None), torch.ones(16, 2**16)
    before, most = resident_bytes(), 0
    for _ in range(64):  # 256 MiB
        kept.add({"weight": piece.clone()})
        most = max(most, resident_bytes())
    found, _ = kept.ordered(torch.arange(64 * 16))
    assert max(most, resident_bytes()) - before < 64 * 2**20
    assert float(found["weight"][1000, 5]) == 1.0


def test_no_room_on_the_disk_is_said(tmp_path, monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    monkeypatch.setattr(observations, "HELD_BYTES", 0)
    with pytest.raises(OutputError, match=f"{tmp_path}.* 60 bytes of work space"):
        Observations(tmp_path, None).add({"weight": torch.ones(3, 5)})


@pytest.mark.parametrize(
    "windows", [None, [[*range(8)], [*range(4, 12)], [*range(12, 20)], [*range(16, 24)]]]
)
def test_an_alignment_is_the_same_bit_by_bit_on_disk(tmp_path, monkeypatch, make_wall, windows):
    wall = make_wall(num_frames=24, windows=windows)
    taken = []
    usual = align.take_samples

    def solve():
        def watched(*words, **rest):
            taken.append(usual(*words, **rest))
            return taken[-1]

        monkeypatch.setattr(align, "take_samples", watched)
        return align.align(wall.predictions, num_frames=24, scratch=tmp_path)

    held = solve()
    monkeypatch.setattr(observations, "HELD_BYTES", 0)
    monkeypatch.setattr(scratch, "RESIDENT_BYTES", 256)
    spilt = solve()
    assert [len(samples.stores) for samples in taken] == [0, 4]
    assert len(held.scene.unique()) == (1 if windows is None else 2)
    for name in ("c2w", "intrinsics", "window_similarity", "disparity_scale", "trajectory_similarity"):
        np.testing.assert_array_equal(getattr(spilt, name).numpy(), getattr(held, name).numpy())
    assert list(tmp_path.iterdir()) == []


def test_windows_are_placed_the_same_whatever_is_worked_on_together(monkeypatch, make_wall):
    wall = make_wall(num_frames=24)
    together = align.align(wall.predictions, num_frames=24)
    monkeypatch.setattr(start_cameras, "WINDOWS_AT_ONCE", 1)
    apart = align.align(wall.predictions, num_frames=24)
    np.testing.assert_allclose(apart.c2w.numpy(), together.c2w.numpy(), atol=1e-9)
