"""Residuals of the multi-modal objective, one pure function per equation; weights and sums are the caller's.

Source: Geo4D, section 3.4 and Algorithm 1; where the paper and the authors' code differ, the code's form stands here
(``docs/fusion.md`` lists the differences).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.poses import skew, so3_log

DISPARITY_FLOOR = 1e-6
"""Added to depth before it is inverted in the published disparity term."""


def moved_points(
    points: Float[Tensor, "*b 3 P"],
    window_scale: Float[Tensor, "*b"],
    window_rotation: Float[Tensor, "*b 3 3"],
    window_translation: Float[Tensor, "*b 3"],
    rotation: Float[Tensor, "*b 3 3"],
    centre: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b 3 P"]:
    """Window points in the axes of a frame's camera: R^T (scale * R_w x + t_w - o)."""
    linear = window_scale[..., None, None] * (rotation.mT @ window_rotation)
    offset = rotation.mT @ (window_translation - centre)[..., None]
    return linear.to(points.dtype) @ points + offset.to(points.dtype)


def point_residual(
    depth: Float[Tensor, "*b P"], rays: Float[Tensor, "*b 3 P"], points: Float[Tensor, "*b 3 P"]
) -> Float[Tensor, "*b 3 P"]:
    """Point of (depth, camera) minus the window's point, both in camera axes. Source: Geo4D Eq. (4)."""
    return depth[..., None, :] * rays - points


def disparity_residual(
    depth: Float[Tensor, "*b P"],
    disparity: Float[Tensor, "*b P"],
    scale: Float[Tensor, "*b"],
    shift: Float[Tensor, "*b"],
) -> Float[Tensor, "*b P"]:
    """1 / depth minus the aligned disparity of a window. Source: Geo4D Eq. (5)."""
    aligned = scale[..., None].to(disparity.dtype) * disparity + shift[..., None].to(disparity.dtype)
    return 1 / (depth + DISPARITY_FLOOR) - aligned


def disparity_unit(scale: Float[Tensor, "*b"], typical_scale: float | None) -> Float[Tensor, "*b"]:
    """What the disparity residual of a window is multiplied by.

    With ``typical_scale`` the residual is measured in the window's own unit (``typical_scale`` / scale): a world in
    which all disparities shrink gains nothing. None is the published form, 1.
    """
    return torch.ones_like(scale) if typical_scale is None else typical_scale / scale


def rotation_difference(
    first: Float[Tensor, "*b 3 3"], second: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b"]:
    """Frobenius norm of first^T second - I. Source: Geo4D Eq. (7) and (9)."""
    identity = torch.eye(3, dtype=first.dtype, device=first.device)
    return (first.mT @ second - identity).flatten(-2).norm(dim=-1)


def moved_trajectory(
    c2w: Float[Tensor, "*b 4 4"],
    scale: Float[Tensor, "*b"],
    rotation: Float[Tensor, "*b 3 3"],
    translation: Float[Tensor, "*b 3"],
) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """Rotation and centre of a trajectory's cameras in the world. Source: Geo4D Eq. (8)."""
    centre = scale[..., None] * (rotation @ c2w[..., :3, 3:])[..., 0] + translation
    return rotation @ c2w[..., :3, :3], centre


def camera_distance(
    first_rotation: Float[Tensor, "*b 3 3"],
    first_centre: Float[Tensor, "*b 3"],
    second_rotation: Float[Tensor, "*b 3 3"],
    second_centre: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b"]:
    """Rotation difference plus distance of centres: the trajectory term between a frame's camera and its ray-map
    camera, and the smoothness term between neighbouring frames. Source: Geo4D Eq. (7) and (9)."""
    return rotation_difference(first_rotation, second_rotation) + (second_centre - first_centre).norm(dim=-1)


def linearised_rotation(
    first: Float[Tensor, "*b 3 3"], second: Float[Tensor, "*b 3 3"]
) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3 3"]]:
    """Vector whose length is the rotation difference (to third order), and its derivative by turns of both cameras.

    Turns are on the right, R exp(w). The vector is sqrt(2) times the rotation vector of first^T second.
    """
    between = first.mT @ second
    root = 2**0.5
    identity = torch.eye(3, dtype=first.dtype, device=first.device).expand_as(between)
    return root * so3_log(between), -root * between.mT, root * identity


def adjoint_of_window(
    rotation: Float[Tensor, "*b 3 3"],
    centre: Float[Tensor, "*b 3"],
    window_translation: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b 7 7"]:
    """Takes a change of a window's similarity (w, sigma, tau in the world, about the window's origin) to the change
    (w', sigma', tau') of its points in camera axes: dq = w' x q + sigma' q + tau'."""
    inverse = rotation.mT
    arm = centre - window_translation
    result = torch.zeros(*rotation.shape[:-2], 7, 7, dtype=rotation.dtype, device=rotation.device)
    result[..., :3, :3] = inverse
    result[..., 3, 3] = 1
    result[..., 4:, :3] = -inverse @ skew(arm)
    result[..., 4:, 3] = (inverse @ arm[..., None])[..., 0]
    result[..., 4:, 4:] = inverse
    return result
