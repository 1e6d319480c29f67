"""Recorded case of the camera stage: losses, gradients, Adam steps and the final accuracy of the published objective."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from parity import LIMITS, Case, Comparison, Limit, compare

from geo4d.cameras.published import (
    PublishedCameras,
    WindowTracks,
    published_adam,
    published_fov,
    published_loss,
    published_start,
    window_tracks,
)
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import rotation_angle, transform

LIMITS |= {
    "camera_loss": Limit(max_abs=1e-6),
    "camera_gradient": Limit(max_abs=1e-5),
    "camera_it10": Limit(max_abs=1e-5),
    "camera_it100": Limit(max_abs=1e-4),
}


def load_windows(case: np.lib.npyio.NpzFile) -> list[WindowTracks]:
    """The windows of a recorded case."""
    depth = torch.from_numpy(case["point_map"].astype(np.float32))[..., 2]
    return [
        window_tracks(
            int(s),
            torch.from_numpy(case[f"tracks_{s:05d}"]),
            torch.from_numpy(case[f"visible_{s:05d}"]),
            depth,
        )
        for s in case["window_starts"]
    ]


def accuracy(c2w: torch.Tensor, truth: torch.Tensor) -> tuple[float, float, float]:
    """Centre RMSE after a rigid alignment; mean and largest rotation error relative to frame 0, degrees."""
    centres, true_centres = c2w[:, :3, 3].double(), truth[:, :3, 3].double()
    aligned = transform(fit_similarity(centres, true_centres, with_scale=False), centres)
    turn = c2w[0, :3, :3].double().T @ c2w[:, :3, :3].double()
    true_turn = truth[0, :3, :3].double().T @ truth[:, :3, :3].double()
    angle = torch.rad2deg(rotation_angle(turn.mT @ true_turn))
    rmse = (aligned - true_centres).square().sum(1).mean().sqrt()
    return float(rmse), float(angle.mean()), float(angle.max())


def check(file: Path, reference: Path) -> list[Comparison]:
    case = np.load(file)
    windows = load_windows(case)
    quaternion, translation, fov = (
        torch.from_numpy(case[k]).clone().requires_grad_()
        for k in ("probe_quat_wxyz", "probe_trans", "fov_init")
    )
    losses = torch.stack([published_loss(PublishedCameras(quaternion, translation, fov), w) for w in windows])
    losses.sum().backward()
    start = published_start(torch.from_numpy(case["fov_init"]))
    ten, _ = published_adam(start, windows, 10)
    hundred, _ = published_adam(start, windows, 100)
    final, curve = published_adam(start, windows, 1000)
    measured = np.array(accuracy(final.c2w(), torch.from_numpy(case["gt_c2w"])))
    worse = float((measured / case["ate_rot"]).max())
    from_map = published_fov(torch.from_numpy(case["intr_map"]))
    return [
        compare("fov from intrinsic map", from_map, case["fov_init"], "camera_loss"),
        compare("probe losses", losses.detach(), case["probe_window_losses"], "camera_loss"),
        compare("gradient quaternion", quaternion.grad, case["probe_grad_quat"], "camera_gradient"),
        compare("gradient translation", translation.grad, case["probe_grad_trans"], "camera_gradient"),
        compare("gradient fov", fov.grad, case["probe_grad_fov"], "camera_gradient"),
        compare("quaternion after 10", ten.quaternion, case["quat_it10"], "camera_it10"),
        compare("translation after 10", ten.translation, case["trans_it10"], "camera_it10"),
        compare("quaternion after 100", hundred.quaternion, case["quat_it100"], "camera_it100"),
        compare("translation after 100", hundred.translation, case["trans_it100"], "camera_it100"),
        compare("accuracy at most 10 % worse", max(worse - 1.1, 0.0), 0.0, "exact"),
        compare("loss curve, first 100", curve[:100], case["loss_curve"][:100], "camera_it100"),
    ]


CASES = {"sfm_poses": Case(check)}
