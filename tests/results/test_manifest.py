"""Whatever stands in the files of a result, loading it gives arrays or one error with a documented exit code."""

import copy
import json
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d.apps.cli import explain
from geo4d.errors import OutputError
from geo4d.formats.checksums import Checksums, stated_size
from geo4d.results.manifest import ARRAYS, MANIFEST, VERSION, manifest_sha256, read_manifest
from geo4d.results.reader import load_result

RESULTS = Path(__file__).parents[1] / "fixtures" / "results"
OLD = json.loads((RESULTS / "1" / MANIFEST).read_text(encoding="utf-8"))

BOUNDED = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A result of format 1, whose metadata no sum protects."""
    return Path(shutil.copytree(RESULTS / "1", tmp_path / "r"))


def read_all(folder: Path) -> None:
    result = load_result(folder)
    for name in ("depth", "confidence", "dynamic", "rgb"):
        frames = getattr(result, name)
        if frames is not None and len(frames):
            np.asarray(frames[0])


def refuse(folder: Path, match: str) -> None:
    """It is one error, with the exit code of an output, and takes no memory worth naming."""
    tracemalloc.start()
    with pytest.raises(OutputError, match=match) as raised:
        read_all(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert explain(raised.value)[0] == 4
    assert peak < 100e6


def edit(**changes: Any) -> Callable[[dict], dict]:
    return lambda manifest: {**manifest, **changes}


def without(name: str) -> Callable[[dict], dict]:
    return lambda manifest: {key: value for key, value in manifest.items() if key != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("version"), "expected a format version"),
        (edit(version="1"), "expected a format version"),
        (edit(version=True), "expected a format version"),
        (edit(version=0), "expected a format version"),
        (edit(version=1.0), "expected a format version"),
        (edit(version=VERSION + 1, geo4d="0.9"), "written by geo4d 0.9; .*update geo4d"),
        (edit(version=10**400), "update geo4d"),
        (edit(version=2), "SHA-256"),
        (without("format"), "not a geo4d result"),
        (without("size"), "height and width"),
        (edit(size=[48, 64]), "height and width"),
        (edit(size={"height": 10**6, "width": 10**6}), "larger than any"),
        (edit(size={"height": 24, "width": -32}), "height and width"),
        (without("num_frames"), "number of frames"),
        (edit(num_frames=10**18), "number of frames"),
        (edit(num_frames=7), r"shape \(6, 24, 32\), expected \(7, 24, 32\)"),
        (without("arrays"), "arrays by name"),
        (edit(arrays=["depth"]), "arrays by name"),
        (edit(arrays={"depth": ""}), "confidence, intrinsics, times_s, source_frames are not among"),
        (without("scale_kind"), "scale_kind"),
        (edit(scale_kind=["metric"]), "scale_kind"),
        (without("source"), "expected a source"),
        (edit(source={"path": 7, "sha256": ""}), "path of the source"),
        (edit(source={"path": "a\0b", "sha256": ""}), "path of the source"),
        (edit(source={"size": {"height": "9"}}), "height and width of the source"),
        (without("provenance"), "expected a provenance"),
        (edit(provenance={"config": 1}), "expected a provenance"),
    ],
)
def test_manifests_that_lack_what_a_reader_needs(old: Path, change: Callable, match: str) -> None:
    (old / MANIFEST).write_text(json.dumps(change(OLD)), encoding="utf-8")
    refuse(old, match)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "null",
        "{",
        '{"format": "geo4d-result"',
        "[" * 200_000,
        '{"a":' * 100_000,
        "\xff\xfe",
        "NaN",
    ],
)
def test_manifests_that_are_no_object(old: Path, text: str) -> None:
    (old / MANIFEST).write_text(text, encoding="latin-1")
    refuse(old, r"damaged|not a geo4d result")


@pytest.mark.parametrize("text", ["", "[]", "[" * 200_000, "7"])
def test_diagnostics_that_are_no_object(old: Path, text: str) -> None:
    (old / "diagnostics.json").write_text(text, encoding="utf-8")
    refuse(old, r"diagnostics\.json is damaged")


def test_a_path_among_the_array_names_opens_nothing(old: Path) -> None:
    arrays = {**OLD["arrays"], "../../precious": "x", "/etc": "x"}
    (old / MANIFEST).write_text(json.dumps({**OLD, "arrays": arrays}), encoding="utf-8")
    read_all(old)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("depth", {"shape": [24, 10**6, 10**6]}, "has the shape"),
        ("c2w", {"shape": [10**9, 4, 4]}, "has the shape"),
        ("depth", {"shape": [6, 24]}, "damaged"),
        ("depth", {"data_type": "complex128"}, r"numbers of type complex128|damaged"),
        ("times_s", {"data_type": "bool"}, r"numbers of type bool|damaged"),
        ("depth", {"data_type": "no such type"}, "damaged"),
        (
            "depth",
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1]}}},
            "in pieces of",
        ),
        (
            "depth",
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**5, 10**5, 10**5]}}},
            "in pieces of",
        ),
        ("depth", {"codecs": []}, "damaged"),
        (
            "depth",
            {"codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]},
            "does not write",
        ),
        ("depth", {"zarr_format": 9}, "damaged"),
        ("depth", {"node_type": "group"}, "damaged"),
        ("intrinsics", {"fill_value": "what"}, "damaged"),
    ],
)
def test_array_metadata_is_checked_before_memory_is_taken(
    old: Path, name: str, change: dict, match: str
) -> None:
    path = old / ARRAYS / name / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refuse(old, match)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "7"])
def test_array_metadata_that_is_none(old: Path, text: str) -> None:
    for path in (old / ARRAYS / "zarr.json", old / ARRAYS / "c2w" / "zarr.json"):
        kept = path.read_text()
        path.write_text(text)
        refuse(old, "damaged")
        path.write_text(kept)


def crc32c(data: bytes) -> int:
    """The sum that zarr puts behind a chunk, bit by bit: which library computes it depends on zarr's version."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_chunks_that_state_another_size_are_not_unpacked(old: Path) -> None:
    chunk = old / ARRAYS / "depth" / "c.0.0.0"
    data = bytearray(chunk.read_bytes()[:-4])
    assert struct.pack("<I", crc32c(bytes(data))) == chunk.read_bytes()[-4:]
    assert stated_size(bytes(data)) == 24 * 32 * 2
    struct.pack_into("<I", data, 4, 2_000_000_000)
    chunk.write_bytes(bytes(data) + struct.pack("<I", crc32c(bytes(data))))
    refuse(old, "it states 2000000000")
    small = old / ARRAYS / "c2w" / "c" / "0" / "0" / "0"
    assert stated_size(small.read_bytes()) == 6 * 16 * 8
    shutil.copy(RESULTS / "1" / ARRAYS / "depth" / "c.0.0.0", chunk)
    bomb = zarr.codecs.ZstdCodec()._zstd_codec.encode(bytes(300_000_000))
    assert len(bomb) < 100_000
    small.write_bytes(bomb)
    refuse(old, "it states 300000000")


