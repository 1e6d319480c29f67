"""The predictor: a depth network's answers, tied to the cameras from tracks and made steady over time."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.cameras import centred_intrinsics, focal_from_fov, resize_intrinsics, unproject
from geo4d.geometry.poses import inverse, transform
from geo4d.models.base import PredictorInfo
from geo4d.models.monodepth.following import follow_frames
from geo4d.models.monodepth.network import DepthNetwork, FrameDepths, Remembered
from geo4d.models.monodepth.over_time import Curve, Known, enough_evidence, solve_over_time
from geo4d.models.spread import spread_field
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.io import fit_size

FARTHEST = 0.02
"""Least disparity of a surface, as a share of the window's median: what lies beyond is as good as there."""
ASSUMED_FOV_DEG = 60.0
"""Horizontal field of view where nothing tells of one."""
FIELD_SIDE = 120
"""Longest side of the field that bends a frame onto its evidence, pixels."""
FIELD_WEIGHT = 0.02
"""Weight of a fully sure pixel in that field, in units of ``spread_field``: it follows regions, not pixels."""
LEAST_ERROR = 0.02
"""Smallest relative error that is claimed of a depth."""

Alignment = Literal["steady", "per_frame"]


@dataclass(frozen=True)
class MonoDepthConfig:
    """How a depth network is run over a video.

    Attributes:
        max_side: longest side of the frames and maps, pixels; the network resizes them to its own size.
        window_length, window_stride: frames.
        alignment: ``steady``: scale and shift solved over time, and a smooth field that bends the rest onto the evidence;
            ``per_frame``: scale and shift of each frame by itself, for comparisons.
        field: bend the rest onto the evidence.
    """

    max_side: int = 640
    window_length: int = 16
    window_stride: int = 8
    alignment: Alignment = "steady"
    field: bool = True

    def __post_init__(self) -> None:
        if self.max_side < 32:
            raise ValueError(f"expected max_side of at least 32 pixels, got {self.max_side}")
        if not 1 <= self.window_stride <= self.window_length:
            raise ValueError(
                f"expected a stride of 1 to {self.window_length} frames, got {self.window_stride}"
            )
        if self.alignment not in ("steady", "per_frame"):
            raise ValueError(f"expected the alignment 'steady' or 'per_frame', got {self.alignment!r}")


