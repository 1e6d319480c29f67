"""Readers of training sets: trees in their real layouts, written from one plane that three cameras see.

The truth (depth, cameras, a pixel of sky and one without depth) is made here from the plane alone. What a reader gives
must equal it, and all its points, moved with its own cameras, must lie on that one plane.
"""

import json

import numpy as np
import pytest

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import find_sequences, load_ground_truth, load_reader
from geo4d.errors import InputError
from geo4d.formats.images import save_image
from tests.datasets.plane_layouts import (
    HOLE,
    NORMAL,
    OFFSET,
    SKY,
    H,
    T,
    W,
    rgb,
    save_hdf5,
    save_map,
    turned,
    write_bedlam,
    write_dynamic_replica,
    write_gta_sfm,
    write_hypersim,
    write_irs,
    write_matrixcity,
    write_midair,
    write_mvs_synth,
    write_pointodyssey,
    write_spring,
    write_structured3d,
    write_synthia,
    write_urbansyn,
    write_vkitti,
    write_vkitti2,
)

# reader -> (writer, does it mark the sky, frames a sequence, seconds between frames, tolerance of depth)
LAYOUTS = {
    "spring": (write_spring, True, T, 1 / 24, 1e-5),
    "bedlam": (write_bedlam, False, T, 5 / 30, 1e-5),
    "pointodyssey": (write_pointodyssey, True, T, 1 / 30, 4e-3),
    "vkitti": (write_vkitti, True, T, 0.1, 2e-3),
    "vkitti2": (write_vkitti2, True, T, 0.1, 2e-3),
    "dynamic-replica": (write_dynamic_replica, False, T, 1 / 30, 1e-3),
    "gta-sfm": (write_gta_sfm, False, T, 1 / 24, 1e-5),
    "hypersim": (write_hypersim, True, T, 1.0, 1e-5),
    "irs": (write_irs, False, T, 1 / 24, 1e-5),
    "matrixcity": (write_matrixcity, True, T, 1 / 24, 1e-5),
    "midair": (write_midair, True, T, 1 / 25, 1e-3),
    "mvs-synth": (write_mvs_synth, True, T, 1 / 24, 1e-5),
    "structured3d": (write_structured3d, False, 1, None, 2e-4),
    "synthia": (write_synthia, True, T, 0.2, 2e-3),
    "urbansyn": (write_urbansyn, True, 1, None, 1e-5),
}
WITHOUT_POSES = ("irs", "synthia", "urbansyn")


@pytest.fixture(autouse=True)
def small_irs(monkeypatch):
    monkeypatch.setattr("geo4d.datasets.readers.irs.SIZE", (H, W))


def load_all(name: str, root) -> list[Sequence]:
    reader = load_reader(name)
    return [reader.load(path, key) for key, path in find_sequences(reader, root).items()]


def world_points(sequence: Sequence) -> np.ndarray:
    """[N, 3] of all known pixels of all frames, with the sequence's own cameras."""
    points = []
    for t in range(sequence.num_frames):
        depth = np.asarray(sequence.depth[t], np.float64)
        y, x = np.nonzero(np.isfinite(depth))
        pixels = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], -1)
        in_camera = pixels @ np.linalg.inv(sequence.intrinsics[t]).T * depth[y, x, None]
        points.append(in_camera @ sequence.c2w[t, :3, :3].T + sequence.c2w[t, :3, 3])
    return np.concatenate(points)


