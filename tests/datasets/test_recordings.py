"""A data set's folder given as footage: pictures, times and camera, with and without the truth beside them."""

import numpy as np
import pytest

from geo4d.datasets.catalogue import load_ground_truth
from geo4d.datasets.recordings import find_recording, picture_names
from geo4d.errors import InputError
from geo4d.formats.images import save_image, save_png16


def picture(folder, name, size=(480, 640)):
    save_image(folder / name, np.full((*size, 3), 90, np.uint8))


def tum(folder, count=3, size=(12, 16)):
    for t in range(count):
        picture(folder / "rgb", f"{1305031102 + t / 8:.6f}.png", size)
    lines = [f"{1305031102 + t / 8:.6f} rgb/{1305031102 + t / 8:.6f}.png" for t in range(count + 1)]
    (folder / "rgb.txt").write_text("\n".join(["# color images", "# timestamp filename", *lines]))
    return folder


def euroc(folder, cameras=("cam0", "cam1")):
    stamps = [1403715274312143104 + 50_000_000 * t for t in range(3)]
    for camera in cameras:
        base = folder / "mav0" / camera
        for stamp in stamps:
            picture(base / "data", f"{stamp}.png", (12, 16))
        rows = [f"{stamp},{stamp}.png" for stamp in stamps]
        (base / "data.csv").write_text("\n".join(["#timestamp [ns],filename", *rows]))
        shift = 0 if camera == "cam0" else 1
        (base / "sensor.yaml").write_text(
            f"resolution: [16, 12]\nintrinsics: [{10 + shift}, 11, 7.5, 5.5]\n"
            "distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]\n"
        )
    return folder


def kitti_odometry(folder):
    for camera in ("image_0", "image_2"):
        for t in (2, 3, 5):
            picture(folder / camera, f"{t:06d}.png", (12, 16))
    rows = [f"P{i}: {10 + i} 0 7.5 0 0 {20 + i} 5.5 0 0 0 1 0" for i in range(4)]
    (folder / "calib.txt").write_text("\n".join(rows))
    (folder / "times.txt").write_text("\n".join(f"{t * 0.103736:e}" for t in range(9)))
    return folder


def kitti_raw(root):
    drive = root / "2011_09_26" / "2011_09_26_drive_0002_sync"
    for camera in ("image_02", "image_03"):
        for t in range(3):
            picture(drive / camera / "data", f"{t:010d}.png", (12, 16))
        (drive / camera / "timestamps.txt").write_text(
            "\n".join(f"2011-09-26 13:02:25.{9 - t}64389445" for t in (2, 1, 0))
        )
    (drive.parent / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\n"
        + "".join(
            f"S_rect_0{i}: 1.6e+01 1.2e+01\nP_rect_0{i}: {10 + i} 0 7.5 0 0 11 5.5 0 0 0 1 0\n"
            for i in (2, 3)
        )
    )
    return drive


def seven_scenes(folder, numbers=(0, 1, 3), size=(12, 16)):
    rng = np.random.default_rng(0)
    for number in numbers:
        picture(folder, f"frame-{number:06d}.color.png", size)
        depth = rng.integers(500, 4000, size).astype(np.uint16)
        depth[0], depth[1] = 65535, 0
        save_png16(folder / f"frame-{number:06d}.depth.png", depth)
        pose = np.eye(4)
        pose[:3, 3] = number
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    return folder


def test_tum_brings_times_and_the_camera_of_its_name(tmp_path):
    folder = tum(tmp_path / "rgbd_dataset_freiburg2_desk", size=(480, 640))
    for named in (folder, folder / "rgb"):
        found = find_recording(named)
        np.testing.assert_allclose(found.times_s, 1305031102 + np.arange(3) / 8)
        assert found.intrinsics_for((480, 640)) == (520.9, 521.0, 325.6, 250.2)
        assert found.intrinsics_for((240, 320)) is None
        assert "distorted" in found.camera_note((480, 640), known=False)
        assert "is for 640x480, the pictures are 320x240" in found.camera_note((240, 320), known=False)
        assert "the one given" in found.camera_note((480, 640), known=True)
        assert any("1 of 4 pictures of rgb.txt are not in the folder" in note for note in found.notes)
    assert picture_names(find_recording(folder), folder)[0] == "rgb/1305031102.000000.png"
    assert picture_names(find_recording(folder / "rgb"), folder / "rgb")[0] == "1305031102.000000.png"


@pytest.mark.parametrize(
    ("name", "camera", "words"),
    [
        ("rgbd_dataset_freiburg3_walking_xyz", (535.4, 539.2, 320.6, 248.1), "without distortion"),
        ("tum-fr1-rpy", (517.3, 516.5, 319.1, 255.8), "distorted"),
        ("my_office", None, "no freiburg camera is named"),
        ("rgbd_bonn_balloon", (542.822841, 542.576870, 316.09352, 238.256098), "a little distorted"),
    ],
)
def test_cameras_in_the_format_of_tum(tmp_path, name, camera, words):
    found = find_recording(tum(tmp_path / name))
    assert found.intrinsics == (None if camera is None else pytest.approx(camera))
    assert words in found.camera


