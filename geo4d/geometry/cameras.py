"""Pinhole cameras: pixel grid, projection, field of view, intrinsics under crop and resize.

Pixel centres lie at +0.5: an image of W columns spans [0, W], and resizing scales the intrinsics linearly.
Camera axes are OpenCV's: +x right, +y down, +z forward.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def pixel_grid(
    size: tuple[int, int], *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "H W 2"]:
    """Coordinates (x, y) of all pixel centres, in pixels.

    Args:
        size: (height, width).
    Examples:
        >>> pixel_grid((1, 3)).tolist()
        [[[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]]]
    """
    height, width = size
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype) + 0.5,
        torch.arange(width, device=device, dtype=dtype) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def intrinsics_matrix(
    fx: Float[Tensor, "*b"], fy: Float[Tensor, "*b"], cx: Float[Tensor, "*b"], cy: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3 3"]:
    """Pinhole matrix from focal lengths and principal point, all in pixels."""
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [
        torch.stack([fx, zero, cx], -1),
        torch.stack([zero, fy, cy], -1),
        torch.stack([zero, zero, one], -1),
    ]
    return torch.stack(rows, dim=-2)


def centred_intrinsics(focal: Float[Tensor, "*b"], size: tuple[int, int]) -> Float[Tensor, "*b 3 3"]:
    """Square pixels and the principal point in the middle of the image.

    Args:
        focal: in pixels.
        size: (height, width) of the image.
    Examples:
        >>> centred_intrinsics(torch.tensor(300.0), (192, 320)).tolist()
        [[300.0, 0.0, 160.0], [0.0, 300.0, 96.0], [0.0, 0.0, 1.0]]
    """
    height, width = size
    return intrinsics_matrix(
        focal, focal, torch.full_like(focal, width / 2), torch.full_like(focal, height / 2)
    )


def focal_from_fov(fov: Float[Tensor, "*b"], extent: float) -> Float[Tensor, "*b"]:
    """Focal length in pixels of a camera that sees ``fov`` radians across ``extent`` pixels.

    Examples:
        >>> round(float(focal_from_fov(torch.tensor(torch.pi / 2), 320)), 3)
        160.0
    """
    return 0.5 * extent / torch.tan(0.5 * fov)


def fov_from_focal(focal: Float[Tensor, "*b"], extent: float) -> Float[Tensor, "*b"]:
    """Angle in radians that a camera of ``focal`` pixels sees across ``extent`` pixels."""
    return 2 * torch.atan(0.5 * extent / focal)


def camera_rays(intrinsics: Float[Tensor, "*b 3 3"], size: tuple[int, int]) -> Float[Tensor, "*b H W 3"]:
    """Viewing ray of every pixel centre in camera axes, with z = 1 (not unit length)."""
    grid = pixel_grid(size, device=intrinsics.device, dtype=intrinsics.dtype).reshape(-1, 2)
    rays = pixels_to_rays(grid.expand(*intrinsics.shape[:-2], *grid.shape), intrinsics)
    return rays.reshape(*intrinsics.shape[:-2], *size, 3)


def pixels_to_rays(
    pixels: Float[Tensor, "*b n 2"], intrinsics: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b n 3"]:
    """Viewing rays with z = 1 through ``pixels``, in camera axes; skew is respected."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    return homogeneous @ torch.linalg.inv(intrinsics).mT


def unproject(
    depth: Float[Tensor, "*b H W"], intrinsics: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b H W 3"]:
    """Camera-frame points of z-depth maps, in the unit of ``depth``.

    NaN and infinite depth give non-finite points.

    Examples:
        >>> intrinsics = centred_intrinsics(torch.tensor(2.0), (1, 2))
        >>> unproject(torch.tensor([[4.0, 8.0]]), intrinsics).tolist()
        [[[-1.0, 0.0, 4.0], [2.0, 0.0, 8.0]]]
    """
    return camera_rays(intrinsics, (depth.shape[-2], depth.shape[-1])) * depth[..., None]


def project(
    points: Float[Tensor, "*b n 3"], intrinsics: Float[Tensor, "*b 3 3"], *, min_depth: float = 1e-8
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
    """Pixel positions and z-depth of camera-frame points.

    Args:
        points: in camera axes.
        intrinsics: one camera per batch entry.
        min_depth: positions are divided by at least this, so that they stay finite; callers must use the returned
            depth to discard points behind the camera.
    Returns:
        pixels (x, y), and z-depth in the unit of ``points``.
    Examples:
        >>> pixels, depth = project(torch.tensor([[-1.0, 0.0, 4.0]]), centred_intrinsics(torch.tensor(2.0), (1, 2)))
        >>> pixels.tolist(), depth.tolist()
        ([[0.5, 0.5]], [4.0])
    """
    depth = points[..., 2]
    homogeneous = points @ intrinsics.mT
    return homogeneous[..., :2] / depth.clamp(min=min_depth)[..., None], depth


def resize_intrinsics(
    intrinsics: Float[Tensor, "*b 3 3"], old_size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics after the image was resized from ``old_size`` to ``new_size``, both (height, width).

    Examples:
        >>> intrinsics = centred_intrinsics(torch.tensor(300.0), (192, 320))
        >>> resize_intrinsics(intrinsics, (192, 320), (96, 160)).tolist()
        [[150.0, 0.0, 80.0], [0.0, 150.0, 48.0], [0.0, 0.0, 1.0]]
    """
    scale = intrinsics.new_tensor([[new_size[1] / old_size[1]], [new_size[0] / old_size[0]], [1.0]])
    return intrinsics * scale


def crop_intrinsics(intrinsics: Float[Tensor, "*b 3 3"], left: float, top: float) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics after ``left`` columns and ``top`` rows were cut off (negative: padded)."""
    cropped = intrinsics.clone()
    cropped[..., 0, 2] -= left
    cropped[..., 1, 2] -= top
    return cropped


def intrinsics_from_integer_pixel_centres(intrinsics: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """From the convention where pixel centres are integers (OpenCV, most data sets) to ours (+0.5).

    Examples:
        >>> theirs = torch.tensor([[300.0, 0.0, 159.5], [0.0, 300.0, 95.5], [0.0, 0.0, 1.0]])
        >>> intrinsics_from_integer_pixel_centres(theirs)[:2, 2].tolist()
        [160.0, 96.0]
    """
    return crop_intrinsics(intrinsics, -0.5, -0.5)


def intrinsics_to_integer_pixel_centres(intrinsics: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """To the convention where pixel centres are integers."""
    return crop_intrinsics(intrinsics, 0.5, 0.5)
