"""Folders of pictures: nothing left out, reordered or mixed without a word, and times from wherever they are stated."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.times import load_frame_times, to_seconds
from geo4d.video.frames import list_frames
from geo4d.video.io import Video, reopen

STAMPS = [1305031102.175304 + t / 30 for t in range(5)]


def shade(folder, names, size=(6, 8)):
    """Pictures whose grey level is ten times their place in ``names``."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((*size, 3), 10 * t, np.uint8))
    return folder


def levels(video):
    return (video.read(range(video.num_frames))[:, 0, 0, 0] * 25.5).round().int().tolist()


# What is there --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stems", [["0", "0.05", "0.1", "0.25", "0.5"], ["-1", "0", "2"], [".05", ".1", ".5"]]
)
def test_content_follows_the_values_in_the_names(tmp_path, stems):
    video = Video(shade(tmp_path, [f"{stem}.png" for stem in stems]))
    assert levels(video) == list(range(len(stems)))


def broken_link(path):
    path.symlink_to(path.parent / "nowhere.png")


def folder_of_that_name(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [broken_link, folder_of_that_name, pipe])
def test_an_entry_that_cannot_be_read_is_never_left_out(tmp_path, make):
    shade(tmp_path, [f"f{t:04d}.png" for t in range(6)])
    (tmp_path / "f0003.png").unlink()
    make(tmp_path / "f0003.png")
    with pytest.raises(InputError, match=r"3 of 6 frames readable \(f0003\.png: .*--allow-partial"):
        Video(tmp_path)
    video = Video(tmp_path, allow_partial=True)
    assert levels(video) == [0, 1, 2]
    assert video.damage is not None
    assert "f0003.png" in video.damage
    assert Video(tmp_path, stop=3).damage is None


def test_a_picture_without_permission_is_told(tmp_path, monkeypatch):
    shade(tmp_path, ["1.png", "2.png"])
    read = Path.read_bytes

    def refuse(path):
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match=r"1 of 2 frames readable \(2\.png: cannot be read: Permission denied\)"
    ):
        Video(tmp_path)


def test_links_to_frames_that_are_gone(tmp_path):
    """Twelve links, two of them to nothing: later frames must not move forward."""
    source = shade(tmp_path / "source", [f"f{t:04d}.png" for t in range(12)])
    (tmp_path / "links").mkdir()
    for t in range(12):
        (tmp_path / "links" / f"f{t:04d}.png").symlink_to(source / f"f{t:04d}.png")
    assert levels(Video(tmp_path / "links")) == list(range(12))
    for t in (5, 6):
        (source / f"f{t:04d}.png").unlink()
    with pytest.raises(InputError, match=r"5 of 12 frames readable \(f0005\.png: is a link to a file that"):
        Video(tmp_path / "links")


def test_gaps_are_stated_but_do_not_stop(tmp_path):
    video = Video(shade(tmp_path, [f"f{t:04d}.png" for t in (0, 1, 2, 3, 4, 7, 8)]))
    assert video.num_frames == 7
    assert any("2 numbers are missing, the first after f0004.png" in note for note in video.notes)


def test_mixed_folders_are_refused_or_chosen(tmp_path):
    shade(tmp_path, [f"left_{t}.png" for t in range(3)])
    shade(tmp_path, [f"right_{t}.png" for t in range(3)], size=(12, 8))
    with pytest.raises(
        InputError, match=r"2 sequences or types of pictures: left_#\.png \(3\), right_#\.png \(3\)"
    ):
        Video(tmp_path)
    assert Video(tmp_path, pictures="right_#.png").size == (12, 8)
    assert any("3 of 6 pictures fit" in note for note in Video(tmp_path, pictures="right_*").notes)
    with pytest.raises(InputError, match="3 of 6 frames readable"):
        Video(tmp_path, pictures="*")  # taken together they have two sizes
    with pytest.raises(InputError, match="none of 6 pictures fits"):
        Video(tmp_path, pictures="middle_*")
    with pytest.raises(InputError, match="sequences or types"):
        Video(tmp_path, pictures="*.png")


def test_pictures_that_are_not_read_are_counted(tmp_path):
    shade(tmp_path, ["1.png", "2.png"])
    for name in ("1.dng", "2.dng", "notes.txt", "._1.png", ".hidden.png"):
        (tmp_path / name).write_bytes(b"something")
    video = Video(tmp_path)
    assert video.num_frames == 2
    assert video.notes == ("2 files ending in .dng are left out: geo4d does not read them",)


def test_pictures_one_folder_further_down_are_named(tmp_path):
    shade(tmp_path / "rgb", ["1.png"])
    with pytest.raises(InputError, match="there are some in rgb: name one of these"):
        Video(tmp_path)


