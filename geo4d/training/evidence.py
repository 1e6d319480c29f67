"""Evidence from motion for training clips: a plane sweep with cameras that are wrong in the ways estimates are wrong.

At inference the cameras come from tracks, and the sweep runs with them. Running the tracker for every training clip
would cost more than the training, so the true cameras are disturbed instead: the focal length (with the rotation and
the forward motion scaled such that the pictures still match, as an estimator would do), slow drift of rotation and
position, and now and then cameras that are plainly wrong. Moving things break the sweep by themselves.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.evidence.cost import SweepConfig
from geo4d.evidence.sweep import plane_sweep
from geo4d.geometry.poses import inverse, rigid, so3_exp, so3_log


@dataclass(frozen=True)
class EvidenceConfig:
    """How evidence is simulated.

    Attributes:
        scale: size of the sweep's pictures, as a share of the clip's.
        num_planes: depth planes.
        num_neighbours: compared frames.
        near, far: reach of the planes, as quantile factors of the true depth: nearest (2 %) depth divided by a draw
            from 1 .. ``near``, and the farthest plane at a multiple 5 .. ``far`` of the median.
        focal_error: spread of log focal length.
        rotation_drift: spread of the rotation error per frame, degrees; each clip draws its own up to this.
        position_drift: spread of the position error per frame, as a share of the mean step.
        hopeless: share of clips whose cameras are plainly wrong.
    """

    scale: float = 0.5
    num_planes: int = 24
    num_neighbours: int = 3
    near: float = 1.5
    far: float = 40.0
    focal_error: float = 0.12
    rotation_drift: float = 0.15
    position_drift: float = 0.08
    hopeless: float = 0.13


@dataclass(frozen=True)
class SimulatedEvidence:
    """What ``TrainingClip`` keeps of the evidence; see there."""

    disparity: Float[Tensor, "T h w"]
    confidence: Float[Tensor, "T h w"]
    intrinsics: Float[Tensor, "T 3 3"]
    c2w: Float[Tensor, "T 4 4"]
    trust: Float[Tensor, " T"]


def disturb_cameras(
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    config: EvidenceConfig,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 4 4"], Float[Tensor, " T"]]:
    """Cameras as an estimator might give them, and how far it would trust them.

    Returns:
        intrinsics, c2w (first camera at the identity, arbitrary unit), trust in [0, 1].
    """
    num_frames = c2w.shape[0]
    relative = (inverse(c2w[:1]) @ c2w).double()
    vectors, positions = so3_log(relative[:, :3, :3]), relative[:, :3, 3].clone()
    hopeless = rng.random() < config.hopeless
    factor = float(np.exp(rng.normal(0, config.focal_error * (3 if hopeless else 1))))
    vectors = vectors / torch.tensor([factor, factor, 1.0], dtype=torch.float64)
    positions[:, 2] *= factor
    strength = rng.random() * (8 if hopeless else 1)
    steps = positions.diff(dim=0).norm(dim=-1).mean().clamp(min=1e-9) if num_frames > 1 else torch.tensor(1.0)
    drift = torch.from_numpy(rng.normal(size=(num_frames, 6))).cumsum(0)
    drift = drift - drift[:1]
    vectors = vectors + drift[:, :3] * np.deg2rad(config.rotation_drift) * strength
    positions = positions + drift[:, 3:] * config.position_drift * strength * steps
    if hopeless and rng.random() < 0.5:
        positions = torch.from_numpy(rng.normal(size=(num_frames, 3))).cumsum(0) * steps
    estimated = intrinsics.clone()
    estimated[:, 0, 0] *= factor
    estimated[:, 1, 1] *= factor
    # An estimator knows roughly, not exactly, when it failed.
    believed = rng.uniform(0.1, 0.6) if hopeless else 0.85 - 0.2 * min(strength, 1.0)
    trust = np.clip(believed + rng.normal(0, 0.15), 0.05, 1.0)
    pose = rigid(so3_exp(vectors), positions).to(c2w)
    return estimated, pose, torch.full((num_frames,), float(trust))


def simulate_evidence(
    rgb: Float[Tensor, "T H W 3"],
    depth: Float[Tensor, "T H W"],
    intrinsics: Float[Tensor, "T 3 3"],
    c2w: Float[Tensor, "T 4 4"],
    config: EvidenceConfig,
    rng: np.random.Generator,
) -> SimulatedEvidence:
    """Plane sweep over one clip with disturbed cameras.

    Args:
        rgb: in [0, 1].
        depth: true z-depth, +inf in the sky; sets the reach of the planes.
        intrinsics: pixels of ``rgb``.
        c2w: camera to world.
    """
    height, width = rgb.shape[1:3]
    small = (round(height * config.scale), round(width * config.scale))
    estimated, pose, trust = disturb_cameras(intrinsics, c2w, config, rng)
    finite = depth[:, ::2, ::2]
    finite = finite[torch.isfinite(finite)].sort().values
    if len(finite) == 0 or c2w.shape[0] < 2:
        nothing = torch.zeros(rgb.shape[0], *small)
        return SimulatedEvidence(nothing, nothing, estimated, pose, trust)
    near = float(finite[int(0.02 * (len(finite) - 1))]) / rng.uniform(1.0, config.near)
    far = float(finite[len(finite) // 2]) * rng.uniform(5.0, config.far)
    shrunk = torch.nn.functional.interpolate(rgb.permute(0, 3, 1, 2), small, mode="area").permute(0, 2, 3, 1)
    pixel_scale = torch.tensor([[small[1] / width], [small[0] / height], [1.0]])
    disparity, confidence = plane_sweep(
        shrunk,
        estimated * pixel_scale,
        pose,
        disparities=(near, max(far, 2 * near), config.num_planes),
        # The clip is already shrunk to the size that the sweep of a whole video searches at.
        config=SweepConfig(num_neighbours=config.num_neighbours, shrink=1),
    )
    # Times the median depth: a plain unit, so that half precision is enough.
    unit = float(finite[len(finite) // 2])
    pose = pose.clone()
    pose[:, :3, 3] /= unit
    return SimulatedEvidence(disparity.clamp(min=0) * unit, confidence, estimated, pose, trust)
