"""A result on disk gets new cameras: of a textured wall seen by a camera that moves sideways."""

import numpy as np
import pytest
import torch
from PIL import Image

import geo4d
from geo4d.apps.cli import main
from geo4d.errors import InputError
from geo4d.formats.cameras import save_kitti_poses, save_tum
from geo4d.formats.images import save_image
from geo4d.results.manifest import read_manifest
from geo4d.results.reader import load_result
from geo4d.results.workspace import Workspace
from geo4d.results.writer import StoreWriter
from geo4d.run.repose import repose
from geo4d.tracks.follow import track_points
from geo4d.types import FrameMaps
from tests.support.truth import BoxWorld, TruthPredictor

SIZE, FOCAL, STEP, NUM = (96, 128), 110.0, 0.05, 7


def wall(t):
    """Two slanted walls: depth and colour as functions of the world, so that views agree."""
    ys, xs = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    u, v = (xs - SIZE[1] / 2) / FOCAL, (ys - SIZE[0] / 2) / FOCAL
    # plane z = 2 + 0.5 x above the middle line, z = 1.5 - 0.3 x below, camera at (STEP t, 0, 0)
    slope = torch.where(v < 0, 0.5, -0.3)
    base = torch.where(v < 0, 2.0, 1.5)
    depth = (base + slope * STEP * t) / (1 - slope * u)
    x, y = u * depth + STEP * t, v * depth
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(24, 2, generator=generator) * torch.logspace(0.6, 1.5, 24)[:, None]
    phase = torch.rand(24, generator=generator) * 6.3
    value = torch.sin(x[..., None] * waves[:, 0] + y[..., None] * waves[:, 1] + phase).sum(-1)
    return depth, (0.5 + 0.5 * torch.tanh(value / 4))[..., None].expand(-1, -1, 3)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "before"
    with Workspace(output, {"test": 1}) as work:
        writer = StoreWriter(work.result, NUM, SIZE, "float32")
        for t in range(NUM):
            depth, rgb = wall(t)
            writer.write(FrameMaps(t, depth, torch.ones(SIZE)), (rgb.numpy() * 255).round().astype(np.uint8))
        K = np.array([[FOCAL, 0, SIZE[1] / 2], [0, FOCAL, SIZE[0] / 2], [0, 0, 1]], np.float32)
        per_frame = {
            "intrinsics": np.tile(K, (NUM, 1, 1)),
            "times_s": np.arange(NUM) / 10,
            "source_frames": np.arange(NUM),
        }
        source = {
            "name": "wall",
            "sha256": None,
            "size": {"height": SIZE[0], "width": SIZE[1]},
            "damage": None,
        }
        manifest = {
            "scale_kind": "scale",
            "has_poses": False,
            "unit": "up to scale",
            "source": source,
            "provenance": {"config": {"precision": "float32"}},
        }
        writer.finish(per_frame, manifest, {"note": 1})
        work.publish()
    return output


def test_the_command_adds_poses_and_leaves_the_old_result(result, tmp_path, capsys):
    assert main(["pose", str(result), "-o", str(tmp_path / "after")]) == 0
    said = capsys.readouterr().out
    assert "parallax" in said
    assert "wrote" in said
    before, after = load_result(result), load_result(tmp_path / "after")
    assert before.c2w is None
    x = after.c2w[:, 0, 3]
    np.testing.assert_allclose(x - x[0], STEP * np.arange(NUM), atol=0.01)
    np.testing.assert_array_equal(after.depth[2], before.depth[2])
    np.testing.assert_allclose(after.rgb[2], before.rgb[2])
    assert after.diagnostics["note"] == 1
    assert after.provenance["pose"]["posed_by"] == "tracks with depth"
    assert after.reliable.all()
    assert main(["pose", str(result), "-o", str(tmp_path / "after")]) == 4


