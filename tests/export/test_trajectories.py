import json

import numpy as np

from geo4d.export import save
from geo4d.formats.cameras import load_kitti_poses, load_tum


def test_trajectories(tmp_path, scene) -> None:
    save(scene, tmp_path / "t.txt", "tum")
    times, poses = load_tum(tmp_path / "t.txt")
    np.testing.assert_allclose(poses, scene.c2w, atol=1e-6)
    np.testing.assert_allclose(times, scene.times_s)
    path, sidecar = save(scene, tmp_path / "k", "kitti")
    np.testing.assert_allclose(load_kitti_poses(path), scene.c2w, atol=1e-6)
    assert json.loads(sidecar.read_text())["frames"][3]["time_s"] == 0.12
