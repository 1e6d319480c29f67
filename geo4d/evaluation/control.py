"""The control: a predictor without a network. What it reaches is owed to evidence and fusion, not to the model."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.geometry.cameras import camera_rays, centred_intrinsics, focal_from_fov, resize_intrinsics
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import inverse, transform
from geo4d.models.base import Predictor, PredictorInfo
from geo4d.models.tiny.anchor import log_correction
from geo4d.models.tiny.conditioning import encode_window, no_evidence
from geo4d.types import EvidenceMaps, Prediction, Window

FOV_DEG = 60.0
"""Horizontal field of view where nothing is known."""
SPREAD, SPREAD_AT_EVIDENCE = 0.5, 0.1
"""Relative spread of the depth where there is no evidence, and where it is sure."""


class ControlPredictor:
    """Constant depth, the evidence spread over it by the anchor's own rule, and the cameras of the evidence.

    Runs with the windows and at the size of another predictor, so that the rest of the run is the same.
    """

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self.info: PredictorInfo = replace(
            model.info,
            name="control",
            description="constant depth and evidence from motion, no network",
            licence="as the package",
            weights_sha256="0" * 64,
            evidence="motion",
            needs_prepare=False,
            takes_gaps=True,
            gives_poses=True,
            scale_kind="scale",
            config={"windows_of": model.info.name},
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the model that the control stands beside."""
        return self._model.size_for(source_size)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Bytes of one window: a hundred a pixel; there is no network."""
        height, width = self.size_for(source_size)
        return self.info.window_length * height * width * 100

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """Nothing: every window stands for itself."""
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
        """Depth 1 everywhere, changed by what the evidence says; the same for every seed."""
        count, size = window.num_frames, window.size
        flat = torch.ones(1, count, 1, *size)
        # The bundled model reads its evidence for half the size of its maps.
        half = (size[0] // 2, size[1] // 2)
        encoded = no_evidence(1, count, half, flat) if evidence is None else encode_window(evidence, half)
        blank = flat.expand(-1, -1, 3, -1, -1)  # no picture guides the spreading
        depth = torch.exp(-log_correction(flat, encoded, blank))[0, :, 0]
        spread = torch.full_like(depth, SPREAD)
        intrinsics = centred_intrinsics(
            focal_from_fov(torch.deg2rad(torch.tensor(FOV_DEG)), size[1]), size
        ).repeat(count, 1, 1)
        to_window = torch.eye(4).repeat(count, 1, 1)
        if evidence is not None:
            depth, sure = in_unit_of(depth, evidence)
            spread = SPREAD + (SPREAD_AT_EVIDENCE - SPREAD) * sure
            if evidence.intrinsics is not None:
                own = (evidence.points.shape[1], evidence.points.shape[2])
                intrinsics = resize_intrinsics(evidence.intrinsics.float(), own, size)
            if evidence.c2w is not None and _trusted(evidence):
                c2w = evidence.c2w.double()
                to_window = (inverse(c2w[:1]) @ c2w).float()
        points = transform(to_window[:, None], camera_rays(intrinsics, size) * depth[..., None])
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=points,
            point_frame="window",
            point_scale_kind="scale",
            point_z_offset=0.0,
            point_uncertainty=spread * depth,
            disparity=1 / depth,
            disparity_scale_kind="scale",
            disparity_uncertainty=spread / depth,
            ray_map=cameras_to_ray_map(intrinsics, to_window, size),
            ray_c2w=to_window,
            intrinsics=intrinsics,
            valid=torch.ones_like(depth, dtype=torch.bool),
            seed=seed,
            provenance={"predictor": self.info.name},
        )


def in_unit_of(
    depth: Float[Tensor, "V H W"], evidence: EvidenceMaps
) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
    """Depth brought to the unit of the evidence by one factor, and how sure the evidence is at its size, in [0, 1].

    Without evidence about depth the unit is that of a shot: a median depth of 1.
    """
    used, measured = usable_evidence(evidence)
    confidence = torch.ones_like(measured) if evidence.confidence is None else evidence.confidence.float()
    resized = [
        torch.nn.functional.interpolate(values[:, None], depth.shape[1:], mode="nearest-exact")[:, 0]
        for values in (used.float(), measured, torch.where(used, confidence, 0.0))
    ]
    at = resized[0] > 0.5
    factor = (resized[1][at] / depth[at]).median() if bool(at.any()) else 1 / depth.median()
    return depth * factor, resized[2]


def usable_evidence(evidence: EvidenceMaps) -> tuple[Bool[Tensor, "V H W"], Float[Tensor, "V H W"]]:
    """Where the evidence of a window says something about depth, and that depth (1 elsewhere)."""
    depth = evidence.points[..., 2].float()
    used = evidence.mask & torch.isfinite(depth) & (depth > 0)
    if evidence.confidence is not None:
        used = used & (evidence.confidence > 0)
    return used, torch.where(used, depth, 1.0)


def _trusted(evidence: EvidenceMaps) -> bool:
    return evidence.camera_confidence is None or bool((evidence.camera_confidence > 0).all())


class WatchedPredictor:
    """A predictor that remembers the evidence it was given, frame by frame.

    Attributes:
        depth: frame -> depth from evidence in the unit of its shot, NaN where there is none, at the size of the maps.
    """

    def __init__(self, model: Predictor) -> None:
        self._model, self.info = model, model.info
        self.depth: dict[int, Float[Tensor, "H W"]] = {}

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the model runs."""
        return self._model.size_for(source_size)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Peak memory of one window, the model's."""
        return self._model.memory_bytes(source_size)

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """What the model makes of all windows beforehand."""
        return self._model.prepare(windows)

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """The model's own answer."""
        if evidence is not None:
            used, depth = usable_evidence(evidence)
            for frame, seen, values in zip(window.frame_indices.tolist(), used, depth, strict=True):
                found = torch.where(seen, values, torch.nan)
                # Windows that share a frame may use more or less of the same map.
                before = self.depth.get(frame, found)
                self.depth[frame] = torch.where(torch.isnan(found), before, found)
        return self._model.predict(window, seed=seed, evidence=evidence, context=context, previous=previous)
