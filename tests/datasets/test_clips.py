from dataclasses import replace

import numpy as np
import pytest

from geo4d.datasets.base import Sequence
from geo4d.datasets.clips import Cover, cut_clips
from geo4d.datasets.pieces import constant_intrinsics
from geo4d.errors import InputError

SIZE = (12, 20)


def sequence(num_frames: int = 7, **changes) -> Sequence:
    rng = np.random.default_rng(0)
    depth = 1 + rng.random((num_frames, *SIZE)).astype(np.float32)
    depth[:, 0, 0], depth[:, 0, 1] = np.nan, np.inf
    values = {
        "name": "s",
        "dataset": "test",
        "times_s": np.arange(num_frames) / 10,
        "size": SIZE,
        "rgb": rng.random((num_frames, *SIZE, 3), np.float32),
        "depth": depth,
        "intrinsics": constant_intrinsics(num_frames, 18, 17, 10, 6, integer_centres=False),
        "c2w": np.tile(np.eye(4), (num_frames, 1, 1)),
        "dynamic": rng.random((num_frames, *SIZE)) > 0.5,
    }
    return Sequence(**{**values, **changes})


def test_clips_follow_each_other_without_overlap_or_gap() -> None:
    whole = sequence()
    clips = list(cut_clips(whole, length=3))
    assert [clip.num_frames for clip in clips] == [3, 3, 1]
    assert [clip.name for clip in clips] == ["s@0", "s@3", "s@6"]
    np.testing.assert_array_equal(np.concatenate([clip.depth for clip in clips]), whole.depth)
    np.testing.assert_array_equal(np.concatenate([clip.times_s for clip in clips]), whole.times_s)
    np.testing.assert_array_equal(np.concatenate([clip.dynamic for clip in clips]), whole.dynamic)
    rgb = np.concatenate([clip.rgb for clip in clips])
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.round(whole.rgb * 255))


def test_without_poses_or_masks_there_are_none() -> None:
    clip = next(cut_clips(sequence(c2w=None, dynamic=None)))
    assert clip.c2w is None
    assert clip.dynamic is None
    assert clip.size == SIZE


@pytest.mark.parametrize("name", ["rgb", "depth", "intrinsics"])
def test_what_training_needs_is_named_when_it_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match=rf"test sequence s, without {name}"):
        next(cut_clips(sequence(**{name: None})))


def test_pictures_of_other_proportions_are_refused() -> None:
    with pytest.raises(InputError, match=r"proportions of the depth maps \(12, 20\) in s, got \(24, 50\)"):
        next(cut_clips(sequence(rgb=np.zeros((7, 24, 50, 3), np.float32))))
    next(cut_clips(sequence(rgb=np.zeros((7, 24, 40, 3), np.float32))))  # twice as large is fine


@pytest.mark.parametrize("target", [(12, 20), (8, 8), (24, 40), (16, 12), (30, 21)])
@pytest.mark.parametrize("zoom", [1.0, 1.4])
def test_a_cover_fills_its_target_and_hardly_more(target, zoom) -> None:
    cover = Cover(SIZE, target, zoom)
    assert all(r >= t for r, t in zip(cover.resized, target, strict=True))
    scale = min(cover.resized[0] / target[0], cover.resized[1] / target[1])
    assert scale == pytest.approx(zoom, rel=0.1)
    assert cover.map(np.zeros(SIZE, np.float32)).shape == target
    assert cover.picture(np.zeros((*SIZE, 3), np.uint8)).shape == (*target, 3)
    assert all(c >= 0 for c in cover.corner)


def test_depth_is_never_a_mixture() -> None:
    clip = next(cut_clips(sequence(), size=(7, 9)))
    known = set(sequence().depth[0].ravel().tolist())
    assert all(value in known or value != value for value in clip.depth[0].ravel().tolist())


