"""Window predictions with known truth: what a Geo4D-family network would hand to the fusion, errors included.

``make_prediction`` turns true depth and cameras of a window into a ``Prediction``; ``TruthSource`` does so for windows
of a synthetic scene of any length, frame by frame. The errors are of the kinds that video networks make: noise that
grows with distance, at edges and away from the first frame; smooth errors that the uncertainty does not tell of;
outliers; torn sky; bent windows.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from geo4d.geometry.cameras import unproject
from geo4d.geometry.maps import cameras_to_ray_map, depth_edges
from geo4d.geometry.poses import inverse, rigid, so3_exp, transform
from geo4d.synthetic.render import cast_depth, scene_cameras
from geo4d.synthetic.scene import Scene
from geo4d.types import Prediction

_SKY_POINT = (0.525, 0.525, 1.025)
"""What Geo4D's training target 1.05 in all three normalised channels decodes to."""
_SKY_DISPARITY = -0.025


@dataclass(frozen=True)
class PredictionNoise:
    """Size of every kind of error. Points and disparity are decoded: the window's depth range is about [0, 1].

    Attributes:
        point: factor on the per-pixel Laplace noise of points (deviation 0.4 % of the range near, 1.6 % far, three
            times that at depth edges, times 1.8 at the last frame of a window).
        report: log-normal error of the reported uncertainty.
        smooth: deviation of the smooth error of points at the last frame; 30 % of it at the first.
        bend: deviation of the coefficient of a quadratic bend of z.
        outliers: share of pixels moved anywhere.
        discs: discs per frame that are pushed in z.
        sky_noise: deviation of the sky value.
        torn_sky: share of sky pixels that become a mixture of sky and surface.
        disparity: deviation of disparity noise.
        disparity_smooth: deviation of its smooth error.
        fuzzy: blur disparity over depth edges.
        ray_jitter_deg, ray_drift_deg: rotation errors of the rays from frame to frame, and slow.
        ray_centre: error of ray centres, as a share of the way the camera covers in the window.
        ray_scale: log-normal error of the scale of ray centres.
    """

    point: float = 1.0
    report: float = 0.25
    smooth: float = 0.008
    bend: float = 0.01
    outliers: float = 0.004
    discs: int = 2
    sky_noise: float = 0.01
    torn_sky: float = 0.01
    disparity: float = 0.006
    disparity_smooth: float = 0.006
    fuzzy: bool = True
    ray_jitter_deg: float = 0.14
    ray_drift_deg: float = 0.3
    ray_centre: float = 0.03
    ray_scale: float = 0.06


NO_NOISE = PredictionNoise(
    point=0.0,
    report=0.0,
    smooth=0.0,
    bend=0.0,
    outliers=0.0,
    discs=0,
    sky_noise=0.0,
    torn_sky=0.0,
    disparity=0.0,
    disparity_smooth=0.0,
    fuzzy=False,
    ray_jitter_deg=0.0,
    ray_drift_deg=0.0,
    ray_centre=0.0,
    ray_scale=0.0,
)
"""The exact truth in the shape of a prediction."""


