"""The bundled model as a predictor: pictures and evidence from motion in, all three modalities with spreads out."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.geometry.cameras import centred_intrinsics, pixel_grid, resize_intrinsics, unproject
from geo4d.geometry.maps import ray_map_to_cameras
from geo4d.geometry.poses import inverse, transform
from geo4d.models.base import PredictorInfo, require_multiple
from geo4d.models.devices import cpu_computes_bfloat16, cuda_computes_bfloat16, default_device, has_float64
from geo4d.models.tiny.anchor import log_correction
from geo4d.models.tiny.conditioning import encode_window, no_evidence
from geo4d.models.tiny.config import BLOCK, PICTURE_MULTIPLE
from geo4d.models.tiny.depth import DepthMaps
from geo4d.models.tiny.doubt import believed
from geo4d.models.tiny.features import SharedFeatures
from geo4d.models.tiny.modalities import NormalisedMaps, expand, restore_disparity
from geo4d.models.tiny.model import TinyModel, halved
from geo4d.models.tiny.movers import without_contradicted
from geo4d.models.tiny.network import Evidence
from geo4d.models.tiny.vouched import mixed_with_evidence, tempered, vouched_share
from geo4d.models.tiny.weights import BUNDLED, check_file, load_model
from geo4d.types import EvidenceMaps, Prediction, Window

log = logging.getLogger(__name__)

LEAST_DISPARITY = 0.01
"""Share of a window's top disparity that stands in for everything farther."""

Compute = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TinyPipelineConfig:
    """How the model is run.

    Attributes:
        num_steps: DDIM steps; one is the default because it measures best (see the model card).
        num_pixels: the maps have the multiple-of-32 size nearest to this area in the source's aspect ratio; the
            diffusion network runs at half of it.
        window_length: frames per window.
        window_stride: frames between window starts.
        use_evidence: let evidence from motion in.
        anchor: pull the maps onto confident evidence (``anchor.py``).
        doubt: leave out evidence that contradicts the pictures (``doubt.py``, ``movers.py``), and believe the network's
            layout as far as evidence that it did not see vouches for it (``vouched.py``); one network pass more.
        sky_disparity: where the depth network sees sky, its own disparity must also lie below this share of the
            window's top. A bare wall that looks like sky keeps its depth. Chosen on validation clips.
    """

    num_steps: int = 1
    num_pixels: int = 192 * 320
    window_length: int = 16
    window_stride: int = 8
    use_evidence: bool = True
    anchor: bool = True
    doubt: bool = True
    sky_disparity: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 1000:
            raise ValueError(f"expected 1 to 1000 sampling steps, got {self.num_steps}")
        if not 1 <= self.window_stride <= self.window_length:
            raise ValueError(
                f"expected a stride of 1 to {self.window_length} frames, got {self.window_stride}"
            )
        if not self.sky_disparity > 0:
            raise ValueError(f"expected a positive disparity of the sky, got {self.sky_disparity}")
        if self.num_pixels < PICTURE_MULTIPLE**2:
            raise ValueError(f"expected at least {PICTURE_MULTIPLE**2} pixels, got {self.num_pixels}")


