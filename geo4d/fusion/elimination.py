"""Normal equations of a range of frames with the log depth of every pixel eliminated.

A log depth touches only its own pixel's residuals, so it leaves the system of a frame's other unknowns by a division.

Axis names: n frames of the range, o observations of them, P pixels of a frame, M slots for windows in a frame.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion import terms
from geo4d.fusion.pixel_terms import PixelTerms, PixelView
from geo4d.fusion.variables import Variables
from geo4d.geometry.poses import skew
from geo4d.optimise.kernels import norm_weight


@dataclass(frozen=True)
class Eliminated:
    """Normal equations of a range of frames, and what puts the eliminated log depths back.

    Attributes:
        hessian, gradient: over a frame's unknowns (camera 6, log focal length 1, then 9 of each window).
        coupling, pull: log depth = - pull - coupling^T (``frame_transform`` x step).
    """

    hessian: Float[Tensor, "n u u"]
    gradient: Float[Tensor, "n u"]
    coupling: Float[Tensor, "n l P"]
    pull: Float[Tensor, "n P"]


@dataclass(frozen=True)
class Local:
    """Normal equations of one observation's own unknowns, float64.

    They are turn (3), log scale, shift (3), disparity scale and shift; the focal length of the frame stands beside them.

    Attributes:
        hessian, gradient: of the nine.
        with_focal: of the nine with the log focal length.
        focal_focal, focal_gradient: of the log focal length alone.
    """

    hessian: Float[Tensor, "o 9 9"]
    gradient: Float[Tensor, "o 9"]
    with_focal: Float[Tensor, "o 9"]
    focal_focal: Float[Tensor, " o"]
    focal_gradient: Float[Tensor, " o"]


@dataclass(frozen=True)
class Depths:
    """What couples the log depths with the rest.

    Attributes:
        coupling: of each observation's nine unknowns with the log depth of each pixel.
        mass: sum of the points' weights.
        curvature, pull: second and first derivative by the log depth.
    """

    coupling: Float[Tensor, "o 9 P"]
    mass: Float[Tensor, "n P"]
    curvature: Float[Tensor, "n P"]
    pull: Float[Tensor, "n P"]


def linearise(part: PixelTerms, variables: Variables, view: PixelView, width: float) -> Eliminated:
    """Normal equations of each frame's unknowns, with the depth of every pixel eliminated.

    In camera axes a window point q changes by dq = w x q + sigma q + tau, whatever moved it, so per observation
    seven numbers (and two of the disparity alignment) carry everything, and the second moments of (1, q, r) give
    their normal equations. ``adjoint_of_window`` and the camera's own turn then spread them over the unknowns.

    Args:
        view: of the same range and variables.
        width: distance below which norms are blunt.
    """
    depth = view.log_depth.exp()
    share = part.point_weight * norm_weight(view.distance, width) / part.count
    local = _local_equations(part, view, depth, share)
    depths = _depth_equations(part, view, depth, share)
    if view.difference is not None:
        depths = _with_disparity(part, variables, view, width, depth, local, depths)
    return _assemble(part, variables, view, depth, local, depths)


def _local_equations(part: PixelTerms, view: PixelView, depth: Tensor, share: Tensor) -> Local:
    """From the points alone; the rows of the disparity are zero."""
    points = view.points
    reach = part.spread(depth)[:, None] * part.spread(view.rays)
    features = torch.cat([torch.ones_like(points[:, :1]), points, reach], 1)
    moments = ((features * share[:, None]) @ features.mT).double()
    mass, mean_q, mean_r = moments[:, 0, 0], moments[:, 0, 1:4], moments[:, 0, 4:7]
    qq, qr, rr = moments[:, 1:4, 1:4], moments[:, 1:4, 4:7], moments[:, 4:7, 4:7]
    trace_qq = qq.diagonal(dim1=1, dim2=2).sum(1)
    identity = torch.eye(3, dtype=torch.float64, device=points.device)
    plane = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, device=points.device)
    zeros = torch.zeros(len(part.frame), 9, dtype=torch.float64, device=points.device)

    hessian = zeros[:, :, None].repeat(1, 1, 9)
    hessian[:, :3, :3] = trace_qq[:, None, None] * identity - qq
    hessian[:, :3, 4:7] = skew(mean_q)
    hessian[:, 4:7, :3] = skew(mean_q).mT
    hessian[:, 3, 3] = trace_qq
    hessian[:, 3, 4:7] = hessian[:, 4:7, 3] = mean_q
    hessian[:, 4:7, 4:7] = mass[:, None, None] * identity
    gradient = zeros.clone()
    gradient[:, :3] = -_cross(qr)
    gradient[:, 3] = trace_qq - qr.diagonal(dim1=1, dim2=2).sum(1)
    gradient[:, 4:7] = mean_q - mean_r
    with_focal = zeros.clone()
    with_focal[:, :3] = _cross(qr * plane)
    with_focal[:, 3] = (qr.diagonal(dim1=1, dim2=2) * plane).sum(1)
    with_focal[:, 4:7] = mean_r * plane
    focal_focal = (rr.diagonal(dim1=1, dim2=2) * plane).sum(1)
    focal_gradient = (qr.diagonal(dim1=1, dim2=2) * plane).sum(1) - focal_focal
    return Local(hessian, gradient, with_focal, focal_focal, focal_gradient)


def _cross(matrix: Tensor) -> Tensor:
    """Sum of q x r from the sum of q r^T."""
    return torch.stack(
        [
            matrix[:, 1, 2] - matrix[:, 2, 1],
            matrix[:, 2, 0] - matrix[:, 0, 2],
            matrix[:, 0, 1] - matrix[:, 1, 0],
        ],
        1,
    )


def _depth_equations(part: PixelTerms, view: PixelView, depth: Tensor, share: Tensor) -> Depths:
    """From the points alone; the rows of the disparity are zero."""
    points, rays = view.points, part.spread(view.rays)
    coupling = torch.empty(len(part.frame), 9, points.shape[2], dtype=points.dtype, device=points.device)
    minus = -share * part.spread(depth)
    qx, qy, qz = points.unbind(1)
    rx, ry = rays[:, 0], rays[:, 1]
    coupling[:, 0] = minus * (qy - qz * ry)
    coupling[:, 1] = minus * (qz * rx - qx)
    coupling[:, 2] = minus * (qx * ry - qy * rx)
    coupling[:, 3] = minus * view.nearest * part.spread(view.ray_power)
    coupling[:, 4] = minus * rx
    coupling[:, 5] = minus * ry
    coupling[:, 6] = minus
    coupling[:, 7:] = 0
    mass = part.total(share)
    curvature = mass * view.ray_power * (depth * depth)
    pull = (mass * depth - part.total(share * view.nearest)) * view.ray_power * depth
    return Depths(coupling, mass, curvature, pull)


def _with_disparity(
    part: PixelTerms,
    variables: Variables,
    view: PixelView,
    width: float,
    depth: Tensor,
    local: Local,
    depths: Depths,
) -> Depths:
    """The disparity's share added: to ``local`` and ``depths.coupling`` in place, the rest in what is returned."""
    _, disparity_weight = part.disparity_terms(variables)
    assert disparity_weight is not None
    assert view.difference is not None
    beta = disparity_weight * norm_weight(view.difference.abs(), width) / part.count
    slope = part.disparity
    if part.weights.typical_disparity_scale is not None:
        scale = variables.disparity_scale.to(view.points)[part.window]
        slope = slope + view.difference / scale[:, None]
    inverse = part.spread(1 / depth)
    beta_slope = beta * slope
    depths.coupling[:, 7] = beta_slope * inverse
    depths.coupling[:, 8] = beta * inverse
    weighted = beta * view.difference
    local.hessian[:, 7, 7] = (beta_slope * slope).sum(1, dtype=torch.float64)
    local.hessian[:, 7, 8] = local.hessian[:, 8, 7] = beta_slope.sum(1, dtype=torch.float64)
    local.hessian[:, 8, 8] = beta.sum(1, dtype=torch.float64)
    local.gradient[:, 7] = -(weighted * slope).sum(1, dtype=torch.float64)
    local.gradient[:, 8] = -weighted.sum(1, dtype=torch.float64)
    curvature = depths.curvature + part.total(beta) / (depth * depth)
    return Depths(depths.coupling, depths.mass, curvature, depths.pull - part.total(weighted) / depth)


