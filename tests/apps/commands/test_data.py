"""``geo4d data check`` and ``geo4d data pack`` on folders of a user's own, from the command line to training clips."""

import json

import numpy as np
import pytest

from geo4d.apps.cli import main
from geo4d.datasets.shards import PackedClips
from geo4d.formats.cameras import save_tum
from geo4d.formats.colmap import ColmapModel, save_colmap
from geo4d.formats.images import save_image, save_png16
from geo4d.formats.nerfstudio import NerfstudioModel, save_nerfstudio

H, W, T = 40, 60, 6
K = np.array([[50.0, 0, 30], [0, 50, 20], [0, 0, 1]])


def poses():
    c2w = np.tile(np.eye(4), (T, 1, 1))
    for t in range(T):
        a = 0.05 * t
        c2w[t, :3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
        c2w[t, :3, 3] = [0.25 * t, 0.05 * t, 0.12 * t]
    return c2w


def depth(t):
    y, x = np.meshgrid(np.arange(H) + 0.5, np.arange(W) + 0.5, indexing="ij")
    rays, normal = np.stack([(x - 30) / 50, (y - 20) / 50, np.ones_like(x)], -1), np.array([0.4, -0.3, 1.0])
    return (6 - poses()[t, :3, 3] @ normal) / (rays @ poses()[t, :3, :3].T @ normal)


def picture(t):
    return np.random.default_rng(t).integers(0, 255, (H, W, 3), np.uint8)


def write_folder(root, c2w=None):
    for t in range(T):
        save_image(root / "rgb" / f"{t:04d}.png", picture(t))
        (root / "depth").mkdir(exist_ok=True)
        np.savez(root / "depth" / f"{t:04d}.npz", depth=depth(t).astype(np.float32))
    (root / "intrinsics.txt").write_text("50 50 30 20")
    save_tum(root / "poses.txt", np.arange(T) / 10, poses() if c2w is None else c2w)


def write_tum(root):
    for kind in ("rgb", "depth"):
        lines = [f"{t / 10:.4f} {kind}/{t / 10:.4f}.png" for t in range(T)]
        (root / kind).mkdir(parents=True)
        (root / f"{kind}.txt").write_text("\n".join(lines) + "\n")
    for t in range(T):
        save_image(root / "rgb" / f"{t / 10:.4f}.png", picture(t))
        save_png16(root / "depth" / f"{t / 10:.4f}.png", depth(t) * 5000)
    save_tum(root / "groundtruth.txt", np.arange(T) / 10, poses())
    (root / "intrinsics.txt").write_text("50 50 30 20")  # or the camera would be the one of the folder's name


def write_nerfstudio(root):
    for t in range(T):
        save_image(root / "images" / f"{t}.png", picture(t))
        save_png16(root / "depth" / f"{t}.png", depth(t) * 1000)
    names, maps = [f"images/{t}.png" for t in range(T)], [f"depth/{t}.png" for t in range(T)]
    model = NerfstudioModel(
        names, np.tile(K, (T, 1, 1)), [(H, W)] * T, poses(), depth_files=maps, depth_unit=0.001
    )
    save_nerfstudio(root / "transforms.json", model)


def write_colmap(root, dense=False):
    for t in range(T):
        save_image(root / "images" / f"{t}.png", picture(t))
        values = depth(t).astype("<f4")
        if dense:
            path = root / "stereo" / "depth_maps" / f"{t}.png.geometric.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{W}&{H}&1&".encode() + values.tobytes())
        else:
            (root / "depth").mkdir(exist_ok=True)
            np.save(root / "depth" / f"{t}.npy", values)
    model = ColmapModel([f"{t}.png" for t in range(T)], np.tile(K, (T, 1, 1)), [(H, W)] * T, poses())
    save_colmap(root / "sparse" / "0", model)


OWN = {
    "folder": write_folder,
    "tum": write_tum,
    "nerfstudio": write_nerfstudio,
    "colmap": write_colmap,
    "colmap dense": lambda root: write_colmap(root, dense=True),
}


