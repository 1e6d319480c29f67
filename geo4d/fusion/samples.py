"""What the alignment keeps of the predictions: a few hundred pixels per frame, the same for all windows that see it.

An *observation* is one frame of one window. Observations are sorted by frame, then by window, so that everything
about a frame lies together and windows may have any length, stride and number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.fusion.observations import Observations
from geo4d.geometry.poses import transform
from geo4d.optimise.scratch import Scratch
from geo4d.types import Prediction


@dataclass(frozen=True)
class Trajectory:
    """Cameras of some frames in a frame of reference of their own (ray maps of a window, or tracks of the video).

    Attributes:
        frames: position in the processed sequence.
        c2w: camera to the trajectory's own frame; unit of translation is its own.
        weight: >= 0 per frame.
        window: the window that it belongs to; -1 for evidence about the whole video.
    """

    frames: Int[Tensor, " V"]
    c2w: Float[Tensor, "V 4 4"]
    weight: Float[Tensor, " V"]
    window: int


@dataclass(frozen=True)
class Samples:
    """Sampled pixels of all observations (O observations, P pixels per frame, N frames, G windows).

    Attributes:
        pixels: positions (x, y) of the samples of each frame, pixel centres at +0.5.
        points: window-frame points, divided by ``point_unit`` of their window.
        weight: confidence of a point, ``min(1 / uncertainty, limit)``; 0 where invalid.
        disparity: affine disparity of the window.
        disparity_mask: 1 where the disparity counts, else 0.
        frame, window, local: of each observation: frame of the video, window, position inside the window.
        table: observation of (frame, slot), -1 where the frame has fewer windows.
        slot: position of each observation among those of its frame.
        window_frames: frames of each window.
        point_unit: [G] depth range that windows with a physical unit were divided by; 1 for normalised ones.
        z_offset: [G] z of the camera centre of reference, NaN where unknown (see ``Prediction``).
        focal: [G, 2] focal lengths (x, y) of the first frame as the predictor states them, NaN where it does not.
        metric: [G] True where the points are in metres.
        trajectories: cameras from ray maps or from the predictor itself.
        size: (height, width) of the maps.
        stores: files that the maps of many observations lie in; say ``touched`` now and then while working through them.
    """

    pixels: Float[Tensor, "N 2 P"]
    points: Float[Tensor, "O 3 P"]
    weight: Float[Tensor, "O P"]
    disparity: Float[Tensor, "O P"]
    disparity_mask: Float[Tensor, "O P"]
    frame: Int[Tensor, " O"]
    window: Int[Tensor, " O"]
    local: Int[Tensor, " O"]
    table: Int[Tensor, "N M"]
    slot: Int[Tensor, " O"]
    window_frames: tuple[Tensor, ...]
    point_unit: Float[Tensor, " G"]
    z_offset: Float[Tensor, " G"]
    focal: Float[Tensor, "G 2"]
    metric: Bool[Tensor, " G"]
    trajectories: tuple[Trajectory, ...]
    size: tuple[int, int]
    stores: tuple[Scratch, ...] = ()

    @property
    def num_frames(self) -> int:
        """Number of frames N."""
        return self.pixels.shape[0]

    @property
    def num_windows(self) -> int:
        """Number of windows G."""
        return len(self.window_frames)

    def observations_of(self, window: int, frames: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Observations of some frames of a window, which it must see."""
        seen_by = self.table[frames.to(self.table.device)]
        return seen_by[(seen_by >= 0) & (self.window[seen_by] == window)]

    def touched(self, num_observations: int) -> None:
        """Say that the maps of about so many observations were read."""
        for store in self.stores:
            store.touched(num_observations * store.array[0].nbytes)


def sample_grid(
    num_frames: int, size: tuple[int, int], num_samples: int, *, seed: int = 0
) -> Int[Tensor, "N P"]:
    """Flat pixel numbers on a jittered grid: one pixel drawn in each cell, other draws in each frame.

    Args:
        num_samples: wanted per frame; the grid takes about as many; all pixels when the image has no more.
    """
    height, width = size
    if num_samples >= height * width:
        return torch.arange(height * width).expand(num_frames, -1).contiguous()
    cell = (height * width / num_samples) ** 0.5
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    draw = torch.rand(2, num_frames, rows, columns, generator=torch.Generator().manual_seed(seed))
    y = ((torch.arange(rows)[:, None] + draw[0]) * (height / rows)).long().clamp_(max=height - 1)
    x = ((torch.arange(columns)[None, :] + draw[1]) * (width / columns)).long().clamp_(max=width - 1)
    return (y * width + x).reshape(num_frames, -1)