def _assemble(
    part: PixelTerms, variables: Variables, view: PixelView, depth: Tensor, local: Local, depths: Depths
) -> Eliminated:
    """The observations' equations in their frames, the log depths taken out."""
    num_frames, slots, num_samples = part.last - part.first, part.slots, part.points.shape[2]
    frame, slot = part.frame, part.slot
    coupling = torch.zeros(
        num_frames, 9 * slots + 2, num_samples, dtype=view.points.dtype, device=view.points.device
    )
    coupling[:, : 9 * slots].view(num_frames, slots, 9, num_samples)[frame, slot] = depths.coupling
    coupling[:, -2] = -(view.ray_power - 1) * (depth * depth) * depths.mass
    coupling[:, -1] = depths.pull
    inverse_curvature = 1 / (depths.curvature * (1 + 1e-6) + 1e-12)
    eliminated = coupling * inverse_curvature[:, None]
    normal = -(eliminated @ coupling.mT).double()
    rows = 9 * slot[:, None] + torch.arange(9, device=slot.device)
    normal[frame[:, None, None], rows[:, :, None], rows[:, None, :]] += local.hessian
    normal[frame[:, None], rows, -2] += local.with_focal
    normal[frame[:, None], rows, -1] += local.gradient
    normal[:, -2, -2] += part.total(local.focal_focal)
    normal[:, -2, -1] += part.total(local.focal_gradient)
    # (row -2, column < -2) is filled from the symmetric part.
    normal[:, -2, :-2] = normal[:, :-2, -2]
    transform = frame_transform(part, variables)
    hessian = transform.mT @ normal[:, :-1, :-1] @ transform
    gradient = (transform.mT @ normal[:, :-1, -1:])[..., 0]
    return Eliminated(hessian, gradient, eliminated[:, :-1], depths.pull * inverse_curvature)


