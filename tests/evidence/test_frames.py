import pytest
import torch

from geo4d.evidence.frames import (
    MotionConfig,
    MotionEvidence,
    evidence_for_window,
    first_frame_needed,
    fit_motion,
    iter_evidence,
    usable_pixels,
)
from geo4d.types import Prior, Window


@pytest.fixture(scope="module")
def room_motion(make_room):
    scene = make_room(num_frames=14, size=(96, 128), focal=100.0, travel=0.9, turn=0.15)
    config = MotionConfig(num_planes=24, look_around=5, chunk=4)
    motion = fit_motion(scene.rgb, config=config, known_intrinsics=scene.intrinsics[0])
    small = scene.rgb[:, ::2, ::2]
    return scene, config, motion, small, list(iter_evidence(motion, small, config=config))


def test_every_frame_is_swept_once_and_right(room_motion):
    scene, _, motion, _, maps = room_motion
    assert [m.frame_index for m in maps] == list(range(14))
    assert motion.shots[0].kind == "parallax"
    depth = torch.stack([1 / m.disparity for m in maps])
    confidence = torch.stack([m.confidence for m in maps])
    ratio = depth / scene.depth[:, ::2, ::2]
    ratio = ratio / ratio[confidence > 0.3].median()
    good = (torch.maximum(ratio, 1 / ratio) < 1.25).float()
    assert (confidence > 0.3).float().mean() > 0.4
    assert good[confidence > 0.3].mean() > 0.95


def test_a_resumed_run_gives_the_same_numbers(room_motion):
    _, config, motion, small, maps = room_motion
    first = first_frame_needed(11, config)
    assert 0 < first < 8
    again = {m.frame_index: m for m in iter_evidence(motion, small[first:], first_frame=first, config=config)}
    for frame in (11, 12, 13):
        assert torch.equal(again[frame].disparity, maps[frame].disparity)
        assert torch.equal(again[frame].confidence, maps[frame].confidence)


def test_maps_of_another_size_show_the_same_points(room_motion):
    scene, _, _, _, maps = room_motion
    found = maps[5]
    larger = found.resized((96, 128))  # twice the size: every pixel four times
    assert torch.equal(larger.disparity[::2, ::2], found.disparity)
    assert torch.equal(larger.confidence[1::2, 1::2], found.confidence)
    torch.testing.assert_close(larger.intrinsics[:2] / 2, found.intrinsics[:2])
    again = larger.resized((48, 64))
    assert torch.equal(again.disparity, found.disparity)
    # Onto the pictures' own size: the depth of the room, not only numbers that were moved about.
    ratio = 1 / larger.disparity / scene.depth[5]
    sure = larger.confidence > 0.3
    ratio = ratio[sure] / ratio[sure].median()
    assert (torch.maximum(ratio, 1 / ratio) < 1.25).float().mean() > 0.95


def test_windows_get_their_maps_in_order(room_motion):
    _, config, motion, _, maps = room_motion
    evidence = MotionEvidence(motion, iter(maps), keep=6, config=config)
    assert isinstance(evidence, Prior)

    def window(frames):
        return Window(
            torch.zeros(len(frames), 4, 4, 3),
            torch.tensor(frames),
            torch.tensor(frames).double(),
            0,
            25.0,
        )

    for frames in ([0, 1, 2, 3], [2, 3, 4, 5], [6, 8, 10]):
        found = evidence(window(frames))
        expected = evidence_for_window(motion, [maps[f] for f in frames])
        assert torch.equal(found.points, expected.points)
        assert torch.equal(found.mask, usable_pixels(found.confidence))
        assert torch.isfinite(found.points).all()
        torch.testing.assert_close(found.points[..., 2], 1 / torch.stack([maps[f].disparity for f in frames]))
    with pytest.raises(ValueError, match="in order"):
        evidence(window([0, 1]))
    with pytest.raises(ValueError, match="in order"):
        evidence(window([13, 14]))


def test_without_parallax_the_mask_is_empty(make_room):
    scene = make_room(num_frames=6, size=(72, 96), travel=0.0, turn=0.2)
    motion = fit_motion(scene.rgb)
    maps = list(iter_evidence(motion, scene.rgb))
    evidence = evidence_for_window(motion, maps)
    assert motion.shots[0].kind == "rotation"
    assert not evidence.mask.any()
    assert torch.isfinite(evidence.points).all()
    assert evidence.camera_confidence.min() > 0.5


def test_a_black_video_passes_through():
    video = torch.zeros(5, 40, 56, 3)
    motion = fit_motion(video)
    evidence = evidence_for_window(motion, iter_evidence(motion, video))
    assert not evidence.mask.any()
    assert evidence.camera_confidence.max() == 0
    assert all("placeholder" in s.statement for s in motion.shots)


def test_less_sure_pixels_count_only_among_many_sure_ones():
    confidence = torch.full((2, 10, 10), 0.01)
    confidence[:, :4] = 0.1
    few, many = confidence.clone(), confidence.clone()
    few[:, 5] = 0.3
    many[:, 5:8] = 0.3
    assert torch.equal(usable_pixels(few), few >= 0.2)
    assert torch.equal(usable_pixels(many), many >= 0.05)
    assert torch.equal(usable_pixels(torch.stack([few, many])), torch.stack([few >= 0.2, many >= 0.05]))