def point_weight(
    prediction: Prediction,
    points: Tensor,
    uncertainty: Tensor | None,
    valid: Tensor | None,
    unit: float,
    limit: float,
) -> Tensor:
    """Weight of points, ``min(1 / uncertainty, limit)`` with the uncertainty in half of the window's unit.

    A normalised window spans [-1, 1] in the published convention and [0, 1] after decoding, hence the factor of one
    half. Points that are not valid or not finite get 0.
    Source: Geo4D Eq. (4); the limit of 10 is the published code's.
    """
    finite = torch.isfinite(
        points.sum(-1)
    )  # one bad channel spoils the sum, and one test is cheaper than three
    usable = finite if valid is None else finite & valid
    if uncertainty is None:
        weight = torch.ones_like(points[..., 0])
    else:
        weight = (0.5 * unit / uncertainty.to(points.dtype)).clamp(max=limit)
        usable = usable & torch.isfinite(weight) & (uncertainty > 0)
    return torch.where(usable, weight, torch.zeros_like(weight))


def depth_range(z: Float[Tensor, " n"]) -> float:
    """Distance between the 2 % and 98 % quantiles of z: the unit of a window's points. 1 without points."""
    if z.numel() < 2:
        return 1.0
    low, high = torch.quantile(z.float()[:: max(1, z.numel() // 100_000)], z.new_tensor([0.02, 0.98]).float())
    return float((high - low).clamp(min=1e-6 + 1e-3 * float(high.abs())))


def take_samples(
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    size: tuple[int, int] | None,
    num_samples: int,
    weight_limit: float,
    min_disparity: float,
    use_points: bool = True,
    use_disparity: bool = True,
    use_trajectory: bool = True,
    mask_sky: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
    scratch: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Samples:
    """Read every prediction once, one after another, and keep the sampled pixels.

    Args:
        predictions: any sequence; each is indexed once and let go before the next.
        num_frames: of the processed sequence.
        size: (height, width) of the maps; None takes that of the first prediction.
        weight_limit: largest weight of a point.
        min_disparity: disparities up to this (in the window's normalised unit) do not count.
        use_points, use_disparity, use_trajectory: leave a modality out (ablation).
        mask_sky: leave pixels that the predictor calls sky out of the disparity.
        scratch: folder for the maps of long videos; None takes the system's temporary one.
    Raises:
        OutputError: there is no room for them.
        ValueError: no predictions, frames outside the sequence, or maps of another size.
    """
    if len(predictions) == 0:
        raise ValueError("expected at least one prediction, got none")
    observations = Observations(scratch, device)
    window_frames, trajectories = [], []
    units, offsets, focals, metric = [], [], [], []
    pixel_index = torch.empty(0, 0, dtype=torch.long)
    for index in range(len(predictions)):
        prediction = predictions[index]
        if size is None:
            size = prediction.size
        if prediction.size != size:
            raise ValueError(
                f"expected maps of {size}, got {prediction.size} in window {index}; run all windows at one size"
            )
        if index == 0:
            pixel_index = sample_grid(num_frames, size, num_samples, seed=seed)
        frames = prediction.frame_indices.long().cpu()
        if int(frames.min()) < 0 or int(frames.max()) >= num_frames or len(frames.unique()) != len(frames):
            raise ValueError(
                f"expected distinct frames in [0, {num_frames}), got {frames.tolist()} in window {index}"
            )
        part, unit = _sample_window(
            prediction, pixel_index[frames], weight_limit, min_disparity, use_points, use_disparity, mask_sky
        )
        observations.add(part)
        window_frames.append(frames)
        units.append(unit)
        offsets.append(torch.nan if prediction.point_z_offset is None else prediction.point_z_offset / unit)
        metric.append(prediction.point_scale_kind == "metric")
        known = prediction.intrinsics
        focals.append([torch.nan] * 2 if known is None else [float(known[0, 0, 0]), float(known[0, 1, 1])])
        cameras = prediction.ray_c2w if prediction.ray_c2w is not None else prediction.c2w
        if use_trajectory and cameras is not None:
            finite = torch.isfinite(cameras).flatten(1).all(1).cpu()
            c2w = cameras.to("cpu", torch.float64)
            if bool(finite.any()):
                trajectories.append(
                    Trajectory(frames[finite], c2w[finite], torch.ones(int(finite.sum())).double(), index)
                )
        if progress is not None:
            progress("reading windows", (index + 1) / len(predictions))
    assert size is not None
    frame = torch.cat(window_frames).to(device)
    window = torch.cat([torch.full_like(frames, k) for k, frames in enumerate(window_frames)]).to(device)
    local = torch.cat([torch.arange(len(frames)) for frames in window_frames]).to(device)
    order = torch.argsort(frame * len(window_frames) + window)
    frame, window, local = frame[order], window[order], local[order]
    maps, stores = observations.ordered(order)
    count = torch.bincount(frame, minlength=num_frames)
    first = torch.cumsum(count, 0) - count
    slot = torch.arange(len(frame), device=frame.device) - first[frame]
    table = torch.full((num_frames, max(1, int(count.max()))), -1, device=frame.device)
    table[frame, slot] = torch.arange(len(frame), device=frame.device)
    width = size[1]
    pixels = torch.stack([pixel_index % width, pixel_index // width], 1).to(torch.float32) + 0.5
    return Samples(
        pixels=pixels.to(frame.device),
        points=maps["points"],
        weight=maps["weight"],
        disparity=maps["disparity"],
        disparity_mask=maps["disparity_mask"],
        frame=frame,
        window=window,
        local=local,
        table=table,
        slot=slot,
        window_frames=tuple(window_frames),
        point_unit=torch.tensor(units, dtype=torch.float64),
        z_offset=torch.tensor(offsets, dtype=torch.float64),
        focal=torch.tensor(focals, dtype=torch.float64),
        metric=torch.tensor(metric),
        trajectories=tuple(trajectories),
        size=size,
        stores=stores,
    )


def _sample_window(
    prediction: Prediction,
    index: Tensor,
    weight_limit: float,
    min_disparity: float,
    use_points: bool,
    use_disparity: bool,
    mask_sky: bool,
) -> tuple[dict[str, Tensor], float]:
    """Sampled maps of one window on its frames' pixels ``index`` [V, P], and the unit of its points."""
    num_frames, num_samples = index.shape
    rows = torch.arange(num_frames)[:, None]

    def pick(maps: Tensor) -> Tensor:
        return maps.flatten(1, 2)[rows.to(maps.device), index.to(maps.device)].float().cpu()

    valid = None if prediction.valid is None else pick(prediction.valid).bool()
    unit = 1.0
    if prediction.point_map is None or not use_points:
        points = torch.zeros(num_frames, num_samples, 3)
        weight = torch.zeros(num_frames, num_samples)
    else:
        points = pick(prediction.point_map)
        if prediction.point_frame == "camera" and prediction.c2w is not None:
            points = transform(prediction.c2w.to("cpu", torch.float32), points)
        uncertainty = None if prediction.point_uncertainty is None else pick(prediction.point_uncertainty)
        if prediction.point_z_offset is not None or prediction.point_scale_kind == "metric":
            usable = (
                torch.isfinite(points).all(-1) if valid is None else valid & torch.isfinite(points).all(-1)
            )
            unit = depth_range(points[..., 2][usable])
        weight = point_weight(prediction, points, uncertainty, valid, unit, weight_limit)
        points = torch.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0) / unit
    if prediction.disparity is None or not use_disparity:
        disparity = mask = torch.zeros(num_frames, num_samples)
    else:
        disparity = pick(prediction.disparity)
        usable = torch.isfinite(disparity) & (disparity > min_disparity)
        if mask_sky and prediction.sky is not None:
            usable = usable & ~pick(prediction.sky).bool()
        mask = usable.float()
        disparity = torch.nan_to_num(disparity, nan=0.0, posinf=0.0, neginf=0.0)
    sampled = {
        "points": points.transpose(1, 2).contiguous(),
        "weight": weight,
        "disparity": disparity,
        "disparity_mask": mask,
    }
    return sampled, unit


def restrict(samples: Samples, windows: Int[Tensor, " g"], frames: Int[Tensor, " n"]) -> Samples:
    """The samples of some windows at some frames, renumbered from 0 in the order given."""
    device = samples.frame.device
    new_window = torch.full((samples.num_windows,), -1)
    new_window[windows] = torch.arange(len(windows))
    new_frame = torch.full((samples.num_frames,), -1)
    new_frame[frames] = torch.arange(len(frames))
    window, frame = new_window[samples.window.cpu()], new_frame[samples.frame.cpu()]
    keep = (window >= 0) & (frame >= 0)
    window, frame, rows = (
        window[keep].to(device),
        frame[keep].to(device),
        torch.nonzero(keep)[:, 0].to(device),
    )
    count = torch.bincount(frame, minlength=len(frames))
    first = torch.cumsum(count, 0) - count
    slot = torch.arange(len(frame), device=device) - first[frame]
    table = torch.full((len(frames), max(1, int(count.max()))), -1, device=device)
    table[frame, slot] = torch.arange(len(frame), device=device)
    trajectories = []
    for trajectory in samples.trajectories:
        inside = new_frame[trajectory.frames] >= 0
        if int(new_window[trajectory.window]) >= 0 and bool(inside.any()):
            trajectories.append(
                Trajectory(
                    new_frame[trajectory.frames[inside]],
                    trajectory.c2w[inside],
                    trajectory.weight[inside],
                    int(new_window[trajectory.window]),
                )
            )
    return Samples(
        pixels=samples.pixels[frames.to(device)],
        points=samples.points[rows],
        weight=samples.weight[rows],
        disparity=samples.disparity[rows],
        disparity_mask=samples.disparity_mask[rows],
        frame=frame,
        window=window,
        local=samples.local[rows],
        table=table,
        slot=slot,
        window_frames=tuple(_present(new_frame[samples.window_frames[w]]) for w in windows.tolist()),
        point_unit=samples.point_unit[windows],
        z_offset=samples.z_offset[windows],
        focal=samples.focal[windows],
        metric=samples.metric[windows],
        trajectories=tuple(trajectories),
        size=samples.size,
    )


def _present(frames: Tensor) -> Tensor:
    return frames[frames >= 0]
