import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import (
    READERS,
    find_sequences,
    load_ground_truth,
    load_reader,
    reader_names,
    recognise,
)
from geo4d.errors import InputError
from geo4d.geometry.cameras import project, unproject
from geo4d.geometry.poses import inverse, transform
from tests.support.packages import offer


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


@pytest.mark.parametrize("name", READERS)
def test_wrong_folder_says_what_is_expected_and_where_to_get_it(name, tmp_path):
    reader = load_reader(name)
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as error:
            find_sequences(reader, root)
        assert reader.url in str(error.value)
        assert reader.layout in str(error.value)


FOREIGN = """
from pathlib import Path
from geo4d.datasets.base import Reader
def find(root):
    return {"all": root} if (root / "odd.txt").is_file() else {}
READER = Reader("odd", "Odd set", "nowhere", "a file odd.txt.", find, lambda path, name: None)
"""


def test_a_reader_of_another_package(tmp_path, monkeypatch):
    """Asked by its name, and after all of ours when a folder is recognised."""
    offer(tmp_path / "site", "geo4d.readers", "odd", "odd_pack:READER", FOREIGN, monkeypatch)
    assert reader_names() == [*READERS, "odd"]
    assert load_reader("odd").title == "Odd set"
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "odd.txt").write_text("")
    found, sequences = recognise(folder)
    assert (found.name, list(sequences)) == ("odd", ["all"])
    with pytest.raises(ValueError, match=r"result, odd as the dataset, got 'other'"):
        load_reader("other")
