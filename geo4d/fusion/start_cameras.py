"""Cameras of all frames from what the registered windows say of them."""

import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.fusion.register import FRAMES_AT_ONCE, WINDOWS_AT_ONCE
from geo4d.fusion.samples import Samples, Trajectory
from geo4d.geometry.fit import fit_camera_pose
from geo4d.geometry.poses import inverse, rigid, similarity_parts


def window_poses(
    samples: Samples,
    rays: Float[Tensor, "N 3 P"],
    shift: Float[Tensor, " G"],
    trajectories: tuple[Trajectory, ...],
    *,
    num_points: int = 160,
    num_iterations: int = 6,
) -> Float[Tensor, "O 4 4"]:
    """Camera of every observation in its window's own frame, from points and rays.

    Frame after frame inside the window (all windows at once): the start is the frame before, or the ray-map rotation
    with the centre that the points ask for, whichever fits better.
    """
    device = samples.points.device
    stride = max(1, samples.points.shape[2] // num_points)
    count = len(samples.frame)
    poses = torch.eye(4, dtype=torch.float64, device=device).repeat(count, 1, 1)
    poses[:, 2, 3] = -shift.to(device)[samples.window]
    hint = torch.full((count, 3, 3), torch.nan, dtype=torch.float64, device=device)
    for trajectory in trajectories:
        if trajectory.window < 0:
            continue
        hint[samples.observations_of(trajectory.window, trajectory.frames)] = trajectory.c2w[:, :3, :3].to(
            device
        )
    longest = int(samples.local.max()) + 1
    by_local = [torch.nonzero(samples.local == k)[:, 0].split(WINDOWS_AT_ONCE) for k in range(longest)]
    previous = torch.full((samples.num_windows,), -1, device=device)
    for rows in itertools.chain.from_iterable(by_local):
        points = samples.points[rows][..., ::stride].mT.double()
        weight = samples.weight[rows][..., ::stride].double()
        sight = rays[samples.frame[rows]][..., ::stride].mT.double()
        before = previous[samples.window[rows]]
        start = torch.where((before >= 0)[:, None, None], poses[before.clamp(min=0)], poses[rows])
        candidates = [start]
        known = torch.isfinite(hint[rows]).all(-1).all(-1)
        if bool(known.any()):
            turned = torch.where(known[:, None, None], hint[rows], start[:, :3, :3])
            centre = _centre_from_rays(points, sight @ turned.mT, weight)
            centre = torch.where(known[:, None], centre, start[:, :3, 3])
            candidates.append(rigid(turned, centre))
        costs = torch.stack([_sight_error(points, sight, weight, c) for c in candidates])
        best = torch.stack(candidates)[costs.argmin(0), torch.arange(len(rows), device=device)]
        refined = fit_camera_pose(
            points, sight, weight, initial_w2c=inverse(best), num_iterations=num_iterations
        )
        poses[rows] = inverse(refined)
        previous[samples.window[rows]] = rows
        samples.touched(len(rows))
    return poses


def _centre_from_rays(points: Tensor, directions: Tensor, weight: Tensor) -> Tensor:
    """Camera centre nearest (least squares in angle) to the lines through ``points`` along ``directions``."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    identity = torch.eye(3, dtype=points.dtype, device=points.device)
    distance = points.norm(dim=-1).clamp(min=1e-3)
    share = weight / distance**2
    matrix = share.sum(1)[:, None, None] * identity - torch.einsum("bn,bni,bnj->bij", share, unit, unit)
    along = (unit * points).sum(-1, keepdim=True)
    right = (share[..., None] * (points - along * unit)).sum(1)
    ridge = 1e-9 * matrix.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-12)
    return torch.linalg.solve(matrix + ridge[:, None, None] * identity, right[..., None])[..., 0]


def _sight_error(points: Tensor, sight: Tensor, weight: Tensor, c2w: Tensor) -> Tensor:
    """Weighted mean of the capped error in the plane z = 1."""
    camera = (points - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]
    error = (camera[..., :2] / camera[..., 2:].clamp(min=1e-3) - sight[..., :2]).norm(dim=-1)
    error = torch.where(camera[..., 2] > 0, error, 1.0).clamp(max=1.0)
    return (weight * error).sum(1) / weight.sum(1).clamp(min=1e-30)


def choose_cameras(
    samples: Samples,
    rays: Float[Tensor, "N 3 P"],
    world: Float[Tensor, "G 4 4"],
    poses: Float[Tensor, "O 4 4"],
    shift: Float[Tensor, " G"],
    window_weight: Float[Tensor, " G"],
    trajectories: tuple[Trajectory, ...],
    *,
    num_points: int = 160,
) -> Float[Tensor, "N 4 4"]:
    """Camera of each frame: of the hypotheses that its windows offer (points, ray map), the one with the least point
    cost over all of them. Frames that no window sees are filled from their neighbours."""
    device = samples.points.device
    world = world.to(device)
    scale, rotation, _ = similarity_parts(world)
    moved = similarity_camera(world[samples.window], poses)
    hypotheses = [moved]
    hint = moved.clone()
    for trajectory in trajectories:
        if trajectory.window < 0:
            continue
        rows = samples.observations_of(trajectory.window, trajectory.frames)
        local = trajectory.c2w.to(device).clone()
        local[:, 2, 3] -= shift[trajectory.window].to(device)
        hint[rows] = similarity_camera(world[trajectory.window].expand(len(rows), 4, 4), local)
    hypotheses.append(hint)
    num_frames = samples.table.shape[0]
    stride = max(1, samples.points.shape[2] // num_points)
    linear = scale[:, None, None] * rotation
    chosen = torch.empty(num_frames, 4, 4, dtype=torch.float64, device=device)
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        frames = slice(first, min(first + FRAMES_AT_ONCE, num_frames))
        present = samples.table[frames] >= 0
        table = samples.table[frames].clamp(min=0)
        sight = rays[frames, :, ::stride].double()
        candidates = torch.stack([h[table] for h in hypotheses], 1).flatten(1, 2)
        placed, weight = [], []
        for seen_by in table.unbind(1):
            window = samples.window[seen_by]
            points = samples.points[seen_by][..., ::stride].double()
            placed.append(linear[window] @ points + world[window, :3, 3:])
            weight.append(
                samples.weight[seen_by][..., ::stride].double() * window_weight.to(device)[window][:, None]
            )
        costs = []
        for k in range(candidates.shape[1]):
            camera = candidates[:, k]
            total = torch.zeros(len(table), dtype=torch.float64, device=device)
            for m, seen in enumerate(present.unbind(1)):
                q = camera[:, :3, :3].mT @ (placed[m] - camera[:, :3, 3:])
                depth = ((q * sight).sum(1) / (sight * sight).sum(1)).clamp(min=1e-3)
                distance = (depth[:, None] * sight - q).norm(dim=1)
                total += torch.where(seen, (weight[m] * distance).sum(1), 0.0)
            costs.append(torch.where(present[:, k % table.shape[1]], total, torch.inf))
        samples.touched(table.numel())
        best = torch.stack(costs, 1).argmin(1)
        chosen[frames] = candidates[torch.arange(len(table), device=device), best]
    present = samples.table >= 0
    return fill_missing_cameras(chosen, present.any(1))


def similarity_camera(
    world: Float[Tensor, "*b 4 4"], c2w: Float[Tensor, "*b 4 4"]
) -> Float[Tensor, "*b 4 4"]:
    """Cameras moved by similarities of their own."""
    _, rotation, _ = similarity_parts(world)
    centre = (world[..., :3, :3] @ c2w[..., :3, 3:])[..., 0] + world[..., :3, 3]
    return rigid(rotation @ c2w[..., :3, :3], centre)


def fill_missing_cameras(c2w: Float[Tensor, "N 4 4"], known: Bool[Tensor, " N"]) -> Float[Tensor, "N 4 4"]:
    """Frames without a camera take that of the nearest frame with one (the smoothness term then spreads them)."""
    if not bool(known.any()):
        return torch.eye(4, dtype=c2w.dtype, device=c2w.device).expand_as(c2w).clone()
    where = torch.nonzero(known)[:, 0]
    frames = torch.arange(len(c2w), device=c2w.device)
    right = torch.searchsorted(where, frames).clamp(max=len(where) - 1)
    left = (right - 1).clamp(min=0)
    closer = (frames - where[left]).abs() <= (where[right] - frames).abs()
    return c2w[torch.where(closer, where[left], where[right])]
