"""What each benchmark scores: the frames, pixels and network sizes of the papers' own preparation."""

import numpy as np
import pytest

from geo4d.datasets.pieces import associate_pairs
from geo4d.errors import InputError
from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.evaluation.run import evaluate
from geo4d.evaluation.settings import EvaluationSettings, with_benchmark_options
from geo4d.formats.cameras import save_tum
from geo4d.formats.images import save_image, save_png16
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig
from geo4d.models.geometrycrafter.pipeline import network_size
from tests.support.writers import save_cam, save_dpt

H, W = 20, 30


def write_sintel(root, *, with_mask=True):
    """Two frames of a wall at 5 m; the upper 30 % is sky, whose depth says 40 m."""
    base = root / "training"
    depth = np.full((H, W), 5.0, np.float32)
    depth[: int(0.3 * H)] = 40
    for t in (1, 2):
        save_image(base / "clean" / "alley_2" / f"frame_{t:04d}.png", np.full((H, W, 3), 90, np.uint8))
        for kind in ("depth", "camdata_left"):
            (base / kind / "alley_2").mkdir(parents=True, exist_ok=True)
        save_dpt(base / "depth" / "alley_2" / f"frame_{t:04d}.dpt", depth)
        matrix = np.array([[30.0, 0, W / 2 - 0.5], [0, 30, H / 2 - 0.5], [0, 0, 1]])
        save_cam(base / "camdata_left" / "alley_2" / f"frame_{t:04d}.cam", matrix, np.eye(4))
        if with_mask:
            sky = np.where(depth[..., None] > 5, 255, 0).astype(np.uint8).repeat(3, -1)
            save_image(base / "mask" / "alley_2" / f"frame_{t:04d}.png", sky)


def write_points(folder):
    """Points that are right on the wall and far off in the sky."""
    depth = np.full((2, H, W), 5.0)
    depth[:, : int(0.3 * H)] = 4000
    x, y = np.meshgrid(np.arange(W) + 0.5 - W / 2, np.arange(H) + 0.5 - H / 2)
    (folder / "alley_2").mkdir(parents=True)
    points = np.stack([x / 30 * depth, y / 30 * depth, depth], -1).astype(np.float32)
    np.savez(folder / "alley_2" / "maps.npz", point_map=points)


@pytest.mark.parametrize("with_mask", [True, False])
def test_the_sky_of_sintel_is_not_scored(with_mask, tmp_path, caplog):
    write_sintel(tmp_path / "data", with_mask=with_mask)
    write_points(tmp_path / "guess")
    settings = EvaluationSettings(model=None, predictions=tmp_path / "guess")
    row = evaluate("sintel-points", tmp_path / "data", settings)["sequences"][0]
    if with_mask:
        assert row["point_rel"] == pytest.approx(0, abs=1e-4)
        assert row["point_delta"] == pytest.approx(1)
    else:  # without masks the sky counts, and the result says so
        assert row["point_rel"] > 0.1
        assert any("mask" in note for note in row["dataset_notes"])
        assert "sky counts" in caplog.text


def test_masks_that_do_not_fit_are_refused(tmp_path):
    write_sintel(tmp_path)
    path = tmp_path / "training" / "mask" / "alley_2" / "frame_0002.png"
    save_image(path, np.zeros((4, 4, 3), np.uint8))
    sequence = BENCHMARKS["sintel-points"].load(tmp_path / "training" / "clean" / "alley_2", "alley_2")
    with pytest.raises(InputError, match="frame_0002"):
        sequence.depth[1]


def paired_by_the_published_script(first, second, limit):
    """Every pair, the closest first, each stamp once: quadratic, as the association script is."""
    near = sorted((abs(a - b), a, b) for a in first for b in second if abs(a - b) < limit)
    left_a, left_b, pairs = set(first), set(second), []
    for _, a, b in near:
        if a in left_a and b in left_b:
            left_a.remove(a)
            left_b.remove(b)
            pairs.append((a, b))
    return sorted(pairs)


def test_pairs_are_those_of_the_published_script():
    rng = np.random.default_rng(3)
    first, second = (np.sort(rng.uniform(0, 3, count)) for count in (80, 150))
    found = [(first[i], second[j]) for i, j in associate_pairs(first, second, 0.02)]
    assert found == paired_by_the_published_script(first.tolist(), second.tolist(), 0.02)
    assert 40 < len(found) < 80
    assert associate_pairs(first, np.zeros(0), 0.02) == []


