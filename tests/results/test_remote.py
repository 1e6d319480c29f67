"""Results in a real S3 that answers badly: complete or not there, whatever happens on the way."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import geo4d
from geo4d.errors import OutputError
from geo4d.formats.objects import Objects
from geo4d.results import remote
from geo4d.results.manifest import MANIFEST
from geo4d.results.remote import (
    CheckedObjects,
    check_remote_output,
    json_format,
    load_remote,
    remote_manifest,
    remove_local,
    upload_result,
)
from tests.support.remote import end_at, same
from tests.support.truth import BoxWorld, TruthPredictor


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
    monkeypatch.setattr("geo4d.results.remote.time.sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """A result of six frames."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder, world = tmp_path_factory.mktemp("results") / "a", BoxWorld((24, 40))
    video = torch.stack([world.rgb(t) for t in range(6)])
    geo4d.reconstruct(video, folder, model=TruthPredictor(world, length=4, stride=2), motion=False, tries=0)
    torch.set_num_threads(before)
    return folder


def test_a_published_result_reads_back_and_a_copy_of_it_is_a_plain_result(s3, result, tmp_path) -> None:
    url = "s3://bucket/plain/a"
    upload_result(result, url)
    assert [path for method, path in s3.seen if method == "PUT" and "/plain/" in path][-1].endswith(MANIFEST)
    found = geo4d.load(url)
    assert found.num_frames == 6
    assert found.diagnostics == geo4d.load(result).diagnostics
    assert np.array_equal(np.asarray(found.rgb[2]), np.asarray(geo4d.load(result).rgb[2]))
    assert same(found, result)
    import fsspec

    fsspec.filesystem("s3").get("bucket/plain/a/", str(tmp_path / "copy") + "/", recursive=True)
    assert same(geo4d.load(tmp_path / "copy"), result)
    assert remote_manifest(url)["num_frames"] == 6
    assert remote_manifest("s3://bucket/plain/none") is None


def test_only_what_is_sliced_is_read(s3, result) -> None:
    upload_result(result, "s3://bucket/lazy")
    found = load_remote("s3://bucket/lazy")
    s3.seen.clear()
    found.depth[3]
    assert [path.partition("?")[0] for _, path in s3.seen] == ["/bucket/lazy/arrays.zarr/depth/c.3.0.0"]


@pytest.mark.parametrize(
    "name", ["manifest.json", "SHA256SUMS", "diagnostics.json", "depth/c.1.0.0", "intrinsics/c.0"]
)
def test_answers_that_were_cut_and_look_whole_are_asked_for_again(s3, result, name) -> None:
    url = "s3://bucket/cut"
    upload_result(result, url)
    s3.used.clear()
    s3.faults.extend([("GET", f"/cut/{name}" if "/" not in name else name, "short")] * 2)
    try:
        assert same(load_remote(url), result)
    finally:
        s3.faults.clear()
    assert s3.used == ["short", "short"]


def test_what_stays_damaged_is_an_error_with_its_address(s3, result) -> None:
    url = "s3://bucket/damaged"
    upload_result(result, url)
    found = load_remote(url)
    objects = Objects(url)
    chunk = objects.read("arrays.zarr/depth/c.2.0.0")
    objects.write("arrays.zarr/depth/c.2.0.0", chunk[:-1])
    found.depth[1]
    with pytest.raises(OutputError, match=r"s3://bucket/damaged/arrays.zarr/depth/c.2.0.0 is damaged"):
        found.depth[2]
    objects.remove(["arrays.zarr/depth/c.2.0.0"])
    with pytest.raises(OutputError, match=r"s3://bucket/damaged is incomplete: 1 of 6 pieces of depth"):
        load_remote(url)
    with pytest.raises(OutputError, match=r"c.2.0.0 is missing"):
        found.depth[2]
    objects.write(MANIFEST, objects.read(MANIFEST).replace(b'"num_frames": 6', b'"num_frames": 7'))
    with pytest.raises(OutputError, match=r"s3://bucket/damaged/manifest.json is damaged or was edited"):
        load_remote(url)


def test_a_reader_sees_all_or_nothing_while_a_run_publishes(s3, result, monkeypatch) -> None:
    url, seen, ended = "s3://bucket/atomic", [], threading.Event()

    def read_again_and_again() -> None:
        while not ended.is_set():
            try:
                seen.append(same(load_remote(url), result))
            except OutputError as error:
                seen.append(str(error))

    reader = threading.Thread(target=read_again_and_again)
    reader.start()
    for _ in range(3):  # the second and third replace what is there
        upload_result(result, url)
    ended.set()
    reader.join()
    assert same(load_remote(url), result)
    assert False not in seen
    assert all(
        one is True or "found no manifest" in one or "damaged" in one or "missing" in one for one in seen
    ), seen


