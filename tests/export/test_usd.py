"""Read back through Pixar's library alone."""

import dataclasses
import zipfile

import numpy as np
import pytest

from geo4d.export import ExportConfig, Reference, save
from geo4d.formats.images import load_image
from tests.readers_of_targets import gltf, usd

Usd = pytest.importorskip("pxr.Usd")
from pxr import UsdGeom  # noqa: E402

KEEP_ALL = ExportConfig(min_confidence=0, edge_step=0)
SHOTS = {
    "wide": {"size": (36, 64), "centre": (0.55, 0.44)},
    "portrait": {"size": (64, 36), "centre": (0.43, 0.56)},
    "zoom, oblong pixels": {"size": (36, 64), "centre": (0.48, 0.53), "pixel_aspect": 1.07, "zoom": 1.1},
}


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("kind", SHOTS)
def test_points_land_on_their_pixels_and_the_plate_fills_the_view(
    tmp_path, shot, pixels_of, kind, up
) -> None:
    result = shot(**SHOTS[kind])
    height, width = result.size
    scene, plate = save(
        result, tmp_path / "a.usdc", "usd", dataclasses.replace(KEEP_ALL, up=up, first_frame=1001)
    )
    stage = Usd.Stage.Open(str(scene))
    for row, number in enumerate(range(1001, 1005)):
        points = usd.world_points(stage, "/World/Points", number)
        seen = usd.project(stage, number, points, result.size)
        assert np.abs(seen - pixels_of(result.depth[row])).max() < 0.01
        corners = usd.world_points(stage, "/World/Camera/Plate", number)
        expected = [[0, height], [width, height], [width, 0], [0, 0]]
        np.testing.assert_allclose(usd.project(stage, number, corners, result.size), expected, atol=0.01)
        picture = usd.plate_file(stage, number)
        assert picture.parent == plate
        np.testing.assert_allclose(load_image(picture), result.rgb[row], atol=1e-6)


def test_time_line_axes_unit_lens_and_clipping(tmp_path, shot) -> None:
    result = shot(size=(36, 64), focal=60, fps=24000 / 1001)
    save(result, tmp_path / "a.usdc", "usd", KEEP_ALL)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (1, 4)
    assert stage.GetFramesPerSecond() == stage.GetTimeCodesPerSecond() == pytest.approx(24000 / 1001)
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera"))
    tenths = 10 * UsdGeom.GetStageMetersPerUnit(stage) * 10  # mm in a tenth of a unit
    assert camera.GetHorizontalApertureAttr().Get() * tenths == pytest.approx(36)
    assert camera.GetFocalLengthAttr().Get() * tenths == pytest.approx(36 * 60 / 64)
    near, far = camera.GetClippingRangeAttr().Get()
    finite = result.depth[np.isfinite(result.depth)]
    assert 0 < near < finite.min()
    assert finite.max() < far
    notes = stage.GetRootLayer().customLayerData["geo4d"]
    assert "up to scale" in notes["unit"]
    assert "3: source 11 at 3.083" in notes["frames"]


def test_widths_colours_and_static_points(tmp_path, shot, pixels_of) -> None:
    result = shot(centre=(0.55, 0.44))
    save(result, tmp_path / "a.usdc", "usd", dataclasses.replace(KEEP_ALL, up="z", points_per_frame=50))
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    points = UsdGeom.Points(stage.GetPrimAtPath("/World/Points"))
    for row in range(4):
        valid = np.isfinite(result.depth[row])
        np.testing.assert_allclose(
            points.GetWidthsAttr().Get(row + 1), result.depth[row][valid] / 60, rtol=1e-5
        )
        linear = np.array(points.GetDisplayColorPrimvar().Get(row + 1), float)
        np.testing.assert_allclose(
            gltf.linear_to_srgb_bytes(linear), np.round(255 * result.rgb[row][valid]), atol=0.5
        )
        low, high = points.GetExtentAttr().Get(row + 1)
        places = np.array(points.GetPointsAttr().Get(row + 1))
        assert (np.array(low) <= places.min(axis=0)).all()
        assert (places.max(axis=0) <= np.array(high)).all()
    static = UsdGeom.Points(stage.GetPrimAtPath("/World/Static"))
    assert static.GetPointsAttr().GetNumTimeSamples() == 0
    places = np.array(static.GetPointsAttr().Get(), float)
    assert len(places) == len(static.GetWidthsAttr().Get()) == 200
    ours = np.stack([places[:, 0], -places[:, 2], places[:, 1]], axis=1)  # z up, y forward, to OpenCV's axes
    assert np.abs(ours @ [-0.3, 0.1, 1.0] - 2.5).max() < 1e-4  # on the wall, none on what moves before it


