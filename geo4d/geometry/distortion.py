"""Lens distortion: where a ray meets the distorted picture, and the pinhole camera that stays inside that picture.

Image coordinates are on the plane z = 1: x = X / Z to the right, y = Y / Z down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import pixel_grid

Model = Literal["radial-tangential", "fisheye"]

_NAMES: dict[str, Model] = {
    **{name: name for name in get_args(Model)},
    "radtan": "radial-tangential",
    "plumb_bob": "radial-tangential",
    "rational_polynomial": "radial-tangential",
    "equidistant": "fisheye",
    "kannala_brandt": "fisheye",
}
"""What the models are called by Kalibr, EuRoC, ROS and OpenCV."""

_COUNTS: dict[Model, tuple[int, ...]] = {"radial-tangential": (4, 5, 8), "fisheye": (4,)}

MOST_ZOOM = 4.0
"""The focal length of the undistorted picture at most, in that of the distorted one."""


@dataclass(frozen=True)
class Distortion:
    """What a lens does to the picture of a pinhole camera.

    Attributes:
        model: ``radial-tangential`` (Brown; in ROS ``plumb_bob``, with eight numbers ``rational_polynomial``) or
            ``fisheye`` (Kannala-Brandt; ``equidistant`` in Kalibr, ``fisheye`` in OpenCV).
        coefficients: k1 k2 p1 p2 [k3 [k4 k5 k6]], or k1 k2 k3 k4 of the fisheye.
    Raises:
        ValueError: another model, or another number of coefficients.
    """

    model: Model
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in _COUNTS:
            raise ValueError(f"expected a model out of {', '.join(_COUNTS)}, got {self.model!r}")
        if len(self.coefficients) not in _COUNTS[self.model]:
            raise ValueError(
                f"expected {' or '.join(map(str, _COUNTS[self.model]))} coefficients for {self.model} distortion "
                f"({_order(self.model)}), got {len(self.coefficients)}"
            )
        if not bool(torch.isfinite(torch.tensor(self.coefficients)).all()):
            raise ValueError(f"expected finite coefficients of distortion, got {self.coefficients}")

    @classmethod
    def named(cls, name: str, coefficients: tuple[float, ...]) -> Distortion:
        """By any of the names that tools use.

        Raises:
            ValueError: an unknown name, or another number of coefficients.
        """
        model = _NAMES.get(name.strip().lower().replace("_", "-"), _NAMES.get(name.strip().lower()))
        if model is None:
            raise ValueError(f"expected a distortion model out of {', '.join(_NAMES)}, got {name!r}")
        return cls(model, coefficients)

    @classmethod
    def parse(cls, text: str) -> Distortion:
        """``MODEL:K1,K2,...``, such as ``radtan:-0.28,0.07,0.0002,0.00002`` or ``fisheye:K1,K2,K3,K4``.

        Raises:
            ValueError: another form.
        """
        name, colon, numbers = text.partition(":")
        try:
            values = tuple(float(word) for word in numbers.split(",")) if colon else ()
        except ValueError as error:
            raise ValueError(f"expected a distortion as {_FORMS}, got {text!r}") from error
        if not values:
            raise ValueError(f"expected a distortion as {_FORMS}, got {text!r}")
        return cls.named(name, values)

    @property
    def is_none(self) -> bool:
        """Whether it leaves every ray where it is; a fisheye of zeros does not, it maps angles evenly."""
        return self.model == "radial-tangential" and not any(self.coefficients)

    def words(self) -> str:
        """For people: the model and its numbers."""
        names = _order(self.model).replace("[", "").replace("]", "").split()
        return f"{self.model} ({', '.join(f'{n} {k:.6g}' for n, k in zip(names, self.coefficients, strict=False))})"

    def distort(self, xy: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Where the picture shows what a pinhole camera shows at ``xy``; both on the plane z = 1.

        Source: https://docs.opencv.org/4.x/d9/d0c/group__calib3d.html and .../db/d58/group__calib3d__fisheye.html.
        """
        x, y = xy.unbind(-1)
        r = xy.norm(dim=-1)
        ratio = torch.where(r > 1e-9, self.radius(r) / r.clamp(min=1e-9), 1.0)
        x2, y2 = x * ratio, y * ratio
        if self.model == "radial-tangential":
            p1, p2 = self.coefficients[2:4]
            x2 = x2 + 2 * p1 * x * y + p2 * (r * r + 2 * x * x)
            y2 = y2 + p1 * (r * r + 2 * y * y) + 2 * p2 * x * y
        return torch.stack([x2, y2], -1)

    def radius(self, r: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The radial part: distance from the optical axis on the plane z = 1, before and after."""
        if self.model == "fisheye":
            angle = torch.atan(r)
            square, (k1, k2, k3, k4) = angle * angle, self.coefficients
            return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        k1, k2, _, _, k3, k4, k5, k6 = (*self.coefficients, *([0.0] * (8 - len(self.coefficients))))
        square = r * r
        above = 1 + square * (k1 + square * (k2 + square * k3))
        return r * above / (1 + square * (k4 + square * (k5 + square * k6)))


_FORMS = "radtan:K1,K2,P1,P2[,K3] or fisheye:K1,K2,K3,K4"


def _order(model: Model) -> str:
    return "k1 k2 k3 k4" if model == "fisheye" else "k1 k2 p1 p2 [k3 [k4 k5 k6]]"


def undistortion_map(
    distortion: Distortion,
    distorted: Float[Tensor, "3 3"],
    undistorted: Float[Tensor, "3 3"],
    size: tuple[int, int],
) -> Float[Tensor, "H W 2"]:
    """For every pixel centre of the undistorted picture, (x, y) in the distorted one; pixels, centres at +0.5.

    Args:
        distorted, undistorted: intrinsics of both pictures.
        size: (height, width) of both.
    """
    return _seen_at(distortion, distorted, undistorted, pixel_grid(size).to(distorted.dtype))


def undistorted_intrinsics(
    distortion: Distortion, intrinsics: Float[Tensor, "3 3"], size: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """A pinhole camera of which every pixel lies inside the distorted picture, with the same principal point.

    The focal length is that of the distorted camera; where the picture would then reach beyond the distorted one, or
    to where the model folds back, it is longer by the least factor that keeps it inside.

    Raises:
        ValueError: no factor up to ``MOST_ZOOM`` does.
    """
    height, width = size
    grid = pixel_grid(size).to(intrinsics.dtype)
    border = torch.cat([grid[0], grid[-1], grid[:, 0], grid[:, -1]])

    def fits(zoom: float) -> bool:
        camera = zoomed(intrinsics, zoom)
        far = float(((border - camera[:2, 2]) / camera[[0, 1], [0, 1]]).norm(dim=-1).max())
        radius = distortion.radius(torch.linspace(0, far, 512, dtype=intrinsics.dtype))
        if not bool((radius.diff() > 0).all()):
            return False
        x, y = _seen_at(distortion, intrinsics, camera, border).unbind(-1)
        # Half a pixel beyond the outer centres there is still the outer pixel.
        return bool(((x >= 0) & (x <= width) & (y >= 0) & (y <= height)).all())

    if fits(1.0):
        return intrinsics
    if not fits(MOST_ZOOM):
        raise ValueError(
            f"expected a distortion that a pinhole picture of {width}x{height} pixels can be cut out of, but "
            f"{distortion.words()} leaves the picture or folds back even at {MOST_ZOOM:g} times the focal length; check "
            "the coefficients and the intrinsics"
        )
    low, high = 1.0, MOST_ZOOM
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return zoomed(intrinsics, high)


def zoomed(intrinsics: Float[Tensor, "3 3"], zoom: float) -> Float[Tensor, "3 3"]:
    """With longer focal lengths."""
    result = intrinsics.clone()
    result[[0, 1], [0, 1]] *= zoom
    return result


def _seen_at(
    distortion: Distortion, distorted: Tensor, undistorted: Tensor, pixels: Float[Tensor, "*b 2"]
) -> Float[Tensor, "*b 2"]:
    plane = (pixels - undistorted[:2, 2]) / undistorted[[0, 1], [0, 1]]
    return distortion.distort(plane) * distorted[[0, 1], [0, 1]] + distorted[:2, 2]