def make_prediction(
    depth: Float[Tensor, "V H W"],
    intrinsics: Float[Tensor, "V 3 3"],
    c2w: Float[Tensor, "V 4 4"],
    frame_indices: Int[Tensor, " V"],
    times_s: Float[Tensor, " V"],
    window_index: int,
    noise: PredictionNoise | None = None,
    seed: int = 0,
    bad: bool = False,
    ray_size: tuple[int, int] = (12, 20),
) -> Prediction:
    """A prediction of one window from its truth.

    As Geo4D's, the points are in the first camera of the window, divided by the depth range and shifted so that the
    range starts at 0: the z offset is unknown to the fusion (``point_z_offset`` is None). The truth is in
    ``provenance``: true point = ``true_scale`` * (point + (0, 0, ``true_z_offset``)), true disparity =
    ``true_disparity_scale`` * disparity + ``true_disparity_shift``.

    Args:
        depth: z-depth, +inf in the sky.
        intrinsics: pixels of ``depth``.
        c2w: any common world.
        window_index, seed: determine the noise together.
        noise: None is the default noise.
        bad: a window that has gone wrong: points bent, disparity unrelated, rotations off by degrees, uncertainty
            only three times larger.
        ray_size: grid of the ray maps.
    """
    noise = PredictionNoise() if noise is None else noise
    generator = Generator().manual_seed(
        int(np.random.SeedSequence((seed, window_index)).generate_state(1, np.uint32)[0])
    )
    surface = torch.isfinite(depth)
    cameras = inverse(c2w[0].double()) @ c2w.double()
    filled = torch.where(surface, depth, torch.ones_like(depth))
    points = transform(cameras.to(depth.dtype), unproject(filled, intrinsics))
    low, high = _range(points[..., 2][surface])
    scale = high - low
    points = points / scale
    points[..., 2] -= low / scale
    edges = depth_edges(torch.where(surface, depth, torch.inf), relative_step=0.1)
    points, uncertainty = _disturb_points(points, edges, noise, generator, bad)
    valid, sky = surface.clone(), ~surface
    _paint_sky(points, uncertainty, valid, sky, noise, generator)
    points[..., 0].clamp_(-1.0, 1.0)
    points[..., 1].clamp_(-1.0, 1.0)
    points[..., 2].clamp_(-0.5, 1.5)
    valid &= (points[..., :2].abs() < 0.995).all(-1) & ((points[..., 2] - 0.5).abs() < 0.995)
    disparity, disparity_scale, disparity_shift = _disturbed_disparity(
        filled, surface, edges, noise, generator, bad
    )
    ray_c2w, ray_scale = _disturbed_cameras(cameras, float(scale), noise, generator, bad)
    height, width = depth.shape[1:]
    shrink = torch.tensor([ray_size[1] / width, ray_size[0] / height, 1.0])[:, None]
    ray_map = cameras_to_ray_map(intrinsics * shrink, ray_c2w, ray_size)
    return Prediction(
        frame_indices=frame_indices,
        times_s=times_s,
        window_index=window_index,
        point_map=points,
        point_frame="window",
        point_scale_kind="scale",
        point_z_offset=None,
        point_uncertainty=uncertainty,
        disparity=disparity,
        disparity_scale_kind="affine",
        ray_map=ray_map,
        ray_c2w=ray_c2w,
        valid=valid,
        sky=sky,
        seed=seed,
        provenance={
            "predictor": "synthetic-truth",
            "noise": asdict(noise),
            "bad": bad,
            "true_scale": float(scale),
            "true_z_offset": float(low / scale),
            "true_disparity_scale": disparity_scale,
            "true_disparity_shift": disparity_shift,
            "true_ray_scale": ray_scale,
        },
    )


