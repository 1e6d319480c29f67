from pathlib import Path

import numpy as np
import pytest

from geo4d.datasets.catalogue import load_reader
from geo4d.datasets.pieces import associate_nearest, natural_key, same_stems
from geo4d.errors import InputError


def test_association_and_order():
    assert associate_nearest(np.array([1.0, 2.0, 9.0]), np.array([2.01, 0.99]), 0.02).tolist() == [1, 0, -1]
    assert associate_nearest(np.array([1.0]), np.zeros(0), 1.0).tolist() == [-1]
    assert sorted(["f10", "f9", "f1b2"], key=natural_key) == ["f1b2", "f9", "f10"]


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