def test_a_point_stays_on_its_pixel() -> None:
    """A picture whose colour is its own position: where a point falls must show the same place as before."""
    height, width = 60, 100
    y, x = np.mgrid[:height, :width] + 0.5
    picture = np.stack([x, y, 0 * x], -1).astype(np.float32)
    K = constant_intrinsics(1, 80, 90, 47, 33, integer_centres=False)
    cover = Cover((height, width), (40, 40), 1.3)
    moved, place = cover.intrinsics(K)[0], cover.picture(picture)
    for ray in ([0.05, 0.1, 1], [-0.1, 0.02, 1], [0.0, 0.0, 1]):
        before, after = K[0] @ ray, moved @ ray
        column, row = after[:2].astype(int)
        assert 0 <= row < 40
        assert 0 <= column < 40
        # The colour at the pixel's middle, brought to where the point is in it.
        scale = np.array([cover.resized[1] / width, cover.resized[0] / height])
        shown = place[row, column, :2] + (after[:2] - (np.array([column, row]) + 0.5)) / scale
        np.testing.assert_allclose(shown, before[:2], atol=0.6)


def test_extras_do_not_decide_what_a_clip_is() -> None:
    clip = next(cut_clips(sequence(), still=True))
    assert clip.still
    assert replace(clip, extras={"a": b"1"}).num_frames == clip.num_frames


def make_sequence(frames=7, size=(12, 20), rgb_size=None, **changes):
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    depth = np.stack([1 + 0.05 * x + 0.02 * y + t for t in range(frames)]).astype(np.float32)
    height, width = rgb_size or size
    rgb = np.repeat(np.linspace(0, 1, width, dtype=np.float32)[None, :, None], 3, -1)
    fields = {
        "name": "s",
        "dataset": "test",
        "times_s": np.arange(frames) / 10,
        "size": size,
        "rgb": np.broadcast_to(rgb, (frames, height, width, 3)),
        "depth": depth,
        "intrinsics": constant_intrinsics(frames, 15, 15, 10, 6, integer_centres=False),
        **changes,
    }
    return Sequence(**fields)


def test_clips_cover_a_sequence_without_overlap():
    clips = list(cut_clips(make_sequence(frames=7), length=3))
    assert [clip.num_frames for clip in clips] == [3, 3, 1]
    assert [clip.name for clip in clips] == ["s@0", "s@3", "s@6"]
    np.testing.assert_allclose(np.concatenate([clip.times_s for clip in clips]), np.arange(7) / 10)


@pytest.mark.parametrize("target", [(8, 16), (24, 24), (12, 20), (30, 20)])
def test_a_point_stays_where_it_is_when_pictures_are_resized_and_cut(target):
    sequence = make_sequence(frames=1)
    clip = next(cut_clips(sequence, size=target))
    assert clip.size == target
    matrix, before = clip.intrinsics[0], sequence.intrinsics[0]
    for row, column in ((0, 0), (target[0] - 1, target[1] - 1), (target[0] // 2, 3)):
        ray = np.linalg.inv(matrix) @ [column + 0.5, row + 0.5, 1]
        x, y, _ = before @ ray  # the same ray in the picture before
        # Depth is the nearest pixel's: within half a pixel of the plane at the ray.
        assert clip.depth[0, row, column] == pytest.approx(1 + 0.05 * x + 0.02 * y, abs=0.036)
        inside = 1 < x < 19
        if inside:
            assert clip.rgb[0, row, column, 0] / 255 == pytest.approx((x - 0.5) / 19, abs=0.03)


def test_colour_of_another_size_and_what_is_missing():
    clip = next(cut_clips(make_sequence(rgb_size=(24, 40)), size=(6, 10)))
    assert clip.rgb.shape == (7, 6, 10, 3)
    with pytest.raises(InputError, match="proportions"):
        next(cut_clips(make_sequence(rgb_size=(24, 20))))
    with pytest.raises(InputError, match="intrinsics"):
        next(cut_clips(make_sequence(intrinsics=None)))
    assert Cover((436, 1024), (320, 640)).resized == (320, 752)
