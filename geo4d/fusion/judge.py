"""Between the two solves of a scene: how well every modality agrees with the solved points, and what takes part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.fusion.alignment import AlignConfig
from geo4d.fusion.objective import View
from geo4d.fusion.samples import Samples, Trajectory
from geo4d.fusion.start import Scene
from geo4d.fusion.start_maps import DisparityFits, TrajectoryFits, fit_disparities, fit_trajectories
from geo4d.fusion.variables import Variables


@dataclass(frozen=True)
class Selection:
    """What takes part in a solve (G windows, K trajectories).

    Attributes:
        bad: windows whose points hardly count.
        disparity: windows whose disparity counts.
        trajectory: trajectories that count.
        scaled: trajectories whose scale is known from windows in the same unit.
    """

    bad: Bool[Tensor, " G"]
    disparity: Bool[Tensor, " G"]
    trajectory: Bool[Tensor, " K"]
    scaled: Bool[Tensor, " K"]

    @staticmethod
    def points_only(bad: Bool[Tensor, " G"], num_trajectories: int) -> "Selection":
        """No disparity and no trajectory."""
        none = torch.zeros(num_trajectories, dtype=torch.bool)
        return Selection(bad, torch.zeros_like(bad), none, none)


@dataclass(frozen=True)
class Judgement:
    """Every modality against the points of the first solve.

    Attributes:
        selection: what takes part from here on.
        point_residual: median distance of each window's points, in the window's unit; NaN where it has none.
        disparity, trajectory: starting values of their alignments, with their errors.
        why_no_disparity, why_no_trajectory: reason by number of the window in the video; windows that have none are
            not named.
    """

    selection: Selection
    point_residual: Float[Tensor, " G"]
    disparity: DisparityFits
    trajectory: TrajectoryFits
    why_no_disparity: dict[int, str]
    why_no_trajectory: dict[int, str]


def judge(scene: Scene, samples: Samples, view: View, config: AlignConfig) -> Judgement:
    """Align disparities and trajectories with the solved points and cameras, and drop what does not fit.

    Args:
        samples: those of the scene, with camera evidence as one more trajectory.
        view: the first solve.
    """
    residual = window_residual(samples, view)
    disparity = fit_disparities(samples, view.variables.log_depth.exp(), _usable_pixels(samples, view)).cpu()
    with_disparity, why_no_disparity = _usable_disparities(scene, disparity, config)
    trajectory = _fit_trajectories(samples.trajectories, view.variables)
    trajectory, scaled = _in_unit_of_windows(scene, samples.trajectories, trajectory, view.variables)
    with_trajectory, why_no_trajectory = _usable_trajectories(scene, samples.trajectories, trajectory, config)
    bad = scene.bad | _far_from_solution(scene, residual, config)
    return Judgement(
        selection=Selection(bad, with_disparity, with_trajectory, scaled),
        point_residual=residual,
        disparity=disparity,
        trajectory=trajectory,
        why_no_disparity=why_no_disparity,
        why_no_trajectory=why_no_trajectory,
    )


def window_residual(samples: Samples, view: View) -> Float[Tensor, " G"]:
    """Median distance of each window's valid points in the unit of the window, NaN where it has none; on the CPU."""
    result = torch.full((samples.num_windows,), torch.nan, dtype=torch.float64)
    distance = view.distance
    order = torch.argsort(samples.window, stable=True)
    counts = torch.bincount(samples.window, minlength=samples.num_windows).tolist()
    for window, rows in enumerate(torch.split(order, counts)):
        values = distance[rows][samples.weight[rows] > 0]
        if values.numel():
            result[window] = float(values.median())
        samples.touched(len(rows))
    return result / view.variables.window_scale.cpu()


def _far_from_solution(scene: Scene, residual: Tensor, config: AlignConfig) -> Tensor:
    """Windows, [G], much farther from the solved points than the good ones are."""
    good = ~scene.bad
    if config.max_disagreement is None or config.force_bad_windows is not None or int(good.sum()) <= 2:
        return torch.zeros_like(scene.bad)
    typical = float(residual[good].nanmedian())
    return residual > config.max_disagreement * max(typical, 2e-3)


# Disparity.


def _usable_pixels(samples: Samples, view: View) -> Tensor:
    """Disparities, [O, P], at pixels whose depth some confident point gives."""
    confident = (samples.weight > 0.5 * min(1.0, float(samples.weight.max()) or 1.0)).float()
    depth = view.variables.log_depth
    seen_well = torch.zeros_like(depth).index_add_(0, samples.frame, confident) > 0
    usable = seen_well[samples.frame] & (samples.disparity_mask > 0)
    samples.touched(len(samples.frame))
    return usable


