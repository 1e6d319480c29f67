from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geo4d.export.common import chosen_frames, conventions, is_file, require_rgb, write_readme
from geo4d.export.config import ExportConfig, Reference


def test_all_frames_unless_some_are_named(scene) -> None:
    assert chosen_frames(scene, ExportConfig()) == [0, 1, 2, 3]
    assert chosen_frames(scene, ExportConfig(frames=(3, 1))) == [3, 1]
    for wrong in ((4,), (-1,), ()):
        with pytest.raises(ValueError, match=r"frames in \[0, 3\]"):
            chosen_frames(scene, ExportConfig(frames=wrong))


def test_a_scene_is_chosen_by_its_number(scene) -> None:
    two = replace(scene, scene=np.array([0, 0, 1, 1]))
    assert chosen_frames(two, ExportConfig(scene=1)) == [2, 3]
    assert chosen_frames(two, ExportConfig(scene=1, frames=(0, 3))) == [3]
    with pytest.raises(ValueError, match="none of the chosen frames"):
        chosen_frames(two, ExportConfig(scene=1, frames=(0, 1)))
    with pytest.raises(ValueError, match=r"a scene out of \[0, 1\], got 5"):
        chosen_frames(two, ExportConfig(scene=5))


def test_one_world_is_asked_for_where_a_format_has_one(scene) -> None:
    two = replace(scene, scene=np.array([0, 0, 1, 1]))
    assert chosen_frames(two, ExportConfig()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"scenes \[0, 1\], each in a world of its own; pass --scene"):
        chosen_frames(two, ExportConfig(), one_world=True)
    assert chosen_frames(two, ExportConfig(frames=(2, 3)), one_world=True) == [2, 3]
    with pytest.raises(ValueError, match="add them with 'geo4d pose'"):
        chosen_frames(replace(scene, c2w=None), ExportConfig(), one_world=True)


def test_the_world_is_described_as_the_poses_have_it(filmed, scene) -> None:
    assert "c2w of frame 0 is the identity" in conventions(filmed)["world"]
    assert "that of the poses the result was given" in conventions(scene)["world"]
    two = replace(filmed, scene=np.array([0, 0, 1, 1]))
    assert (
        "that of the poses" in conventions(two)["world"]
    )  # the second scene does not start at its first camera
    own = two.c2w.copy()
    own[2:] = np.linalg.inv(own[2]) @ own[2:]
    assert "of frame 0, 2 is the identity" in conventions(replace(two, c2w=own))["world"]
    assert conventions(replace(filmed, c2w=None))["world"].startswith("none")


def test_a_turned_world_is_described_as_turned(filmed) -> None:
    config = ExportConfig(up="z")
    turned = filmed.c2w.copy()
    turned[:, :3] = config.rotation @ turned[:, :3]
    words = conventions(replace(filmed, c2w=turned), config)
    assert "is the rotation to these axes" in words["world"]
    assert "+z up" in words["world_axes"]
    assert "world_axes" not in conventions(filmed)


def test_units_are_metres_only_where_they_are(filmed) -> None:
    assert "up to scale" in conventions(filmed)["unit"]
    assert conventions(replace(filmed, scale_kind="metric"))["unit"] == "metres"
    assert conventions(filmed, ExportConfig(metres_per_unit=0.01))["unit"] == "0.01 metres"
    reference = Reference((0, 0), (1, 1), 2, 3.0)
    words = conventions(filmed, ExportConfig(scale=2.5, reference=reference, metres_per_unit=1.0))
    assert words["scale"] == "lengths are those of the result times 2.5"
    assert words["reference"] == reference.words()


def test_suffixes_tell_files_from_folders() -> None:
    assert is_file(Path("a/b.PLY"), ".ply", ".glb")
    assert not is_file(Path("a/ply"), ".ply")


def test_pictures_that_cannot_be_read_are_named(scene) -> None:
    assert require_rgb(scene, "GLB") is scene.rgb
    with pytest.raises(ValueError, match="GLB includes the images, but the source"):
        require_rgb(replace(scene, rgb=None), "GLB")


def test_a_readme_names_files_conventions_and_frames(tmp_path, filmed) -> None:
    write_readme(tmp_path, filmed, ExportConfig(), [1, 3], {"depth/": "z-depth"})
    text = (tmp_path / "README.txt").read_text(encoding="utf-8")
    assert "  depth/: z-depth\n" in text
    assert "  1 11 0.040000\n  3 13 0.120000\n" in text
    for name, words in conventions(filmed).items():
        assert f"  {name}: {words}\n" in text
