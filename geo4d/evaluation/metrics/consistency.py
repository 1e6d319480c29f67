"""How depth changes from frame to frame where the truth knows which pixels show the same surface."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.geometry.cameras import project, unproject
from geo4d.geometry.poses import inverse, transform


def translation_parallax(
    depth: Float[Tensor, "H W"],
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    frame: int,
    *,
    step: int = 8,
) -> float:
    """How far the translation of the camera moves what one frame sees, pixels.

    The median over points of the distance between where a frame sees them and where a camera that only turned would; of
    all frames the largest such median. Frames that see less than a quarter of the points are left out.

    Args:
        depth: reference z-depth of ``frame``; what is not finite is left out.
        intrinsics: pixels of ``depth``.
        c2w: finite reference cameras.
        frame: whose pixels are followed.
        step: every ``step``-th row and column is followed.
    Returns:
        0 where nothing can be followed.
    """
    height, width = depth.shape
    grid = depth[step // 2 :: step, step // 2 :: step]
    known = torch.isfinite(grid) & (grid > 0)
    if not bool(known.any()):
        return 0.0
    points = unproject(torch.where(torch.isfinite(depth), depth, 1.0).double(), intrinsics[frame].double())
    points = points[step // 2 :: step, step // 2 :: step][known]
    to_each = inverse(c2w.double()) @ c2w[frame].double()
    largest = 0.0
    for camera, motion in zip(intrinsics.double(), to_each, strict=True):
        moved, z = project(transform(motion, points), camera)
        turned, z_turned = project(points @ motion[:3, :3].mT, camera)
        inside = (z > 0) & (z_turned > 0) & (moved >= 0).all(-1)
        inside &= (moved[:, 0] < width) & (moved[:, 1] < height)
        if int(inside.sum()) * 4 >= len(points):
            largest = max(largest, float((moved - turned)[inside].norm(dim=-1).median()))
    return largest


def static_correspondences(
    depth: Float[Tensor, "2 H W"],
    intrinsics: Float[Tensor, "2 3 3"],
    c2w: Float[Tensor, "2 4 4"],
    static: Bool[Tensor, "H W"] | None = None,
    *,
    step: int = 4,
    tolerance: float = 0.02,
) -> tuple[Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """Ground-truth tracks over two frames: pixels (row, column) of static surface seen in both.

    Args:
        depth: reference z-depth; NaN and infinity are left out.
        static: True where the first frame shows something that does not move; None takes all for static.
        step: every ``step``-th row and column of the first frame is followed.
        tolerance: relative depth difference at the target above which the point counts as hidden.
    """
    height, width = depth.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(step // 2, height, step), torch.arange(step // 2, width, step), indexing="ij"
    )
    usable = torch.isfinite(depth[0, rows, columns])
    if static is not None:
        usable = usable & static[rows, columns]
    rows, columns = rows[usable], columns[usable]
    points = unproject(depth[0].double(), intrinsics[0].double())[rows, columns]
    moved = transform(inverse(c2w[1].double()) @ c2w[0].double(), points)
    pixels, z = project(moved, intrinsics[1].double())
    column, row = pixels.unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.stack([rows, columns], -1)[inside]
    target = torch.stack([row[inside].long(), column[inside].long()], -1)
    there = depth[1, target[:, 0], target[:, 1]].double()
    agrees = (there - z[inside]).abs() < tolerance * z[inside]
    return source[agrees], target[agrees]


def depth_change_sums(
    predicted: Float[Tensor, "2 H W"],
    reference: Float[Tensor, "2 H W"],
    source: Int[Tensor, "n 2"],
    target: Int[Tensor, "n 2"],
) -> Float[Tensor, " 3"]:
    """Number of tracks, of covered tracks, and the sum over those of the error of the logarithmic depth change."""
    p = predicted[0, source[:, 0], source[:, 1]].double(), predicted[1, target[:, 0], target[:, 1]].double()
    r = reference[0, source[:, 0], source[:, 1]].double(), reference[1, target[:, 0], target[:, 1]].double()
    seen = torch.isfinite(p[0]) & torch.isfinite(p[1]) & (p[0] > 0) & (p[1] > 0)
    change = (p[1][seen] / p[0][seen]).log() - (r[1][seen] / r[0][seen]).log()
    return torch.stack([seen.double().new_tensor(seen.numel()), seen.double().sum(), change.abs().sum()])


def track_depth_change_sums(
    predicted: Float[Tensor, "2 H W"],
    reference_depth: Float[Tensor, "2 N"],
    tracks: Float[Tensor, "2 N 2"],
    visible: Bool[Tensor, "2 N"],
) -> Float[Tensor, " 3"]:
    """``depth_change_sums`` over given tracks (x, y in pixels of ``predicted``) instead of static geometry."""
    height, width = predicted.shape[-2:]
    known = torch.isfinite(tracks).all(-1) & torch.isfinite(reference_depth) & (reference_depth > 0)
    column, row = torch.where(known[..., None], tracks, -1.0).floor().long().unbind(-1)
    inside = visible & known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    both = inside.all(0)
    row, column, truth = row[:, both], column[:, both], reference_depth[:, both].double()
    sampled = torch.stack([predicted[i, row[i], column[i]] for i in (0, 1)]).double()
    seen = (torch.isfinite(sampled) & (sampled > 0)).all(0)
    change = (sampled[1] / sampled[0])[seen].log() - (truth[1] / truth[0])[seen].log()
    return torch.stack([seen.double().new_tensor(seen.numel()), seen.double().sum(), change.abs().sum()])


def log_error_change(
    predicted: Float[Tensor, "2 H W"],
    reference: Float[Tensor, "2 H W"],
    source: Int[Tensor, "n 2"],
    target: Int[Tensor, "n 2"],
) -> Float[Tensor, " m"]:
    """Change of log(predicted / reference) of followed points from one frame to the next; 0 for a steady prediction.

    Both maps are read at the same pixels, so that a slanted surface adds nothing where a track is rounded to its pixel.

    Args:
        predicted, reference: z-depth; points without finite, positive values in both frames are left out.
        source, target: (row, column) of the points in the first and in the second frame.
    """
    error = predicted.double().log() - reference.double().log()
    change = error[1, target[:, 0], target[:, 1]] - error[0, source[:, 0], source[:, 1]]
    return change[torch.isfinite(change)]


def track_pixels(
    tracks: Float[Tensor, "2 N 2"], visible: Bool[Tensor, "2 N"], size: tuple[int, int]
) -> tuple[Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """Pixels (row, column) of tracks in their first and in their second frame; those seen inside the picture in both.

    Args:
        tracks: (x, y), pixel centres at +0.5; what is not finite is left out.
        size: (height, width).
    """
    height, width = size
    known = torch.isfinite(tracks).all(-1)
    column, row = torch.where(known[..., None], tracks, -1.0).floor().long().unbind(-1)
    inside = visible & known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    both = inside.all(0)
    pixels = torch.stack([row, column], -1)[:, both]
    return pixels[0], pixels[1]


def unmoved_change(
    depth: Float[Tensor, "2 H W"], rgb: Float[Tensor, "2 H W 3"], *, tolerance: float = 0.02, radius: int = 2
) -> Float[Tensor, " n"]:
    """Change of log depth where a still camera's picture stays as it is: flicker without any ground truth.

    Args:
        depth: of two neighbouring frames; pixels without finite, positive values are left out.
        rgb: in [0, 1], at the same size.
        tolerance: largest change of a pixel's colour, averaged over its surroundings, that counts as none.
        radius: half size of the surroundings, pixels; all of them must be unchanged.
    """
    kernel = 2 * radius + 1
    change = (rgb[1] - rgb[0]).abs().amax(-1)[None, None]
    change = F.avg_pool2d(change, kernel, stride=1, padding=radius, count_include_pad=False)
    still = F.max_pool2d(change, kernel, stride=1, padding=radius)[0, 0] < tolerance
    logarithm = torch.where(depth > 0, depth.double(), torch.nan).log()
    found = (logarithm[1] - logarithm[0])[still]
    return found[torch.isfinite(found)]
