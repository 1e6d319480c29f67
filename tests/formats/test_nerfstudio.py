import dataclasses
import json

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.nerfstudio import NerfstudioModel, load_nerfstudio, save_nerfstudio


def test_nerfstudio_round_trip_and_axes(tmp_path, c2w, intrinsics) -> None:
    model = NerfstudioModel(
        files=[f"images/{i}.png" for i in range(5)],
        intrinsics=np.stack([intrinsics] * 5),
        sizes=[(32, 41)] * 5,
        c2w=c2w,
        depth_files=[f"depth/{i}.png" for i in range(5)],
        mask_files=[f"masks/{i}.png" for i in range(5)],
        ply_file="points.ply",
        times_s=np.arange(5.0),
    )
    save_nerfstudio(tmp_path / "transforms.json", model, {"note": "x"})
    read = load_nerfstudio(tmp_path)
    np.testing.assert_allclose(read.c2w, c2w, atol=1e-12)
    np.testing.assert_allclose(read.intrinsics, model.intrinsics)
    assert read.depth_files == model.depth_files
    assert read.depth_unit == 0.001
    assert read.mask_files == model.mask_files
    assert read.ply_file == "points.ply"
    with pytest.raises(ValueError, match="one factor"):  # nerfstudio would not see it
        save_nerfstudio(tmp_path / "t.json", dataclasses.replace(model, depth_unit=0.01))
    with pytest.raises(ValueError, match="mask_files"):
        save_nerfstudio(tmp_path / "t.json", dataclasses.replace(model, mask_files=["masks/0.png"]))
    document = json.loads((tmp_path / "transforms.json").read_text())
    looking = np.array(document["frames"][0]["transform_matrix"])[:3, 2]
    np.testing.assert_allclose(looking, -c2w[0, :3, 2], atol=1e-12)


def test_nerfstudio_shared_field_of_view_and_distortion(tmp_path) -> None:
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    document = {"camera_angle_x": np.pi / 2, "w": 40, "h": 30, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    assert load_nerfstudio(tmp_path).intrinsics[0, 0, 0] == pytest.approx(20)
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "k1": 0.1}))
    with pytest.raises(InputError, match="distortion"):
        load_nerfstudio(tmp_path)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(InputError, match="malformed"):
        load_nerfstudio(tmp_path)