@pytest.mark.parametrize("name", LAYOUTS)
def test_reader_gives_the_plane(name, tmp_path):
    write, marks_sky, count, step, tolerance = LAYOUTS[name]
    known = write(tmp_path)
    sequences = load_all(name, tmp_path)
    assert [sequence.num_frames for sequence in sequences] == [count] * (T // count)
    shown = [(sequence, t) for sequence in sequences for t in range(count)]
    for number, (sequence, t) in enumerate(shown):
        assert sequence.dataset == name
        depth = sequence.depth[t]
        assert depth.dtype == np.float32
        assert np.isnan(depth[HOLE])
        assert np.isposinf(depth[SKY]) == marks_sky
        finite = np.isfinite(depth)
        assert finite.sum() == H * W - 1 - marks_sky
        np.testing.assert_allclose(depth[finite], known.depth(number)[finite], rtol=tolerance)
        np.testing.assert_allclose(sequence.intrinsics[t], known.intrinsics, rtol=1e-6, atol=1e-6)
        if name != "hypersim":
            np.testing.assert_allclose(sequence.rgb[t], rgb(number) / 255, atol=0.02)
        assert all(path.is_file() for path in sequence.files)
    if step is not None:
        np.testing.assert_allclose(np.diff(sequences[0].times_s), step)
    if name in WITHOUT_POSES:
        assert sequences[0].c2w is None
        return
    poses = np.concatenate([sequence.c2w for sequence in sequences])
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1, atol=1e-6)
    for t in range(T):  # whatever the world's axes are, the motion between frames is that of the truth
        expected = np.linalg.inv(known.c2w[0]) @ known.c2w[t]
        np.testing.assert_allclose(np.linalg.inv(poses[0]) @ poses[t], expected, atol=2e-6)
    # By way of the first camera into the truth's world, where all points lie on the plane.
    points = np.concatenate([world_points(sequence) for sequence in sequences])
    points = (points - poses[0, :3, 3]) @ poses[0, :3, :3]
    points = points @ known.c2w[0, :3, :3].T + known.c2w[0, :3, 3]
    np.testing.assert_allclose(points @ NORMAL, OFFSET, rtol=3 * tolerance)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_recognised_among_all(name, tmp_path):
    LAYOUTS[name][0](tmp_path)
    if LAYOUTS[name][2] == 1:
        with pytest.raises(InputError, match="found 3"):
            load_ground_truth(tmp_path)
    else:
        assert load_ground_truth(tmp_path).dataset == name


# reader -> (a file that is taken away, what the message must name)
LOST = {
    "spring": ("train/0001/maps/skymap_left/*", "sky"),
    "bedlam": ("*/depth/*/*.exr", "depth"),
    "pointodyssey": ("train/ani/anno.npz", "anno.npz"),
    "vkitti": ("vkitti_1.3.1_extrinsicsgt/*", "extrinsicsgt"),
    "vkitti2": ("Scene01/clone/extrinsic.txt", "extrinsic.txt"),
    "dynamic-replica": ("train/*.jgz", "frame_annotations"),
    "hypersim": ("metadata_camera_parameters.csv", "metadata_camera_parameters.csv"),
    "irs": ("Home/Bedroom/d_9.exr", "l_9.png"),
    "matrixcity": ("small_city_depth/*/*/*/0004.exr", "frame 4"),
    "midair": ("Kite_training/sunny/sensor_records.hdf5", "sensor_records.hdf5"),
    "mvs-synth": ("GTAV_720/0000/poses/*", "0 cameras"),
    "structured3d": ("scene_00000/2D_rendering/*/perspective/full/0/camera_pose.txt", "camera_pose.txt"),
    "synthia": ("SYNTHIA-SEQS-01-DAWN/CameraParams/intrinsics.txt", "intrinsics.txt"),
    "urbansyn": ("ss/ss_0001.png", "ss_0001.png"),
}


@pytest.mark.parametrize("name", LOST)
def test_half_a_download_says_what_is_missing_and_where_to_get_it(name, tmp_path):
    LAYOUTS[name][0](tmp_path)
    pattern, message = LOST[name]
    victims = list(tmp_path.glob(pattern))
    assert victims
    for path in victims:
        path.unlink()
    with pytest.raises(InputError, match=message) as error:
        load_all(name, tmp_path)
    assert load_reader(name).url in str(error.value)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("spring", "**/*.dsp5"), ("hypersim", "**/*depth_meters.hdf5"), ("gta-sfm", "**/*.h5"), ("mvs-synth", "**/*.exr"),
     ("dynamic-replica", "**/*.jgz"), ("pointodyssey", "**/anno.npz"), ("midair", "**/*.hdf5")],
)  # fmt: skip
def test_truncated_files_are_named(name, pattern, tmp_path):
    LAYOUTS[name][0](tmp_path)
    victim = next(tmp_path.glob(pattern))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(InputError, match=victim.name.replace(".", r"\.")):
        [np.asarray(sequence.depth) for sequence in load_all(name, tmp_path)]