def test_the_list_of_sums_says_what_is_wrong_with_it() -> None:
    digest = "ab" * 32
    sums = Checksums.parse(f"{digest}  a/c.1.0.0\n{digest}  b/zarr.json\n", most_frames=2)
    assert sums.get("a/c.1.0.0") == bytes.fromhex(digest) == sums.get("b/zarr.json")
    assert sums.get("a/c.0.0.0") is sums.get("a/c.2.0.0") is sums.get("a/c.1.0") is None
    assert Checksums.parse(sums.text(), 2).text() == sums.text()
    for text in (f"{digest} a", "x" * 64 + "  a", f"{digest}  a/c.2.0.0", f"{digest}  a/c.{'9' * 30}"):
        with pytest.raises(ValueError, match="line 1"):
            Checksums.parse(text, most_frames=2)


def test_a_manifest_keeps_its_sum_through_any_json_writer() -> None:
    manifest = {"b": [1, 2.5, None, -0.0, 1e300], "a": {"ü": "\udcff"}, "sha256": "x"}
    again = json.loads(json.dumps(manifest, indent=3, sort_keys=True))
    assert manifest_sha256(again) == manifest_sha256(manifest)
    assert manifest_sha256({**again, "b": [1, 2.5, None, 0.0, 1e300]}) != manifest_sha256(manifest)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["geo4d-result", 1, 2]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Where values stand in a JSON tree."""
    found = [path] if path else []
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        found += places(value, (*path, key))
    return found


@given(place=st.sampled_from(places(OLD)), value=values, remove=st.booleans())
@BOUNDED
def test_any_value_anywhere_in_the_manifest(
    tmp_path_factory: Any, place: tuple, value: Any, remove: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        shutil.copytree(RESULTS / "1", folder)
    manifest = copy.deepcopy(OLD)
    parent = manifest
    for key in place[:-1]:
        parent = parent[key]
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    try:
        read_manifest(folder)
        read_all(folder)
    except OutputError as error:
        assert explain(error)[0] == 4  # noqa: PT017


@given(
    name=st.sampled_from(sorted(OLD["arrays"])),
    key=st.sampled_from(
        ["shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "attributes"]
    ),
    value=values,
)
@BOUNDED
def test_any_value_anywhere_in_the_metadata_of_an_array(
    tmp_path_factory: Any, name: str, key: str, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed_arrays"
    if not folder.exists():
        shutil.copytree(RESULTS / "1", folder)
    path = folder / ARRAYS / name / "zarr.json"
    kept = path.read_text()
    path.write_text(json.dumps({**json.loads(kept), key: value}))
    try:
        read_all(folder)
    except OutputError as error:
        assert explain(error)[0] == 4  # noqa: PT017
    finally:
        path.write_text(kept)


@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(OLD["arrays"])), keep=st.integers(0, 60))
@BOUNDED
def test_any_bytes_in_a_chunk(tmp_path_factory: Any, data: bytes, name: str, keep: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed_chunks"
    if not folder.exists():
        shutil.copytree(RESULTS / "1", folder)
    path = next(
        p for p in sorted((folder / ARRAYS / name).rglob("*")) if p.is_file() and p.name != "zarr.json"
    )
    kept = path.read_bytes()
    path.write_bytes(kept[:keep] + data)
    try:
        read_all(folder)
    except OutputError as error:
        assert explain(error)[0] == 4  # noqa: PT017
    finally:
        path.write_bytes(kept)
