"""The published objective for cameras from point maps and tracks, as its authors' code states it.

Reached by ``geo4d pose --objective published``; ``solve_with_depth`` is what the package uses otherwise. Per window,
every track is lifted with the depth of each frame i, moved into every frame j and compared there with the track, in
normalised device coordinates. There is no depth term, although the paper's equation has one; see
``docs/decisions/camera_objective.md``.

Axis names: T frames, V frames of a window, N tracks of a window.
Source: GeometryCrafter, supplement, Eq. (9) and (10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.geometry.poses import inverse, quaternion_to_matrix, rigid
from geo4d.tracks.types import Tracks

LEAST_DEPTH = 0.1
"""Depth below which a point does not count: a number of the published code, in the unit of the depth maps."""


@dataclass(frozen=True)
class WindowTracks:
    """Tracks of one window, in normalised device coordinates.

    Attributes:
        start: first frame.
        ndc: positions in [-1, 1] from edge to edge.
        visible: False where the track was not seen or left the picture.
        depth: the frame's depth at the nearest pixel.
        query: the frame of the window that each point was looked for in; None takes the first that sees it.
    """

    start: int
    ndc: Float[Tensor, "V N 2"]
    visible: Bool[Tensor, "V N"]
    depth: Float[Tensor, "V N"]
    query: Int[Tensor, " N"] | None = None

    def query_rows(self) -> Int[Tensor, " N"]:
        """The frame of the window where each point starts."""
        return self.visible.byte().argmax(0) if self.query is None else self.query


@dataclass(frozen=True)
class PublishedCameras:
    """The published unknowns.

    Attributes:
        quaternion: wxyz, of any length; normalised in use.
        translation: with R the quaternion's rotation, world-to-camera is [R^T | translation].
        fov: horizontal and vertical field of view, radians.
    """

    quaternion: Float[Tensor, "T 4"]
    translation: Float[Tensor, "T 3"]
    fov: Float[Tensor, "T 2"]

    def w2c(self) -> Float[Tensor, "T 4 4"]:
        unit = self.quaternion / self.quaternion.norm(dim=-1, keepdim=True)
        return rigid(quaternion_to_matrix(unit).mT, self.translation)

    def c2w(self) -> Float[Tensor, "T 4 4"]:
        return inverse(self.w2c())


def window_tracks(
    start: int, xy: Float[Tensor, "V N 2"], visible: Bool[Tensor, "V N"], depth: Float[Tensor, "T H W"]
) -> WindowTracks:
    """Normalise the tracks (pixels, edges at 0 and the size) of a window and read their depths."""
    height, width = depth.shape[1:]
    ndc = 2 * xy / xy.new_tensor([width, height]) - 1
    inside = (ndc.abs() <= 1).all(-1)
    ndc = ndc.clamp(-1, 1)
    sampled = torch.nn.functional.grid_sample(
        depth[start : start + len(xy), None], ndc[:, None], mode="nearest", align_corners=False
    )
    return WindowTracks(start, ndc, visible & inside, sampled[:, 0, 0])


def published_fov(intrinsic_map: Float[Tensor, "T 4"]) -> Float[Tensor, "T 2"]:
    """Field of view (horizontal, vertical), radians, that the optimiser starts from.

    Args:
        intrinsic_map: (cx, cy, fx, fy) of x/z and y/z: fx and fy are the tangents of half the field of view, not pixels.
            cx and cy are not used.
    """
    return 2 * torch.atan(intrinsic_map[:, 2:])


def published_start(fov: Float[Tensor, "T 2"]) -> PublishedCameras:
    """All cameras at the origin."""
    quaternion = torch.zeros(len(fov), 4, dtype=fov.dtype)
    quaternion[:, 0] = 1
    return PublishedCameras(quaternion, torch.zeros(len(fov), 3, dtype=fov.dtype), fov)


def published_loss(cameras: PublishedCameras, window: WindowTracks) -> Float[Tensor, ""]:
    """Mean squared error over all ordered pairs of frames of one window, normalised device coordinates squared."""
    frames = slice(window.start, window.start + len(window.ndc))
    tangent = torch.tan(cameras.fov[frames] / 2)[:, None]
    w2c = cameras.w2c()[frames]
    points = (
        torch.cat([window.ndc * tangent, torch.ones_like(window.ndc[..., :1])], -1) * window.depth[..., None]
    )
    R, t = w2c[:, :3, :3], w2c[:, :3, 3]
    world = (points - t[:, None]) @ R
    there = torch.einsum("jab,inb->ijna", R, world) + t[None, :, None]
    depth = there[..., 2]
    ahead = depth > LEAST_DEPTH
    projected = there[..., :2] / torch.where(ahead, depth, 1.0)[..., None] / tangent[None]
    used = window.visible[:, None] & window.visible[None] & ahead
    squared = (projected - window.ndc[None]).square().sum(-1)
    return (squared * used).sum() / used.sum().clamp_min(1)


def published_adam(
    start: PublishedCameras,
    windows: Sequence[WindowTracks],
    num_steps: int = 1000,
) -> tuple[PublishedCameras, Float[Tensor, " S"]]:
    """The published optimiser: Adam with its rates, all frames at once.

    Returns:
        cameras after the last step, and the loss before every step.
    """
    quaternion, translation, fov = (
        x.clone().requires_grad_() for x in (start.quaternion, start.translation, start.fov)
    )
    groups = [
        {"params": [quaternion], "lr": 1e-3},
        {"params": [translation], "lr": 1e-2},
        {"params": [fov], "lr": 1e-4},
    ]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    curve = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        cameras = PublishedCameras(quaternion, translation, fov)
        loss = torch.stack([published_loss(cameras, w) for w in windows]).sum()
        loss.backward()
        optimizer.step()
        curve.append(loss.detach())
    done = PublishedCameras(quaternion.detach(), translation.detach(), fov.detach())
    return done, torch.stack(curve) if curve else torch.zeros(0)


def windows_of(
    tracks: Tracks, depth: Float[Tensor, "_ H W"], *, window: int = 12, stride: int = 6
) -> list[WindowTracks]:
    """The tracks of every window, as the objective takes them.

    Args:
        tracks: of the whole video; its shots are not told apart, as in the published code.
        depth: z-depth, NaN where unknown: tracks are not used there.
        window, stride: frames whose pairs are compared, and from one window to the next.
    Raises:
        ValueError: depth of the wrong length, or no window with tracks.
    """
    num_frames = tracks.num_frames
    if len(depth) != num_frames:
        raise ValueError(f"expected {num_frames} depth maps, got {len(depth)}")
    height, width = tracks.size
    scale = torch.tensor([depth.shape[2] / width, depth.shape[1] / height])
    known = torch.isfinite(depth) & (depth > 0)
    filled = torch.where(known, depth, 0.0)
    windows = []
    for start in range(0, max(num_frames - window + stride, 1), stride):
        xy, visible = tracks.window(start, min(start + window, num_frames))
        if xy.shape[1] == 0:
            continue
        made = window_tracks(start, xy * scale, visible, filled)
        windows.append(replace(made, visible=made.visible & (made.depth > 0)))
    if not windows:
        raise ValueError("expected tracks that share frames, got none")
    return windows


def published_cameras(
    windows: Sequence[WindowTracks],
    intrinsics: Float[Tensor, "_ 3 3"],
    size: tuple[int, int],
    *,
    num_steps: int = 1000,
) -> tuple[PublishedCameras, Float[Tensor, " S"]]:
    """Cameras by the published objective and optimiser, from the tracks of windows.

    Args:
        windows: see ``windows_of``.
        intrinsics: of every frame, pixels of pictures of ``size``; the start of the field of view, principal point in the
            middle.
        size: (height, width).
        num_steps: of Adam.
    Returns:
        cameras, and the loss before every step.
    Raises:
        ValueError: windows reach beyond the frames that have intrinsics.
    """
    last = max(window.start + len(window.ndc) for window in windows)
    if last > len(intrinsics):
        raise ValueError(f"expected intrinsics of {last} frames, got {len(intrinsics)}")
    height, width = size
    half = intrinsics.new_tensor([width / 2, height / 2])
    focal = torch.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], 1)
    return published_adam(published_start((2 * torch.atan(half / focal)).float()), windows, num_steps)
