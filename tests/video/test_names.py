"""Order, times and gaps that names of pictures tell, each case with the answer written out by hand."""

import random
import re

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.video.names import matches, order_names


def order(names, **options):
    """Of shuffled names: the order may not come from the order of the argument."""
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    return order_names(shuffled, **options)


@pytest.mark.parametrize(
    "stems",
    [
        ["1", "2", "10"],
        ["frame2", "frame10", "frame100"],
        ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.5", "0.55"],
        [".05", ".1", ".15", ".2", ".5"],
        ["t=0.05", "t=0.1", "t=0.25"],
        ["f.05", "f.1", "f.15", "f.2"],
        ["f.0005", "f.0010", "f.0100"],
        ["f.5", "f.10", "f.100"],
        ["f_.05", "f_.1", "f_.15"],
        ["-2", "-1", "0", "1", "10"],
        ["-1.5", "-0.25", "0", "0.125", "2"],
        ["frame_-10", "frame_-9", "frame_0", "frame_3"],
        ["frame-2", "frame-1", "frame0", "frame1"],
        ["frame-1", "frame-2", "frame-10"],
        ["5e-05", "0.0001", "0.00015"],
        ["take2.8", "take2.9", "take2.10", "take2.11"],
        ["v1.0001", "v1.0002", "v1.0010"],
        ["1305031102.175304", "1305031102.208637", "1305031103.041971"],
        ["2024-01-31_23-59-59", "2024-02-01_00-00-00", "2024-02-01_00-00-01"],
        ["IMG_20240131_235959", "IMG_20240201_000000", "IMG_20240201_000001"],
        ["shot1_0001", "shot1_0002", "shot2_0003"],
        ["Frame1", "frame2", "FRAME10"],
        ["x²1", "x²2", "x²10"],
    ],
)
def test_pictures_follow_by_value(stems):
    names = [f"{stem}.png" for stem in stems]
    assert list(order(names).names) == names


@pytest.mark.parametrize(
    ("stems", "times"),
    [
        (["1305031102.175304", "1305031102.208637"], [1305031102.175304, 1305031102.208637]),
        (["rgb_1305031102.175304", "rgb_1305031102.208637"], [1305031102.175304, 1305031102.208637]),
        (["1403636579763555584", "1403636579813555456"], [1403636579.763555584, 1403636579.813555456]),
        (["1403636579763555", "1403636579813555"], [1403636579.763555, 1403636579.813555]),
        (["1403636579763", "1403636579813"], [1403636579.763, 1403636579.813]),
        (["1403636579_763555584", "1403636580_013555456"], [1403636579.763555584, 1403636580.013555456]),
        (["1403636579_763555", "1403636580_013555"], [1403636579.763555, 1403636580.013555]),
        (["000001_1403636579.5", "000002_1403636579.6"], [1403636579.5, 1403636579.6]),
        (["0", "0.05", "0.1"], [0, 0.05, 0.1]),
        (["-0.5", "0.25", "1"], [-0.5, 0.25, 1]),
        (["t0.5", "t0.75"], [0.5, 0.75]),
        (
            ["2011-09-26 13:02:25.964389445", "2011-09-26 13:02:26.067"],
            [1317042145.964389445, 1317042146.067],
        ),
        (["20110926_130225", "20110926_130227"], [1317042145, 1317042147]),
    ],
)
def test_times_of_names(stems, times):
    found = order([f"{stem}.png" for stem in stems])
    np.testing.assert_allclose(found.times_s, times, rtol=0, atol=3e-7)
    assert any("times are those of the names" in note for note in found.notes)


@pytest.mark.parametrize("stems", [["0000000001", "0000000002"], ["1", "2"], ["zoom1.5", "zoom2.5"]])
def test_numbers_that_are_no_times(stems):
    assert order([f"{stem}.png" for stem in stems]).times_s is None


