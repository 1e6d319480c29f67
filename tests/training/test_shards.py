import json

import pytest
import torch

from geo4d.errors import InputError, OutputError
from geo4d.training.shards import ShardSource, pack_clips


def test_packed_clips_come_back_in_any_order(source, tmp_path) -> None:
    pack_clips(source, tmp_path / "a", 7, per_shard=3, first=20)
    packed = ShardSource(tmp_path / "a")
    assert len(packed) == 7
    assert sorted(p.name for p in (tmp_path / "a").glob("*.tar")) == [f"clips-0000{i}.tar" for i in range(3)]
    for index in (5, 0, 6, 9):
        truth = source(20 + index % 7)
        for name, value in vars(packed(index)).items():
            assert torch.equal(value, getattr(truth, name)), name
    assert json.loads((tmp_path / "a/index.json").read_text())["source"]["num_frames"] == 4


def test_equal_clips_give_equal_files_and_webdataset_reads_them(source, tmp_path) -> None:
    from webdataset import WebDataset

    for folder in ("a", "b"):
        pack_clips(source, tmp_path / folder, 2, per_shard=2)
    name = "clips-00000.tar"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    samples = list(WebDataset(str(tmp_path / "a" / name), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001"]
    assert "clip.safetensors" in samples[0]


def test_nothing_is_overwritten_and_damage_is_named(source, tmp_path) -> None:
    pack_clips(source, tmp_path / "a", 2)
    with pytest.raises(OutputError, match="already holds"):
        pack_clips(source, tmp_path / "a", 2)
    with pytest.raises(InputError, match="data pack"):
        ShardSource(tmp_path)
    index = tmp_path / "a/index.json"
    index.write_text(index.read_text().replace('"clips": 2', '"clips": 3'))
    with pytest.raises(InputError, match="expected 3 clips"):
        ShardSource(tmp_path / "a")
