import dataclasses

import numpy as np
import pytest
import torch

from geo4d.apps.commands.export import parse_frames
from geo4d.errors import OutputError
from geo4d.export import ExportConfig, conventions, save
from tests.readers_of_targets import first_camera
from tests.support.poses import se3_exp

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
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_others_is_kept(tmp_path, scene, name, overwrite) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="that geo4d wrote" if overwrite else "exists already"):
        save(scene, tmp_path / "out", name, overwrite=overwrite)
    assert (tmp_path / "out/mine.txt").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "name", ["a.npz", "one.exr", "one.png", "a.ply", "a.glb", "a.txt", "a.nk", "a.chan", "a.mp4"]
)
def test_a_file_is_replaced_only_when_asked(tmp_path, scene, name) -> None:
    format = {"txt": "kitti", "nk": "nuke", "mp4": "preview"}.get(name[2:], name[2:].removeprefix("e."))
    format = {"e.exr": "exr", "e.png": "png"}.get(name[2:], format)
    config = ExportConfig(frames=(1,))
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match="pass --overwrite"):
        save(scene, tmp_path / name, format, config)
    assert (tmp_path / name).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1
    save(scene, tmp_path / name, format, config, overwrite=True)
    assert (tmp_path / name).read_bytes()[:8] != b"precious"


def test_files_beside_are_not_replaced_either(tmp_path, scene) -> None:
    (tmp_path / "k.json").write_text("precious")
    with pytest.raises(OutputError, match=r"k\.json exists already"):
        save(scene, tmp_path / "k.txt", "kitti")
    assert [file.name for file in tmp_path.iterdir()] == ["k.json"]
    (tmp_path / "shots").mkdir()
    save(scene, tmp_path / "shots", "tum")
    save(scene, tmp_path / "shots", "kitti")  # joins
    with pytest.raises(OutputError, match=r"trajectory_tum\.txt exists already"):
        save(scene, tmp_path / "shots", "tum")
    save(scene, tmp_path / "shots", "tum", overwrite=True)


def test_overwriting_a_folder_takes_our_files_and_keeps_those_of_others(tmp_path, scene) -> None:
    save(scene, tmp_path / "out", "png")
    (tmp_path / "out/mine").mkdir()
    (tmp_path / "out/mine/notes.txt").write_text("precious")
    save(scene, tmp_path / "out", "png", ExportConfig(frames=(1,)), overwrite=True)
    names = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*")}
    assert names - {"mine", "mine/notes.txt"} == {
        "depth_000001.png", "depth.json", "README.txt", ".geo4d-files.json",
    }  # fmt: skip
    assert (tmp_path / "out/mine/notes.txt").read_text() == "precious"
    save(scene, tmp_path / "out", "png", overwrite=True)  # again: still knows its own
    assert len(list((tmp_path / "out").glob("depth_*.png"))) == 4
    assert (tmp_path / "out/mine/notes.txt").read_text() == "precious"
    save(scene, tmp_path / "a.nk", "nuke")
    save(scene, tmp_path / "a.nk", "nuke", ExportConfig(frames=(0, 1)), overwrite=True)
    assert len(list((tmp_path / "a_nk_plate").glob("*.png"))) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nk", "a_nk_plate", "out"]


def test_a_failed_overwrite_leaves_what_was_there(tmp_path, scene) -> None:
    save(scene, tmp_path / "out", "png")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    class Broken:
        shape, dtype = scene.depth.shape, scene.depth.dtype

        def __getitem__(self, frame):
            if frame == 3:
                raise RuntimeError("the disk is gone")
            return scene.depth[frame]

    with pytest.raises(RuntimeError):
        save(dataclasses.replace(scene, depth=Broken()), tmp_path / "out", "png", overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("glb", "x.ply"),
        ("colmap", "x.ply"),
        ("npz", "x.NK"),
        ("ply", "x.usdz"),
        ("tum", "x.mp4"),
        ("preview", "x.mov"),
        ("usd", "x.abc"),
        ("glb", "x.GLTF"),
        ("ply", "x.pcd"),
        ("mcap", "x.bag"),
    ],
)
def test_suffix_and_format_agree(tmp_path, scene, name, path) -> None:
    with pytest.raises(ValueError, match=f"for the format {name}"):
        save(scene, tmp_path / path, name)
    assert list(tmp_path.iterdir()) == []
    save(
        scene, tmp_path / "shot.v2", name
    )  # no suffix of any format, and no file of another program: a folder


def test_unknown_format_and_frames(tmp_path, scene) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        save(scene, tmp_path / "x", "obj")
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        save(scene, tmp_path / "x.npz", "npz", ExportConfig(frames=(7,)))
    for name in ("exr", "png"):  # the name that was asked for, not the one that is written at first
        with pytest.raises(ValueError, match=f"one frame for the file x.{name}, got"):
            save(scene, tmp_path / f"x.{name}", name)
    assert parse_frames("1:4:2", 9) == (1, 3)
    assert parse_frames("-2:", 9) == (7, 8)
    assert parse_frames("3,1", 9) == (3, 1)
    with pytest.raises(ValueError, match="START:STOP"):
        parse_frames("a", 9)
