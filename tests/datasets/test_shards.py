"""Packed clips: what was written comes back, by our reader and by others; versions, damage, streams and positions."""

import io
import json
import tarfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d.datasets.shards import PackedClips, ShardWriter, decode_depth, encode_depth, relative_error
from geo4d.errors import InputError, OutputError
from tests.support.packed import make_clip, pack


@given(low=st.floats(1e-3, 1e3), span=st.floats(1, 1e6), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_depth_keeps_the_precision_it_states(low, span, seed):
    depth = np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(low * span), 200)).astype(
        np.float32
    )
    depth[:2] = np.nan, np.inf
    codes, near, far = encode_depth(depth)
    back = decode_depth(codes, near, far)
    assert np.isnan(back[0])
    assert np.isposinf(back[1])
    off = np.abs(back[2:] / depth[2:] - 1).max()
    assert off <= relative_error(near, far) + 3e-7  # and the rounding of float32
    # Codes are stable: what was read packs to the same again.
    np.testing.assert_array_equal(encode_depth(back)[0], codes)


def test_depth_without_a_surface_and_bad_depth():
    codes, near, far = encode_depth(np.array([np.nan, np.inf]))
    assert codes.tolist() == [0, 65535]
    assert np.isposinf(decode_depth(codes, near, far)[1])
    with pytest.raises(ValueError, match="positive"):
        encode_depth(np.array([0.0, 1.0]))


@pytest.mark.parametrize("place", ["folder", "memory://bucket/clips"])
def test_clips_come_back(place, tmp_path):
    root = tmp_path / "a" if place == "folder" else f"{place}-{tmp_path.name}"
    packed = pack(root, {"streets": 5, "rooms": 2})
    assert len(packed) == 7
    assert [(source.name, source.num_clips, source.still) for source in packed.sources] == [
        ("streets", 5, False),
        ("rooms", 2, True),
    ]
    for number in (6, 0, 3):
        expected, found = make_clip(number, dataset="streets" if number < 5 else "rooms"), packed[number]
        for name in ("name", "dataset", "scale_kind", "still"):
            assert getattr(found, name) == getattr(expected, name)
        for name in ("rgb", "intrinsics", "times_s", "c2w", "dynamic"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        np.testing.assert_allclose(found.depth, expected.depth, rtol=1e-4)
        np.testing.assert_array_equal(np.isnan(found.depth), np.isnan(expected.depth))
    with pytest.raises(OutputError, match="already holds"):
        ShardWriter(root)


def test_anyone_can_read_them(tmp_path):
    """By the text of the documentation: webdataset for the tar file, OpenCV for PNG, one formula for depth."""
    from webdataset import WebDataset

    pack(tmp_path, {"streets": 3})
    samples = list(WebDataset(str(tmp_path / "00-streets-00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001"]
    facts = json.loads(samples[1]["json"])
    code = cv2.imdecode(np.frombuffer(samples[1]["0002.depth.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    near, far = facts["depth"]["near"], facts["depth"]["far"]
    depth = near * (far / near) ** ((code.astype(float) - 1) / 65533)
    truth = make_clip(1).depth[2]
    assert (code == 65535).tolist() == np.isposinf(truth).tolist()
    assert (code == 0).tolist() == np.isnan(truth).tolist()
    known = np.isfinite(truth)
    assert np.abs(depth[known] / truth[known] - 1).max() <= facts["depth"]["relative_error"] + 1e-7
    assert facts["c2w"][1] is None


def test_equal_clips_give_equal_files(tmp_path):
    for folder in ("a", "b"):
        pack(tmp_path / folder, {"streets": 3})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_other_versions_missing_and_short_files_are_refused(tmp_path):
    pack(tmp_path / "a", {"streets": 5})
    index = tmp_path / "a" / "index.json"
    facts = json.loads(index.read_text())
    with pytest.raises(InputError, match="data pack"):
        PackedClips(tmp_path)
    for version, found in ((2, "version 2"), (None, "no version")):
        index.write_text(json.dumps({**facts, "version": version}))
        with pytest.raises(InputError, match=found):
            PackedClips(tmp_path / "a")
    index.write_text(json.dumps({"count": 3, "first": 0, "shards": []}))  # what 0.1.0's first packer wrote
    with pytest.raises(InputError, match="no version"):
        PackedClips(tmp_path / "a")
    index.write_text(json.dumps(facts))
    shard = tmp_path / "a" / "00-streets-00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:700])
    with pytest.raises(InputError, match="00-streets-00001"):
        PackedClips(tmp_path / "a")
    shard.unlink()
    with pytest.raises(InputError, match="00-streets-00001"):
        PackedClips(tmp_path / "a")
    shard.write_bytes(whole.replace(b"\x89PNG", b"\x89PNX"))
    with pytest.raises(InputError, match="00-streets-00001"):
        PackedClips(tmp_path / "a")[2]


def test_an_interrupted_packing_is_no_data_set(tmp_path):
    writer = ShardWriter(tmp_path / "a", per_shard=2)

    def clips():
        yield from (make_clip(0), make_clip(1), make_clip(2))
        raise InputError("damaged")

    with pytest.raises(InputError, match="damaged"):
        writer.write_source("streets", clips())
    with pytest.raises(InputError, match="data pack"):
        PackedClips(tmp_path / "a")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "a" / "00-streets-00000.tar").read_bytes())) as tar:
        assert len(tar.getnames()) == 2 * 10
    assert not (tmp_path / "a" / "00-streets-00001.tar").exists()
