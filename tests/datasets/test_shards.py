"""Packed clips: what was written comes back, by our reader and by others; versions, damage, streams and positions."""

import io
import json
import tarfile
from collections import Counter
from itertools import islice

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from geo4d.datasets.base import Sequence
from geo4d.datasets.clips import Clip, Cover, cut_clips
from geo4d.datasets.pieces import constant_intrinsics
from geo4d.datasets.shards import PackedClips, ShardWriter, decode_depth, encode_depth, relative_error
from geo4d.datasets.stream import PackedStream
from geo4d.errors import InputError, OutputError


def make_clip(number: int, frames: int = 3, **changes) -> Clip:
    rng = np.random.default_rng(number)
    depth = rng.uniform(0.5, 300, (frames, 6, 8)).astype(np.float32)
    depth[:, 0, 0], depth[:, 1, 1] = np.inf, np.nan
    c2w = np.tile(np.eye(4), (frames, 1, 1))
    c2w[:, :3, 3] = rng.normal(size=(frames, 3))
    c2w[1:2] = np.nan
    fields = {
        "name": f"scene@{number}",
        "dataset": "test",
        "rgb": np.full((frames, 6, 8, 3), (number % 250, 90, 200), np.uint8),
        "depth": depth,
        "intrinsics": constant_intrinsics(frames, 10, 11, 4, 3, integer_centres=False),
        "times_s": np.arange(frames) / 10,
        "c2w": c2w,
        "dynamic": rng.random((frames, 6, 8)) > 0.5,
        **changes,
    }
    return Clip(**fields)


def pack(root, counts: dict[str, int], per_shard=2, ratios=None, **changes) -> PackedClips:
    writer = ShardWriter(root, per_shard=per_shard, rgb="png")
    first = 0
    for name, count in counts.items():
        clips = (make_clip(first + i, dataset=name, **changes) for i in range(count))
        writer.write_source(name, clips, still=name == "rooms", ratio=(ratios or {}).get(name))
        first += count
    writer.close()
    return PackedClips(root)


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


# Streams ------------------------------------------------------------------------------------------------------------


