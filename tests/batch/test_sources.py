"""Which clips sources hold, and what is said of the rest."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from geo4d.batch.sources import find_clips
from geo4d.errors import InputError


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def places(*sources: object) -> list[str]:
    return sorted(clip.source for clip in find_clips([str(s) for s in sources]).clips.values())


def test_a_folder_gives_videos_below_it_and_folders_of_pictures(tmp_path) -> None:
    video, deep = put(tmp_path / "a.mp4"), put(tmp_path / "x/y/b.MKV")
    put(tmp_path / "frames/0.png")
    put(tmp_path / "frames/1.png")
    assert places(tmp_path) == sorted(map(str, [video, deep, tmp_path / "frames"]))
    assert places(tmp_path / "frames") == [str(tmp_path / "frames")]


def test_what_is_no_clip_is_named_with_the_reason(tmp_path) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "notes.docx")
    put(tmp_path / "cover.jpg")
    put(tmp_path / ".hidden.mp4")
    put(tmp_path / "b.tar.gz")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_clips([str(tmp_path)])
    assert [clip.source for clip in found.clips.values()] == [str(tmp_path / "a.mp4")]
    said = {Path(place).name: why for place, why in found.left_out}
    assert said.keys() == {
        *("notes.docx", tmp_path.name, ".hidden.mp4", "b.tar.gz", "gone.mp4", "pipe.mp4", "loop")
    }
    assert "1 pictures beside videos" in said[tmp_path.name]
    assert "unpack" in said["b.tar.gz"]
    assert any("loop" in line for line in found.lines())


def test_outputs_inside_of_a_source_are_no_clips(tmp_path, repository) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "out/batch/identity.json")
    put(tmp_path / "out/sources/b.mp4")
    results = sorted(path.parent for path in (repository / "tests/fixtures/results").rglob("manifest.json"))
    shutil.copytree(results[0], tmp_path / "result")
    put(tmp_path / "result/c.mp4")
    put(tmp_path / "other/manifest.json", b"{}")
    put(tmp_path / "other/d.mp4")
    found = find_clips([str(tmp_path)])
    names = {Path(clip.source).name for clip in found.clips.values()}
    assert names == {"a.mp4", "d.mp4"}
    assert {Path(place).name for place, _ in found.left_out} == {"out", "result", "manifest.json"}


def test_a_file_that_is_named_is_a_clip_whatever_its_name(tmp_path) -> None:
    assert places(put(tmp_path / "clip.dat")) == [str(tmp_path / "clip.dat")]


def test_patterns(tmp_path, monkeypatch) -> None:
    put(tmp_path / "d1/a.mp4")
    put(tmp_path / "d2/b.mp4")
    assert len(places(tmp_path / "d*" / "*.mp4")) == 2
    assert len(places(tmp_path / "**" / "a.mp4")) == 1
    monkeypatch.chdir(tmp_path)
    assert places("d1") == places(tmp_path / "d1")  # the same name from wherever it is called
    with pytest.raises(InputError, match="no file or folder fits"):
        find_clips([str(tmp_path / "e*.mp4")])


def test_a_list_is_relative_to_itself_and_names_what_is_missing(tmp_path) -> None:
    put(tmp_path / "v/a.mp4")
    other = put(tmp_path / "b.mp4")
    listed = put(tmp_path / "v/list.txt", f"# ours\na.mp4\n\n  {other}\nmissing.mp4\n".encode())
    assert places(listed) == sorted(map(str, [tmp_path / "v/a.mp4", other, tmp_path / "v/missing.mp4"]))
    with pytest.raises(InputError, match="no video"):
        find_clips([str(put(tmp_path / "empty.txt", b"# nothing\n"))])


def test_each_clip_is_found_once(tmp_path) -> None:
    video = put(tmp_path / "a.mp4")
    assert len(places(tmp_path, video, tmp_path / "*.mp4")) == 1


@pytest.mark.parametrize("source", ["nothing", "http://host/a.mp4", "empty"])
def test_sources_without_clips_are_refused(tmp_path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find_clips([source if "://" in source else str(tmp_path / source)])


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_members_of_a_tar(tmp_path) -> None:
    path = make_tar(tmp_path / "s.tar", {"000.mp4": b"abc", "000.json": b"{}", "d/001.webm": b"defg"})
    found = find_clips([str(path)])
    clips = {clip.member: clip for clip in found.clips.values()}
    assert clips.keys() == {"000.mp4", "d/001.webm"}
    member = clips["d/001.webm"]
    assert path.read_bytes()[member.offset : member.offset + member.size] == b"defg"
    assert {place.partition("|")[2] for place, _ in found.left_out} == {"000.json", "link.mp4"}


def test_a_damaged_tar_is_refused(tmp_path) -> None:
    path = make_tar(tmp_path / "s.tar", {"000.mp4": bytes(5000)})
    path.write_bytes(b"no tar" * 300)
    with pytest.raises(InputError, match="whole, plain tar"):
        find_clips([str(path)])


def test_a_change_of_a_source_shows_in_its_stamp(tmp_path) -> None:
    video = put(tmp_path / "v/a.mp4")
    put(tmp_path / "f/0.png")
    before = {clip.source: clip.stamp for clip in find_clips([str(tmp_path)]).clips.values()}
    put(video, b"xy")
    put(tmp_path / "f/1.png")
    after = {clip.source: clip.stamp for clip in find_clips([str(tmp_path)]).clips.values()}
    assert before.keys() == after.keys()
    assert all(before[source] != after[source] for source in before)


def test_a_folder_of_a_data_set_is_one_clip(tmp_path) -> None:
    import cv2
    import numpy as np

    root = tmp_path / "rgbd_dataset_freiburg1_xyz"
    lines = {"rgb": "", "depth": ""}
    for kind in lines:
        (root / kind).mkdir(parents=True)
        for t in range(3):
            cv2.imwrite(str(root / kind / f"{t}.000000.png"), np.zeros((48, 64, 3), np.uint8))
            lines[kind] += f"{t}.000000 {kind}/{t}.000000.png\n"
        (root / f"{kind}.txt").write_text(lines[kind])
    assert places(tmp_path) == [str(root)]
