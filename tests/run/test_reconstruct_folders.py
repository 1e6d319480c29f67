"""Folders and picture files through the whole flow: times, camera and statements arrive in the result."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from evo.core import sync
from evo.tools import file_interface

import geo4d
from geo4d.apps.cli import main
from geo4d.errors import InputError
from geo4d.formats.cameras import save_tum
from geo4d.formats.movies import save_movie
from tests.support.truth import BoxWorld, TruthPredictor

SIZE, SMALL = (48, 80), (24, 40)
STAMPS = 1305031102.175304 + np.arange(9) / 30


pytestmark = pytest.mark.usefixtures("one_thread")


def predictor():
    return TruthPredictor(BoxWorld(SMALL), length=8, stride=4, noise=0.005)


def run(source, output, **options):
    plans = []
    options = {"precision": "float32", "split_shots": False, **options}
    result = geo4d.reconstruct(source, output, model=predictor(), on_plan=plans.append, **options)
    return result, "\n".join(plans[0].lines())


def frame(t):
    return (BoxWorld(SIZE).rgb(t).numpy() * 255).round().astype(np.uint8)


def write(folder, names, frames=None, suffix=".png", scale=None):
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        picture = frame(t if frames is None else frames[t])[..., ::-1]
        if scale is not None:
            picture = picture.astype(np.uint16) * scale
        assert cv2.imwrite(str(folder / f"{name}{suffix}"), picture)
    return folder


def test_evo_finds_the_poses_of_a_folder_named_by_times(tmp_path):
    folder = write(tmp_path / "rgb", [f"{stamp:.6f}" for stamp in STAMPS])
    result, plan = run(folder, tmp_path / "out")
    np.testing.assert_allclose(result.times_s, STAMPS, rtol=0, atol=1e-6)
    assert "note     times are those of the names" in plan
    assert any("times are those of the names" in note for note in result.provenance["source"]["notes"])
    assert main(["export", str(tmp_path / "out"), "--format", "tum", "-o", str(tmp_path / "est.txt")]) == 0
    truth = np.stack([BoxWorld(SIZE).c2w(t).numpy() for t in range(9)])
    save_tum(tmp_path / "truth.txt", STAMPS + 0.002, truth)
    reference, estimate = sync.associate_trajectories(
        file_interface.read_tum_trajectory_file(str(tmp_path / "truth.txt")),
        file_interface.read_tum_trajectory_file(str(tmp_path / "est.txt")),
        max_diff=0.01,
    )
    assert estimate.num_poses == reference.num_poses == 9
    estimate.align(reference, correct_scale=True)
    error = np.linalg.norm(estimate.positions_xyz - reference.positions_xyz, axis=1)
    assert error.max() < 0.1 * np.linalg.norm(np.ptp(reference.positions_xyz, axis=0))


def test_a_file_of_times_arrives_in_the_result(tmp_path):
    folder = write(tmp_path / "pictures", [f"{t:03d}" for t in range(9)])
    (tmp_path / "list.txt").write_text("\n".join(f"{t * 0.25 + 7}" for t in range(9)))
    result, plan = run(folder, tmp_path / "out", times=tmp_path / "list.txt", stride=2)
    np.testing.assert_allclose(result.times_s, 7 + np.arange(5) * 0.5)
    assert "times are those of list.txt" in plan
    assert result.provenance["config"]["times"] == str(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="fps or a file of times"):
        run(folder, tmp_path / "other", times=tmp_path / "list.txt", fps=3)


@pytest.mark.parametrize("given", [None, "intrinsics", "fov"])
def test_a_recording_brings_its_camera_unless_one_is_given(tmp_path, given):
    folder = tmp_path / "V1_01" / "mav0" / "cam0"
    stamps = [1403715274312143104 + 50_000_000 * t for t in range(9)]
    write(folder / "data", stamps)
    rows = [f"{stamp},{stamp}.png" for stamp in stamps]
    (folder / "data.csv").write_text("\n".join(["#timestamp [ns],filename", *rows]))
    fx, fy, cx, cy = BoxWorld(SIZE).intrinsics()[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
    (folder / "sensor.yaml").write_text(
        f"resolution: [{SIZE[1]}, {SIZE[0]}]\nintrinsics: [{fx}, {fy}, {cx - 0.5}, {cy - 0.5}]\n"
        "distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]\n"
    )
    settings = {None: {}, "intrinsics": {"intrinsics": (70.0, 71.0, 40.0, 24.0)}, "fov": {"fov_deg": 50.0}}[
        given
    ]
    result, plan = run(tmp_path / "V1_01", tmp_path / "out", stride=2, **settings)
    np.testing.assert_allclose(result.times_s[:2], 1403715274.312143104 + np.array([0, 0.1]), atol=1e-6)
    assert "note     recognised as EuRoC MAV" in plan
    notes = "\n".join(result.provenance["source"]["notes"])
    if given is None:
        assert result.provenance["config"]["intrinsics"] == pytest.approx([fx, fy, cx, cy])
        np.testing.assert_allclose(result.intrinsics[0], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], rtol=1e-5)
        assert "camera of EuRoC MAV" in notes
        assert "undistorted when they are read, radial-tangential" in notes
        K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
        expected = cv2.undistort(frame(8), K, np.array([-0.28, 0.07, 0.0002, 0.00002]))
    else:
        wanted = 70.0 if given == "intrinsics" else 40 / np.tan(np.radians(25))
        assert result.intrinsics[0, 0, 0] == pytest.approx(wanted, rel=1e-5)
        assert "the camera is the one given, not that of EuRoC MAV" in notes
        expected = frame(8)
    # found again through its list, and read as it was then
    np.testing.assert_allclose(result.rgb[4], expected / 255, atol=6 / 255)


def test_colour_of_deep_pictures_is_read_again_with_the_same_range(tmp_path):
    folder = write(tmp_path / "bits12", [f"{t:03d}" for t in range(9)], scale=16)
    result, plan = run(folder, tmp_path / "out", stride=3)
    assert "the range of the whole sequence" in plan
    eight = np.stack([frame(t) for t in (0, 3, 6)]) / 255
    assert np.corrcoef(np.ravel(result.rgb[:]), eight.ravel())[0, 1] > 0.995
    assert result.rgb[:].std() >= eight.std()
    (tmp_path / "chosen").mkdir()
    chosen, _ = run(folder, tmp_path / "chosen" / "out", value_range=(0.0, 4080.0), stride=3)
    np.testing.assert_allclose(chosen.rgb[:], eight, atol=2 / 255)
    again = geo4d.load(tmp_path / "chosen" / "out")
    np.testing.assert_allclose(again.rgb[:], eight, atol=2 / 255)


def test_a_mixed_folder_stops_the_run_and_a_pattern_chooses(tmp_path, capsys):
    folder = write(tmp_path / "mixed", [f"left_{t}" for t in range(9)])
    write(folder, [f"right_{t}" for t in range(9)])
    with pytest.raises(InputError, match=r"--pictures 'left_#\.png'"):
        run(folder, tmp_path / "out")
    assert main(["reconstruct", str(folder), "-o", str(tmp_path / "out")]) == InputError.exit_code
    assert "left_#.png (9), right_#.png (9)" in capsys.readouterr().err
    result, plan = run(folder, tmp_path / "out", pictures="right_#.png")
    assert result.num_frames == 9
    assert "9 of 18 pictures fit 'right_#.png'; the others are left out" in plan
    np.testing.assert_allclose(result.rgb[8], frame(8) / 255, atol=2 / 255)


@pytest.mark.parametrize("kind", ["folder", "clip"])
def test_a_name_that_is_no_utf8_goes_through_everything(tmp_path, capsys, kind):
    source = os.fsdecode(os.fsencode(tmp_path / "alt_") + b"\xe9t\xe9 \xd1")
    if kind == "folder":
        write(tmp_path / "plain", [f"{t:03d}" for t in range(9)])
    else:
        save_movie(tmp_path / "plain.mp4", (frame(t) for t in range(9)), 10)
    shutil.move(tmp_path / ("plain" if kind == "folder" else "plain.mp4"), source)
    output = source + "_out"
    result, plan = run(source, output)
    assert result.num_frames == 9
    assert "9 frames" in plan
    for format in ("tum", "npz", "exr", "ply", "colmap"):
        assert main(["export", output, "--format", format, "-o", f"{source}_{format}"]) == 0, format
    assert main(["report", output, "-o", source + ".html"]) == 0
    assert "alt_\ufffdt\ufffd \ufffd" in Path(source + ".html").read_text(encoding="utf-8")
    assert "alt_\\udce9t" in capsys.readouterr().out  # a line that any terminal takes
    manifest = json.loads(Path(output, "manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"]["path"] == source
    assert np.isfinite(geo4d.load(output).rgb[2]).all()


def test_a_name_in_another_script_goes_through_everything(tmp_path):
    folder = write(tmp_path / "Урок № 1 – «кот» 🐈 ñ", [f"кадр {t}" for t in range(9)])
    result, _ = run(folder, tmp_path / "выход ü")
    assert result.num_frames == 9
    assert main(["report", str(tmp_path / "выход ü"), "-o", str(tmp_path / "ü.html")]) == 0
    assert "Урок № 1 – «кот» 🐈 ñ" in (tmp_path / "ü.html").read_text(encoding="utf-8")