def test_a_tilted_lens_is_a_turned_pinhole_camera(tmp_path):
    known = write_hypersim(tmp_path, tilt=turned(0, 0.05) @ turned(1, -0.08))
    sequence = load_all("hypersim", tmp_path)[0]
    np.testing.assert_allclose(sequence.intrinsics[1], known.intrinsics, atol=1e-6)
    np.testing.assert_allclose(sequence.c2w, known.c2w, atol=1e-6)


def test_hypersim_pictures_are_tone_mapped(tmp_path):
    write_hypersim(tmp_path)
    linear = np.full((H, W, 3), 0.25)
    linear[0, 0] = 1e3  # a lamp, too small to move the exposure
    for path in tmp_path.rglob("*.color.hdf5"):
        path.unlink()
        save_hdf5(path, dataset=linear)
    picture = load_all("hypersim", tmp_path)[0].rgb[1]
    np.testing.assert_allclose(picture[1:], 0.8, atol=1e-3)
    assert picture[0, 0].tolist() == [1, 1, 1]


def test_mirrored_worlds_and_other_units_are_refused(tmp_path):
    write_mvs_synth(tmp_path / "a")
    for path in (tmp_path / "a").rglob("*.json"):
        facts = json.loads(path.read_text())
        facts["extrinsic"] = (np.array(facts["extrinsic"]) @ np.diag([1, -1, 1, 1])).tolist()
        path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="left-handed"):
        load_all("mvs-synth", tmp_path / "a")
    write_matrixcity(tmp_path / "b")
    path = next((tmp_path / "b").rglob("transforms_origin.json"))
    facts = json.loads(path.read_text())
    for frame in facts["frames"]:
        frame["rot_mat"] = (np.array(frame["rot_mat"]) @ np.diag([100, 100, 100, 1])).tolist()
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="1 / 100"):
        load_all("matrixcity", tmp_path / "b")


def test_panoramic_scenes_of_bedlam_have_no_depth_and_closeups_are_left_out(tmp_path):
    write_bedlam(tmp_path)
    scene = tmp_path / "20221024_3-10_100_batch01"
    scene.rename(tmp_path / "20221010_3_1000_batch01hand")
    # The picture without depth has no camera row either; it is not left out where no depth is read.
    with pytest.raises(InputError, match="seq_000000_0001"):
        load_all("bedlam", tmp_path)
    next(tmp_path.rglob("seq_000000_0001.png")).unlink()
    assert load_all("bedlam", tmp_path)[0].depth is None
    (tmp_path / "20221010_3_1000_batch01hand").rename(tmp_path / "20221019_1_250_closeup")
    with pytest.raises(InputError):
        load_all("bedlam", tmp_path)


def test_four_corners_of_a_ken_burns_capture(tmp_path):
    size, focal = 8, 4 / np.tan(np.deg2rad(60) / 2)
    x, y = np.meshgrid(np.arange(size) + 0.5 - 4, np.arange(size) + 0.5 - 4)
    scene = tmp_path / "asdf-flying"
    scene.mkdir()
    (scene / "00001-meta.json").write_text('{"intSample": 1, "fltFov": 60}')
    for view, (right, down) in {"bl": (0, 0), "br": (20, 0), "tl": (0, -20), "tr": (20, -20)}.items():
        # The plane 0.1 x - 0.2 y + z = 300, seen from (right, down, 0).
        depth = (300 - 0.1 * right + 0.2 * down) / (0.1 * x / focal - 0.2 * y / focal + 1)
        depth[0, 0] = 30000
        save_map(tmp_path / "asdf-flying-depth" / f"00001-{view}-depth.exr", depth)
        save_image(scene / f"00001-{view}-image.png", np.full((size, size, 3), 90, np.uint8))
    sequence = load_all("kenburns", tmp_path)[0]
    assert sequence.num_frames == 4
    assert np.isnan(sequence.depth[2][0, 0])
    points = world_points(sequence)
    np.testing.assert_allclose(points @ [0.1, -0.2, 1], 300, rtol=1e-5)
    # Every step goes along one side of the square.
    np.testing.assert_allclose(np.linalg.norm(np.diff(sequence.c2w[:, :3, 3], axis=0), axis=1), 20)
    (scene / "00001-tr-image.png").unlink()
    with pytest.raises(InputError, match="00001-tr-image"):
        load_all("kenburns", tmp_path)
