"""What moves, as a run keeps it."""

import torch

from geo4d.evidence.moving import MovingMaps, find_moving
from geo4d.run.evidence import find_motion
from geo4d.video.io import Video


def nothing(stage: str, done: int, total: int) -> None:
    pass


def test_the_walking_person_of_the_example_moves_and_the_room_does_not(repository, tmp_path) -> None:
    with Video(repository / "examples/clip.mp4", stop=10) as clip:
        motion = find_motion(clip, None, tmp_path, nothing)
        stages: list[tuple[str, int, int]] = []
        moving = find_moving(clip, motion, tmp_path, lambda *progress: stages.append(progress))
        assert stages[-1] == ("find what moves", 10, 10)
        assert moving.everywhere
        probability = moving.at(5, clip.size)
        assert probability is not None
        assert probability.shape == clip.size
        assert float(probability[60:170, 195:215].mean()) > 0.4  # the person
        assert float(probability[:, :150].mean()) < 0.1
        # A second call finds the files, and reads the same.
        again = find_moving(clip, motion, tmp_path, lambda *progress: stages.append(("again", 0, 0)))
        assert ("again", 0, 0) not in stages
        same = again.at(5, clip.size)
        assert same is not None
        assert torch.equal(same, probability)
        # A damaged file is made anew.
        (tmp_path / "moving_0000.zarr.zip").write_bytes(b"damaged")
        anew = find_moving(clip, motion, tmp_path, nothing).at(5, clip.size)
        assert anew is not None
        assert torch.equal(anew, probability)


def test_frames_without_cameras_have_no_map(repository, tmp_path) -> None:
    from dataclasses import replace

    with Video(repository / "examples/clip.mp4", stop=4) as clip:
        motion = find_motion(clip, None, tmp_path, nothing)
        unknown = replace(motion, confidence=torch.zeros_like(motion.confidence))
        moving = MovingMaps(tmp_path, unknown)
        assert moving.at(0, (8, 8)) is None
        assert not moving.everywhere
