"""The authors' files converted: every stored number against the file it came from, and what a network reads of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geo4d.errors import CheckpointError, OutputError
from geo4d.models.geo4d.conditioning import compute_constants
from geo4d.models.geo4d.convert import convert
from geo4d.models.geo4d.weights import main_table, make_parts, point_vae_table
from tests.support.published import small, state

CONFIG = small()
TABLES = {"main": main_table(CONFIG), "point": point_vae_table(CONFIG)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """Both files as the authors name their tensors, every value drawn."""
    return {role: state(table) for role, table in TABLES.items()}


@pytest.fixture
def files(tmp_path: Path, published: dict[str, dict[str, Tensor]]) -> tuple[Path, Path]:
    torch.save({"state_dict": published["main"]}, tmp_path / "main.ckpt")
    torch.save({"state_dict": published["point"]}, tmp_path / "point.ckpt")
    return tmp_path / "main.ckpt", tmp_path / "point.ckpt"


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_every_number_is_the_authors_under_our_name(files, published, tmp_path: Path) -> None:
    convert(*files, tmp_path / "out", config=CONFIG)
    found = stored(tmp_path / "out")
    wanted = {
        f"{key.part}.{key.ours}": published[role][name].reshape(key.our_shape)
        for role, table in TABLES.items()
        for name, key in table.items()
        if key.part in ("unet", "vae", "point_vae")
    }
    assert {name for name in found if not name.startswith("context.")} == set(wanted)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_the_towers_constants_stand_in_their_place(files, published, tmp_path: Path) -> None:
    """The stored context is what the towers of these weights say, put together here by their own names."""
    convert(*files, tmp_path / "out", config=CONFIG)
    parts = make_parts(CONFIG, ["text", "image", "resampler"])
    for part, module in parts.items():
        module.load_state_dict(
            {
                key.ours: published["main"][name].reshape(key.our_shape)
                for name, key in TABLES["main"].items()
                if key.part == part
            },
            assign=True,
        )
    wanted = compute_constants(
        text_tower=parts["text"], image_tower=parts["image"], resampler=parts["resampler"]
    )
    found = stored(tmp_path / "out")
    for name, value in vars(wanted).items():
        torch.testing.assert_close(found[f"context.{name}"], value, rtol=1e-6, atol=1e-6)
    assert not any(name.startswith(("text.", "image.", "resampler.")) for name in found)


def test_towers_types_and_shards_as_asked(files, published, tmp_path: Path) -> None:
    convert(*files, tmp_path / "out", config=CONFIG, dtype=torch.float16, keep_towers=True, shard_bytes=2**20)
    found = stored(tmp_path / "out")
    assert {tensor.dtype for name, tensor in found.items() if not name.startswith("context.")} == {
        torch.float16
    }
    assert any(name.startswith("image.") for name in found)
    assert any(name.startswith("resampler.") for name in found)
    sizes = [file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")]
    largest = max(tensor.nbytes for tensor in found.values())
    assert len(sizes) > 1
    assert max(sizes) < max(2**20, largest) + 2**16  # the header beside the tensors
    notice = (tmp_path / "out/NOTICE.md").read_text()
    assert "both CLIP towers" not in notice
    described = json.loads((tmp_path / "out/config.json").read_text())
    assert described["family"] == "geo4d"
    assert described["network"] == json.loads(json.dumps(CONFIG.to_dict()))


def test_a_file_that_lacks_a_tensor_or_holds_a_foreign_one_is_refused(
    files, published, tmp_path: Path
) -> None:
    name = next(iter(published["point"]))
    for broken in (
        {key: value for key, value in published["point"].items() if key != name},
        published["point"] | {name: published["point"][name].flatten()[:1]},
    ):
        torch.save({"state_dict": broken}, files[1])
        with pytest.raises(CheckpointError, match=name.split(".")[-1]):
            convert(*files, tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_unless_told_otherwise(files, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        convert(*files, tmp_path / "out", config=CONFIG)
    assert (tmp_path / "out/mine.txt").read_text() == "mine"