class TinyPredictor:
    """Predicts one window at a time; nothing flows between windows but the features of pictures they share."""

    def __init__(
        self,
        model: TinyModel,
        weights_sha256: str,
        config: TinyPipelineConfig | None = None,
        device: torch.device | str = "cpu",
        dtype: Compute = "float32",
        weights_compared: Mapping[str, int] | None = None,
    ) -> None:
        self.config = config or TinyPipelineConfig()
        self.device = torch.device(device)
        self.dtype = dtype
        self.model = model.to(self.device).eval().requires_grad_(False).channels_last()
        self._shared = SharedFeatures(self.model.depth.encoder)
        self.info = PredictorInfo(
            name="tiny",
            description="bundled small Geo4D-style model (pretrained encoder; made-up scenes and public pictures)",
            licence="Apache-2.0",
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=self.config.window_length,
            window_stride=self.config.window_stride,
            evidence="motion" if self.config.use_evidence else None,
            takes_gaps=True,
            scale_kind="scale",
            smaller=f"fewer pixels: --model-option num_pixels={self.config.num_pixels // 2}",
            work=(300.0, 70.0),  # measured for benchmarks/results/2026-11-20-clips.md
            config={**asdict(self.config), "dtype": dtype},
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width), multiples of 32, of the pictures and maps."""
        height, width = source_size
        scale = math.sqrt(self.config.num_pixels / (height * width))
        rows, cols = (max(2, round(side * scale / PICTURE_MULTIPLE)) for side in (height, width))
        return rows * PICTURE_MULTIPLE, cols * PICTURE_MULTIPLE

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Activations of the depth network, and its attention matrix, of one window."""
        height, width = self.size_for(source_size)
        pixels = self.config.window_length * height * width
        sizes = self.model.config
        attention = sizes.num_heads * (pixels // 1024) ** 2 * 4 * 3
        return pixels * (sizes.depth_widths[0] + 48) * 4 + attention

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
        """Disparity, point map and rays of one window with their spreads.

        Args:
            window: frames whose sides are multiples of 32.
            seed: with ``window.index`` it determines the noise.
            evidence: from motion, about the window's frames; None lets the model rely on the pictures.
            context, previous: not used.
        Raises:
            ValueError: a side of the frames is no multiple of 32.
        """
        size = require_multiple(window, PICTURE_MULTIPLE)
        half = (size[0] // 2, size[1] // 2)
        rgb = window.rgb.permute(0, 3, 1, 2).clamp(0, 1).to(self.device)[None] * 2 - 1
        if evidence is not None and self.config.use_evidence:
            encoded = encode_window(evidence, half)
        else:
            encoded = no_evidence(1, window.num_frames, half, rgb)
        encoded = encoded.to(self.device)
        frames = (window.frame_indices - window.frame_indices[0])[None].float().to(self.device)
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((seed, window.index)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        )
        cells = (half[0] // BLOCK, half[1] // BLOCK)
        noise = torch.randn(
            (1, window.num_frames, self.model.config.latent_channels, *cells), generator=generator
        ).to(self.device)
        share = torch.ones(1, device=self.device)
        with torch.no_grad():
            with self._autocast():
                features = self._features(rgb, window)
            witness = None
            if self.config.doubt and bool((encoded.depth[:, :, 2] > 0).any()):
                witness, encoded, share = self._judged(rgb, features, encoded, frames)
            with self._autocast():
                latent = self.model.sample(halved(rgb), encoded, frames, noise, self.config.num_steps)
                found = self.model.depth_maps(
                    rgb, encoded, frames, anchor=self.config.anchor, features=features
                )
            layout = self.model.codec.decode(latent.float())
            disparity, sky = self._disparity(found, encoded, rgb)
            if float(share) < 1 and self.config.anchor:
                raised = disparity.clamp(min=LEAST_DISPARITY)
                disparity = torch.where(sky, 0.0, mixed_with_evidence(raised, share, encoded, rgb))
            if witness is not None:
                raised = tempered(disparity.clamp(min=LEAST_DISPARITY), witness, encoded)
                disparity = torch.where(sky, 0.0, raised)
        known = known_intrinsics(window, evidence)
        return self._prediction(window, layout, found, disparity[0, :, 0], sky[0, :, 0], seed, known)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, getattr(torch, self.dtype), enabled=self.dtype != "float32")

    def _features(self, rgb: Float[Tensor, "1 T 3 H W"], window: Window) -> list[Tensor]:
        if self.device.type == "cpu":
            return self._shared.of(rgb[0], window.frame_indices.tolist())
        return self.model.depth.features(rgb)

    def _judged(
        self, rgb: Tensor, features: list[Tensor], evidence: Evidence, frames: Tensor
    ) -> tuple[Tensor, Evidence, Tensor]:
        """The answer without evidence, what evidence does not contradict it, and the network's share (``vouched.py``)."""
        nothing = no_evidence(rgb.shape[0], rgb.shape[1], (rgb.shape[-2] // 2, rgb.shape[-1] // 2), rgb)
        with self._autocast():
            found = self.model.depth_maps(rgb, nothing, frames, anchor=False, features=features)
        witness = restore_disparity(found.disparity.float())
        evidence = without_contradicted(witness, believed(witness, evidence))
        return witness, evidence, vouched_share(witness, evidence, rgb)

    def _disparity(
        self, found: DepthMaps, evidence: Evidence, rgb: Float[Tensor, "B T 3 H W"]
    ) -> tuple[Float[Tensor, "B T 1 H W"], Bool[Tensor, "B T 1 H W"]]:
        """The network's disparity, pulled onto the evidence, and where the sky is (0 there)."""
        disparity = restore_disparity(found.disparity.float())
        sky = (found.sky_logit > 0) & (disparity < self.config.sky_disparity)
        if self.config.anchor:
            disparity = disparity * log_correction(disparity, evidence, rgb).exp()
        return torch.where(sky, 0.0, disparity), sky

    def _prediction(
        self,
        window: Window,
        layout: NormalisedMaps,
        found: DepthMaps,
        disparity: Float[Tensor, "V H W"],
        sky: Bool[Tensor, "V H W"],
        seed: int,
        intrinsics: Float[Tensor, "V 3 3"] | None,
    ) -> Prediction:
        home = self.device if has_float64(self.device) else torch.device("cpu")  # which cameras are fitted in
        points = layout.points[0].movedim(1, -1).to(home)
        # sigma -> mean absolute error of one coordinate; the disparity map runs over [-1, 1] for [0, 1].
        disparity_error = found.disparity_sigma[0, :, 0].float() / math.sqrt(2) / 2
        disparity_error = self.model.calibration.disparity(disparity_error).to(home)
        disparity, sky = disparity.to(home), sky.to(home)
        rays = layout.rays[0].float().movedim(1, -1).to(home)
        ray_map = torch.cat([F.normalize(rays[..., :3], dim=-1), rays[..., 3:]], -1)
        cameras = ray_map_to_cameras(ray_map)
        size = (disparity.shape[1], disparity.shape[2])
        if intrinsics is None:
            intrinsics = intrinsics_from_rays(ray_map, cameras.to(ray_map), size, window.pixel_aspect)
        intrinsics = intrinsics.to(ray_map)
        own_depth = transform(inverse(cameras.to(ray_map)), expand(points))[..., 2]
        depth = depth_from_disparity(disparity, own_depth)
        points = transform(cameras.to(ray_map), unproject(depth, intrinsics))
        relative_error = disparity_error / disparity.clamp(min=LEAST_DISPARITY)
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=points.cpu(),
            point_frame="window",
            point_scale_kind="scale",
            point_z_offset=0.0,
            point_uncertainty=(depth * relative_error).cpu(),
            disparity=disparity.cpu(),
            disparity_scale_kind="scale",
            disparity_uncertainty=disparity_error.cpu(),
            ray_map=ray_map.cpu(),
            ray_c2w=cameras.to(ray_map).cpu(),
            intrinsics=intrinsics.cpu(),
            valid=~sky.cpu(),
            sky=sky.cpu(),
            seed=seed,
            provenance={
                "predictor": self.info.name,
                "weights_sha256": self.info.weights_sha256,
                "num_steps": self.config.num_steps,
                "dtype": self.dtype,
            },
        )


def known_intrinsics(window: Window, evidence: EvidenceMaps | None) -> Float[Tensor, "V 3 3"] | None:
    """Intrinsics given with the window, else those of trusted cameras from motion, in pixels of the window's frames."""
    if window.intrinsics is not None:
        return window.intrinsics.float()
    if evidence is None or evidence.intrinsics is None or evidence.camera_confidence is None:
        return None
    if not bool((evidence.camera_confidence > 0).all()):
        return None
    height, width = evidence.points.shape[1:3]
    return resize_intrinsics(evidence.intrinsics.float(), (height, width), window.size)


def depth_from_disparity(
    disparity: Float[Tensor, "V H W"], own_depth: Float[Tensor, "V h w"]
) -> Float[Tensor, "V H W"]:
    """z-depth of a window from its disparity, in the unit of its point map and of its cameras' translations.

    The disparity is the network's best modality by far: on clips that it never saw its relative depth error is a third
    of the point map's (``docs/decisions/tiny-model.md``). So the point map lends its unit, one factor for the window,
    and the disparity gives the depth.

    Args:
        disparity: >= 0, any unit; 0 counts as ``LEAST_DISPARITY``.
        own_depth: of the point map, in each frame's own camera; at the size of the disparity or a smaller one.
    """
    small = F.interpolate(disparity[:, None], own_depth.shape[1:], mode="area")[:, 0]
    product = (own_depth * small)[(small > LEAST_DISPARITY) & (own_depth > 0)]
    unit = product.median() if product.numel() else own_depth.new_tensor(1.0)
    return unit / disparity.clamp(min=LEAST_DISPARITY)


def intrinsics_from_rays(
    ray_map: Float[Tensor, "V h w 6"],
    c2w: Float[Tensor, "V 4 4"],
    size: tuple[int, int],
    pixel_aspect: float = 1.0,
) -> Float[Tensor, "V 3 3"]:
    """One focal length for the window, from the directions turned into each frame's own camera.

    Least squares of x / z = (u - centre) / fx and y / z = (v - centre) / fy with fy = ``pixel_aspect`` fx, over all
    rays; the principal point is the centre.
    """
    grid = pixel_grid((ray_map.shape[1], ray_map.shape[2])).to(ray_map)
    scale = grid.new_tensor([size[1] / ray_map.shape[2], size[0] / ray_map.shape[1]])
    offset = (grid * scale - grid.new_tensor([size[1] / 2, size[0] / 2]))[None]
    offset = offset / grid.new_tensor([1.0, pixel_aspect])
    own = torch.einsum("vji,vhwj->vhwi", c2w[:, :3, :3], ray_map[..., :3])
    slope = own[..., :2] / own[..., 2:].clamp(min=0.05)
    focal = offset.square().sum() * ray_map.shape[0] / (slope * offset).sum().clamp(min=1e-6)
    focal = focal.clamp(0.2 * max(size), 20.0 * max(size))
    intrinsics = centred_intrinsics(focal.expand(ray_map.shape[0]), size)
    intrinsics[:, 1, 1] *= pixel_aspect
    return intrinsics


def load(
    name: str = "tiny",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: Compute | None = None,
    **options: object,
) -> TinyPredictor:
    """Make the predictor.

    Args:
        weights: a weight file or a folder with ``model.safetensors``; None takes the bundled one.
        device: None picks a CUDA device if there is one, else Apple's GPU, else the CPU.
        dtype: compute type; None picks bfloat16 where the processor computes it natively, else float32.
        options: fields of ``TinyPipelineConfig``.
    Raises:
        CheckpointError: the weights are missing or not ours.
        ValueError: an unknown option.
    """
    if "use_prior" in options:
        log.warning("the option use_prior is now called use_evidence; the old name still works")
        options["use_evidence"] = options.pop("use_prior")
    known = set(TinyPipelineConfig.__dataclass_fields__)
    if unknown := set(options) - known:
        raise ValueError(f"expected options out of {sorted(known)}, got {sorted(unknown)}")
    path = BUNDLED if weights is None else Path(weights)
    if path.is_dir():
        path = path / BUNDLED.name
    device = device or default_device(mps=True)
    checked = check_file(path)
    model = load_model(path)
    config = TinyPipelineConfig(**options)  # type: ignore[arg-type]
    return TinyPredictor(
        model, checked.sha256[path], config, device, dtype or default_dtype(device), checked.compared
    )


def default_dtype(device: str) -> Compute:
    """bfloat16 where the device computes in it, else float32."""
    if device.startswith("cuda"):
        return "bfloat16" if cuda_computes_bfloat16() else "float32"
    return "bfloat16" if device == "cpu" and cpu_computes_bfloat16() else "float32"
