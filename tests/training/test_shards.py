"""Packed clips as a source for training: with the evidence that was packed, or with simulated evidence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from geo4d.datasets.clips import Clip
from geo4d.datasets.shards import ShardWriter
from geo4d.errors import InputError, OutputError
from geo4d.training.loop import train
from geo4d.training.shards import EVIDENCE, ShardSource, pack_clips
from tests.support.s3 import faulty_s3
from tests.training.test_loop import LOOP, batches, task


def test_generated_clips_come_back_with_their_evidence(source, tmp_path) -> None:
    pack_clips(source, tmp_path / "a", 7, per_shard=3, first=20)
    packed = ShardSource(tmp_path / "a")
    assert len(packed) == 7
    assert len(list((tmp_path / "a").glob("*.tar"))) == 3
    for index in (5, 0, 6, 9):
        truth, found = source(20 + index % 7), packed(index)
        for name, value in vars(truth).items():
            got = getattr(found, name)
            assert got.dtype == value.dtype
            if name == "depth":  # the code keeps 1e-4, a half-precision number 5e-4
                torch.testing.assert_close(got.float(), value.float(), rtol=1e-3, atol=0)
            else:
                assert torch.equal(got, value), name
    with pytest.raises(OutputError, match="already holds"):
        pack_clips(source, tmp_path / "a", 2)


def real_clip(source, **changes) -> Clip:
    """What a data set gives: no evidence."""
    made = source(3)
    clip = Clip(
        name="s@0",
        dataset="test",
        rgb=made.rgb.numpy(),
        depth=made.depth.float().numpy(),
        intrinsics=made.intrinsics.double().numpy(),
        times_s=np.arange(4) / 10,
        c2w=made.c2w.double().numpy(),
    )
    return replace(clip, **changes)


def packed_source(root, clip: Clip, seed=0) -> ShardSource:
    writer = ShardWriter(root, rgb="png")
    writer.write_source("test", iter([clip]))
    writer.close()
    return ShardSource(root, seed)


def test_evidence_is_simulated_where_none_was_packed(source, tmp_path) -> None:
    packed = packed_source(tmp_path / "a", real_clip(source))
    first, again = packed(0), packed(1)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name)), name  # the same clip again: the same evidence
    assert first.evidence_disparity.shape[0] == 4
    assert torch.isfinite(first.evidence_disparity.float()).all()
    assert torch.equal(first.rgb, source(3).rgb)


def test_clips_that_todays_stages_would_misread_are_refused(source, tmp_path) -> None:
    clip = real_clip(source)
    holes = clip.depth.copy()
    holes[0, 9, 9] = np.nan
    with pytest.raises(InputError, match="unknown"):
        packed_source(tmp_path / "a", replace(clip, depth=holes))(0)
    with pytest.raises(InputError, match="pose"):
        packed_source(tmp_path / "b", replace(clip, c2w=None))(0)
    wrong = replace(clip, extras={EVIDENCE: save({"a": torch.zeros(1)})})
    with pytest.raises(InputError, match="evidence_trust"):
        packed_source(tmp_path / "c", wrong)(0)


def test_clips_come_at_the_size_of_the_stage(source, tmp_path) -> None:
    clip = real_clip(source)
    packed_source(tmp_path / "a", clip)
    found = ShardSource(tmp_path / "a", size=(64, 64), evidence=None)(0)
    assert found.rgb.shape == (4, 64, 64, 3)
    assert found.depth.shape == (4, 64, 64)
    # Twice as large, then 16 columns less on either side.
    assert found.intrinsics[0, 0, 0] == 2 * clip.intrinsics[0, 0, 0]
    assert found.intrinsics[0, 0, 2] == 2 * clip.intrinsics[0, 0, 2] - 16
    torch.testing.assert_close(
        found.depth[:, 20:, ::2][:, ::2].float(),
        torch.from_numpy(clip.depth[:, 10:, 8:40]), rtol=1e-3, atol=0,
    )  # fmt: skip
    assert not found.evidence_confidence.any()
    assert torch.equal(found.times_s, torch.arange(4) / 10)


def test_holes_are_kept_for_stages_that_know_them(source, tmp_path) -> None:
    clip = real_clip(source)
    clip.depth[0, 9, 9] = np.nan
    packed_source(tmp_path / "a", clip)
    found = ShardSource(tmp_path / "a", evidence=None, holes=True)(0)
    assert torch.isnan(found.depth).nonzero().tolist() == [[0, 9, 9]]


def test_short_clips_and_single_pictures_are_told(source, tmp_path) -> None:
    packed_source(tmp_path / "a", real_clip(source))
    with pytest.raises(InputError, match=r"at least 9 frames.*s@0 has 4"):
        ShardSource(tmp_path / "a", least=9)(0)
    writer = ShardWriter(tmp_path / "b", rgb="png")
    writer.write_source("stills", iter([real_clip(source, still=True)]), still=True)
    writer.close()
    with pytest.raises(InputError, match="single pictures only"):
        ShardSource(tmp_path / "b", least=2)


def test_sources_are_drawn_by_their_ratios(source, tmp_path) -> None:
    writer = ShardWriter(tmp_path / "a", rgb="png")
    bright = np.full((4, 32, 48, 3), 255, np.uint8)
    writer.write_source("many", iter([real_clip(source, name=f"m@{n}") for n in range(4)]), ratio=1.0)
    writer.write_source("few", iter([real_clip(source, name="f@0", rgb=bright)]), ratio=3.0)
    writer.close()
    packed = ShardSource(tmp_path / "a", 5, evidence=None)
    numbers = [packed._number(index) for index in range(400)]
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert 0.68 < np.mean([number == 4 for number in numbers]) < 0.82
    assert (packed(numbers.index(4)).rgb == 255).all()
    assert numbers == [ShardSource(tmp_path / "a", 5)._number(index) for index in range(400)]


def test_a_run_from_a_store_that_goes_down_is_resumed_with_the_losses_of_a_whole_one(
    source, tmp_path, monkeypatch
) -> None:
    """Shards in an S3 on loopback; its answers are late, cut and refused, then there are none."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
    url = "s3://bucket/clips"
    loop = replace(LOOP, decay=0.0, save_every=2)
    with faulty_s3() as s3:
        pack_clips(source, url, 7, per_shard=3)
        pack_clips(source, tmp_path / "clips", 7, per_shard=3)
        s3.faults.extend(("GET", ".tar", kind) for kind in ("503", "cut", "short", "lost"))
        packed, here = ShardSource(url), ShardSource(tmp_path / "clips")
        train(task(source), batches(here), loop, tmp_path / "whole", device="cpu")

        reads = 0

        def down_after(index: int):
            nonlocal reads
            reads += 1
            if reads == 9:
                s3.faults.extend(("GET", ".tar", "503") for _ in range(4))
            return packed(index)

        with pytest.raises(InputError, match=r"s3://bucket/clips could not give .*asked 4 times"):
            train(task(source), batches(down_after), loop, tmp_path / "cut", device="cpu")
        assert s3.used == ["503", "cut", "short", "lost", *["503"] * 4]
        assert 0 < max(by_step(tmp_path / "cut")) < 6
        train(task(source), batches(packed), loop, tmp_path / "cut", resume=True, device="cpu")
    assert by_step(tmp_path / "cut") == by_step(tmp_path / "whole")
    assert set(by_step(tmp_path / "whole")) == set(range(1, 7))


def by_step(folder) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}