def _usable_disparities(
    scene: Scene, fits: DisparityFits, config: AlignConfig
) -> tuple[Tensor, dict[int, str]]:
    """Which windows' disparities take part, [G], and why the others do not, by window number."""
    numbers = scene.window_numbers.tolist()
    if config.force_dropped_disparity is not None:
        forced = set(config.force_dropped_disparity)
        why = {place: "forced" for place, number in enumerate(numbers) if number in forced}
        kept = torch.tensor([number not in forced for number in numbers]) & (fits.share > 0)
    else:
        why = _reasons_against_disparity(fits, config)
        kept = torch.tensor([place not in why for place in range(len(numbers))])
    samples = scene.samples
    present = torch.zeros(samples.num_windows).index_add_(
        0, samples.window.cpu(), samples.disparity_mask.cpu().float().sum(1)
    )
    return kept, {numbers[place]: reason for place, reason in why.items() if present[place] > 0}


def _reasons_against_disparity(fits: DisparityFits, config: AlignConfig) -> dict[int, str]:
    """Why a disparity is dropped, by the window's place in the scene."""
    fitted = fits.error.isfinite()
    typical_error = float(fits.error[fitted].median()) if bool(fitted.any()) else 0.0
    typical_scale = float(fits.scale[fitted].median()) if bool(fitted.any()) else 1.0
    why: dict[int, str] = {}
    for place in range(len(fitted)):
        scale, error, share = (float(value[place]) for value in (fits.scale, fits.error, fits.share))
        if not bool(fitted[place]):
            why[place] = "no pixels to align it with"
        elif scale <= 0:
            why[place] = "scale is not positive"
        elif share < config.min_disparity_share:
            why[place] = f"only {share:.0%} of pixels within a factor of 1.25"
        elif config.max_disparity_error is not None:
            if error > config.max_disparity_error * max(typical_error, 1e-3):
                why[place] = "error far above that of other windows"
            elif scale < 0.25 * typical_scale:
                why[place] = "scale far below that of other windows"
    return why


# Trajectories.


def _fit_trajectories(trajectories: Sequence[Trajectory], variables: Variables) -> TrajectoryFits:
    """On the CPU. A window's trajectory starts with the scale of its points; evidence with 1."""
    own_scale = [float(variables.window_scale[t.window]) if t.window >= 0 else 1.0 for t in trajectories]
    return fit_trajectories(
        trajectories,
        variables.rotation.cpu(),
        variables.centre.cpu(),
        torch.tensor(own_scale, dtype=torch.float64),
    )


def _in_unit_of_windows(
    scene: Scene, trajectories: Sequence[Trajectory], fits: TrajectoryFits, variables: Variables
) -> tuple[TrajectoryFits, Tensor]:
    """Camera evidence takes the scale of the windows whose points are in its unit; and which trajectories did, [K].

    With a scale of its own it would shrink to nothing beside windows that know no motion, and follow all of them.
    """
    known = torch.zeros(len(trajectories), dtype=torch.bool)
    if scene.motion is None or not scene.motion.windows:
        return fits, known
    mine = (
        torch.isin(scene.window_numbers.cpu(), torch.tensor(scene.motion.windows)) & ~scene.bad & ~scene.empty
    )
    if not bool(mine.any()):
        return fits, known
    home = fits.rotation.device
    scales = (variables.window_scale / scene.samples.point_unit.to(variables.window_scale)).to(home)
    mine = mine.to(home)
    fits = replace(fits, scale=fits.scale.clone(), translation=fits.translation.clone())
    for place, trajectory in enumerate(trajectories):
        if trajectory.window < 0:
            scale = scales[mine].median()
            turned = trajectory.c2w[:, :3, 3].to(fits.rotation) @ fits.rotation[place].mT
            offset = variables.centre.to(home)[trajectory.frames.to(home)] - scale * turned
            fits.scale[place], fits.translation[place] = scale, offset.median(0).values
            known[place] = True
    return fits, known


def _usable_trajectories(
    scene: Scene, trajectories: Sequence[Trajectory], fits: TrajectoryFits, config: AlignConfig
) -> tuple[Tensor, dict[int, str]]:
    """Which trajectories take part, [K], and why the others do not, by window number. Evidence always does."""
    why: dict[int, str] = {}
    kept = []
    for trajectory, rpe in zip(trajectories, fits.rpe_rad, strict=True):
        if trajectory.window < 0:
            kept.append(True)
            continue
        number = int(scene.window_numbers[trajectory.window])
        degrees = float(np.degrees(rpe))
        keep = degrees < config.max_trajectory_deg
        if config.force_kept_trajectory is not None:
            keep = number in config.force_kept_trajectory
        if not keep:
            why[number] = f"rotation between neighbours is off by {degrees:.1f} degrees"
        kept.append(keep)
    return torch.tensor(kept, dtype=torch.bool), why
