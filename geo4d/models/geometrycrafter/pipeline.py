"""GeometryCrafter as a predictor: windows of video in, camera-frame point maps out."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geo4d.models.base import PredictorInfo, load_predictor, remark_on_width
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, UNetConfig, Variant
from geo4d.models.geometrycrafter.decode import (
    DecodedMaps,
    TangentSums,
    frame_tangents,
    maps_to_points,
    theta_to_intrinsics,
)
from geo4d.models.geometrycrafter.prior_maps import frame_records, merge_statistics
from geo4d.models.geometrycrafter.windows import Conditioning, draw_noise, frame_noise
from geo4d.models.store.download import model_store
from geo4d.models.store.identity import CheckedWeights, check_weights
from geo4d.models.store.sources import SOURCES
from geo4d.types import EvidenceMaps, Prediction, Prior, Window
from geo4d.video.io import fit_size

if TYPE_CHECKING:
    from geo4d.models.geometrycrafter.stages import GeometryCrafter

logger = logging.getLogger(__name__)

VARIANTS: dict[str, Variant] = {"geometrycrafter": "diff", "geometrycrafter-determ": "determ"}
"""Predictor name -> variant."""

_DESCRIPTIONS = {
    "geometrycrafter": "GeometryCrafter, generative: point maps by video diffusion",
    "geometrycrafter-determ": "GeometryCrafter, deterministic: point maps in one pass of the video network",
}


def network_size(source_size: tuple[int, int], config: GeometryCrafterConfig) -> tuple[int, int]:
    """(height, width) of the network's frames: the configured size, or the nearest multiples of 64 to the source,
    reduced to ``max_side`` if larger."""
    if config.height is not None and config.width is not None:
        return config.height, config.width
    step = config.size_multiple
    scale = min(1.0, config.max_side / max(source_size))
    height, width = (max(step, round(side * scale / step) * step) for side in source_size)
    return height, width


VALUES_PER_PIXEL = {"full": 1100, "light": 280}
"""Numbers that a decoder holds at its peak, per pixel of a chunk."""

PRIOR_FRAMES = 8
"""Frames that a prior is asked for together; how many of them its network takes at once is its own option."""


class PriorCache:
    """Maps of the per-frame prior by the content of the frame, up to a number of bytes.

    What it returns is what the prior would compute again, so it changes the time of a run and never its result.
    """

    def __init__(self, prior: Prior, limit_bytes: int) -> None:
        self.prior = prior
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._frames: dict[bytes, tuple[Tensor, Tensor]] = {}

    def __call__(self, window: Window) -> tuple[Float[Tensor, "V H W 3"], Bool[Tensor, "V H W"]]:
        """Points and mask of every frame; results do not depend on windows.

        A prior that treats every frame by itself (``frames_alone``) is asked for several at once, any other for one.
        """
        keys = [
            hashlib.sha1(rgb.contiguous().numpy().tobytes(), usedforsecurity=False).digest()
            for rgb in window.rgb
        ]
        found = {key: self._frames[key] for key in keys if key in self._frames}
        missing = list({key: t for t, key in enumerate(keys) if key not in found}.items())
        at_once = PRIOR_FRAMES if getattr(self.prior, "frames_alone", False) else 1
        for start in range(0, len(missing), at_once):
            asked = missing[start : start + at_once]
            maps = self.prior(_pick(window, [t for _, t in asked]))
            for (key, _), points, mask in zip(asked, maps.points, maps.mask, strict=True):
                found[key] = points.float().cpu(), mask.cpu()
                self._keep(key, found[key])
        points, masks = zip(*(found[key] for key in keys), strict=True)
        return torch.stack(points), torch.stack(masks)

    def _keep(self, key: bytes, maps: tuple[Tensor, Tensor]) -> None:
        size = sum(x.numel() * x.element_size() for x in maps)
        if self.used_bytes + size <= self.limit_bytes:
            self._frames[key] = tuple(x.clone() for x in maps)  # type: ignore[assignment]  # not a view of many frames
            self.used_bytes += size


def _pick(window: Window, pick: slice | list[int]) -> Window:
    return dataclasses.replace(
        window,
        rgb=window.rgb[pick],
        frame_indices=window.frame_indices[pick],
        times_s=window.times_s[pick],
        intrinsics=None if window.intrinsics is None else window.intrinsics[pick],
    )


class GeometryCrafterPredictor:
    """One variant with its per-frame prior.

    Windows share latents: what a window leaves in ``Prediction.carry`` (a few megabytes) is all that the next one needs.
    Maps of frames that two windows share come out of both; those of the later window are the final ones.
    """

    def __init__(
        self,
        name: str,
        system: "GeometryCrafter",
        prior: Prior,
        weights_sha256: str,
        weights_compared: Mapping[str, int] | None = None,
    ) -> None:
        self.system = system
        self.config = system.config
        self.prior = PriorCache(prior, system.config.prior_cache_bytes)
        self.info = PredictorInfo(
            name=name,
            description=_DESCRIPTIONS[name],
            licence=SOURCES["geometrycrafter"].licence,
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=self.config.window_length,
            window_stride=self.config.window_length - self.config.overlap,
            needs_prepare=True,
            carries=True,
            gives_poses=False,
            scale_kind="scale",
            smaller="smaller pictures (--max-size) or --model-option decode_tile=256",
            config={**dataclasses.asdict(self.config), "prior": prior.name},
            remark=remark_on_width(system.unet.conv_in.out_channels, UNetConfig.block_out_channels[0]),
        )

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """The source, reduced to ``max_side`` in its own proportions.

        Not the network's own size, whose sides are multiples of 64: the maps hold angles, which need the true
        proportions. ``predict`` resizes to ``network_size`` and back.
        """
        return fit_size(source_size, self.config.max_side)

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Peak of the decoder (the largest stage) and the maps of one window."""
        source_size = self.size_for(source_size)
        height, width = network_size(source_size, self.config)
        tile = self.config.decode_tile
        area = height * width if tile is None else min(height, tile) * min(width, tile)
        bytes_per_value = 4 if self.config.decoder_dtype == "float32" else 2
        decoder = area * self.config.decode_chunk * VALUES_PER_PIXEL[self.config.decoder] * bytes_per_value
        maps = self.config.window_length * source_size[0] * source_size[1] * 48
        return decoder + maps + min(self.config.prior_cache_bytes, maps)

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """The prior of every frame, reduced to five numbers per frame."""
        records = [frame_records(*self.prior(window)) for window in windows]
        if not records:
            raise ValueError("expected at least one window, got none")
        return {"prior_records": torch.cat(records)}

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Camera-frame points of one window.

        Args:
            seed: of the noise, which is the same for all windows of a video (a frame's noise depends on its number).
            evidence: points and mask to use instead of the per-frame prior's; normalised over this window alone.
            context: from ``prepare``; None: the prior is normalised over this window alone, so the scale of windows
                can differ.
            previous: the window before; its shared frames must be the first ones of this window.
        Raises:
            ValueError: ``previous`` is of another size or predictor, or shares frames elsewhere than at the start.
        """
        size = network_size(window.size, self.config)
        done = _shared_frames(window, previous)
        shared = min(done, self.config.overlap)
        carry = _carried(previous, done, self.system.latent_shape(size)) if done else {}
        if evidence is not None:
            points, mask = evidence.points.float().cpu(), evidence.mask.cpu()
            statistics = merge_statistics(frame_records(points, mask))
        else:
            # Frames encoded before need no prior again, unless this window is all that the statistics see.
            asked = (
                window if context is None or done == window.num_frames else _pick(window, slice(done, None))
            )
            points, mask = self.prior(asked)
            records = frame_records(points, mask) if context is None else context["prior_records"]
            statistics = merge_statistics(records)
        conditioning: list[Conditioning] = []
        if carry:
            conditioning.append(Conditioning(carry["tokens"], carry["video_latents"], carry["prior_latents"]))
        if window.num_frames > done:
            new = slice(done - window.num_frames, None)
            conditioning.append(self.system.encode(window.rgb[new], points[new], mask[new], statistics, size))
        everything = Conditioning.join(conditioning)
        latents = self._sample(everything, window.frame_indices, size, seed, carry.get("latents"), shared)
        maps = list(self.system.iter_decode(latents, window.size))
        return self._to_prediction(window, seed, maps, everything, latents)

    def _sample(
        self,
        conditioning: Conditioning,
        frames: Int[Tensor, " V"],
        size: tuple[int, int],
        seed: int,
        known: Tensor | None,
        shared: int,
    ) -> Float[Tensor, "V c h w"]:
        """Latents of the window: those known from before, blended with the new ones over the ``shared`` last of them.

        A last window that lies flush with the end of the video may share more than the overlap; as published, only
        the overlap and what follows is sampled then.
        """
        first = 0 if known is None else len(known) - shared
        if known is not None and len(known) == len(frames):
            return known
        noise = None
        if self.system.variant == "diff":
            drawn = draw_noise(self.config.window_length, self.system.latent_shape(size), seed)
            noise = frame_noise(drawn, frames[first:])
        before = None if known is None else known[first:]
        new = self.system.sample(conditioning[first:], noise, before)
        return new if known is None else torch.cat([known[:first], new])

    def _to_prediction(
        self, window: Window, seed: int, maps: list[DecodedMaps], conditioning: Conditioning, latents: Tensor
    ) -> Prediction:
        if self.config.force_projection and self.config.force_fixed_focal:
            sums = [TangentSums.of(part) for part in maps]
            theta = torch.full((window.num_frames,), sum(sums[1:], sums[0]).mean(published=False))
        else:
            theta = torch.cat([frame_tangents(part).cpu() for part in maps])
        per_pixel = not self.config.force_projection
        points, first = [], 0
        for part in maps:
            count = len(part.theta)
            tangent = None if per_pixel else theta[first : first + count].to(part.theta.device)
            points.append(maps_to_points(part, tangent).cpu())
            first += count
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=torch.cat(points),
            point_frame="camera",
            point_scale_kind="scale",
            point_z_offset=0.0,
            intrinsics=theta_to_intrinsics(theta, window.size),
            valid=torch.cat([part.valid.cpu() for part in maps]),
            seed=seed,
            provenance={
                "predictor": self.info.name,
                "weights_sha256": self.info.weights_sha256,
                "prior": self.prior.prior.name,
                "network_size": list(network_size(window.size, self.config)),
                "num_steps": self.config.num_steps if self.system.variant == "diff" else 1,
                "decoder": self.config.decoder,
            },
            carry={"latents": latents, **vars(conditioning)},
        )


def _shared_frames(window: Window, previous: Prediction | None) -> int:
    """How many frames of the window the one before has seen already."""
    if previous is None:
        return 0
    seen = torch.isin(window.frame_indices, previous.frame_indices)
    count = int(seen.sum())
    if not bool(seen[:count].all()) or (
        count and not torch.equal(previous.frame_indices[-count:], window.frame_indices[:count])
    ):
        raise ValueError(
            "expected the frames shared with the window before to be its last and this one's first"
        )
    return count


def _carried(
    previous: Prediction | None, count: int, latent_shape: tuple[int, int, int]
) -> dict[str, Tensor]:
    """The last ``count`` frames of what the window before left."""
    names = ("latents", "tokens", "video_latents", "prior_latents")
    if previous is None or previous.carry is None or not set(names) <= previous.carry.keys():
        raise ValueError(
            "expected the window before to carry GeometryCrafter's latents; pass previous=None without them"
        )
    if tuple(previous.carry["latents"].shape[1:]) != latent_shape:
        raise ValueError(
            f"expected carried latents of {latent_shape}, got {tuple(previous.carry['latents'].shape[1:])}"
        )
    return {name: previous.carry[name][-count:] for name in names}


def load(
    name: str = "geometrycrafter",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    prior_model: Prior | str | Path | None = None,
    **options: Any,
) -> GeometryCrafterPredictor:
    """Load a variant with its prior.

    Args:
        name: a key of ``VARIANTS``.
        weights: checkpoint folder (see ``weights.load_system``); None: the local model store.
        device: None: a CUDA device if there is one, else the CPU.
        dtype: type of all networks; None: as published on an accelerator (UNet float16, the rest float32), float32 on
            the CPU.
        prior_model: any ``Prior``, ``tiny`` (the bundled model, every frame by itself), or the path of a MoGe checkpoint;
            None: what a trained folder states in its record, else ``moge`` in the weights folder or the store.
        options: fields of ``GeometryCrafterConfig``; a trained folder may state other defaults.
    Raises:
        ValueError: unknown name or option.
        CheckpointError: weights are missing, foreign or unsafe.
        MissingExtraError: the extra ``geometrycrafter`` is not installed.
    """
    from geo4d.models.devices import frames_at_once
    from geo4d.models.geometrycrafter.weights import check_system, load_system
    from geo4d.models.moge.config import MoGeOptions
    from geo4d.models.moge.pipeline import MoGePrior
    from geo4d.models.moge.weights import FILE, find_moge, load_moge
    from geo4d.models.per_frame import PerFramePrior
    from geo4d.models.trained import read_trained

    if name not in VARIANTS:
        raise ValueError(f"expected one of {', '.join(VARIANTS)}, got {name!r}")
    known = {field.name for field in dataclasses.fields(GeometryCrafterConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"expected options of {sorted(known)}, got also {unknown}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    types: dict[str, Any] = {}
    if dtype is not None:
        types = dict.fromkeys(("unet_dtype", "encoder_dtype", "decoder_dtype", "prior_dtype"), dtype)
    elif torch.device(place).type == "cpu":
        types = {"unet_dtype": "float32"}
    root = Path(weights) if weights is not None else model_store() / "geometrycrafter"
    record = read_trained(root) or {}
    stated = {key: value for key, value in record.get("options", {}).items() if key in known}
    config = GeometryCrafterConfig(**{**types, **stated, **options})
    if stated.get("num_steps", config.num_steps) != config.num_steps:
        logger.warning(
            "%s was trained to take %d step(s) and is asked for %d",
            root,
            stated["num_steps"],
            config.num_steps,
        )
    sha256, checked = check_system(root, VARIANTS[name], config.decoder)
    system = load_system(root, VARIANTS[name], config, place)
    if prior_model is None and record.get("prior") == "tiny":
        prior_model = "tiny"
    if prior_model == "tiny":
        bundled = load_predictor("tiny", device=place)
        checked = CheckedWeights(
            checked.sha256, _added(checked.compared, bundled.info.weights_compared or {})
        )
        prior_model = PerFramePrior(bundled)
    if prior_model is None:
        beside = root / "moge" / FILE
        prior_model = find_moge(beside if beside.is_file() else None)
    if isinstance(prior_model, str | Path):
        prior_file = find_moge(prior_model)
        checked = CheckedWeights.merge([checked, check_weights([prior_file])])
        network = load_moge(prior_file)
        together = frames_at_once(torch.device(place))
        prior_model = MoGePrior(network, MoGeOptions(dtype=config.prior_dtype, batch=together), place)
    return GeometryCrafterPredictor(name, system, prior_model, sha256, checked.compared)


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