def test_a_package_holds_the_scene_and_its_pictures(tmp_path, shot, pixels_of) -> None:
    result = shot()
    (path,) = save(result, tmp_path / "a.usdz", "usd", KEEP_ALL)
    assert [file.name for file in tmp_path.iterdir()] == ["a.usdz"]
    with zipfile.ZipFile(path) as package:
        infos = package.infolist()
        assert [info.filename for info in infos] == [
            "scene.usdc",
            *(f"plate/frame_{n:04d}.png" for n in range(1, 5)),
        ]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        for info in infos:  # data begins at multiples of 64 bytes
            head = path.read_bytes()[info.header_offset : info.header_offset + 30]
            start = (
                info.header_offset
                + 30
                + int.from_bytes(head[26:28], "little")
                + int.from_bytes(head[28:30], "little")
            )
            assert start % 64 == 0
    stage = Usd.Stage.Open(str(path))
    seen = usd.project(stage, 3, usd.world_points(stage, "/World/Points", 3), result.size)
    assert np.abs(seen - pixels_of(result.depth[2])).max() < 0.01
    assert str(usd.plate_file(stage, 2)).endswith("a.usdz[plate/frame_0002.png]")


@pytest.mark.parametrize("suffix", [".usda", ".usd"])
def test_other_suffixes(tmp_path, shot, suffix) -> None:
    result = dataclasses.replace(shot(), rgb=None)
    (path,) = save(result, tmp_path / f"a{suffix}", "usd", KEEP_ALL)  # no pictures, no plate
    stage = Usd.Stage.Open(str(path))
    assert not stage.GetPrimAtPath("/World/Camera/Plate")
    assert path.read_bytes().startswith(b"#usda" if suffix == ".usda" else b"PXR-USDC")


def test_lengths_are_metres_where_they_are_known(tmp_path, shot) -> None:
    result = shot()
    reference = Reference((10.5, 20.5), (50.5, 5.5), frame=1, metres=3.0)
    save(result, tmp_path / "a.usdc", "usd", dataclasses.replace(KEEP_ALL, reference=reference))
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetRootLayer().customLayerData["geo4d"]["unit"] == "metres"
    points = usd.world_points(stage, "/World/Points", 2)
    seen = usd.project(stage, 2, points, result.size)
    ends = [points[np.abs(seen - pixel).max(axis=1).argmin()] for pixel in ([10.5, 20.5], [50.5, 5.5])]
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(3.0, rel=1e-5)
    # Metres as centimetres: a hundred units in a metre, and the same lens.
    metric = dataclasses.replace(result, scale_kind="metric")
    save(metric, tmp_path / "cm.usdc", "usd", dataclasses.replace(KEEP_ALL, scale=100))
    stage = Usd.Stage.Open(str(tmp_path / "cm.usdc"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 0.01
    aperture = UsdGeom.Camera(stage.GetPrimAtPath("/World/Camera")).GetHorizontalApertureAttr().Get()
    assert aperture == pytest.approx(36)  # millimetres are tenths of a centimetre
    depth = result.depth[0][np.isfinite(result.depth[0])]
    np.testing.assert_allclose(-usd.world_points(stage, "/World/Points", 1)[:, 2], 100 * depth, rtol=1e-5)
