"""A network that gives points and poses of several pictures at once (as VGGT, Pi3, DA3, MapAnything do) as a predictor.

    python examples/adapter.py [OUTPUT_FOLDER]

The network here is a fake with their interface: a camera that walks past a wavy wall, answered with the truth, in units
and a frame of reference that differ from call to call. Put yours in the place of ``FakeNetwork``, keep ``WindowAdapter``.
"""

import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geo4d import reconstruct
from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.geometry.poses import inverse, transform
from geo4d.models.base import PredictorInfo
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import fit_size

SIZE, NUM_FRAMES = (72, 96), 20


class FakeNetwork:
    """What VGGT and its kin answer: for S pictures [S, 3, H, W], world points, their confidence, extrinsics, intrinsics.

    ``extrinsic`` is world to camera in OpenCV axes, the world that of the first picture, unit and scale its own.
    """

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        frames = [
            int((self.pictures() - image.movedim(0, -1)).abs().mean((1, 2, 3)).argmin()) for image in images
        ]
        unit = 0.3 + 0.1 * (frames[0] % 5)
        w2c = inverse(wall_poses()[frames]) @ wall_poses()[frames[0]]
        w2c[:, :3, 3] *= unit
        points = torch.stack([wall_points(frame) for frame in frames]) * unit
        points = torch.stack([transform(inverse(pose), one) for pose, one in zip(w2c, points, strict=True)])
        return {
            "world_points": points,
            "world_points_conf": torch.ones(points.shape[:3]) * 8.0,
            "extrinsic": w2c[:, :3],
            "intrinsic": intrinsics().expand(len(frames), 3, 3),
        }

    def pictures(self) -> Tensor:
        return torch.from_numpy(video().astype(np.float32)) / 255


class WindowAdapter:
    """The contract of docs/adapters.md, written out.

    Args:
        network: see ``FakeNetwork``.
        max_side: longest side of the pictures; ``multiple``: their sides are multiples of it (14 for DINOv2).
    """

    def __init__(self, network: FakeNetwork, max_side: int = 518, multiple: int = 1) -> None:
        self.network, self.max_side, self.multiple = network, max_side, multiple
        self.info = PredictorInfo(
            name="fake-points-and-poses",
            description="example of a network that gives points and poses",
            licence="Apache-2.0",  # of the weights: it is shown in the plan of every run
            weights_sha256="none",  # of the file's bytes: two results with the same name can then be told apart
            window_length=8,
            window_stride=4,  # windows are joined by the frames that they share
            evidence=None,  # its own cameras are used; "motion" would also give it those from tracks
            takes_gaps=True,  # frames need not be consecutive: --wide-windows then holds drift
            scale_kind="scale",  # "metric" where the points are in metres
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """The size at which pictures come, and maps go back."""
        height, width = fit_size(source_size, self.max_side)
        step = self.multiple
        return max(1, round(height / step)) * step, max(1, round(width / step)) * step

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """For the plan of a run."""
        height, width = self.size_for(source_size)
        return self.info.window_length * height * width * 400

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """Nothing is needed before the first window."""
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
        """One window. A function of the window (and the seed) alone: no state is kept between calls."""
        with torch.no_grad():
            found = self.network(window.rgb.movedim(-1, 1))
        bottom = torch.tensor([0.0, 0, 0, 1]).expand(window.num_frames, 1, 4)
        c2w = inverse(torch.cat([found["extrinsic"], bottom], 1))  # theirs: world to camera
        to_window = inverse(c2w[:1])  # the first camera of the window is our frame of reference
        points = transform(to_window[0], found["world_points"])
        # Their confidence is exp-like and >= 1; ours is a spread in the unit of the points: smaller is surer.
        depth = torch.einsum("vj,vhwj->vhw", inverse(to_window @ c2w)[:, 2, :3], points)
        depth = depth + inverse(to_window @ c2w)[:, 2, 3][:, None, None]
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=points,
            point_frame="window",
            point_scale_kind=self.info.scale_kind,
            point_z_offset=0.0,  # the camera is at the origin
            point_uncertainty=depth.abs() / found["world_points_conf"].clamp(min=1),
            ray_c2w=to_window @ c2w,
            intrinsics=found["intrinsic"].contiguous(),
            valid=torch.isfinite(points).all(-1) & (depth > 0),
            seed=seed,
            provenance={"predictor": self.info.name},
        )


# The world that the fake network knows ----------------------------------------------------------------------------


def intrinsics() -> Tensor:
    """A field of view of about 60 degrees."""
    return centred_intrinsics(torch.tensor(0.87 * SIZE[1]), SIZE)


def wall_poses() -> Tensor:
    """Cameras that walk sideways and a little forward."""
    poses = torch.eye(4).repeat(NUM_FRAMES, 1, 1)
    walk = torch.linspace(0, 1, NUM_FRAMES)
    poses[:, 0, 3], poses[:, 2, 3] = 1.2 * walk, 0.3 * walk
    return poses


def wall_points(frame: int) -> Tensor:
    """Points [H, W, 3] of one frame in its own camera."""
    rays = camera_rays(intrinsics(), SIZE)
    centre = wall_poses()[frame, :3, 3]
    depth = torch.full(SIZE, 4.0)
    for _ in range(30):
        seen = centre + depth[..., None] * rays
        depth = 4.0 - centre[2] + 0.4 * torch.sin(1.5 * seen[..., 0]) * torch.cos(1.2 * seen[..., 1])
    return rays * depth[..., None]


def video() -> np.ndarray:
    """Pictures of the wall, painted with waves."""
    frames = []
    for frame in range(NUM_FRAMES):
        points = wall_points(frame) + wall_poses()[frame, :3, 3]
        waves = [torch.sin(points @ torch.tensor(k)) for k in ([5.0, 2, 1], [-3.0, 7, 1], [11.0, -4, 2])]
        frames.append(0.5 + 0.4 * torch.stack(waves, -1))
    return (torch.stack(frames).clamp(0, 1) * 255).byte().numpy()


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "adapter"
    result = reconstruct(
        video(),
        output,
        model=WindowAdapter(FakeNetwork()),
        fps=10,
        split_shots=False,
        output_size="model",
        overwrite=True,
    )
    depth = np.stack([np.asarray(result.depth[t], np.float32) for t in range(NUM_FRAMES)])
    truth = np.stack([wall_points(t)[..., 2].numpy() for t in range(NUM_FRAMES)])
    ratio = depth / truth
    error = np.abs(ratio / np.nanmedian(ratio) - 1).mean()
    walked = np.linalg.norm(result.c2w[:, :3, 3] - result.c2w[:1, :3, 3], axis=1)
    expected = np.linalg.norm((wall_poses() - wall_poses()[:1])[:, :3, 3].numpy(), axis=1)
    path = np.abs(walked / walked[-1] - expected / expected[-1]).max()
    print(f"depth is off by {100 * error:.2f} % on the average, the path by {100 * path:.2f} % of its length")
    if error > 0.02 or path > 0.02:
        raise SystemExit("expected less than 2 % of both")


if __name__ == "__main__":
    main()