class RightHalf:
    """Keeps of a rough mask what lies right of the middle, and notes what it was shown."""

    name = "right half"
    licence = "of the test"

    def __init__(self) -> None:
        self.shown = []

    def __call__(self, frames, rough):
        self.shown.append((frames, rough))
        found = rough.clone()
        found[:, :, : rough.shape[2] // 2] = False
        return found


def test_a_mask_finder_sees_pictures_and_masks_and_its_answer_is_used(result, tmp_path):
    (tmp_path / "masks").mkdir()
    for t in range(NUM):
        mask = np.zeros(SIZE, np.uint8)
        mask[20:60, 30 + t : 90 + t] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{t:05d}.png")
    used, finder = [], RightHalf()

    def tracker(frames, masks):
        frames, kept = list(frames), list(masks)
        used.extend(kept)
        return track_points(frames, masks=kept)

    after = repose(
        result,
        tmp_path / "after",
        mask=tmp_path / "masks",
        mask_radius=0.0,
        mask_finder=finder,
        tracker=tracker,
    )
    pictures, rough = (torch.cat(parts) for parts in zip(*finder.shown, strict=True))
    for t in range(NUM):
        torch.testing.assert_close(pictures[t], wall(t)[1], rtol=0, atol=0.003)
        assert rough[t].nonzero().amin(0).tolist() == [20, 30 + t]
        assert used[t].nonzero().amin(0).tolist() == [20, 64]
        assert used[t].nonzero().amax(0).tolist() == [59, 89 + t]
    assert after.diagnostics["pose"]["masks_redrawn_by"] == "right half"
    np.testing.assert_allclose(after.c2w[:, 0, 3] - after.c2w[0, 0, 3], STEP * np.arange(NUM), atol=0.01)
    with pytest.raises(InputError, match="expected masks to redraw; give --mask"):
        repose(result, tmp_path / "none", mask_finder=RightHalf())


def test_tracks_may_come_from_matches(result, tmp_path):
    assert main(["pose", str(result), "-o", str(tmp_path / "after"), "--tracks", "sift"]) == 0
    after = load_result(tmp_path / "after")
    x = after.c2w[:, 0, 3]
    np.testing.assert_allclose(x - x[0], STEP * np.arange(NUM), atol=0.02)


def test_tracks_of_spatracker_and_masks_of_xmem(result, tmp_path, capsys):
    tracks = track_points(wall(t)[1] for t in range(NUM))
    xy, visible = tracks.window(0, NUM)
    (tmp_path / "tracks").mkdir()
    query = np.zeros(xy.shape[1])
    # tracked in pictures of twice the size
    np.savez(
        tmp_path / "tracks" / "00000.npz", tracks=2 * xy.numpy(), visible=visible.numpy(), query_time=query
    )
    (tmp_path / "masks").mkdir()
    for t in range(NUM):
        numbers = np.zeros(SIZE, np.uint8)
        numbers[:20] = 1
        Image.fromarray(numbers).save(tmp_path / "masks" / f"{t:05d}.png")
    command = ["pose", str(result), "-o", str(tmp_path / "after"), "--tracks", "spatracker"]
    command += ["--track-weights", str(tmp_path / "tracks"), "--mask", str(tmp_path / "masks")]
    assert main([*command, "--mask-format", "xmem"]) == 3
    assert "--track-size WIDTH HEIGHT" in capsys.readouterr().err
    size = ["--track-size", str(2 * SIZE[1]), str(2 * SIZE[0])]
    assert main([*command, "--mask-format", "xmem", *size]) == 0
    x = load_result(tmp_path / "after").c2w[:, 0, 3]
    np.testing.assert_allclose(x - x[0], STEP * np.arange(NUM), atol=0.01)


def test_the_published_objective_and_its_refining_stage(result, tmp_path):
    command = [
        "pose",
        str(result),
        "-o",
        str(tmp_path / "after"),
        "--objective",
        "published-refined",
        "--depth-weight",
        "0.5",
        "--keep-going",
    ]
    assert main(command) == 0
    after = load_result(tmp_path / "after")
    told = after.diagnostics["pose"]
    assert told["objective"] == "published-refined"
    assert told["loss"][1] < 0.1 * told["loss"][0]
    assert told["refined_loss"][1] < told["refined_loss"][0]
    np.testing.assert_allclose(after.c2w[:, 0, 3], STEP * np.arange(NUM), atol=0.03)


def test_mask_and_intrinsics_of_the_user(result, tmp_path):
    (tmp_path / "masks").mkdir()
    for t in range(NUM):
        mask = np.zeros((*SIZE, 3), np.float32)
        mask[: SIZE[0] // 2] = t % 2
        save_image(tmp_path / "masks" / f"{t:03d}.png", mask)
    masked = repose(
        result,
        tmp_path / "masked",
        mask=tmp_path / "masks",
        intrinsics=(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2),
    )
    np.testing.assert_allclose(masked.intrinsics[:, 0, 0], FOCAL)
    assert abs(masked.c2w[-1, 0, 3] - STEP * (NUM - 1)) < 0.03


def sideways(metres):
    """Poses that go so far for every step of the wall's world, turned into a world of their own."""
    poses = np.tile(np.eye(4), (NUM, 1, 1))
    poses[:, 0, 3] = metres * STEP * np.arange(NUM)
    world = np.array([[0.0, -1, 0, 5], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])
    return world @ poses


def test_a_trajectory_in_metres_makes_the_result_metric(result, tmp_path, capsys):
    save_tum(tmp_path / "path.txt", np.arange(NUM) / 10 + 50, sideways(10))
    command = ["pose", str(result), "-o", str(tmp_path / "after"), "--trajectory", str(tmp_path / "path.txt")]
    assert main(command) == 3
    assert "--time-offset SECONDS" in capsys.readouterr().err
    assert main([*command, "--time-offset", "-50"]) == 0
    assert "metric: poses are those of path.txt (TUM)" in capsys.readouterr().out
    before, after = load_result(result), load_result(tmp_path / "after")
    assert after.scale_kind == "metric"
    np.testing.assert_allclose(after.c2w, sideways(10), atol=1e-5)  # as they were given, in their world
    ratio = np.asarray(after.depth[3]) / np.asarray(before.depth[3])
    assert np.nanmedian(ratio) == pytest.approx(10, rel=0.05)
    assert after.diagnostics["pose"]["metres_per_unit"][0] == pytest.approx(np.nanmedian(ratio), rel=1e-4)
    assert after.provenance["metric"]["source"]["layout"] == "TUM"
    assert read_manifest(tmp_path / "after")["unit"] == "metres"


def test_a_trajectory_of_unknown_unit_takes_that_of_the_depth(result, tmp_path):
    save_kitti_poses(tmp_path / "path.txt", sideways(10))
    after = repose(result, tmp_path / "after", trajectory=tmp_path / "path.txt", trajectory_unit="unknown")
    assert after.scale_kind == "scale"
    assert after.diagnostics["pose"]["trajectory_scale"] == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(after.depth[2], load_result(result).depth[2])


def test_a_trajectory_that_does_not_fit_is_refused(result, tmp_path):
    save_tum(tmp_path / "short.txt", np.arange(5) / 10, sideways(1)[:5])
    with pytest.raises(InputError, match="expected a pose for every frame, but 2 of 7 have none"):
        repose(result, tmp_path / "after", trajectory=tmp_path / "short.txt")
    turns = sideways(1)
    turns[:, :3, 3] = 0
    turns[0, 0, 3] = 1e-12
    save_kitti_poses(tmp_path / "turns.txt", turns)
    with pytest.raises(ValueError, match="scale of scene 0 is not determined"):
        repose(result, tmp_path / "after", trajectory=tmp_path / "turns.txt")
    assert main(["pose", str(result), "-o", str(tmp_path / "after"), "--time-offset", "1"]) == 2


def test_a_source_that_changed_since_is_refused(tmp_path):
    world = BoxWorld((24, 32))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for t in range(5):
        save_image(pictures / f"{t}.png", world.rgb(t).numpy())
    geo4d.reconstruct(
        pictures,
        tmp_path / "before",
        model=TruthPredictor(world, length=5, stride=5),
        output_size="model",
        split_shots=False,
    )
    assert main(["pose", str(tmp_path / "before"), "-o", str(tmp_path / "same"), "--keep-going"]) == 0
    save_image(pictures / "3.png", world.rgb(0).numpy())
    with pytest.raises(InputError, match="its content has changed"):
        repose(tmp_path / "before", tmp_path / "after")
    assert not (tmp_path / "after").exists()