def test_pictures_can_be_named_in_order(tmp_path):
    shade(tmp_path / "a", ["1.png", "2.png"])
    shade(tmp_path / "b", ["1.png"])
    video = Video(tmp_path, pictures=["a/2.png", "b/1.png", "a/1.png"])
    assert levels(video) == [1, 0, 0]
    with pytest.raises(InputError, match=r"1 of 2 frames readable \(3\.png: does not exist\)"):
        Video(tmp_path, pictures=["a/1.png", "a/3.png"])


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_the_same_frames_are_found_again(tmp_path, stride):
    """The hash is that of all pictures, whatever part of them is in use."""
    video = Video(shade(tmp_path, [f"{t}.png" for t in range(12)]), start=1, stride=stride)
    again = reopen(tmp_path, video.reading, int(video.source_frames.max()) + 1)
    assert again.sha256() == video.sha256()
    last = int(video.source_frames[-1])
    assert np.array_equal(again.read([last]), video.read([video.num_frames - 1]))


def test_results_without_a_list_take_all_in_order_of_name(tmp_path):
    """Version 0.1.0 did: its results must find their colour again."""
    shade(tmp_path, ["a2.png", "a10.png", "b1.png"])
    again = reopen(tmp_path, {}, 3)
    assert levels(again) == [0, 1, 2]
    assert levels(reopen(tmp_path, {}, 2)) == [0, 1]


def test_names_that_are_no_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/f\xe9"
    for t in range(3):
        data = cv2.imencode(".png", np.full((6, 8, 3), 10 * t, np.uint8))[1].tobytes()
        with open(name + str(t).encode() + b".png", "wb") as file:
            file.write(data)
    video = Video(tmp_path)
    assert levels(video) == [0, 1, 2]
    assert len(video.sha256()) == 64


# When ----------------------------------------------------------------------------------------------------------------


def test_times_of_names_are_kept_to_the_microsecond(tmp_path):
    video = Video(shade(tmp_path, [f"{stamp:.6f}.png" for stamp in STAMPS]))
    np.testing.assert_allclose(video.times_s, STAMPS, rtol=0, atol=1e-6)
    assert abs(video.fps - 30) < 1e-3
    assert Video(tmp_path, start=1, stride=2).times_s.tolist() == video.times_s[1::2].tolist()
    counted = Video(tmp_path, fps=10)
    np.testing.assert_allclose(counted.times_s, np.arange(5) / 10)
    assert "times of the names are not used" in counted.notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n0.1\n0.2\n0.35\n1\n", [0, 0.1, 0.2, 0.35, 1]),
        ("# seconds\n1e-1, \n2e-1\n3e-1\n4e-1\n5e-1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("\n".join(f"{t + 3}.5 rgb/f{t}.png" for t in range(5)), [3.5, 4.5, 5.5, 6.5, 7.5]),
        ("\n".join(f"{t + 3}.5 rgb/f{t}.png" for t in (4, 2, 0, 1, 3, 9)), [3.5, 4.5, 5.5, 6.5, 7.5]),
        (
            "#timestamp [ns],filename\n" + "\n".join(f"{t}00000000,f{t}.png" for t in range(5)),
            [0, 0.1, 0.2, 0.3, 0.4],
        ),
        ("timestamp,filename\n" + "\n".join(f"{t}.0,f{t}.png" for t in range(5)), [0, 1, 2, 3, 4]),
        (
            "\n".join(f"{t}.0 f{t}.png {t}.01 depth/{t}.png" for t in range(5)),
            [0, 1, 2, 3, 4],
        ),
        (
            "\n".join(f"2011-09-26 13:02:2{t}.500000000" for t in range(5)),
            [1317042140.5 + t for t in range(5)],
        ),
        (
            "\n".join(str(1403636579763555584 + t * 10**8) for t in range(5)),
            [1403636579.763555584 + t / 10 for t in range(5)],
        ),
    ],
)
def test_a_file_of_times(tmp_path, text, expected):
    shade(tmp_path / "pictures", [f"f{t}.png" for t in range(5)])
    (tmp_path / "list").write_text(text)
    video = Video(tmp_path / "pictures", times=tmp_path / "list")
    np.testing.assert_allclose(video.times_s, expected, rtol=0, atol=3e-7)
    assert levels(video) == [0, 1, 2, 3, 4]
    assert any("times are those of list" in note for note in video.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1\n2\n", "has 3 times, but there are 5 pictures"),
        ("0\n1\n2\n3\n4\n5\n", "has 6 times, but there are 5 pictures"),
        ("0\n1\n1\n2\n3\n", r"f2\.png \(1\.000000 s\) does not follow f1\.png"),
        ("0\n1\n2\n3\n2.5\n", "increasing times"),
        (
            "\n".join(f"{t} f{t}.png" for t in range(4)),
            r"1 of 5 pictures are not in this list, the first is f4\.png",
        ),
        ("\n".join(f"{t} f{t % 4}.png" for t in range(5)), r"names f0\.png twice"),
        ("\n".join(f"{-t} f{t}.png" for t in (0, 2, 1, 4, 3)), "increasing times"),
        ("0\n1\n2 f2.png\n3\n4\n", "in line 3 of"),
        ("0\n1\ntwo\n3\n4\n", "in line 3 of"),
        ("0\n1\nnan\n3\n4\n", "in line 3 of"),
        ("", "it holds none"),
    ],
)
def test_times_that_do_not_fit_are_refused(tmp_path, text, message):
    shade(tmp_path / "pictures", [f"f{t}.png" for t in range(5)])
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=message):
        Video(tmp_path / "pictures", times=tmp_path / "list")