@pytest.mark.parametrize(
    ("numbers", "note"),
    [
        ([0, 1, 2, 5, 6, 7], r"2 numbers are missing, the first after f2\.png \(next is f5\.png\)"),
        ([0, 10, 20, 40, 50], r"1 number is missing, the first after f20\.png"),
        ([0, 10, 20, 30], "steps of 10"),
        ([3, 5, 11, 12, 30, 34], "not evenly spaced: steps of 1 to 18"),
        ([-2, -1, 2, 3, 4], "2 numbers are missing"),
    ],
)
def test_gaps_in_numbers_are_stated(numbers, note):
    (said,) = order([f"f{n}.png" if min(numbers) >= 0 else f"{n}.png" for n in numbers]).notes
    assert re.search(note, said)


def test_whole_numbering_needs_no_words_and_gaps_in_times_do():
    assert order([f"f{n:04d}.png" for n in range(3, 40)]).notes == ()
    notes = order([f"{1305031102 + t}.5.png" for t in (0, 1, 2, 6, 7)]).notes
    assert any(
        "1 gap: the usual step is 1 s, the longest 4 s, after 1305031104.5.png" in note for note in notes
    )


@pytest.mark.parametrize(
    ("names", "pattern", "count"),
    [
        ([f"{side}_{n:03d}.png" for side in ("left", "right") for n in range(3)], "left_#.png", 3),
        ([f"f{n}.png" for n in range(5)] + [f"f{n}.jpg" for n in range(3)], "f#.png", 5),
        (
            [f"frame-{n:06d}.{kind}.png" for kind in ("color", "depth") for n in range(2)],
            "frame-#.color.png",
            2,
        ),
        ([f"cam{c}_{n:03d}.png" for c in (0, 1) for n in range(4)], "cam0_#.png", 4),
        ([f"{n:03d}_cam{c}.png" for c in (0, 1) for n in range(4)], "#_cam0.png", 4),
        ([f"{n:03d}.png" for n in range(4)] + ["cover.png"], "#.png", 4),
        ([f"{n:03d}.png" for n in range(4)] + [f"{n:03d}_mask.png" for n in range(3)], "#.png", 4),
        ([f"a_{n}.png" for n in range(3)] + [f"b_2024-01-31_12-00-0{n}.png" for n in range(2)], "a_#.png", 3),
    ],
)
def test_several_sequences_are_refused_and_one_can_be_chosen(names, pattern, count):
    with pytest.raises(InputError, match=r"sequences or types of pictures.*--pictures") as error:
        order(names)
    assert f"{pattern} ({count})" in str(error.value)
    chosen = [name for name in names if matches(name, pattern)]
    assert len(chosen) == count
    assert list(order(chosen).names) == sorted(chosen)
    everything = order(names, mixed=True)
    assert sorted(everything.names) == sorted(names)
    assert any("taken together" in note for note in everything.notes) or "cam" in names[0]


def test_two_spellings_of_one_number_are_refused():
    with pytest.raises(InputError, match=r"01\.png and 1\.png have the same number|1\.png and 01\.png"):
        order(["1.png", "01.png", "2.png"])
    assert list(order(["f1.jpg", "f2.JPEG", "f3.jfif"]).names) == ["f1.jpg", "f2.JPEG", "f3.jfif"]


def test_names_without_numbers_are_in_order_of_name():
    found = order(["end.png", "middle.png", "start.png"])
    assert found.names == ("end.png", "middle.png", "start.png")
    assert "no common numbering" in found.notes[0]


def test_patterns():
    assert matches("left_12.png", "left_#.png")
    assert matches("left_-1.5.png", "left_#.png")
    assert not matches("left_12_mask.png", "left_#.png")
    assert matches("left_12_mask.png", "left_*.png")
    assert matches("x2024-01-31_12-00-00.png", "x#.png")
    assert not matches("left_12.png", "right_#.png")
    assert matches("a.PNG", "?.PNG")
    assert not matches("a.PNG", "?.png")