def test_a_link_to_nowhere_is_a_picture_that_should_be_there(tmp_path):
    folder = tum(tmp_path / "recording")
    link = sorted((folder / "rgb").iterdir())[1]
    link.unlink()
    link.symlink_to("nowhere.png")
    assert len(find_recording(folder).files) == 3


@pytest.mark.parametrize("below", ["", "mav0", "mav0/cam0", "mav0/cam0/data", "mav0/cam1", "mav0/cam1/data"])
def test_euroc_by_any_of_its_folders(tmp_path, below):
    found = find_recording(euroc(tmp_path / "V1_01") / below)
    right = "cam1" in below
    assert [file.parent.parent.name for file in found.files] == ["cam1" if right else "cam0"] * 3
    np.testing.assert_allclose(found.times_s, 1403715274.312143104 + np.arange(3) / 20, rtol=0, atol=3e-7)
    assert found.intrinsics_for((12, 16)) == (11 if right else 10, 11, 8, 6)
    assert "of distorted pictures" in found.camera
    assert found.distortion.model == "radial-tangential"
    assert any("one of 2 cameras" in note for note in found.notes)


def test_kitti_odometry_takes_lines_by_number(tmp_path):
    folder = kitti_odometry(tmp_path / "sequences" / "07")
    found = find_recording(folder)
    np.testing.assert_allclose(found.times_s, np.array([2, 3, 5]) * 0.103736)
    assert found.intrinsics == (12, 22, 8, 6)
    assert any("image_2 (left, colour)" in note for note in found.notes)
    grey = find_recording(folder / "image_0")
    assert grey.intrinsics == (10, 20, 8, 6)
    (folder / "times.txt").write_text("0\n0.1\n")
    with pytest.raises(InputError, match="2 times, but a picture has number 5"):
        find_recording(folder)
    (folder / "times.txt").unlink()
    np.testing.assert_allclose(find_recording(folder).times_s, [0.2, 0.3, 0.5])
    with pytest.raises(InputError, match="holds 1 KITTI odometry sequences"):
        find_recording(tmp_path)


def test_kitti_raw_drive(tmp_path):
    drive = kitti_raw(tmp_path)
    found = find_recording(drive)
    np.testing.assert_allclose(np.diff(found.times_s), 0.1, atol=1e-6)
    assert abs(found.times_s[0] - 1317042145.764389445) < 3e-7
    assert found.intrinsics_for((12, 16)) == (12, 11, 8, 6)
    assert found.intrinsics_for((24, 32)) is None
    assert find_recording(drive / "image_03" / "data").intrinsics == (13, 11, 8, 6)
    (drive.parent / "calib_cam_to_cam.txt").unlink()
    assert "estimated: there is no calib_cam_to_cam.txt" in find_recording(drive).camera_note((12, 16), False)


def test_seven_scenes_as_footage_and_as_truth(tmp_path):
    folder = seven_scenes(tmp_path / "chess" / "seq-01", size=(480, 640))
    found = find_recording(folder)
    assert [file.name for file in found.files] == [f"frame-{n:06d}.color.png" for n in (0, 1, 3)]
    np.testing.assert_allclose(found.times_s, np.array([0, 1, 3]) / 30)
    assert found.intrinsics_for((480, 640)) == (585, 585, 320, 240)
    assert "colour camera was not calibrated" in found.camera
    truth = load_ground_truth(folder)
    assert truth.dataset == "7scenes"
    assert truth.c2w[:, 0, 3].tolist() == [0, 1, 3]
    assert truth.intrinsics[0].tolist() == [[585, 0, 320], [0, 585, 240], [0, 0, 1]]
    depth = truth.depth[0]
    assert np.isnan(depth[:2]).all()
    assert 0.5 <= depth[2:].min() <= depth[2:].max() < 4
    seven_scenes(tmp_path / "chess" / "seq-02")
    with pytest.raises(InputError, match=r"holds 2 RGB-D 7-Scenes sequences \(seq-01, seq-02\)"):
        find_recording(tmp_path / "chess")
    (folder / "frame-000001.pose.txt").unlink()
    with pytest.raises(InputError, match=r"frame-000001\.pose\.txt is not there"):
        load_ground_truth(folder)
    assert len(find_recording(folder).files) == 3  # footage needs no truth


def test_other_folders_are_no_recording(tmp_path):
    picture(tmp_path / "clip", "1.png", (12, 16))
    assert find_recording(tmp_path / "clip") is None
    assert find_recording(tmp_path / "clip" / "1.png") is None
    (tmp_path / "rgb.txt").write_text("1 2 three\nnot a list\n")  # beside the folder: not its own
    assert find_recording(tmp_path / "clip") is None
    (tmp_path / "empty").mkdir()
    assert find_recording(tmp_path / "empty") is None