class TruthSource:
    """True depth of a scene as windows ask for it; keeps the last few frames only.

    Args:
        scene: of any length.
        size: (height, width) of the maps.
        kept_frames: depth maps held in memory; at least the length of a window saves work.
    """

    def __init__(self, scene: Scene, size: tuple[int, int], kept_frames: int = 24) -> None:
        if kept_frames < 1:
            raise ValueError(f"expected kept_frames >= 1, got {kept_frames}")
        self.scene = scene
        self.size = size
        self.intrinsics, self.c2w = scene_cameras(scene, size)
        self._kept_frames = kept_frames
        self._kept: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def frame(self, index: int) -> tuple[Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
        """Depth (+inf in the sky) and dynamic mask of one frame.

        Raises:
            IndexError: there is no such frame.
        """
        if index in self._kept:
            self._kept.move_to_end(index)
        else:
            self._kept[index] = cast_depth(self.scene, self.size, index)
            while len(self._kept) > self._kept_frames:
                self._kept.popitem(last=False)
        return self._kept[index]

    def predict(
        self,
        frame_indices: Sequence[int] | Int[Tensor, " V"],
        window_index: int,
        noise: PredictionNoise | None = None,
        seed: int = 0,
        bad: bool = False,
        ray_size: tuple[int, int] = (12, 20),
    ) -> Prediction:
        """Prediction of the window that shows ``frame_indices``; see ``make_prediction``.

        Raises:
            IndexError: a frame is outside of the scene.
        """
        indices = torch.as_tensor(frame_indices, dtype=torch.long)
        depth = torch.stack([self.frame(int(index))[0] for index in indices])
        return make_prediction(
            depth,
            self.intrinsics[indices],
            self.c2w[indices],
            indices,
            torch.from_numpy(self.scene.times_s)[indices],
            window_index,
            noise,
            seed,
            bad,
            ray_size,
        )


def iter_predictions(
    scene: Scene,
    size: tuple[int, int],
    windows: Iterable[Sequence[int]],
    noise: PredictionNoise | None = None,
    seed: int = 0,
    bad_windows: Collection[int] = (),
) -> Iterator[Prediction]:
    """Predictions of windows one after the other; true depth of the last 24 frames is all that is kept.

    Args:
        size: (height, width) of the maps.
        windows: frame indices of each.
        noise: None is the default noise.
        seed: of the errors, together with a window's position in ``windows``.
        bad_windows: positions in ``windows`` of those that go wrong; see ``make_prediction``.
    Raises:
        IndexError: a frame is outside of the scene.
    """
    source = TruthSource(scene, size)
    for window_index, frames in enumerate(windows):
        yield source.predict(frames, window_index, noise, seed, window_index in bad_windows)


def without(prediction: Prediction, *modalities: str) -> Prediction:
    """The prediction as if the network had not been trained for ``modalities`` (``points``, ``disparity``, ``rays``).

    Raises:
        ValueError: unknown modality.
    """
    fields = {
        "points": ("point_map", "point_uncertainty"),
        "disparity": ("disparity", "disparity_uncertainty"),
        "rays": ("ray_map", "ray_c2w"),
    }
    unknown = set(modalities) - set(fields)
    if unknown:
        raise ValueError(f"expected modalities out of {sorted(fields)}, got {sorted(unknown)}")
    dropped: dict[str, Any] = {field: None for modality in modalities for field in fields[modality]}
    return replace(prediction, **dropped)


def _range(values: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """2 % and 98 % quantile, widened by 1 cm as in Geo4D's training targets; (0, 1) without values."""
    if values.numel() == 0:
        return torch.tensor(0.0), torch.tensor(1.0)
    thinned = values[:: max(1, values.numel() // 1_000_000)]
    low, high = torch.quantile(thinned, torch.tensor([0.02, 0.98], dtype=thinned.dtype))
    return low - 0.01, high + 0.01


def _smooth(shape: Sequence[int], channels: int, generator: Generator) -> Tensor:
    """``[V, H, W, channels]`` fields of deviation about 1 that vary slowly over frames and picture."""
    seeds = torch.randn((1, channels, 3, 4, 6), generator=generator)
    fields = torch.nn.functional.interpolate(seeds, size=tuple(shape), mode="trilinear", align_corners=True)
    return fields[0].movedim(0, -1) / 0.65


def _laplace(shape: Sequence[int], generator: Generator) -> Tensor:
    """Laplace noise of deviation 1."""
    uniform = torch.rand(tuple(shape), generator=generator) - 0.5
    return -uniform.sign() * torch.log1p(-2.0 * uniform.abs().clamp(max=0.4999999)) / 2.0**0.5


def _disturb_points(
    points: Float[Tensor, "V H W 3"],
    edges: Bool[Tensor, "V H W"],
    noise: PredictionNoise,
    generator: Generator,
    bad: bool,
) -> tuple[Tensor, Tensor]:
    frames, height, width, _ = points.shape
    age = torch.linspace(0.0, 1.0, frames)[:, None, None]
    shape = points.shape[:3]
    # uncertainty a network would report were there no noise at all: its floor
    sigma = 0.004 + 0.012 * points[..., 2].clamp(0.0, 1.2)
    sigma = torch.where(edges, 3.0 * sigma, sigma) * (1.0 + 0.8 * age)
    sigma = sigma * torch.exp(0.4 * _smooth(shape, 1, generator)[..., 0])
    result = points.clone()
    if noise.point > 0.0:
        result += noise.point * sigma[..., None] * _laplace(points.shape, generator)
    if noise.smooth > 0.0:
        result += noise.smooth * (0.3 + 0.7 * age[..., None]) * _smooth(shape, 3, generator)
    if noise.bend > 0.0:
        coefficient = noise.bend * torch.randn((), generator=generator)
        result[..., 2] += coefficient * (points[..., 2].clamp(0.0, 1.2) - 0.5) ** 2
    report = sigma * max(noise.point, 0.1)
    report = report * torch.exp(noise.report * torch.randn(shape, generator=generator))
    if bad:
        result = result + 0.07 * _smooth(shape, 3, generator)
        report = 3.0 * report
    if noise.outliers > 0.0:
        moved = torch.rand(shape, generator=generator) < noise.outliers
        anywhere = torch.rand((int(moved.sum()), 3), generator=generator)
        result[moved] = anywhere - torch.tensor([0.5, 0.5, 0.0])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for frame in range(frames):
        for _ in range(noise.discs):
            u, v, size, push = torch.rand(4, generator=generator).tolist()
            radius = (0.02 + 0.05 * size) * width
            rows = slice(max(0, int(v * height - radius)), int(v * height + radius) + 2)
            inside = (x[rows] - u * width) ** 2 + (y[rows] - v * height) ** 2 < radius**2
            result[frame, rows, :, 2] += inside * (0.1 + 0.2 * push) * (1.0 if push > 0.5 else -1.0)
            report[frame, rows] *= 1.0 + 0.5 * inside
    return result, report


def _paint_sky(
    points: Float[Tensor, "V H W 3"],
    uncertainty: Float[Tensor, "V H W"],
    valid: Bool[Tensor, "V H W"],
    sky: Bool[Tensor, "V H W"],
    noise: PredictionNoise,
    generator: Generator,
) -> None:
    """Write sky values in place; torn pixels look like surfaces and count as valid."""
    count = int(sky.sum())
    if count == 0:
        return
    values = torch.tensor(_SKY_POINT) + noise.sky_noise * torch.randn((count, 3), generator=generator)
    torn = torch.rand(count, generator=generator) < noise.torn_sky
    step_y, step_x = max(1, points.shape[1] // 64), max(1, points.shape[2] // 64)
    surface = points[:, ::step_y, ::step_x][valid[:, ::step_y, ::step_x]]
    if len(surface):
        number = int(torn.sum())
        picked = surface[torch.randint(len(surface), (number,), generator=generator)]
        share = torch.rand((number, 1), generator=generator)
        values[torn] = share * values[torn] + (1.0 - share) * picked
    else:
        torn[:] = False
    points[sky] = values
    uncertainty[sky] = 0.02
    where = torch.nonzero(sky)[torn].unbind(-1)
    valid[where] = True
    sky[where] = False


def _disturbed_disparity(
    filled: Float[Tensor, "V H W"],
    surface: Bool[Tensor, "V H W"],
    edges: Bool[Tensor, "V H W"],
    noise: PredictionNoise,
    generator: Generator,
    bad: bool,
) -> tuple[Tensor, float, float]:
    """Decoded disparity, and the true scale and shift back to 1/m."""
    disparity = 1.0 / filled
    low, high = _range(disparity[surface])
    span = high - low
    disparity = torch.where(surface, (disparity - low) / span, torch.tensor(_SKY_DISPARITY))
    if noise.fuzzy:
        blurred = torch.nn.functional.avg_pool2d(disparity[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        disparity = torch.where(edges, blurred, disparity)
    if noise.disparity_smooth > 0.0:
        field = noise.disparity_smooth * _smooth(disparity.shape, 1, generator)[..., 0]
        disparity = disparity + torch.where(surface, field, 0.0)
    if noise.disparity > 0.0:
        disparity = disparity + noise.disparity * _laplace(disparity.shape, generator)
    if bad:
        disparity = 0.5 + 0.25 * _smooth(disparity.shape, 1, generator)[..., 0]
    return disparity.clamp(-0.05, 1.05), float(span), float(low)


def _disturbed_cameras(
    cameras: Float[Tensor, "V 4 4"], scale: float, noise: PredictionNoise, generator: Generator, bad: bool
) -> tuple[Tensor, float]:
    """Cameras from disturbed rays, in the unit of the window, and the factor back to metres."""
    frames = len(cameras)
    jitter = torch.randn((frames, 3), generator=generator, dtype=torch.float64)
    drift = _smooth((frames, 1, 1), 3, generator)[:, 0, 0].double()
    degrees = noise.ray_jitter_deg * jitter + noise.ray_drift_deg * (drift - drift[:1])
    if bad:
        degrees = degrees + 4.0 * torch.randn((frames, 3), generator=generator, dtype=torch.float64)
    degrees[0] = 0.0
    centres = cameras[:, :3, 3]
    way = (centres[1:] - centres[:-1]).norm(dim=-1).sum()
    wobble = torch.randn((frames, 3), generator=generator, dtype=torch.float64)
    wobble[0] = 0.0
    factor = scale * float(torch.exp(noise.ray_scale * torch.randn((), generator=generator)))
    moved = (centres + noise.ray_centre * way * wobble / max(1.0, frames**0.5)) / factor
    return rigid(so3_exp(torch.deg2rad(degrees)) @ cameras[:, :3, :3], moved).float(), factor
