import dataclasses

import numpy as np
import pytest
import torch

from geo4d.apps.commands.export import parse_frames
from geo4d.errors import OutputError
from geo4d.export import FORMATS, ExportConfig, conventions, save
from geo4d.geometry.poses import se3_exp
from tests.readers_of_targets import first_camera

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)


@pytest.mark.parametrize("name", first_camera.FORMATS)
def test_the_world_of_every_export_is_the_first_camera(tmp_path, filmed, name) -> None:
    suffix = {"npz": ".npz", "ply": ".ply", "glb": ".glb", "tum": ".txt", "kitti": ".txt"}.get(name, "")
    config = dataclasses.replace(KEEP_ALL, per_frame=name == "glb")
    save(filmed, tmp_path / f"out{suffix}", name, config)
    first_camera.assert_world_is_first_camera(tmp_path / f"out{suffix}", name, filmed.intrinsics[0])
    assert "first camera" in conventions(filmed)["world"]
    # The check sees a world that is another one, and the export says so.
    c2w = se3_exp(torch.tensor([[0.1, 0, 0.05, 0, 0.02, 0]], dtype=torch.float64)).numpy() @ filmed.c2w
    moved = dataclasses.replace(filmed, c2w=c2w)
    save(moved, tmp_path / f"moved{suffix}", name, config)
    with pytest.raises(AssertionError):
        first_camera.assert_world_is_first_camera(tmp_path / f"moved{suffix}", name, filmed.intrinsics[0])
    assert "not its origin" in conventions(moved)["world"]


@pytest.mark.parametrize("name", ["ply", "glb", "tum", "kitti", "colmap", "nerfstudio"])
def test_world_formats_need_poses_and_one_world(tmp_path, scene, name) -> None:
    suffix = {"ply": ".ply", "glb": ".glb"}.get(name, "")
    target = tmp_path / f"out{suffix}"
    with pytest.raises(ValueError, match="geo4d pose"):
        save(dataclasses.replace(scene, c2w=None), target, name)
    cut = dataclasses.replace(scene, scene=np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="--scene"):
        save(cut, target, name)
    assert not target.exists()
    save(cut, target, name, ExportConfig(scene=1))
    assert target.exists()


@pytest.mark.parametrize("name", ["exr", "png", "colmap", "nerfstudio"])
def test_existing_output_is_kept(tmp_path, scene, name) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        save(scene, tmp_path / "out", name)
    assert (tmp_path / "out/mine.txt").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_format_and_frames(tmp_path, scene) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        save(scene, tmp_path / "x", "obj")
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        save(scene, tmp_path / "x.npz", "npz", ExportConfig(frames=(7,)))
    assert parse_frames("1:4:2", 9) == (1, 3)
    assert parse_frames("-2:", 9) == (7, 8)
    assert parse_frames("3,1", 9) == (3, 1)
    with pytest.raises(ValueError, match="START:STOP"):
        parse_frames("a", 9)
    assert len(FORMATS) == 10