@pytest.mark.parametrize("layout", OWN)
def test_a_folder_of_ones_own_is_checked_packed_and_read(layout, tmp_path, capsys):
    root = tmp_path / "mine"
    root.mkdir()
    OWN[layout](root)
    words = ["--reader", layout.split()[0]]
    assert main(["data", "check", str(root), *words]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 sequences can be packed" in printed
    assert "agrees to" in printed
    shards = tmp_path / "shards"
    assert (
        main(
            [
                "data",
                "pack",
                "--from",
                str(root),
                *words,
                "-o",
                str(shards),
                "--size",
                "20",
                "32",
                "--frames",
                "4",
            ]
        )
        == 0
    )
    packed = PackedClips(shards)
    assert [packed[i].num_frames for i in range(len(packed))] == [4, 2]
    clip = packed[1]
    assert clip.size == (20, 32)
    # A point of the clip, moved with the clip's own camera, lies on the wall.
    x, y = 21, 13
    ray = np.linalg.inv(clip.intrinsics[0]) @ [x + 0.5, y + 0.5, 1]
    point = clip.c2w[0, :3, :3] @ (ray * clip.depth[0, y, x]) + clip.c2w[0, :3, 3]
    assert point @ [0.4, -0.3, 1.0] == pytest.approx(6, abs=0.05)


def test_mistakes_end_check_and_pack(tmp_path, capsys):
    write_folder(tmp_path / "bad", np.linalg.inv(poses()))
    assert main(["data", "check", str(tmp_path / "bad")]) == 3
    assert "world to camera" in capsys.readouterr().out
    words = ["data", "pack", "--from", str(tmp_path / "bad"), "-o", str(tmp_path / "shards")]
    assert main(words) == 3
    assert "world to camera" in capsys.readouterr().err
    assert not (tmp_path / "shards" / "index.json").exists()
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", str(tmp_path / "empty")]) == 3
    assert "known layout" in capsys.readouterr().err


def test_several_sources_with_ratios(tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name)
    roots = ["--from", str(tmp_path / "a"), str(tmp_path / "b")]
    assert (
        main(
            [
                "data",
                "pack",
                *roots,
                "-o",
                str(tmp_path / "s"),
                "--ratio",
                "1",
                "3",
                "--per-shard",
                "1",
                "--frames",
                "3",
            ]
        )
        == 0
    )
    facts = json.loads((tmp_path / "s" / "index.json").read_text())
    assert [(row["ratio"], row["clips"], len(row["shards"])) for row in facts["sources"]] == [
        (1.0, 2, 2),
        (3.0, 2, 2),
    ]
    assert str(tmp_path) not in (tmp_path / "s" / "index.json").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["pack", "--from", "x"],
        ["pack", "x", "-o", "y"],
        ["pack", "--from", "x", "-o", "y", "--ratio", "1", "2"],
        ["pack", "--from", "x", "-o", "y", "--ratio", "0"],
        ["check", "x", "--reader", "sintell"],
    ],
)
def test_wrong_usage_is_said(words, capsys):
    assert main(["data", *words]) == 2
    assert "expected" in capsys.readouterr().err


def test_generated_clips_of_geometrycrafter_are_those_its_stages_render(tmp_path):
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from geo4d.training.tasks.geometrycrafter.clips import render_clip
    from geo4d.training.tasks.geometrycrafter.presets import find_stage
    from geo4d.training.tasks.geometrycrafter.stages import generated_source

    words = ["--family", "geometrycrafter", "--preset", "smallest", "--stage", "maps", "--clips", "2"]
    assert main(["data", "pack", "-o", str(tmp_path / "shards"), *words, "--workers", "0"]) == 0
    packed = PackedClips(tmp_path / "shards")
    assert len(packed) == 2
    preset, stage = find_stage("smallest", "maps")
    wanted = render_clip(generated_source(preset, stage), stage.first_clip + 1)
    found = packed[1]
    assert found.size == stage.cut.size
    np.testing.assert_array_equal(found.rgb, wanted.rgb)
    near = np.isfinite(wanted.depth) & (wanted.depth < 6e4)
    np.testing.assert_allclose(found.depth[near], wanted.depth[near], rtol=1e-3)
    np.testing.assert_allclose(found.c2w, wanted.c2w, atol=1e-6)
    assert main(["data", "pack", "-o", str(tmp_path / "no"), *words[:4], "--stage", "windows"]) == 2