def write_tum(folder, num=330):
    """Pictures at 30 Hz; depth misses every fourth, the motion capture was lost for a while."""
    rng = np.random.default_rng(0)
    stamps = 100 + np.arange(num) / 30 + rng.uniform(-0.002, 0.002, num)
    rows = {"rgb": [], "depth": []}
    for number, stamp in enumerate(stamps):
        name = f"rgb/{stamp:.6f}.png"
        save_image(folder / name, np.full((2, 2, 3), number % 250, np.uint8))
        rows["rgb"].append(f"{stamp:.6f} {name}")
        if number % 4:
            name = f"depth/{stamp + 0.003:.6f}.png"
            save_png16(folder / name, np.full((2, 2), 5000.0))
            rows["depth"].append(f"{stamp + 0.003:.6f} {name}")
    for kind, lines in rows.items():
        (folder / f"{kind}.txt").write_text("# a comment\n" + "\n".join(lines) + "\n")
    pose_times = np.arange(99.9, 100 + num / 30, 0.01)
    pose_times = pose_times[(pose_times < 101) | (pose_times > 101.5)]
    c2w = np.tile(np.eye(4), (len(pose_times), 1, 1))
    c2w[:, 0, 3] = pose_times
    save_tum(folder / "groundtruth.txt", pose_times, c2w)
    return np.round(stamps, 6), pose_times


def test_tum_frames_are_chosen_among_those_with_a_pose(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg3_walking_xyz"
    stamps, pose_times = write_tum(folder)
    sequence = BENCHMARKS["tum-dynamics"].load(folder, folder.name)
    expected = paired_by_the_published_script(stamps.tolist(), pose_times.tolist(), 0.02)[::3][:90]
    assert sequence.num_frames == len(expected) == 90
    np.testing.assert_allclose(sequence.times_s, [a for a, _ in expected])
    # The pose is that of its own partner, and none is missing.
    np.testing.assert_allclose(sequence.c2w[:, 0, 3], [b for _, b in expected], atol=1e-6)
    assert sequence.rgb[1][0, 0, 0] * 255 == pytest.approx(3, abs=0.5)
    (folder / f"rgb/{expected[4][0]:.6f}.png").unlink()
    with pytest.raises(InputError, match="1 of the 90"):
        BENCHMARKS["tum-dynamics"].load(folder, folder.name)


def test_bonn_files_are_cut_before_they_are_paired(tmp_path):
    folder = tmp_path / "rgbd_bonn_balloon2"
    for number in range(145):
        save_image(folder / "rgb" / f"{1000 + number / 10:.5f}.png", np.full((2, 2, 3), number, np.uint8))
    for number in range(143):  # two depth maps are lost near the start: all later ones move up
        skipped = number + 2 * (number > 3)
        save_png16(
            folder / "depth" / f"{1000 + skipped / 10 + 0.001:.5f}.png",
            np.full((2, 2), 50.0 * (skipped + 1)),
        )
    for kind in ("rgb", "depth"):
        lines = [f"{path.stem} {kind}/{path.name}" for path in sorted((folder / kind).iterdir())]
        (folder / f"{kind}.txt").write_text("\n".join(lines) + "\n")
    save_tum(folder / "groundtruth.txt", np.arange(1000, 1016, 0.01), np.tile(np.eye(4), (1600, 1, 1)))
    sequence = BENCHMARKS["bonn"].load(folder, "balloon2")
    assert sequence.num_frames == 110
    assert sequence.rgb[0][0, 0, 0] * 255 == pytest.approx(30, abs=0.5)
    np.testing.assert_allclose(sequence.times_s[0], 1003)
    assert sequence.depth[0][0, 0] == pytest.approx(0.33)  # the 31st file of depth/
    for path in sorted((folder / "depth").iterdir())[:5]:
        path.unlink()
    with pytest.raises(InputError, match="108 depth maps"):
        BENCHMARKS["bonn"].load(folder, "balloon2")


@pytest.mark.parametrize(
    ("benchmark", "source", "size"),
    [
        ("gmu-kitchens", (540, 960), (512, 960)),
        ("monkaa", (540, 960), (512, 960)),
        ("sintel-points", (436, 872), (448, 896)),
        ("scannet", (464, 624), (512, 640)),
        ("ddad", (1152, 1920), (384, 640)),
        ("kitti-points", (368, 736), (384, 768)),
    ],
)
def test_geometrycrafter_sees_the_sizes_of_its_own_evaluation(benchmark, source, size):
    # Source of the sizes: evaluation/run_batch.sh of TencentARC/GeometryCrafter.
    options = BENCHMARKS[benchmark].options_for("geometrycrafter-determ")
    assert network_size(source, GeometryCrafterConfig(**options)) == size


def test_options_of_the_user_win_over_those_of_the_benchmark():
    settings = EvaluationSettings(model="geometrycrafter", model_options={"width": 704, "num_steps": 3})
    found = with_benchmark_options("scannet", settings).model_options
    assert found == {"height": 512, "width": 704, "num_steps": 3}
    assert with_benchmark_options("scannet", EvaluationSettings(model="tiny")).model_options == {}
    assert with_benchmark_options("bonn", EvaluationSettings(model="geo4d")).model_options == {"fps": 24.0}