def frame_transform(part: PixelTerms, variables: Variables) -> Float[Tensor, "n l u"]:
    """[n, 9 M + 1, 7 + 9 M] from the unknowns of a frame (camera, focal, windows) to the local ones."""
    frames = slice(part.first, part.last)
    slots, frame, slot = part.slots, part.frame, part.slot
    device = variables.centre.device
    result = torch.zeros(
        part.last - part.first, 9 * slots + 1, 7 + 9 * slots, dtype=torch.float64, device=device
    )
    adjoint = terms.adjoint_of_window(
        variables.rotation[frames][frame],
        variables.centre[frames][frame],
        variables.window_translation[part.window],
    )
    piece = torch.eye(9, dtype=torch.float64, device=device).repeat(len(frame), 1, 1)
    piece[:, :7, :7] = adjoint
    rows = 9 * slot[:, None] + torch.arange(9, device=device)
    result[frame[:, None, None], rows[:, :, None], 7 + rows[:, None, :]] = piece
    camera = torch.zeros(9, 6, dtype=torch.float64, device=device)
    camera[:3, :3] = camera[4:7, 3:] = -torch.eye(3, dtype=torch.float64, device=device)
    result[frame[:, None, None], rows[:, :, None], torch.arange(6, device=device)] = camera
    result[:, -1, 6] = 1
    return result
