"""Sequence checks, lazy views, and the public samples where a folder with them is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import load_ground_truth, load_reader
from geo4d.datasets.pieces import associate_nearest, constant_intrinsics, natural_key, same_stems
from geo4d.datasets.views import centre_crop, select
from geo4d.errors import InputError
from geo4d.geometry.cameras import project, unproject
from geo4d.geometry.poses import inverse, transform


def make(frames=4, size=(6, 8), **changes):
    rng = np.random.default_rng(0)
    fields = {
        "name": "a",
        "dataset": "test",
        "times_s": np.arange(frames) / 10,
        "size": size,
        "rgb": rng.random((frames, *size, 3), np.float32),
        "depth": rng.random((frames, *size), np.float32) + 1,
        "intrinsics": constant_intrinsics(frames, 10, 10, 4, 3, integer_centres=False),
        "c2w": np.tile(np.eye(4), (frames, 1, 1)),
        **changes,
    }
    return Sequence(**fields)


def test_lengths_sizes_and_times_are_checked():
    with pytest.raises(InputError, match="c2w"):
        make(c2w=np.eye(4)[None])
    with pytest.raises(InputError, match="size"):
        make(size=(5, 8), depth=np.ones((4, 6, 8), np.float32))
    with pytest.raises(InputError, match="frame 2"):
        make(times_s=np.array([0.0, 0.1, 0.1, 0.2]))
    with pytest.raises(InputError, match="found none"):
        make(frames=0)


def test_views_are_lazy_and_consistent():
    sequence = make()
    part = select(sequence, slice(1, 4, 2))
    assert part.num_frames == 2
    np.testing.assert_array_equal(part.depth[1], sequence.depth[3])
    np.testing.assert_array_equal(part.times_s, sequence.times_s[[1, 3]])
    cropped = centre_crop(sequence, (4, 4))
    np.testing.assert_array_equal(cropped.depth[0], sequence.depth[0][1:5, 2:6])
    np.testing.assert_array_equal(cropped.rgb[2], sequence.rgb[2][1:5, 2:6])
    # The same point lands on the same pixel of the crop.
    np.testing.assert_allclose(cropped.intrinsics[0, :2, 2], sequence.intrinsics[0, :2, 2] - [2, 1])
    with pytest.raises(ValueError, match="at least"):
        centre_crop(sequence, (7, 4))


def test_association_and_order():
    assert associate_nearest(np.array([1.0, 2.0, 9.0]), np.array([2.01, 0.99]), 0.02).tolist() == [1, 0, -1]
    assert associate_nearest(np.array([1.0]), np.zeros(0), 1.0).tolist() == [-1]
    assert sorted(["f10", "f9", "f1b2"], key=natural_key) == ["f1b2", "f9", "f10"]


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="sintel"):
        load_reader("sintell")
    with pytest.raises(InputError, match="expected a folder"):
        load_ground_truth("/nonexistent/folder")


def test_unrecognised_folder(tmp_path):
    with pytest.raises(InputError, match="known layout"):
        load_ground_truth(tmp_path)


# name -> (frames, other frame, median relative error that its README states, with a margin of a quarter)
WARPS = {
    "tartanair-office-sample": (17, ((8, 0.0010), (16, 0.0016))),
    "hololens-dvmvs-sample": (24, ((12, 0.0034), (23, 0.0076))),
    "iclnuim-livingroom1-sample": (48, ((24, 0.00125), (47, 0.0021))),
    "tum-fr1-rpy-sample": (18, ((8, 0.0138),)),
}


def warp_error(sequence, first, second):
    """Median relative difference between depth moved from one frame to another and the depth there."""
    matrix = torch.from_numpy(sequence.intrinsics).double()
    source, target = (torch.from_numpy(np.asarray(sequence.depth[t])).double() for t in (first, second))
    points = unproject(source, matrix[first])[torch.isfinite(source)]
    c2w = torch.from_numpy(np.asarray(sequence.c2w)).double()
    pixels, z = project(transform(inverse(c2w[second]) @ c2w[first], points), matrix[second])
    height, width = sequence.size
    inside = (z > 0) & (pixels >= 0).all(-1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    column, row = pixels[inside].long().unbind(-1)
    there = target[row, column]
    known = torch.isfinite(there)
    return float(((there - z[inside]) / z[inside])[known].abs().median())


@pytest.mark.skipif("GEO4D_SHARED" not in os.environ, reason="GEO4D_SHARED names no folder with data samples")
@pytest.mark.parametrize("name", WARPS)
def test_depth_and_cameras_of_the_samples_agree(name):
    num_frames, pairs = WARPS[name]
    sequence = load_ground_truth(Path(os.environ["GEO4D_SHARED"]) / "data" / name)
    assert sequence.num_frames == num_frames
    for other, limit in pairs:
        assert warp_error(sequence, 0, other) < limit
    # The wrong direction of the poses is far off, so the check can fail.
    turned = inverse(torch.from_numpy(np.asarray(sequence.c2w)).double()).numpy()
    wrong = Sequence(**{**vars(sequence), "c2w": turned})
    assert warp_error(wrong, 0, pairs[0][0]) > 2 * pairs[0][1]


@pytest.mark.skipif("GEO4D_SHARED" not in os.environ, reason="GEO4D_SHARED names no folder with data samples")
def test_sparse_and_pose_only_samples():
    data = Path(os.environ["GEO4D_SHARED"]) / "data"
    kitti = load_ground_truth(data / "kitti-odometry-sample")
    steps = np.linalg.norm(np.diff(kitti.c2w[:, :3, 3], axis=0), axis=1)
    assert kitti.num_frames == 20
    assert steps.sum() == pytest.approx(22.7, abs=0.1)
    pavilion = load_ground_truth(data / "pavilion-chair-sample")
    np.testing.assert_allclose(pavilion.intrinsics[0], [[700, 0, 320], [0, 700, 180], [0, 0, 1]], atol=0.01)
    euroc = load_ground_truth(data / "euroc-v101-format-sample")
    assert euroc.num_frames == 4
    assert np.isfinite(euroc.c2w).all()
    sweep = load_ground_truth(data / "dgp-ddad-format-sample")
    depth = sweep.depth[0]
    assert np.isfinite(depth).sum() == pytest.approx(4819, abs=25)
    assert np.nanmedian(depth) == pytest.approx(11.4, abs=0.1)
    assert np.nanpercentile(depth, 99) == pytest.approx(167, abs=1)
    assert warp_error(sweep, 0, 1) < 0.01  # the car stands nearly still
    lidar = load_ground_truth(data / "kitti-depth-sample")
    assert lidar.num_frames == 3
    assert 0.17 < np.isfinite(lidar.depth[0]).mean() < 0.23


def paths(*names):
    return [Path(name) for name in names]


def test_partners_are_found_by_number_not_by_position():
    reader = load_reader("folder")
    frames = paths("000001.png", "000002.png", "000010.png")
    found = same_stems(frames, paths("d_10.npy", "d_1.npy", "d_2.npy"), reader, Path("x"), "depth maps")
    assert found == paths("d_1.npy", "d_2.npy", "d_10.npy")
    # Other numbers in the names do not matter, as long as the last one is the frame's.
    found = same_stems(paths("v2_7.png"), paths("v3_depth16_7.npy"), reader, Path("x"), "depth maps")
    assert found == paths("v3_depth16_7.npy")
    found = same_stems(paths("b.png", "a.png"), paths("a.npy", "b.npy"), reader, Path("x"), "depth maps")
    assert found == paths("b.npy", "a.npy")


@pytest.mark.parametrize(
    ("frames", "maps", "lonely"),
    [
        (("1.png", "2.png", "4.png"), ("1.npy", "3.npy", "4.npy"), "2.png"),  # as many, another frame
        (("1.png", "2.png"), ("1.npy",), "2.png"),
        (("1.png",), ("1.npy", "2.npy"), "names"),
        (("a.png", "b.png"), ("x.npy", "y.npy"), "a.png"),
    ],
)
def test_files_without_a_partner_are_refused(frames, maps, lonely):
    with pytest.raises(InputError, match=lonely):
        same_stems(paths(*frames), paths(*maps), load_reader("folder"), Path("x"), "depth maps")
