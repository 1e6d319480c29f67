"""The unknowns of the alignment, how a step changes them, and where each stands in the linear system."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geo4d.geometry.poses import so3_exp


@dataclass(frozen=True)
class Variables:
    """Unknowns of the objective (N frames, G windows, K trajectories); float64 but for the sampled depths.

    Attributes:
        rotation, centre: camera to world of every frame.
        log_focal: of the horizontal focal length in pixels.
        window_scale, window_rotation, window_translation: window point x -> scale * R x + t in the world.
        disparity_scale, disparity_shift: window disparity D -> scale * D + shift = 1 / depth.
        trajectory_scale, trajectory_rotation, trajectory_translation: camera centre o of a trajectory ->
            scale * R o + t; its rotation is turned by R.
        log_depth: of the sampled pixels, [N, P].
    """

    rotation: Float[Tensor, "N 3 3"]
    centre: Float[Tensor, "N 3"]
    log_focal: Float[Tensor, " N"]
    window_scale: Float[Tensor, " G"]
    window_rotation: Float[Tensor, "G 3 3"]
    window_translation: Float[Tensor, "G 3"]
    disparity_scale: Float[Tensor, " G"]
    disparity_shift: Float[Tensor, " G"]
    trajectory_scale: Float[Tensor, " K"]
    trajectory_rotation: Float[Tensor, "K 3 3"]
    trajectory_translation: Float[Tensor, "K 3"]
    log_depth: Float[Tensor, "N P"]


@dataclass(frozen=True)
class Columns:
    """Number of every unknown in the linear system; ``total`` stands for "held fixed" and is dropped by the solver.

    Unknowns 0 .. ``num_band`` - 1 are sorted by time, so that the matrix is banded; those after it (focal length
    shared by all frames, windows that span much of the video) touch any frame and form a border.
    """

    camera: Int[Tensor, "N 6"]
    focal: Int[Tensor, " N"]
    window: Int[Tensor, "G 7"]
    disparity: Int[Tensor, "G 2"]
    trajectory: Int[Tensor, "K 7"]
    num_band: int
    total: int


def number_columns(
    num_frames: int,
    window_frames: tuple[Tensor, ...],
    trajectory_frames: tuple[Tensor, ...],
    *,
    free_cameras: bool = True,
    focal: str = "shared",
    free_windows: Tensor,
    free_disparity: Tensor,
    free_trajectory: Tensor,
    scaled_trajectory: Tensor | None = None,
    max_span: int = 64,
) -> Columns:
    """Order the unknowns by time.

    Args:
        focal: ``shared``, ``per_frame`` or ``fixed``.
        free_windows, free_disparity, free_trajectory: [G], [G], [K] bool; False holds the numbers fixed.
        scaled_trajectory: [K] bool; True holds the scale alone fixed. None: of no trajectory.
        max_span: windows and trajectories over more frames than this go to the border.
    """
    entries: list[tuple[float, int, str, int, int]] = []  # time, rank, kind, index, width
    border: list[tuple[str, int, int]] = []

    def place(kind: str, index: int, width: int, frames: Tensor, rank: int) -> None:
        if len(frames) == 0:
            return
        first, last = int(frames.min()), int(frames.max())
        if last - first > max_span:
            border.append((kind, index, width))
        else:
            entries.append(((first + last) / 2, rank, kind, index, width))

    for frame in range(num_frames):
        if free_cameras:
            entries.append((float(frame), 0, "camera", frame, 6))
        if focal == "per_frame":
            entries.append((float(frame), 1, "focal", frame, 1))
    for index, frames in enumerate(window_frames):
        if bool(free_windows[index]):
            place("window", index, 7, frames, 2)
        if bool(free_disparity[index]):
            place("disparity", index, 2, frames, 3)
    for index, frames in enumerate(trajectory_frames):
        if bool(free_trajectory[index]):
            scaled = scaled_trajectory is not None and bool(scaled_trajectory[index])
            place("trajectory", index, 6 if scaled else 7, frames, 4)
    if focal == "shared":
        border.append(("focal", -1, 1))
    entries.sort()
    num_band = sum(entry[4] for entry in entries)
    total = num_band + sum(entry[2] for entry in border)
    numbers = {
        "camera": torch.full((num_frames, 6), total),
        "focal": torch.full((num_frames, 1), total),
        "window": torch.full((len(window_frames), 7), total),
        "disparity": torch.full((len(window_frames), 2), total),
        "trajectory": torch.full((len(trajectory_frames), 7), total),
    }
    position = 0
    for kind, index, width in [entry[2:] for entry in entries] + border:
        columns = torch.arange(position, position + width)
        if index < 0:
            numbers[kind][:] = columns
        elif kind == "trajectory" and width == 6:
            numbers[kind][index, [0, 1, 2, 4, 5, 6]] = columns
        else:
            numbers[kind][index] = columns
        position += width
    return Columns(
        camera=numbers["camera"],
        focal=numbers["focal"][:, 0],
        window=numbers["window"],
        disparity=numbers["disparity"],
        trajectory=numbers["trajectory"],
        num_band=num_band,
        total=total,
    )


def retract(variables: Variables, step: Float[Tensor, " n"], columns: Columns) -> Variables:
    """Move all unknowns but the depths by a step of the linear system (``total`` + 1 entries, the last one 0).

    Camera: rotation R exp(w), centre o + R v. Window and trajectory: scale e^sigma, rotation exp(w) R, translation
    t + tau. Log focal, disparity scale and shift: added.
    """
    camera = step[columns.camera]
    window = step[columns.window]
    disparity = step[columns.disparity]
    trajectory = step[columns.trajectory]
    return replace(
        variables,
        rotation=variables.rotation @ so3_exp(camera[:, :3]),
        centre=variables.centre + (variables.rotation @ camera[:, 3:, None])[..., 0],
        log_focal=variables.log_focal + step[columns.focal].clamp(-0.3, 0.3),
        window_scale=variables.window_scale * torch.exp(window[:, 3].clamp(-1, 1)),
        window_rotation=so3_exp(window[:, :3]) @ variables.window_rotation,
        window_translation=variables.window_translation + window[:, 4:],
        disparity_scale=variables.disparity_scale + disparity[:, 0],
        disparity_shift=variables.disparity_shift + disparity[:, 1],
        trajectory_scale=variables.trajectory_scale * torch.exp(trajectory[:, 3].clamp(-1, 1)),
        trajectory_rotation=so3_exp(trajectory[:, :3]) @ variables.trajectory_rotation,
        trajectory_translation=variables.trajectory_translation + trajectory[:, 4:],
    )


def scale_world(variables: Variables, factor: Float[Tensor, ""] | float) -> Variables:
    """The same scene in a world whose unit is ``1 / factor`` as long: lengths times ``factor``."""
    return replace(
        variables,
        centre=variables.centre * factor,
        window_scale=variables.window_scale * factor,
        window_translation=variables.window_translation * factor,
        disparity_scale=variables.disparity_scale / factor,
        disparity_shift=variables.disparity_shift / factor,
        trajectory_scale=variables.trajectory_scale * factor,
        trajectory_translation=variables.trajectory_translation * factor,
        log_depth=variables.log_depth + float(torch.log(torch.as_tensor(factor, dtype=torch.float64))),
    )