def test_an_epoch_of_all_consumers_is_every_clip_once(tmp_path):
    packed = pack(tmp_path, {"streets": 24}, frames=1, c2w=None)
    seen, shards = Counter(), []
    for rank in range(2):
        for worker in range(3):
            stream = PackedStream(packed, seed=4, rank=rank, processes=2, workers=3)
            numbers = list(islice(stream.numbers(worker), 4))  # 12 shards of 2 clips: 2 shards each
            seen.update(numbers)
            shards.append({number // 2 for number in numbers})
    assert seen == Counter(range(24))
    assert sum(len(part) for part in shards) == 12  # no shard is read by two


def test_order_depends_on_seed_and_epoch(tmp_path):
    packed = pack(tmp_path, {"streets": 12}, frames=1, c2w=None)
    first, other = (list(islice(PackedStream(packed, seed=s).numbers(), 24)) for s in (0, 1))
    assert sorted(first[:12]) == sorted(first[12:]) == list(range(12))
    assert first[:12] != first[12:]
    assert first != other


def test_sources_are_drawn_by_ratio_or_by_frames(tmp_path):
    packed = pack(
        tmp_path / "a", {"streets": 6, "rooms": 6}, ratios={"streets": 1.0, "rooms": 3.0}, frames=1, c2w=None
    )
    drawn = list(islice(PackedStream(packed, seed=2).numbers(), 4000))
    assert np.mean([number >= 6 for number in drawn]) == pytest.approx(0.75, abs=0.03)
    packed = pack(tmp_path / "b", {"streets": 8, "rooms": 2}, frames=1, c2w=None)
    drawn = list(islice(PackedStream(packed, seed=2).numbers(), 4000))
    assert np.mean([number >= 8 for number in drawn]) == pytest.approx(0.2, abs=0.03)
    assert {n >= 8 for n in islice(PackedStream(packed, kind="still").numbers(), 50)} == {True}
    assert {n >= 8 for n in islice(PackedStream(packed, kind="video").numbers(), 50)} == {False}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_exactly_where_it_stopped(workers, tmp_path):
    packed = pack(tmp_path, {"streets": 10, "rooms": 6}, frames=1, c2w=None)
    share = {"rank": 0 if workers else 1, "processes": 1 if workers else 2}
    stream = PackedStream(packed, seed=9, workers=workers, mix=2, **share)

    def numbers(part, count):
        return [number for number, _ in islice(DataLoader(part, batch_size=None, num_workers=workers), count)]

    whole = numbers(stream, 22)
    position = json.loads(json.dumps(stream.position(8)))
    assert numbers(stream.resumed(position), 14) == whole[8:]
    with pytest.raises(InputError, match="seed"):
        PackedStream(packed, seed=8, workers=workers, mix=2, **share).resumed(position)
    with pytest.raises(InputError, match="processes"):
        PackedStream(packed, seed=9, workers=workers, mix=2, processes=3).resumed(position)
    if workers:
        with pytest.raises(InputError, match="multiple"):
            stream.resumed({**position, "samples": 7})


def test_streams_that_cannot_be_shared_are_refused(tmp_path):
    packed = pack(tmp_path, {"streets": 4}, frames=1, c2w=None)
    with pytest.raises(InputError, match="at least 4 shards"):
        PackedStream(packed, processes=2, workers=2)
    with pytest.raises(InputError, match="still"):
        PackedStream(packed, kind="still")
    with pytest.raises(ValueError, match="rank"):
        PackedStream(packed, rank=1)
    with pytest.raises(ValueError, match="2 workers"):
        next(iter(PackedStream(packed, workers=2)))


# The bridge ---------------------------------------------------------------------------------------------------------


def make_sequence(frames=7, size=(12, 20), rgb_size=None, **changes):
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    depth = np.stack([1 + 0.05 * x + 0.02 * y + t for t in range(frames)]).astype(np.float32)
    height, width = rgb_size or size
    rgb = np.repeat(np.linspace(0, 1, width, dtype=np.float32)[None, :, None], 3, -1)
    fields = {
        "name": "s",
        "dataset": "test",
        "times_s": np.arange(frames) / 10,
        "size": size,
        "rgb": np.broadcast_to(rgb, (frames, height, width, 3)),
        "depth": depth,
        "intrinsics": constant_intrinsics(frames, 15, 15, 10, 6, integer_centres=False),
        **changes,
    }
    return Sequence(**fields)


def test_clips_cover_a_sequence_without_overlap():
    clips = list(cut_clips(make_sequence(frames=7), length=3))
    assert [clip.num_frames for clip in clips] == [3, 3, 1]
    assert [clip.name for clip in clips] == ["s@0", "s@3", "s@6"]
    np.testing.assert_allclose(np.concatenate([clip.times_s for clip in clips]), np.arange(7) / 10)


@pytest.mark.parametrize("target", [(8, 16), (24, 24), (12, 20), (30, 20)])
def test_a_point_stays_where_it_is_when_pictures_are_resized_and_cut(target):
    sequence = make_sequence(frames=1)
    clip = next(cut_clips(sequence, size=target))
    assert clip.size == target
    matrix, before = clip.intrinsics[0], sequence.intrinsics[0]
    for row, column in ((0, 0), (target[0] - 1, target[1] - 1), (target[0] // 2, 3)):
        ray = np.linalg.inv(matrix) @ [column + 0.5, row + 0.5, 1]
        x, y, _ = before @ ray  # the same ray in the picture before
        # Depth is the nearest pixel's: within half a pixel of the plane at the ray.
        assert clip.depth[0, row, column] == pytest.approx(1 + 0.05 * x + 0.02 * y, abs=0.036)
        inside = 1 < x < 19
        if inside:
            assert clip.rgb[0, row, column, 0] / 255 == pytest.approx((x - 0.5) / 19, abs=0.03)


def test_colour_of_another_size_and_what_is_missing():
    clip = next(cut_clips(make_sequence(rgb_size=(24, 40)), size=(6, 10)))
    assert clip.rgb.shape == (7, 6, 10, 3)
    with pytest.raises(InputError, match="proportions"):
        next(cut_clips(make_sequence(rgb_size=(24, 20))))
    with pytest.raises(InputError, match="intrinsics"):
        next(cut_clips(make_sequence(intrinsics=None)))
    assert Cover((436, 1024), (320, 640)).resized == (320, 752)
