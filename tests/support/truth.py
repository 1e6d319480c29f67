"""A predictor that knows the answer: exact geometry of a closed-form world, plus seeded noise.

For tests and benchmarks of everything around a predictor. Nothing in the package uses it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse, rigid, so3_exp, transform
from geo4d.models.base import PredictorInfo
from geo4d.types import EvidenceMaps, Prediction, Window


@dataclass(frozen=True)
class BoxWorld:
    """Inside of a textured box, seen by a camera that wanders smoothly: depth is a closed form. Metres.

    Attributes:
        size: (height, width) of the pictures.
        fov_deg: horizontal field of view.
    """

    size: tuple[int, int]
    fov_deg: float = 60.0

    def intrinsics(self) -> Float[Tensor, "3 3"]:
        width = self.size[1]
        focal = torch.tensor(width / 2 / math.tan(math.radians(self.fov_deg) / 2))
        return centred_intrinsics(focal, self.size)

    def c2w(self, t: int) -> Float[Tensor, "4 4"]:
        s = 0.06 * t
        turn = torch.tensor([0.05 * math.sin(0.7 * s), 0.35 * math.sin(0.31 * s), 0.03 * math.sin(0.9 * s)])
        place = torch.tensor([1.5 * math.sin(0.5 * s), 0.4 * math.sin(0.8 * s), 1.2 * math.sin(0.23 * s)])
        return rigid(so3_exp(turn), place)

    def depth(self, t: int) -> Float[Tensor, "H W"]:
        return self._hit(t)[0]

    def rgb(self, t: int) -> Float[Tensor, "H W 3"]:
        """Colour in [0, 1] from where a ray hits the box."""
        _, points = self._hit(t)
        waves = torch.stack([torch.sin(points @ torch.tensor(k)) for k in _WAVES], dim=-1)
        return (0.5 + 0.16 * waves[..., :3] + 0.16 * waves[..., 3:6] + 0.14 * waves[..., 6:9]).clamp(0, 1)

    def _hit(self, t: int) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W 3"]]:
        c2w = self.c2w(t)
        rays = camera_rays(self.intrinsics(), self.size) @ c2w[:3, :3].T  # z = 1 in the camera
        low, high = torch.tensor([-4.0, -1.6, -4.0]), torch.tensor([4.0, 1.6, 9.0])
        wall = torch.where(rays > 0, high, low)
        depth = ((wall - c2w[:3, 3]) / torch.where(rays.abs() < 1e-9, 1e-9, rays)).amin(-1)
        return depth, c2w[:3, 3] + depth[..., None] * rays


_WAVES = [
    [3.1, 0.4, 1.0],
    [0.7, 4.3, -1.1],
    [1.3, -0.8, 3.7],
    [9.1, 2.2, -7.3],
    [-8.0, 7.0, 3.0],
    [5.0, 9.0, 8.0],
    [19.0, -17.0, 13.0],
    [-23.0, 11.0, 17.0],
    [15.0, 21.0, -19.0],
]


@dataclass
class TruthPredictor:
    """Answers with the truth of a world, in each window's own arbitrary units, plus noise.

    Attributes:
        world: at the size that the predictor works at.
        noise: relative spread of the points; disparity and rays get like amounts.
        length, stride: of windows.
        spoilt: window numbers that come out wrong with ``spoilt_seed`` and right with any other seed.
        nan_windows: window numbers whose values are NaN.
        sees_motion: False places all frames of a window at its first camera, as a network does that learnt no motion.
        evidence: ask the run for evidence from motion.
        gives_poses: False leaves only points in each frame's own camera.
        carries: hand a state from window to window, and depend on it.
    """

    world: BoxWorld
    noise: float = 0.01
    length: int = 16
    stride: int = 8
    spoilt: tuple[int, ...] = ()
    spoilt_seed: int = 0
    nan_windows: tuple[int, ...] = ()
    sees_motion: bool = True
    evidence: Literal["motion"] | None = None
    gives_poses: bool = True
    carries: bool = False

    @property
    def info(self) -> PredictorInfo:
        return PredictorInfo(
            name="truth",
            description="exact geometry of a closed-form world plus noise",
            licence="as the package",
            weights_sha256="0" * 64,
            window_length=self.length,
            window_stride=self.stride,
            evidence=self.evidence,
            takes_gaps=not self.carries,
            carries=self.carries,
            gives_poses=self.gives_poses,
            config={"noise": self.noise},
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        return self.world.size

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        return self.length * self.world.size[0] * self.world.size[1] * 64

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        return {}

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        generator = torch.Generator().manual_seed(seed * 7919 + window.index)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        frames = window.frame_indices.tolist()
        height, width = self.world.size
        depth = torch.stack([self.world.depth(t) for t in frames])
        c2w = torch.stack([self.world.c2w(t) for t in frames])
        intrinsics = self.world.intrinsics().expand(len(frames), 3, 3)
        to_window = inverse(c2w[0]) @ c2w
        if not self.sees_motion:
            to_window = torch.eye(4).expand(len(frames), 4, 4).clone()
        # A factor per frame and one per coarse cell: errors of a network are smooth, not white.
        coarse = noise(len(frames), 1, 6, 8)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]
        noisy = depth * (1 + self.noise * smooth)
        if window.index in self.spoilt and seed == self.spoilt_seed:
            noisy = depth * (1 + 0.8 * torch.sin(3 * noise(len(frames), 1, 1) + smooth)).clamp_min(0.05)
        points = torch.stack(
            [
                transform(pose, camera_rays(k, (height, width)) * d[..., None])
                for pose, k, d in zip(to_window, intrinsics, noisy, strict=True)
            ]
        )
        unit = float(torch.exp(0.3 * noise(1)))
        if self.carries and previous is not None and previous.carry is not None:
            unit *= 1 + 0.01 * float(previous.carry["state"])
        largest = float(points.norm(dim=-1).amax())
        points = points / largest * unit
        disparity = 1 / (depth * (1 + self.noise * smooth))
        disparity = (disparity - disparity.min()) / (disparity.max() - disparity.min())
        poses = to_window.clone()
        poses[:, :3, 3] *= unit / largest
        ray_map = cameras_to_ray_map(intrinsics, poses, (max(height // 8, 2), max(width // 8, 2)))
        if window.index in self.nan_windows:
            points = torch.full_like(points, torch.nan)
        if not self.gives_poses:
            own = [
                camera_rays(k, (height, width)) * d[..., None] for k, d in zip(intrinsics, noisy, strict=True)
            ]
            return Prediction(
                frame_indices=window.frame_indices,
                times_s=window.times_s,
                window_index=window.index,
                point_map=torch.stack(own) * unit,
                point_frame="camera",
                point_z_offset=0.0,
                intrinsics=intrinsics,
                valid=torch.ones_like(depth, dtype=torch.bool),
                seed=seed,
            )
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=points,
            point_frame="window",
            point_z_offset=0.0,
            point_uncertainty=torch.full_like(depth, 0.02 * unit),
            disparity=disparity,
            disparity_scale_kind="affine",
            ray_map=ray_map,
            ray_c2w=poses,
            valid=torch.ones_like(depth, dtype=torch.bool),
            seed=seed,
            provenance={"predictor": "truth"},
            carry={"state": torch.tensor(math.tanh(unit))} if self.carries else None,
        )
