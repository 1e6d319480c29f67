"""Bytes of tars and stores onto the disk."""

import errno
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from geo4d.batch import stores
from geo4d.batch.sources import find_clips
from geo4d.batch.stores import fetch, find_objects, needs_fetching
from geo4d.errors import DiskFull, InputError, MissingExtraError

CONTENT = bytes(range(256)) * 9000


@pytest.fixture
def bucket():
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/videos/a.mp4", CONTENT)
    store.pipe("/bucket/videos/deep/b.webm", b"b")
    store.pipe("/bucket/videos/notes.md", b"n")
    store.pipe("/bucket/videos/0.png", b"p")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("x/c.mp4")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
    store.pipe("/bucket/videos/s.tar", packed.getvalue())
    yield store
    store.rm("/bucket", recursive=True)


def test_a_prefix_gives_its_videos_and_those_in_its_tars(bucket, tmp_path) -> None:
    found = find_clips(["memory://bucket/videos"])
    clips = {clip.source: clip for clip in found.clips.values()}
    assert clips.keys() == {
        "memory://bucket/videos/a.mp4",
        "memory://bucket/videos/deep/b.webm",
        "memory://bucket/videos/s.tar|x/c.mp4",
    }
    assert {Path(place).name for place, _ in found.left_out} == {"notes.md", "0.png"}
    for source in ("memory://bucket/videos/a.mp4", "memory://bucket/videos/s.tar|x/c.mp4"):
        path = fetch(clips[source], tmp_path / clips[source].name)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
        assert path.suffix == ".mp4"
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_object_that_changed_has_another_stamp(bucket) -> None:
    before = next(iter(find_clips(["memory://bucket/videos/a.mp4"]).clips.values()))
    bucket.pipe("/bucket/videos/a.mp4", CONTENT[:-1])
    after = next(iter(find_clips(["memory://bucket/videos/a.mp4"]).clips.values()))
    assert before.name == after.name
    assert before.stamp != after.stamp


@pytest.mark.parametrize("fault", ["truncated", "time-out"])
def test_a_store_that_fails_once_is_asked_again(bucket, tmp_path, monkeypatch, fault: str) -> None:
    clip = next(iter(find_clips(["memory://bucket/videos/a.mp4"]).clips.values()))
    usual, calls = type(bucket).open, []

    def open_(self, path, mode="rb", **rest):
        calls.append(path)
        if len(calls) == 1 and fault == "time-out":
            raise TimeoutError("no answer")
        return io.BytesIO(CONTENT[:100]) if len(calls) == 1 else usual(self, path, mode, **rest)

    monkeypatch.setattr(type(bucket), "open", open_)
    assert fetch(clip, tmp_path / "w", wait_s=0).read_bytes() == CONTENT
    calls.clear()
    monkeypatch.setattr(type(bucket), "open", lambda *a, **k: io.BytesIO(CONTENT[:100]))
    with pytest.raises(OSError, match=r"3 times.*100 of"):
        fetch(clip, tmp_path / "v", wait_s=0)
    assert not any(path.suffix == ".mp4" for path in (tmp_path / "v").iterdir())


def test_an_object_that_is_gone_is_an_input_error(bucket, tmp_path) -> None:
    clip = next(iter(find_clips(["memory://bucket/videos/a.mp4"]).clips.values()))
    bucket.rm("/bucket/videos/a.mp4")
    with pytest.raises(InputError, match="not there any more"):
        fetch(clip, tmp_path)


def test_a_tar_that_was_cut_since_is_an_input_error(tmp_path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("../../../evil.mp4")
        info.size = 5000
        archive.addfile(info, io.BytesIO(bytes(5000)))
    clip = next(iter(find_clips([str(path)]).clips.values()))
    fetched = fetch(clip, tmp_path / "w")
    assert fetched == tmp_path / "w" / "evil.mp4"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="bytes before the 5000"):
        fetch(clip, tmp_path / "x")


def test_a_full_disk_is_said_and_not_tried_again(bucket, tmp_path, monkeypatch) -> None:
    clip = next(iter(find_clips(["memory://bucket/videos/a.mp4"]).clips.values()))
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(DiskFull, match="full"):
        fetch(clip, tmp_path, wait_s=0)
    assert len(calls) == 1


def test_stores_that_are_not_known_or_not_there(monkeypatch) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="s3://"):
        find_objects("http://host/video.mp4")
    with pytest.raises(InputError, match="nothing"):
        find_objects("memory://no/such/prefix")


def test_a_store_without_its_package_names_the_extra(monkeypatch) -> None:
    core = pytest.importorskip("fsspec.core")

    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(core, "url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"s3fs.*geo4d\[remote\]"):
        find_objects("s3://bucket/videos")


def test_only_what_lies_elsewhere_is_fetched(tmp_path, bucket) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    clips = find_clips([str(tmp_path), "memory://bucket/videos/a.mp4"]).clips.values()
    assert sorted(needs_fetching(clip) for clip in clips) == [False, True]
