import numpy as np
import pytest

from geo4d.formats.nuke import rotations_zxy, save_chan, save_nuke_script


def matrix(x: float, y: float, z: float) -> np.ndarray:
    """Ry Rx Rz from the definition of turns about single axes, degrees."""
    a, b, c = np.radians([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return ry @ rx @ rz


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, 20, 30), (-80, 170, -100), (89, -5, 60), (0, 90, 0)])
def test_angles_make_their_matrix_again(angles) -> None:
    found = rotations_zxy(matrix(*angles)[None])[0]
    np.testing.assert_allclose(matrix(*found), matrix(*angles), atol=1e-12)
    np.testing.assert_allclose(found, angles, atol=1e-9)


@pytest.mark.parametrize("x", [90.0, -90.0])
def test_straight_up_and_down_has_no_turn_about_z(x: float) -> None:
    turned = matrix(x, 25, 40)
    found = rotations_zxy(turned[None])[0]
    assert found[2] == 0
    np.testing.assert_allclose(matrix(*found), turned, atol=1e-7)


def test_a_camera_that_goes_round_twice_has_no_jumps() -> None:
    path = np.stack([matrix(5, angle, 3) for angle in np.arange(0, 720, 10.0)])
    found = rotations_zxy(path)
    np.testing.assert_allclose(found[:, 1], np.arange(0, 720, 10.0), atol=1e-8)
    np.testing.assert_allclose(found[:, [0, 2]], [[5, 3]] * 72, atol=1e-8)


def cameras(count: int = 3) -> np.ndarray:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    for t in range(count):
        c2w[t, :3, :3] = matrix(10 * t, 5, 0)
        c2w[t, :3, 3] = [t, 2, 3]
    return c2w


def test_rows_of_a_chan_file(tmp_path) -> None:
    save_chan(tmp_path / "a.chan", range(101, 104), cameras(), np.radians([40.0, 41, 42]))
    rows = np.loadtxt(tmp_path / "a.chan", delimiter="\t")
    assert rows[:, 0].tolist() == [101, 102, 103]
    np.testing.assert_allclose(rows[:, 1:4], [[0, 2, 3], [1, 2, 3], [2, 2, 3]])
    np.testing.assert_allclose(rows[:, 4:7], [[0, 5, 0], [10, 5, 0], [20, 5, 0]], atol=1e-8)
    np.testing.assert_allclose(rows[:, 7], [40, 41, 42])


def test_a_script_has_curves_for_what_changes_and_numbers_for_what_does_not(tmp_path) -> None:
    still = np.full(3, 24.5)
    save_nuke_script(
        tmp_path / "a.nk",
        range(5, 8),
        cameras(),
        fps=25.0,
        size=(1080, 1920),
        pixel_aspect=1.0,
        focal_mm=np.array([35.0, 36, 37]),
        haperture_mm=still,
        vaperture_mm=still / 2,
        win_translate=np.zeros((3, 2)),
        clipping=(0.1, 100.0),
        plate='it\'s "a" [plate] $1.%04d.png',
        notes=["first {line}", "second"],
    )
    text = (tmp_path / "a.nk").read_text()
    assert " focal {{curve x5 35 x6 36 x7 37}}" in text
    assert " haperture 24.5\n" in text
    assert " translate {{curve x5 0 x6 1 x7 2} 2 3}" in text
    assert " win_translate {0 0}" in text
    assert '"1920 1080 0 0 1920 1080 1 geo4d"' in text
    # What means something to Tcl is written so that it does not.
    assert r"/it's \"a\" \[plate] \$1.%04d.png" in text
    assert r"first \{line\}" in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_without_a_plate_there_is_no_node_that_reads(tmp_path) -> None:
    one = np.ones(1)
    save_nuke_script(
        tmp_path / "a.nk", range(1, 2), cameras(1), fps=24.0, size=(10, 20), pixel_aspect=2.0, focal_mm=one,
        haperture_mm=one, vaperture_mm=one, win_translate=np.zeros((1, 2)), clipping=(1.0, 2.0), plate=None, notes=[],
    )  # fmt: skip
    text = (tmp_path / "a.nk").read_text()
    assert "Read {" not in text
    assert "Camera2 {" in text
    assert "20 10 0 0 20 10 2 geo4d" in text
