"""Scenario files of window predictions with known truth: reading them, and scoring a reconstruction.

The file format is that of the reference folder (see its README); pixel centres are integers there, so the reader moves
everything to this package's convention (centres at +0.5) by ``intrinsics_from_integer_pixel_centres``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geo4d.geometry.cameras import intrinsics_from_integer_pixel_centres
from geo4d.types import Prediction


@dataclass(frozen=True)
class Scenario:
    """Arrays of one scenario file, as read.

    Attributes:
        name: file name without suffix.
        arrays: the file's arrays by name.
    """

    name: str
    arrays: dict[str, np.ndarray]

    @property
    def window_start(self) -> np.ndarray:
        return self.arrays["window_start"]

    @property
    def window_length(self) -> int:
        return int(self.arrays["window_length"])

    @property
    def num_frames(self) -> int:
        return int(self.arrays["true_depth"].shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        return self.arrays["true_depth"].shape[1], self.arrays["true_depth"].shape[2]

    @property
    def principal_point(self) -> tuple[float, float]:
        """The published optimiser's fixed principal point, (W/2, H/2) of integer pixels, with centres at +0.5."""
        height, width = self.size
        integer = torch.tensor([[1.0, 0.0, width / 2], [0.0, 1.0, height / 2], [0.0, 0.0, 1.0]])
        ours = intrinsics_from_integer_pixel_centres(integer)
        return float(ours[0, 2]), float(ours[1, 2])


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario file into memory."""
    with np.load(path) as archive:
        return Scenario(Path(path).stem, {name: archive[name] for name in archive.files})


class ScenarioPredictions(Sequence[Prediction]):
    """The windows of a scenario as predictions, decoded when asked for (point maps in half precision stay so on disk).

    Decoding: X = x / 2, Y = y / 2, Z = (z + 1) / 2, disparity (d + 1) / 2, uncertainty sigma / 2 (the unit of the
    decoded points). A pixel is invalid when all channels lie within 0.1 of 1.05 (sky) or any exceeds 1.99 in size.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def __len__(self) -> int:
        return len(self.scenario.window_start)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if not 0 <= index < len(self):
            raise IndexError(index)
        arrays = self.scenario.arrays
        raw = torch.from_numpy(arrays["point_map"][index]).float()
        sky = ((raw - 1.05).abs() < 0.1).all(-1)
        far = (raw.abs() > 1.99).any(-1)
        points = raw.mul_(0.5)
        points[..., 2] += 0.5
        start = int(self.scenario.window_start[index])
        frames = torch.arange(start, start + self.scenario.window_length)
        return Prediction(
            frame_indices=frames,
            times_s=frames.double() / 24,
            window_index=index,
            point_map=points,
            point_uncertainty=torch.from_numpy(arrays["uncertainty"][index]).float().mul_(0.5),
            disparity=torch.from_numpy(arrays["disparity"][index]).float().add_(1).mul_(0.5),
            ray_c2w=torch.from_numpy(arrays["ray_c2w"][index]).float(),
            valid=~(sky | far),
            sky=sky,
        )


def umeyama(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Similarity from source to target centres, least squares, in plain numpy (independent of the package)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.ones(3)
    if np.linalg.det(u @ vt) < 0:
        sign[2] = -1
    rotation = u @ np.diag(sign) @ vt
    power = (a**2).sum() / len(a)
    scale = float((d * sign).sum() / power) if power > 1e-18 else 1.0
    return scale, rotation, target_mean - scale * rotation @ source_mean


def score(
    scenario: Scenario, c2w: Tensor, focal: Tensor, depth: np.ndarray, frames: np.ndarray | None = None
) -> dict[str, float]:
    """ATE, RPE, focal error, AbsRel and delta of the reference README, with plain numpy.

    Args:
        depth: [T, H, W]; where it is not finite (invalid or sky) the largest finite depth of the frame counts.
        frames: score the depth of these frames only.
    """
    arrays = scenario.arrays
    truth = arrays["true_c2w"]
    estimate = c2w.double().numpy()
    scale, rotation, translation = umeyama(estimate[:, :3, 3], truth[:, :3, 3])
    aligned = estimate.copy()
    aligned[:, :3, :3] = rotation @ estimate[:, :3, :3]
    aligned[:, :3, 3] = scale * estimate[:, :3, 3] @ rotation.T + translation
    ate = float(np.sqrt(((aligned[:, :3, 3] - truth[:, :3, 3]) ** 2).sum(1).mean()))
    step = np.linalg.inv(aligned[:-1]) @ aligned[1:]
    true_step = np.linalg.inv(truth[:-1]) @ truth[1:]
    error = np.linalg.inv(true_step) @ step
    rpe_trans = float(np.sqrt((error[:, :3, 3] ** 2).sum(1).mean())) if len(error) else 0.0
    cosine = np.clip((np.trace(error[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)
    rpe_rot = float(np.degrees(np.sqrt((np.arccos(cosine) ** 2).mean()))) if len(error) else 0.0
    true_focal = float(arrays["true_K"][0, 0])
    chosen = np.arange(scenario.num_frames) if frames is None else frames
    filled = np.array(depth[chosen], np.float64)
    for index in range(len(filled)):
        finite = np.isfinite(filled[index])
        filled[index][~finite] = filled[index][finite].max() if finite.any() else 1.0
    true_depth = arrays["true_depth"][chosen].astype(np.float64)
    mask = true_depth > 0
    predicted, reference = filled[mask], true_depth[mask]
    predicted = predicted * (np.median(reference) / np.median(predicted))
    ratio = np.maximum(predicted / reference, reference / np.maximum(predicted, 1e-12))
    return {
        "ate": ate,
        "rpe_trans": rpe_trans,
        "rpe_rot_deg": rpe_rot,
        "focal_percent": float(100 * (focal.double().numpy() / true_focal - 1).mean()),
        "abs_rel": float((np.abs(predicted - reference) / reference).mean()),
        "delta_125": float((ratio < 1.25).mean()),
    }