class DepthPredictor:
    """A depth network as a predictor of windows; its cameras are those from tracks.

    Args:
        network: sees single pictures.
        name, description, licence, weights_sha256, weights_compared: as in ``PredictorInfo``.
        config: how it is run.
        memory_bytes: of the network and its activations for one picture.
        settings: further JSON values that decide the result, kept in its provenance.
    """

    def __init__(
        self,
        network: DepthNetwork,
        *,
        name: str,
        licence: str,
        description: str = "depth of single pictures under the cameras from tracks",
        weights_sha256: str = "unknown",
        weights_compared: Mapping[str, int] | None = None,
        config: MonoDepthConfig | None = None,
        memory_bytes: int = 0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.config = config or MonoDepthConfig()
        self.network = network
        self._seen = Remembered(network, 2 * self.config.window_length)
        self._memory = memory_bytes
        self.info = PredictorInfo(
            name=name,
            description=description,
            licence=licence,
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=self.config.window_length,
            window_stride=self.config.window_stride,
            carries=True,
            evidence="motion",
            scale_kind="metric" if network.scale_kind == "metric" else "scale",
            smaller=f"smaller pictures: --model-option max_side={self.config.max_side // 2}",
            config={**dataclasses.asdict(self.config), **(settings or {})},
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """The source, reduced to ``max_side`` in its own proportions."""
        return fit_size(source_size, self.config.max_side)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """The network, and about forty numbers for every pixel of a window."""
        height, width = self.size_for(source_size)
        return self._memory + self.config.window_length * height * width * 160

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
        """Points of every frame in the window's first camera, or in each frame's own where there is no evidence at all.

        Args:
            window: frames at any size.
            seed: there is no noise; it changes nothing.
            evidence: cameras, and depth that scale and shift are solved against.
            previous: the window before, whose scales its frames keep.
        """
        answer = self._seen(window.rgb.cpu().float())
        intrinsics = _intrinsics(window, evidence, answer)
        c2w = _cameras(window, evidence)
        steady = self.config.alignment == "steady"
        known = _known(window, previous) if steady else None
        maps = _evidence_maps(evidence, window.size)
        if self.network.scale_kind == "metric" and maps is not None and enough_evidence(maps[1]):
            known = None  # that is in metres, and this window's evidence in a unit of its own
        kind = self.network.scale_kind
        swept = maps is not None and enough_evidence(maps[1])
        if maps is not None and swept:
            curve = solve_over_time(
                answer.disparity, *maps, affine=kind == "affine", steady=steady, known=known
            )
        else:
            curve = follow_frames(
                answer.disparity,
                window.rgb.cpu(),
                intrinsics,
                c2w,
                affine=kind == "affine",
                metric=kind == "metric",
                steady=steady,
                known=known,
            )
        disparity, error = self._disparity(window, answer, curve, maps if swept else None)
        # Of a metric network, the scale is what its metres are worth in the unit of the cameras.
        metres = float(curve.scale.log().median().exp()) if kind == "metric" and swept else 1.0
        depth = metres / disparity
        cameras = torch.linalg.inv(c2w[:1]) @ c2w
        cameras[:, :3, 3] *= metres
        points = unproject(depth, intrinsics)
        if evidence is not None:
            points = torch.stack([transform(pose, p) for pose, p in zip(cameras, points, strict=True)])
        valid = torch.ones_like(depth, dtype=torch.bool) if answer.sky is None else ~answer.sky
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=points,
            point_frame="camera" if evidence is None else "window",
            point_scale_kind="metric" if kind == "metric" else "scale",
            point_z_offset=0.0,
            point_uncertainty=depth * error,
            ray_c2w=None if evidence is None else cameras,
            intrinsics=intrinsics,
            valid=valid,
            sky=answer.sky,
            seed=seed,
            provenance={
                "predictor": self.info.name,
                "weights_sha256": self.info.weights_sha256,
                "depth_from": "evidence" if swept else "pictures",
                "relative_error": round(curve.error, 4),
            },
            carry={
                "frames": window.frame_indices.clone(),
                "scale": curve.scale / metres,
                "shift": curve.shift.clone(),
            },
        )

    def _disparity(
        self,
        window: Window,
        answer: FrameDepths,
        curve: Curve,
        maps: tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]] | None,
    ) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
        """The disparity in the unit of the cameras, and its relative error."""
        plain = curve(answer.disparity)
        step = max(1, math.isqrt(plain.numel() // 100_000))
        typical = plain.flatten()[::step].clamp(min=0).median().clamp(min=1e-6)
        disparity = plain.clamp(min=FARTHEST * float(typical))
        error = torch.full_like(disparity, max(curve.error, LEAST_ERROR))
        if maps is None or not self.config.field or self.config.alignment == "per_frame":
            return disparity, error
        field = bending(disparity, *maps, window.rgb.cpu(), curve.error)
        return disparity * field.exp(), error


def bending(
    disparity: Float[Tensor, "V H W"],
    target: Float[Tensor, "V H W"],
    weight: Float[Tensor, "V H W"],
    rgb: Float[Tensor, "V H W 3"],
    error: float,
) -> Float[Tensor, "V H W"]:
    """Logarithm of the smooth factor that takes a disparity towards the evidence, from region to region.

    Args:
        weight: of the evidence, in [0, 1].
        error: relative spread of the evidence about the disparity; what is off by several times as much does not pull.
    """
    height, width = disparity.shape[1:]
    share = min(1.0, FIELD_SIDE / max(height, width))
    size = (max(2, round(height * share)), max(2, round(width * share)))
    ratio = target.log() - disparity.log()
    pull = weight / (1 + (ratio / (3 * max(error, 0.01))).square())

    def small(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size, mode="area")

    mass = small(pull[:, None])[:, 0]
    mean = small((pull * ratio)[:, None])[:, 0] / mass.clamp(min=1e-6)
    colour = small(rgb.movedim(-1, 1))
    field = spread_field(mean[None], FIELD_WEIGHT * mass[None], colour[None])[0]
    return F.interpolate(field[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def _known(window: Window, previous: Prediction | None) -> Known | None:
    """Scales and shifts of frames that the window before has solved."""
    if previous is None or previous.carry is None:
        return None
    scale = torch.full((window.num_frames,), torch.nan)
    shift = scale.clone()
    position = {int(t): i for i, t in enumerate(previous.carry["frames"])}
    for i, t in enumerate(window.frame_indices.tolist()):
        if t in position:
            scale[i], shift[i] = (
                previous.carry["scale"][position[t]],
                previous.carry["shift"][position[t]],
            )
    return Known(scale, shift) if bool(torch.isfinite(scale).any()) else None


def _intrinsics(window: Window, evidence: EvidenceMaps | None, answer: FrameDepths) -> Float[Tensor, "V 3 3"]:
    """Given ones, else those of the evidence, else the network's, else an ordinary field of view."""
    if window.intrinsics is not None:
        return window.intrinsics.float()
    if evidence is not None and evidence.intrinsics is not None:
        own = (evidence.points.shape[1], evidence.points.shape[2])
        return resize_intrinsics(evidence.intrinsics.float(), own, window.size)
    if answer.intrinsics is not None:
        return answer.intrinsics.float()
    fov = torch.tensor(math.radians(ASSUMED_FOV_DEG))
    intrinsics = centred_intrinsics(focal_from_fov(fov, window.size[1]), window.size)
    intrinsics[1, 1] *= window.pixel_aspect
    return intrinsics.expand(window.num_frames, 3, 3).contiguous()


def _cameras(window: Window, evidence: EvidenceMaps | None) -> Float[Tensor, "V 4 4"]:
    """Those of the evidence where they can be trusted; else the camera stands still."""
    if evidence is None or evidence.c2w is None or evidence.camera_confidence is None:
        return torch.eye(4).repeat(window.num_frames, 1, 1)
    if not bool((evidence.camera_confidence > 0).all()):
        return torch.eye(4).repeat(window.num_frames, 1, 1)
    c2w = evidence.c2w.double()
    return (inverse(c2w[:1]) @ c2w).float()


def _evidence_maps(
    evidence: EvidenceMaps | None, size: tuple[int, int]
) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]] | None:
    """Disparity and its weight at a size; every pixel takes the values of the nearest one, so that edges stay."""
    if evidence is None or evidence.c2w is None:
        return None
    depth = evidence.points[..., 2].float()
    usable: Bool[Tensor, "V H W"] = evidence.mask & torch.isfinite(depth) & (depth > 0)
    confidence = torch.ones_like(depth) if evidence.confidence is None else evidence.confidence.float()
    weight = torch.where(usable, confidence, 0.0)
    disparity = torch.where(usable, 1 / depth.clamp(min=1e-9), 1.0)
    if (depth.shape[1], depth.shape[2]) != size:
        stacked = F.interpolate(torch.stack([disparity, weight], 1), size, mode="nearest-exact")
        disparity, weight = stacked.unbind(1)
    return disparity, weight
