"""Read back by Foundry's rules alone."""

import dataclasses
import json

import numpy as np
import pytest

from geo4d.export import ExportConfig, save
from geo4d.formats.images import load_image
from tests.readers_of_targets import nuke

SHOTS = {
    "wide": {"size": (36, 64), "centre": (0.55, 0.44)},
    "portrait": {"size": (64, 36), "centre": (0.43, 0.56)},
    "zoom, oblong pixels": {"size": (36, 64), "centre": (0.48, 0.53), "pixel_aspect": 1.07, "zoom": 1.1},
}


def points_of(result, frame: int) -> np.ndarray:
    """World points of a frame in Nuke's axes, from depth and cameras in double precision."""
    height, width = result.size
    y, x = np.indices((height, width)) + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(result.intrinsics[frame]).T
    camera = (rays * result.depth[frame][..., None].astype(float))[np.isfinite(result.depth[frame])]
    world = camera @ result.c2w[frame, :3, :3].T + result.c2w[frame, :3, 3]
    return world * [1, -1, -1]


@pytest.mark.parametrize("kind", SHOTS)
def test_script(tmp_path, shot, pixels_of, kind) -> None:
    result = shot(**SHOTS[kind])
    script, plate = save(result, tmp_path / "a.nk", "nuke", ExportConfig(first_frame=1001))
    nodes = nuke.load_script(script)
    for row, number in enumerate(range(1001, 1005)):
        seen = nuke.project(nodes, number, points_of(result, row))
        assert np.abs(seen - pixels_of(result.depth[row])).max() < 0.01
        np.testing.assert_allclose(load_image(plate / f"frame_{number:04d}.png"), result.rgb[row], atol=1e-6)
    root, note, read, camera = nodes
    assert (root.knobs["first_frame"], root.knobs["last_frame"], float(root.knobs["fps"])) == (
        "1001",
        "1004",
        16,
    )
    assert read.knobs["file"] == f"[file dirname [value root.name]]/{plate.name}/frame_%04d.png"
    assert (read.knobs["first"], read.knobs["last"]) == ("1001", "1004")
    assert max(camera.at("haperture", 1001)[0], camera.at("vaperture", 1001)[0]) == pytest.approx(36)
    near, far = float(camera.knobs["near"]), float(camera.knobs["far"])
    assert near < np.nanmin(result.depth) < 3 < far
    for words in ("looks along -z", "ZXY", "up to scale", "1002: source 9 at 3.0625"):
        assert words in note.knobs["label"]


def test_chan(tmp_path, shot, pixels_of, caplog) -> None:
    result = shot(pixel_aspect=1.07, zoom=1.1)
    path, sidecar = save(result, tmp_path / "a.chan", "chan")
    notes = json.loads(sidecar.read_text())
    for row in range(4):
        seen = nuke.project_chan(path, row + 1, points_of(result, row), result.size, notes["pixel_aspect"])
        assert np.abs(seen - pixels_of(result.depth[row])).max() < 0.01
    assert "ZXY" in notes["conventions"]["poses"]
    assert [row["source_frame"] for row in notes["frames"]] == [7, 9, 11, 13]
    assert not caplog.text
    save(shot(centre=(0.55, 0.44)), tmp_path / "b.chan", "chan")
    assert "up to 3.2 pixels off" in caplog.text  # 5 % of 64 pixels


def test_any_rotation_is_written_without_jumps(tmp_path, shot) -> None:
    result = shot(count=40)
    turns = np.linspace(0, 4 * np.pi, 40)  # twice around, tilted
    c2w = result.c2w.copy()
    for t, angle in enumerate(turns):
        sin, cos = np.sin(angle), np.cos(angle)
        c2w[t, :3, :3] = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]) @ c2w[5, :3, :3]
    c2w[7, :3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # straight up
    c2w[8, :3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # straight down, rolled
    save(dataclasses.replace(result, c2w=c2w), tmp_path / "a.chan", "chan")
    rows = np.loadtxt(tmp_path / "a.chan")
    turn = np.diag([1.0, -1, -1])
    for t in range(40):
        np.testing.assert_allclose(nuke.rotation_zxy(rows[t, 4:7]), turn @ c2w[t, :3, :3] @ turn, atol=1e-8)
    steps = np.abs(np.diff(rows[10:, 4:7], axis=0))
    assert steps.max() < 30