def test_a_list_gives_the_order_of_names_without_one(tmp_path):
    names = ["c3f.png", "a91.png", "b02.png"]
    shade(tmp_path / "pictures", names)
    (tmp_path / "list").write_text("\n".join(f"{t} {name}" for t, name in enumerate(names)))
    video = Video(tmp_path / "pictures", times=tmp_path / "list")
    assert levels(video) == [0, 1, 2]
    assert any("follow list, not the order of their names" in note for note in video.notes)


@pytest.mark.parametrize("place", ["pictures/times.txt", "pictures/rgb.txt", "pictures.txt", "times.txt"])
def test_lists_in_and_beside_the_folder_are_found(tmp_path, place):
    shade(tmp_path / "pictures", [f"f{t}.png" for t in range(3)])
    named = place.endswith(("rgb.txt", "pictures.txt"))
    (tmp_path / place).write_text("\n".join(f"{t * t}.5" + f" f{t}.png" * named for t in range(3)))
    video = Video(tmp_path / "pictures")
    assert video.times_s.tolist() == [0.5, 1.5, 4.5]
    assert video.fps == 0.5
    assert any("times are those of" in note for note in video.notes)
    assert Video(tmp_path / "pictures", fps=2).times_s.tolist() == [0, 0.5, 1]


def test_a_folder_of_a_part_takes_its_lines_by_number(tmp_path):
    shade(tmp_path / "image_2", [f"{t:06d}.png" for t in (2, 3, 4)])
    (tmp_path / "times.txt").write_text("\n".join(f"{t * 0.1:e}" for t in range(9)))
    video = Video(tmp_path / "image_2")
    np.testing.assert_allclose(video.times_s, [0.2, 0.3, 0.4])
    assert any("3 of 9 times in times.txt are used, by the pictures' numbers" in note for note in video.notes)


def test_a_list_that_does_not_fit_is_refused_inside_and_told_beside(tmp_path):
    shade(tmp_path / "pictures", [f"f{t}.png" for t in range(3)])
    (tmp_path / "times.txt").write_text("0\n1\n")
    assert any("does not fit and is not used" in note for note in Video(tmp_path / "pictures").notes)
    (tmp_path / "times.txt").rename(tmp_path / "pictures" / "times.txt")
    with pytest.raises(InputError, match=r"2 times, but there are 3 pictures.*--times FILE or --fps"):
        Video(tmp_path / "pictures")
    assert Video(tmp_path / "pictures", fps=1).num_frames == 3


def test_times_of_arrays_and_of_files_that_have_their_own(tmp_path):
    frames = np.zeros((3, 6, 8, 3), np.uint8)
    assert Video(frames, times=[0, 0.5, 2]).times_s.tolist() == [0, 0.5, 2]
    with pytest.raises(InputError, match="expected 3 times for 3 frames"):
        Video(frames, times=[0, 1])
    with pytest.raises(InputError, match="increasing"):
        Video(frames, times=[0, 2, 1])
    with pytest.raises(ValueError, match="fps or times"):
        Video(frames, fps=3, times=[0, 1, 2])
    (tmp_path / "clip.y4m").write_bytes(b"YUV4MPEG2 W8 H6 F25:1 Ip C444\nFRAME\n" + bytes(144))
    with pytest.raises(InputError, match="states its own times"):
        Video(tmp_path / "clip.y4m", times=[0])


def test_a_gap_in_times_is_stated(tmp_path):
    listed = list_frames(shade(tmp_path, [f"{100 + t}.5.png" for t in (0, 1, 2, 8, 9)]))
    assert any("1 gap: the usual step is 1 s, the longest 6 s" in note for note in listed.notes)


def test_nanoseconds_lose_nothing_before_the_last_rounding():
    (value,), unit = to_seconds(["1403636579763555584"])
    assert unit == "nanoseconds"
    assert value == 1403636579763555584 / 10**9
    assert to_seconds(["-0.5", "1"])[0].tolist() == [-0.5, 1]


def test_a_list_in_another_encoding_is_read(tmp_path):
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf0.5 caf\xe9.png\n")
    assert load_frame_times(tmp_path / "list").names == ("caf\udce9.png",)
