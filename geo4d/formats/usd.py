"""USD scenes (``.usdc``, ``.usda``, ``.usdz``) with one animated camera, points and a plate, through ``usd-core``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from geo4d.errors import MissingExtraError, OutputError
from geo4d.formats.colours import srgb_to_linear
from geo4d.formats.points import PointCloud


def require_usd() -> None:
    """Raises MissingExtraError where ``usd-core`` is not installed."""
    try:
        import pxr.Usd  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("usd-core", "usd", "the USD export") from error


class UsdScene:
    """A stage that is filled and then saved.

    Points and cameras come in the axes of the stage; USD cameras look along -z with +y up. All time samples are held in
    memory until ``save``.

    Args:
        up: the stage's up axis, which the coordinates have.
        metres_per_unit: of the stage.
        first, count: numbers of its frames.
        fps: frames (and time codes) per second.
        notes: JSON values for the layer's ``customLayerData``.
    """

    def __init__(
        self,
        *,
        up: Literal["y", "z"],
        metres_per_unit: float,
        first: int,
        count: int,
        fps: float,
        notes: dict[str, Any],
    ) -> None:
        require_usd()
        from pxr import Usd, UsdGeom

        self._stage = stage = Usd.Stage.CreateInMemory()
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "y" else UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(stage, metres_per_unit)
        stage.SetStartTimeCode(first)
        stage.SetEndTimeCode(first + count - 1)
        stage.SetTimeCodesPerSecond(fps)
        stage.SetFramesPerSecond(fps)
        stage.GetRootLayer().customLayerData = {"geo4d": notes}
        self._numbers = range(first, first + count)
        self._tenth_mm = (
            metres_per_unit * 100
        )  # millimetres in a tenth of a unit, which USD measures lenses in
        world = UsdGeom.Xform.Define(stage, "/World")
        stage.SetDefaultPrim(world.GetPrim())

    def add_camera(
        self,
        c2w: Float[np.ndarray, "T 4 4"],
        *,
        focal_mm: Float[np.ndarray, " T"],
        width_mm: Float[np.ndarray, " T"],
        height_mm: Float[np.ndarray, " T"],
        shift_x_mm: Float[np.ndarray, " T"],
        shift_y_mm: Float[np.ndarray, " T"],
        clipping: tuple[float, float],
    ) -> None:
        """``/World/Camera``, one pose a frame; values of the lens that stay the same are written once.

        Args:
            c2w: of the USD camera (-z forward, +y up) in the axes of the stage.
            shift_x_mm, shift_y_mm: centre of the film from the axis of the lens, right and up.
            clipping: near and far, in units.
        """
        from pxr import Gf, Sdf, UsdGeom

        camera = UsdGeom.Camera.Define(self._stage, "/World/Camera")
        transform = camera.AddTransformOp()
        for number, pose in zip(self._numbers, np.asarray(c2w, np.float64), strict=True):
            transform.Set(Gf.Matrix4d(*pose.T.ravel().tolist()), number)  # USD multiplies rows from the left
        for attribute, values in (
            (camera.CreateFocalLengthAttr(), focal_mm),
            (camera.CreateHorizontalApertureAttr(), width_mm),
            (camera.CreateVerticalApertureAttr(), height_mm),
            (camera.CreateHorizontalApertureOffsetAttr(), shift_x_mm),
            (camera.CreateVerticalApertureOffsetAttr(), shift_y_mm),
        ):
            self._set(attribute, [float(value / self._tenth_mm) for value in values])
        camera.CreateClippingRangeAttr(Gf.Vec2f(*clipping))
        camera.CreateProjectionAttr(UsdGeom.Tokens.perspective)
        for name, millimetres in (("focal_mm", focal_mm), ("film_width_mm", width_mm)):
            attribute = camera.GetPrim().CreateAttribute(
                f"userProperties:{name}", Sdf.ValueTypeNames.Float, True
            )
            self._set(attribute, [float(value) for value in millimetres])

    def add_points(
        self, name: str, cloud: PointCloud, widths: Float[np.ndarray, " N"], number: int | None
    ) -> None:
        """Points with widths and colours as ``/World/NAME``.

        Args:
            cloud: in the axes of the stage; colours are sRGB, and linear in the file.
            widths: diameters, in units.
            number: the frame that they belong to; None for points that stay.
        """
        from pxr import Usd, UsdGeom, Vt

        points = UsdGeom.Points.Define(self._stage, f"/World/{name}")
        time = Usd.TimeCode.Default() if number is None else Usd.TimeCode(number)
        places = Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(cloud.positions, np.float32))
        sizes = Vt.FloatArray.FromNumpy(np.ascontiguousarray(widths, np.float32))
        points.CreatePointsAttr().Set(places, time)
        points.CreateWidthsAttr().Set(sizes, time)
        points.SetWidthsInterpolation(UsdGeom.Tokens.vertex)
        if cloud.num_points:
            points.CreateExtentAttr().Set(UsdGeom.Points.ComputeExtent(places, sizes), time)
        if cloud.colours is not None:
            linear = srgb_to_linear(cloud.colours.astype(np.float32) / np.float32(255))
            colours = points.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
            colours.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(linear, np.float32)), time)

    def add_plate(self, files: Sequence[str], corners: Float[np.ndarray, "T 4 3"]) -> None:
        """Pictures on a card that fills the view of the camera, and their names on the camera.

        The card has the purpose ``guide``: programs that hide guides show the scene without it.

        Args:
            files: one a frame, relative to the scene.
            corners: of the card in the axes of the USD camera: lower left, lower right, upper right, upper left.
        """
        from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt

        camera = self._stage.GetPrimAtPath("/World/Camera")
        link = camera.CreateAttribute("userProperties:plate", Sdf.ValueTypeNames.String, True)
        link.Set(files[0])
        card = UsdGeom.Mesh.Define(self._stage, "/World/Camera/Plate")
        card.CreateFaceVertexCountsAttr([4])
        card.CreateFaceVertexIndicesAttr([0, 1, 2, 3])
        card.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        card.CreateDoubleSidedAttr(True)
        card.CreatePurposeAttr(UsdGeom.Tokens.guide)
        self._set(
            card.CreatePointsAttr(),
            [Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(four, np.float32)) for four in corners],
        )
        places = UsdGeom.PrimvarsAPI(card).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
        )
        places.Set(Vt.Vec2fArray([Gf.Vec2f(0, 0), Gf.Vec2f(1, 0), Gf.Vec2f(1, 1), Gf.Vec2f(0, 1)]))
        material = UsdShade.Material.Define(self._stage, "/World/Plate")
        reader = self._shader("Place", "UsdPrimvarReader_float2", varname=(Sdf.ValueTypeNames.String, "st"))
        picture = self._shader("Picture", "UsdUVTexture", sourceColorSpace=(Sdf.ValueTypeNames.Token, "sRGB"))
        file = picture.CreateInput("file", Sdf.ValueTypeNames.Asset)
        file.Set(Sdf.AssetPath(files[0]))
        for number, name in zip(self._numbers, files, strict=True):
            file.GetAttr().Set(Sdf.AssetPath(name), number)
        picture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
            reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
        )
        surface = self._shader(
            "Surface", "UsdPreviewSurface", diffuseColor=(Sdf.ValueTypeNames.Color3f, Gf.Vec3f(0))
        )
        surface.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(
            picture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        )
        material.CreateSurfaceOutput().ConnectToSource(
            surface.CreateOutput("surface", Sdf.ValueTypeNames.Token)
        )
        UsdShade.MaterialBindingAPI.Apply(card.GetPrim()).Bind(material)

    def _shader(self, name: str, kind: str, **inputs: tuple[Any, Any]) -> Any:
        from pxr import UsdShade

        shader = UsdShade.Shader.Define(self._stage, f"/World/Plate/{name}")
        shader.CreateIdAttr(kind)
        for key, (value_type, value) in inputs.items():
            shader.CreateInput(key, value_type).Set(value)
        return shader

    def _set(self, attribute: Any, values: Sequence[Any]) -> None:
        """One value where all are the same, else one a frame."""
        if all(value == values[0] for value in values):
            attribute.Set(values[0])
            return
        for number, value in zip(self._numbers, values, strict=True):
            attribute.Set(value, number)

    def save(self, path: Path, comment: str) -> None:
        """Write the scene; the suffix says in which form (``.usdc`` and ``.usd`` binary, ``.usda`` text).

        Raises:
            OutputError: the library could not write it.
        """
        layer = self._stage.GetRootLayer()
        layer.comment = comment
        try:
            written = layer.Export(str(path))
        except Exception as error:  # the library has one class of error for everything
            raise OutputError(f"cannot write {path}: {error}") from error
        if not written:
            raise OSError(f"cannot write {path}")


def save_usdz(path: Path, scene: Path, pictures: Sequence[tuple[Path, str]]) -> None:
    """One ``.usdz`` of a scene and the pictures that it names, uncompressed and aligned as the format asks for.

    Args:
        scene: a ``.usdc``; it comes first, which makes it the one that is opened.
        pictures: files, and their names relative to the scene.
    Raises:
        OSError: not written.
    """
    require_usd()
    from pxr import Sdf

    with Sdf.ZipFileWriter.CreateNew(str(path)) as package:
        for file, name in [(scene, scene.name), *pictures]:
            if not package.AddFile(str(file), name):
                raise OSError(f"cannot write {path}: {name} does not go in")
