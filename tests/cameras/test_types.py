import pytest
import torch

from geo4d.cameras.types import MotionCameras, ShotMotion


def shot(start: int, stop: int) -> ShotMotion:
    return ShotMotion(start, stop, "parallax", 500.0, 0.1, 3.0, 0.2, 40, 0.5, f"{start} to {stop}")


def test_every_frame_belongs_to_one_shot() -> None:
    shots = (shot(0, 4), shot(4, 5), shot(5, 9))
    cameras = MotionCameras(
        torch.eye(4).double().repeat(9, 1, 1), torch.eye(3).double().repeat(9, 1, 1), (4, 6), torch.ones(9).double(),
        shots, torch.zeros(0, 3).double(), torch.zeros(0).long(), torch.ones(9, 2).double(),
    )  # fmt: skip
    assert [cameras.shot_of(frame).statement for frame in (0, 3, 4, 5, 8)] == [
        "0 to 4",
        "0 to 4",
        "4 to 5",
        "5 to 9",
        "5 to 9",
    ]
    with pytest.raises(StopIteration):
        cameras.shot_of(9)
