"""Scenes as bytes, read back through Pixar's library alone."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from geo4d.formats.points import PointCloud
from geo4d.formats.usd import UsdScene, save_usdz

Usd = pytest.importorskip("pxr.Usd")
from pxr import Gf, UsdGeom, UsdShade  # noqa: E402

NUM, FIRST = 3, 1001


def scene(**changed) -> UsdScene:
    values = {
        "up": "z",
        "metres_per_unit": 0.01,
        "first": FIRST,
        "count": NUM,
        "fps": 24.0,
        "notes": {"axes": "said"},
    }
    return UsdScene(**values | changed)


def opened(made: UsdScene, path: Path) -> "Usd.Stage":
    made.save(path, "a comment")
    return Usd.Stage.Open(str(path))


def add_camera(made: UsdScene, c2w: np.ndarray, focal_mm: list[float]) -> None:
    same = np.full(NUM, 1.0)
    made.add_camera(
        c2w,
        focal_mm=np.array(focal_mm),
        width_mm=36 * same,
        height_mm=20 * same,
        shift_x_mm=2 * same,
        shift_y_mm=-1 * same,
        clipping=(0.5, 900.0),
    )


@pytest.mark.parametrize("suffix", [".usdc", ".usda", ".usd"])
def test_the_stage_states_its_axes_unit_and_time_line(tmp_path: Path, suffix: str) -> None:
    stage = opened(scene(), tmp_path / f"a{suffix}")
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 0.01
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (FIRST, FIRST + NUM - 1)
    assert stage.GetFramesPerSecond() == stage.GetTimeCodesPerSecond() == 24
    assert stage.GetRootLayer().customLayerData["geo4d"]["axes"] == "said"
    assert stage.GetRootLayer().comment == "a comment"
    assert stage.GetDefaultPrim().GetPath() == "/World"
    assert (tmp_path / f"a{suffix}").read_bytes().startswith(b"#usda" if suffix == ".usda" else b"PXR-USDC")


def test_a_camera_maps_its_own_points_to_the_world_at_every_frame(tmp_path: Path) -> None:
    angle = 0.3
    c2w = np.tile(np.eye(4), (NUM, 1, 1))
    c2w[:, :3, 3] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    c2w[1, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    made = scene()
    add_camera(made, c2w, [30.0, 40.0, 50.0])
    stage = opened(made, tmp_path / "a.usdc")
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera"))
    for t in range(NUM):
        matrix = UsdGeom.XformCache(FIRST + t).GetLocalToWorldTransform(camera.GetPrim())
        found = matrix.Transform(Gf.Vec3d(0.1, -0.2, -5.0))
        np.testing.assert_allclose(found, c2w[t, :3, :3] @ [0.1, -0.2, -5.0] + c2w[t, :3, 3])
        lens = camera.GetCamera(FIRST + t)
        # a hundredth of a metre a unit: a tenth of it is a millimetre
        assert lens.focalLength == pytest.approx([30.0, 40.0, 50.0][t])
        assert (lens.horizontalAperture, lens.verticalAperture) == pytest.approx((36, 20))
        assert (lens.horizontalApertureOffset, lens.verticalApertureOffset) == pytest.approx((2, -1))
        assert (lens.clippingRange.min, lens.clippingRange.max) == (0.5, 900)
    assert camera.GetFocalLengthAttr().GetNumTimeSamples() == NUM
    assert camera.GetHorizontalApertureAttr().GetNumTimeSamples() == 0  # what stays is written once


def test_the_lens_keeps_its_angle_in_any_unit(tmp_path: Path) -> None:
    for unit in (0.01, 1.0):
        made = scene(metres_per_unit=unit)
        add_camera(made, np.tile(np.eye(4), (NUM, 1, 1)), [30.0] * NUM)
        stage = opened(made, tmp_path / f"{unit}.usdc")
        lens = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera")).GetCamera(FIRST)
        millimetres = unit / 10 * 1000  # USD measures lenses in tenths of a unit
        assert lens.focalLength * millimetres == pytest.approx(30)
        assert lens.horizontalAperture * millimetres == pytest.approx(36)


def test_points_have_places_widths_and_linear_colours_at_their_time(tmp_path: Path) -> None:
    places = np.array([[0.0, 1, 2], [3, 4, 5]], np.float32)
    colours = np.array([[0, 128, 255], [255, 10, 64]], np.uint8)
    made = scene()
    made.add_points("Still", PointCloud(places, colours), np.array([0.1, 0.2]), None)
    for t in range(NUM):
        made.add_points("Moving", PointCloud(places + t, None), np.array([0.1, 0.2]), FIRST + t)
    made.add_points("None", PointCloud(np.zeros((0, 3), np.float32), None), np.zeros(0), None)
    stage = opened(made, tmp_path / "a.usdc")
    still = UsdGeom.Points(stage.GetPrimAtPath("/World/Still"))
    np.testing.assert_array_equal(still.GetPointsAttr().Get(), places)
    np.testing.assert_allclose(still.GetWidthsAttr().Get(), [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(still.GetExtentAttr().Get(), [[-0.05, 0.95, 1.95], [3.1, 4.1, 5.1]], atol=1e-6)
    share = colours / 255  # IEC 61966-2-1, written out
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(still.GetDisplayColorPrimvar().Get(), linear, atol=1e-6)
    moving = UsdGeom.Points(stage.GetPrimAtPath("/World/Moving"))
    for t in range(NUM):
        np.testing.assert_array_equal(moving.GetPointsAttr().Get(FIRST + t), places + t)
    assert len(UsdGeom.Points(stage.GetPrimAtPath("/World/None")).GetPointsAttr().Get()) == 0


def test_the_plate_shows_the_picture_of_its_frame(tmp_path: Path) -> None:
    made = scene()
    add_camera(made, np.tile(np.eye(4), (NUM, 1, 1)), [30.0] * NUM)
    corners = np.array([[-2.0, -1, -9], [2, -1, -9], [2, 1, -9], [-2, 1, -9]]) * np.ones((NUM, 1, 1))
    names = [f"plate/{t}.png" for t in range(NUM)]
    made.add_plate(names, corners)
    stage = opened(made, tmp_path / "a.usdc")
    card = UsdGeom.Mesh(stage.GetPrimAtPath("/World/Camera/Plate"))
    np.testing.assert_allclose(card.GetPointsAttr().Get(FIRST), corners[0])
    st = np.array(UsdGeom.PrimvarsAPI(card).GetPrimvar("st").Get())
    np.testing.assert_array_equal(st, (np.sign(corners[0, :, :2]) + 1) / 2)  # (0, 0) lower left
    material, _ = UsdShade.MaterialBindingAPI(card).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0]
    source = surface.GetInput("emissiveColor").GetConnectedSources()[0][0].source
    file = UsdShade.Shader(source.GetPrim()).GetInput("file")
    assert [file.Get(FIRST + t).path for t in range(NUM)] == names


def test_a_package_holds_scene_and_pictures_as_the_format_asks(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.usdc", "")
    (tmp_path / "p.png").write_bytes(b"picture")
    save_usdz(tmp_path / "a.usdz", tmp_path / "a.usdc", [(tmp_path / "p.png", "plate/0.png")])
    with zipfile.ZipFile(tmp_path / "a.usdz") as package:
        entries = package.infolist()
        assert [entry.filename for entry in entries] == ["a.usdc", "plate/0.png"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        assert package.read("plate/0.png") == b"picture"
    raw = (tmp_path / "a.usdz").read_bytes()
    assert raw.find(b"picture") % 64 == 0
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))  # the first file is the one that is opened
    assert stage.GetStartTimeCode() == FIRST