@pytest.mark.parametrize("at", ["depth/c.3", "SHA256SUMS", "manifest.json"])
def test_a_run_that_is_ended_while_it_publishes_leaves_no_result(s3, result, monkeypatch, at) -> None:
    url = f"s3://bucket/killed/{at}"
    upload_result(result, url)  # also in place of an old one
    with monkeypatch.context() as patch:
        end_at(patch, at)
        with pytest.raises(KeyboardInterrupt):
            upload_result(result, url)
    with pytest.raises(OutputError, match="was ended at it"):
        load_remote(url)
    deletes = [path for method, path in s3.seen if method == "DELETE" and url.removeprefix("s3:/") in path]
    assert deletes[0].endswith(MANIFEST)  # before anything that it lists goes
    check_remote_output(url, overwrite=False)  # and may be published anew
    upload_result(result, url)
    assert same(load_remote(url), result)


def test_an_object_that_did_not_arrive_is_found_before_the_manifest_is_written(
    s3, result, monkeypatch
) -> None:
    write = Objects.write

    def lossy(self, name, data):
        if not name.endswith("confidence/c.1.0.0"):
            write(self, name, data)

    monkeypatch.setattr(Objects, "write", lossy)
    with pytest.raises(OutputError, match=r"1 of \d+ objects are not there .*confidence/c.1.0.0"):
        upload_result(result, "s3://bucket/lost")
    assert MANIFEST not in Objects("s3://bucket/lost").list()


def test_other_peoples_objects_and_results_are_left_alone(s3, result) -> None:
    Objects("s3://bucket/theirs").write("notes.txt", b"mine")
    with pytest.raises(OutputError, match=r"did not write \(notes.txt\)"):
        upload_result(result, "s3://bucket/theirs")
    Objects("s3://bucket/other").write(MANIFEST, b'{"format": "of a page"}')
    with pytest.raises(OutputError, match="not of geo4d"):
        upload_result(result, "s3://bucket/other")
    upload_result(result, "s3://bucket/mine")
    with pytest.raises(OutputError, match="--overwrite"):
        check_remote_output("s3://bucket/mine", overwrite=False)
    check_remote_output("s3://bucket/mine", overwrite=True)


def test_a_local_copy_goes_and_what_others_put_there_stays(result, tmp_path) -> None:
    import shutil

    shutil.copytree(result, tmp_path / "a")
    shutil.copytree(result, tmp_path / "b")
    (tmp_path / "b" / "arrays.zarr" / "note.txt").write_text("mine")
    remove_local(tmp_path / "a")
    remove_local(tmp_path / "b")
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")} == {
        "b",
        "b/arrays.zarr",
        "b/arrays.zarr/note.txt",
    }


def test_the_format_of_anything() -> None:
    assert json_format(json.dumps({"format": "x"}).encode()) == "x"
    assert [json_format(data) for data in (None, b"", b"[1]", b"{", b"\xff")] == [None] * 5


def test_a_store_of_arrays_reads_parts_and_writes_nothing(s3) -> None:
    import asyncio

    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype

    Objects("s3://bucket/parts").write("arrays.zarr/a", bytes(range(10)))
    store, kind = CheckedObjects(Objects("s3://bucket/parts")), default_buffer_prototype()

    def get(part):
        return asyncio.run(store.get("a", kind, part)).to_bytes()

    assert get(RangeByteRequest(2, 4)) == bytes([2, 3])
    assert get(OffsetByteRequest(8)) == get(SuffixByteRequest(2)) == bytes([8, 9])
    assert asyncio.run(store.exists("a"))
    assert not asyncio.run(store.exists("b"))
    with pytest.raises(OutputError, match="only read"):
        asyncio.run(store.delete("a"))
    assert not store.supports_writes
    assert not store.supports_listing
    assert not store.supports_deletes
    assert remote.READS > 1


def test_any_other_store_of_fsspec_holds_results_too(result) -> None:
    store = pytest.importorskip("fsspec").filesystem("memory")
    try:
        upload_result(result, "memory://geo4d-results/a")
        assert same(load_remote("memory://geo4d-results/a"), result)
        upload_result(result, "memory://geo4d-results/a")
        with pytest.raises(OutputError, match="found no manifest"):
            load_remote("memory://geo4d-results/b")
    finally:
        store.rm("/geo4d-results", recursive=True)
