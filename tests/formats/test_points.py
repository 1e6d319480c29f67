import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.points import PointCloud, VoxelFilter, load_ply, save_ply


def cloud(rng: np.random.Generator, count: int = 50) -> PointCloud:
    return PointCloud(
        positions=rng.normal(size=(count, 3)).astype(np.float32),
        colours=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        confidence=rng.random(count).astype(np.float32),
        frames=rng.integers(0, 5, count).astype(np.int32),
    )


def test_ply_round_trip_and_an_independent_reader(tmp_path, rng) -> None:
    import trimesh

    clouds = [cloud(rng), cloud(rng, 7)]
    assert save_ply(tmp_path / "a.ply", iter(clouds), ["unit: metres", "two\nlines"]) == 57
    read = load_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(read.positions, np.concatenate([c.positions for c in clouds]))
    np.testing.assert_array_equal(read.colours, np.concatenate([c.colours for c in clouds]))
    np.testing.assert_array_equal(read.confidence, np.concatenate([c.confidence for c in clouds]))
    np.testing.assert_array_equal(read.frames, np.concatenate([c.frames for c in clouds]))
    theirs = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(theirs.vertices, read.positions, rtol=1e-6)
    assert b"comment two lines" in (tmp_path / "a.ply").read_bytes()


def test_ply_without_points_and_ascii(tmp_path) -> None:
    save_ply(tmp_path / "e.ply", [])
    assert load_ply(tmp_path / "e.ply").num_points == 0
    header = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "t.ply").write_text(header + "1 2 3\n4 5 6\n")
    assert load_ply(tmp_path / "t.ply").positions.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_damaged_ply(tmp_path, rng) -> None:
    save_ply(tmp_path / "a.ply", [cloud(rng)])
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "b.ply").write_bytes(data[:-10])
    with pytest.raises(InputError, match="truncated"):
        load_ply(tmp_path / "b.ply")
    (tmp_path / "c.ply").write_bytes(b"text")
    with pytest.raises(InputError, match="does not start"):
        load_ply(tmp_path / "c.ply")
    (tmp_path / "d.ply").write_bytes(data[:60])
    with pytest.raises(InputError, match="end_header"):
        load_ply(tmp_path / "d.ply")


def test_a_failed_write_leaves_nothing(tmp_path, rng) -> None:
    def broken():
        yield cloud(rng)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        save_ply(tmp_path / "a.ply", broken())
    assert list(tmp_path.iterdir()) == []


def test_voxel_filter_keeps_one_point_per_cube_over_all_clouds() -> None:
    voxels = VoxelFilter(1.0)
    first = voxels(PointCloud(np.float32([[0.1, 0, 0], [0.9, 0.5, 0], [-0.1, 0, 0]])))
    assert first.positions[:, 0].tolist() == pytest.approx([0.1, -0.1])
    second = voxels(PointCloud(np.float32([[0.5, 0.5, 0.5], [2, 0, 0]])))
    assert second.positions[:, 0].tolist() == [2.0]
    with pytest.raises(ValueError, match="larger one"):
        VoxelFilter(1e-9)(PointCloud(np.float32([[1, 0, 0]])))
