"""Window -> Prediction: resize, encode, sample, decode, read.

Shapes: B windows, T frames, H W pixels, h w latent pixels, L context tokens.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from geo4d.diffusion.denoiser import denoise_from_v
from geo4d.diffusion.samplers import gaussian_noise, sample_ddim
from geo4d.diffusion.schedules import make_ddim_table, make_schedule
from geo4d.errors import CheckpointError, ResourceError, is_out_of_memory
from geo4d.models.base import PredictorInfo, require_multiple
from geo4d.models.devices import DTYPES, OnDevice, default_device, default_dtype
from geo4d.models.geo4d import modalities
from geo4d.models.geo4d.conditioning import ContextConstants, ImageTower, Resampler
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.options import PRESETS, WINDOW_LENGTH, Geo4DOptions
from geo4d.models.geo4d.unet import ContextKeys, UNet
from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.geo4d.weights import make_parts
from geo4d.models.layers import hold_weights, use_channels_last
from geo4d.models.store.download import model_store
from geo4d.models.store.folder import ModelFolder
from geo4d.models.store.sources import GEO4D_LICENCE
from geo4d.types import Prediction, PriorMaps, Window
from geo4d.video.resize import plan_size
from geo4d.video.windows import padded_indices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowNoise:
    """All random numbers of one window, standard normal.

    Attributes:
        posterior: for the colour latent.
        first: the first latent.
        steps: what each step adds when eta > 0.
    """

    posterior: Float[Tensor, "T C h w"]
    first: Float[Tensor, "C2 T h w"]
    steps: Float[Tensor, "S C2 T h w"] | None = None


@dataclass(frozen=True)
class DecodedMaps:
    """Decoded, still normalised maps of one window.

    Attributes:
        point_map: three coordinates and the raw uncertainty.
        ray_direction, ray_moment: as decoded; directions are not of unit length.
        disparity: mean of the decoded channels.
    """

    point_map: Float[Tensor, "T H W 4"]
    ray_direction: Float[Tensor, "T H W 3"]
    ray_moment: Float[Tensor, "T H W 3"]
    disparity: Float[Tensor, "T H W"]


class Geo4DPredictor:
    """The Geo4D network as a predictor. Owns the weights; a pure function of window and seed."""

    def __init__(
        self,
        config: Geo4DConfig,
        unet: UNet,
        vae: VAE,
        point_vae: VAE,
        constants: ContextConstants,
        *,
        image_tower: ImageTower | None = None,
        resampler: Resampler | None = None,
        options: Geo4DOptions | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        weights_sha256: str = "",
        weights_compared: Mapping[str, int] | None = None,
    ) -> None:
        """Put the parts on ``device`` and hold the large weights in ``dtype``.

        Raises:
            ValueError: per-frame image tokens are configured and the image tower or resampler is missing.
        """
        if config.per_frame_image_tokens and (image_tower is None or resampler is None):
            raise ValueError(
                "expected image tower and resampler for per-frame image tokens; convert with --keep-towers"
            )
        self.config = config
        self.options = options or Geo4DOptions()
        self.device = torch.device(device)
        self.dtype = dtype
        self.schedule = make_schedule(config.schedule)
        self.constants = constants.to(self.device)
        self.image_tower, self.resampler = image_tower, resampler
        self.unet, self.vae, self.point_vae = unet, vae, point_vae
        home = "cpu" if self.options.offload else self.device
        for module in self._modules():
            module.eval().requires_grad_(False)
            hold_weights(module, dtype)
            if dtype != torch.float32 or self.device.type != "cpu":
                use_channels_last(module)
            module.to(home)
        self._denoiser: Callable[..., Tensor] = torch.compile(unet) if self.options.compile else unet
        self._constant_keys: list[ContextKeys] = []
        # Largest number of items per call; halved when memory runs out.
        self._chunks = {
            "encode": self.options.encode_chunk,
            "decode": self.options.decode_chunk,
            "sample": 2**20,
        }
        self.info = PredictorInfo(
            name="geo4d",
            description="Geo4D: points, rays and disparity of 16 frames by a video diffusion network",
            licence=GEO4D_LICENCE,
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=WINDOW_LENGTH,
            window_stride=self.options.window_stride,
            takes_gaps=True,
            smaller="--model-option preset=low-memory",
            config={
                "network": config.to_dict(),
                "options": asdict(self.options),
                "dtype": str(dtype).removeprefix("torch."),
                "device": self.device.type,
            },
        )

    def _modules(self) -> list[torch.nn.Module]:
        parts = (self.unet, self.vae, self.point_vae, self.image_tower, self.resampler)
        return [part for part in parts if part is not None]

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which the network runs for a video of ``source_size``."""
        if self.options.height is not None and self.options.width is not None:
            return self.options.height, self.options.width
        return plan_size(source_size, max_area=self.options.max_area).model

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Weights, plus activations of the largest step; the constants were measured at 256 x 512."""
        height, width = self.size_for(source_size)
        weights = sum(p.numel() * p.element_size() for m in self._modules() for p in m.parameters())
        pixels = height * width
        frames_per_call = max(self.options.encode_chunk, self.options.decode_chunk)
        unet = pixels * WINDOW_LENGTH * self.config.unet.model_channels * self.dtype.itemsize // 64 * 70
        codec = pixels * frames_per_call * self.config.vae.channels * self.dtype.itemsize * 10
        return weights + max(unet, codec) + 12 * 4 * pixels * WINDOW_LENGTH

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """Nothing: every window stands for itself."""
        return {}

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        prior: PriorMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Predict one window; see ``models.base.Predictor``. Prior, context and previous are not used."""
        return self.predict_batch([window], seed=seed)[0]

    @torch.no_grad()
    def predict_batch(self, windows: Sequence[Window], *, seed: int) -> list[Prediction]:
        """Predict several windows of one source size together: the same result as one by one, faster on a GPU.

        Raises:
            ResourceError: out of memory also with the smallest chunks.
            ValueError: no window, windows of different sizes or of one that the network cannot run at, or one longer than
                the network's.
        """
        if not windows or len({window.size for window in windows}) > 1:
            raise ValueError(f"expected windows of one size, got {[window.size for window in windows]}")
        longest = max(window.num_frames for window in windows)
        if longest > WINDOW_LENGTH:
            raise ValueError(f"expected windows of at most {WINDOW_LENGTH} frames, got {longest}")
        multiple = self.config.vae.downsampling * 2 ** (len(self.config.unet.channel_mult) - 1)
        size = require_multiple(windows[0], multiple)
        pictures = torch.stack([self._pad(window.rgb.float()) for window in windows])
        noises = [self.draw_noise(seed, window.index, size) for window in windows]
        fps = torch.tensor([self._fps_number(window) for window in windows])
        colour = torch.cat([self.encode(p, n) for p, n in zip(pictures, noises, strict=True)])
        latents = self.sample(colour, self._conditions(pictures), fps, noises)
        return [
            self.read(self.decode(latent), window, seed)
            for latent, window in zip(latents.split(1), windows, strict=True)
        ]

    def _pad(self, rgb: Float[Tensor, "V H W 3"]) -> Float[Tensor, "T H W 3"]:
        return rgb[padded_indices(rgb.shape[0], WINDOW_LENGTH)]

    def _fps_number(self, window: Window) -> int:
        fps = window.fps if self.options.fps is None else self.options.fps
        return max(int(fps), 1)

    def draw_noise(
        self, seed: int, window_index: int, size: tuple[int, int], num_frames: int = WINDOW_LENGTH
    ) -> WindowNoise:
        """All noise of a window, from seed and index alone, drawn on the CPU: the same on every device."""
        digest = hashlib.sha256(f"{seed}/{window_index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        factor = self.config.vae.downsampling
        height, width = size[0] // factor, size[1] // factor
        latent = self.config.vae.latent_channels
        first_shape = (self.config.unet.out_channels, num_frames, height, width)
        posterior = gaussian_noise((num_frames, latent, height, width), generator, "cpu")
        first = gaussian_noise(first_shape, generator, "cpu")
        steps = None
        if self.options.eta > 0:
            steps = gaussian_noise((self.options.num_steps + 1, *first_shape), generator, "cpu")
        return WindowNoise(posterior, first, steps)

    @torch.no_grad()
    def encode(self, rgb: Float[Tensor, "T H W 3"], noise: WindowNoise) -> Float[Tensor, "1 C T h w"]:
        """Colour latent of a window, scaled for the diffusion network.

        Args:
            rgb: in [0, 1], sides multiples of 64.
        """
        pictures = rearrange(rgb * 2.0 - 1.0, "t h w c -> t c h w")
        with self._at_work(self.vae):
            moments = self._in_chunks(
                "encode", lambda x: self.vae.moments(x.to(self.device)).float(), pictures
            )
        draw = noise.posterior if self.options.posterior == "sample" else None
        latent = sample_moments(moments, draw) * self.config.latent_scale
        return rearrange(latent, "t c h w -> 1 c t h w")

    @torch.no_grad()
    def contexts(self, rgb: Float[Tensor, "B T H W 3"]) -> list[Float[Tensor, "B L D"]]:
        """Full context, then what the configured guidance needs: the empty one, the one with the image only."""
        constants, batch = self.constants, rgb.shape[0]
        grey = constants.image.expand(batch, -1, -1)
        image = grey
        if self.config.per_frame_image_tokens:
            image = self._image_tokens(rgb * 2.0 - 1.0)
            grey = (
                self._image_tokens(torch.zeros_like(rgb))
                if self.options.image_guidance is not None
                else image
            )

        def joined(text: Tensor, tokens: Tensor) -> Tensor:
            return torch.cat([text.expand(batch, -1, -1), tokens], dim=1)

        chosen = [joined(constants.text, image)]
        if self.options.guidance != 1.0 or self.options.image_guidance is not None:
            chosen.append(joined(constants.empty_text, grey))
        if self.options.image_guidance is not None:
            chosen.append(joined(constants.empty_text, image))
        return chosen

    def _conditions(self, rgb: Float[Tensor, "B T H W 3"]) -> Sequence[Tensor | ContextKeys]:
        """Contexts of a batch; for a constant context its keys and values, computed once for all windows."""
        if self.config.per_frame_image_tokens:
            return self.contexts(rgb)
        if not self._constant_keys:
            with self._at_work(self.unet):
                self._constant_keys = [
                    self.unet.context_keys(c.to(self.device)) for c in self.contexts(rgb[:1])
                ]
        return self._constant_keys

    def _image_tokens(self, pictures: Float[Tensor, "B T H W 3"]) -> Float[Tensor, "B Q D"]:
        if self.image_tower is None or self.resampler is None:
            raise ValueError("expected image tower and resampler for per-frame image tokens")
        frames = rearrange(pictures, "b t h w c -> (b t) c h w")
        with self._at_work(self.image_tower), self._at_work(self.resampler):
            tower = self.image_tower
            tokens = self._in_chunks("encode", lambda x: tower(x.to(self.device)), frames)
            tokens = rearrange(tokens, "(b t) l c -> b t l c", b=pictures.shape[0])
            return self.resampler(tokens).float()

    @torch.no_grad()
    def sample(
        self,
        colour: Float[Tensor, "B C T h w"],
        contexts: Sequence[Tensor | ContextKeys],
        fps: Tensor,
        noises: Sequence[WindowNoise],
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Float[Tensor, "B C2 T h w"]:
        """Run the sampler; windows share a batch as far as memory allows.

        Args:
            colour: colour latents.
            contexts: as :meth:`contexts` gives them, [B, L, D] each, or keys and values that all windows share.
            fps: one number per window.
            noises: one per window.
            on_step: called with the step's index and the new latent.
        Raises:
            ResourceError: not even one window fits.
        """
        options = self.options
        table = make_ddim_table(
            self.schedule, options.num_steps, options.spacing, options.eta, clean_end=options.clean_end
        )
        first = torch.stack([noise.first for noise in noises])
        indices = torch.arange(len(noises))

        def run(chosen: Tensor) -> Tensor:
            rgb_latent = colour[chosen].to(self.device)
            speed = fps[chosen].to(self.device)
            keys = [
                context
                if isinstance(context, ContextKeys)
                else self.unet.context_keys(context[chosen].to(self.device))
                for context in contexts
            ]

            def predict_v(x: Tensor, timestep: Tensor, condition: object) -> Tensor:
                return self._denoiser(torch.cat([x, rgb_latent], dim=1), timestep, condition, speed)

            denoise = denoise_from_v(
                predict_v,
                keys,
                self.schedule.alphas_cumprod,
                scale=options.guidance,
                partial_scale=options.image_guidance,
                rescale=options.guidance_rescale,
            )

            def step_noise(step: int) -> Tensor:
                drawn = [noises[i].steps for i in chosen.tolist()]
                return torch.stack([steps[step] for steps in drawn if steps is not None])

            return sample_ddim(denoise, first[chosen].to(self.device), table, step_noise, on_step)

        with self._at_work(self.unet):
            return self._in_chunks("sample", run, indices)

    @torch.no_grad()
    def decode(self, latent: Float[Tensor, "1 C2 T h w"]) -> DecodedMaps:
        """All maps of one window; memory is bounded by ``decode_chunk`` frames."""
        frames = rearrange(latent, "1 c t h w -> t c h w").float() / self.config.latent_scale
        groups = dict(
            zip(self.config.latent_groups, frames.split(self.config.vae.latent_channels, dim=1), strict=True)
        )
        point_vae, vae = self.point_vae, self.vae

        def chunked(decode: Callable[[Tensor], Tensor], group: str) -> Tensor:
            def to_host(z: Tensor) -> Tensor:
                return rearrange(decode(z.to(self.device)).float(), "t c h w -> t h w c").cpu()

            return self._in_chunks("decode", to_host, groups[group])

        with self._at_work(point_vae):
            point_map = chunked(point_vae.decode_with_uncertainty, "point_map")
        with self._at_work(vae):
            direction = chunked(vae.decode, "ray_direction")
            moment = chunked(vae.decode, "ray_moment")
            disparity = chunked(vae.decode, "disparity").mean(-1)
        return DecodedMaps(point_map, direction, moment, disparity)

    def read(self, maps: DecodedMaps, window: Window, seed: int) -> Prediction:
        """Decoded maps to a prediction, padding removed.

        NaN or infinity never gets through: the pixels become invalid, a modality without a mask of its own is left
        out, and ``provenance["not_finite"]`` says what happened, as ``predict.mask_nonfinite`` does.
        """
        kept = slice(0, window.num_frames)
        points = modalities.decode_point_map(maps.point_map[kept], self.options.sky_tolerance)
        finite = torch.isfinite(maps.point_map[kept]).all(-1)
        disparity = modalities.decode_disparity(maps.disparity[kept])
        rays = torch.cat([maps.ray_direction[kept], maps.ray_moment[kept]], dim=-1)
        bad = {
            "point_map": modalities.frames_with_nonfinite(maps.point_map[kept]).tolist(),
            "disparity": modalities.frames_with_nonfinite(disparity).tolist(),
            "ray_map": modalities.frames_with_nonfinite(rays).tolist(),
        }
        bad = {name: frames for name, frames in bad.items() if frames}
        not_finite = {}
        if bad:
            share = float((~(finite & torch.isfinite(disparity))).float().mean())
            not_finite = {
                "not_finite": {
                    "share_of_pixels": share,
                    "cameras": ["ray_map"] if "ray_map" in bad else [],
                    "frames": bad,
                }
            }
        if bad:
            log.warning("window %d: NaN or infinity in %s; left out", window.index, ", ".join(bad))
        rays_usable = "ray_map" not in bad
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            point_map=torch.where(finite[..., None], points.points, 0.0),
            point_frame="window",
            point_scale_kind="scale",
            point_z_offset=None,
            # The spread is predicted for normalised coordinates; decoding halves lengths.
            point_uncertainty=torch.where(finite, points.uncertainty / 2.0, 1e3),
            disparity=None if "disparity" in bad else disparity,
            disparity_scale_kind="affine",
            ray_map=coarse_rays(rays) if rays_usable else None,
            ray_c2w=modalities.rays_to_cameras(rays[..., :3], rays[..., 3:]) if rays_usable else None,
            valid=points.valid & finite,
            sky=points.sky & finite,
            seed=seed,
            provenance={
                "predictor": self.info.name,
                "weights_sha256": self.info.weights_sha256,
                "options": asdict(self.options),
                "dtype": str(self.dtype).removeprefix("torch."),
                **not_finite,
            },
        )

    def _in_chunks(self, stage: str, run: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """``run`` over slices of ``items``; out of memory halves the slices, for all later calls too."""
        while True:
            chunk = self._chunks[stage]
            try:
                return torch.cat([run(part) for part in items.split(chunk)])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if min(chunk, len(items)) <= 1:
                    raise ResourceError(
                        f"out of memory in the {stage} stage with one item at a time; use --model-option "
                        "preset=low-memory, a smaller max_area, or --dtype bfloat16"
                    ) from error
                self._chunks[stage] = min(chunk, len(items)) // 2
                log.warning("out of memory: %s stage goes on with chunks of %d", stage, self._chunks[stage])
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _at_work(self, module: torch.nn.Module) -> "OnDevice":
        return OnDevice(module, self.device, self.options.offload)


def coarse_rays(rays: Float[Tensor, "T H W 6"], factor: int = 8) -> Float[Tensor, "T h w 6"]:
    """Ray map on a coarser grid: means over blocks, directions brought back to unit length."""
    pooled = F.avg_pool2d(rays.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    return torch.cat([F.normalize(pooled[..., :3], dim=-1), pooled[..., 3:]], dim=-1)


def load(
    name: str = "geo4d",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    preset: str = "default",
    **options: Any,
) -> Geo4DPredictor:
    """Load a converted checkpoint.

    Args:
        weights: folder written by ``geo4d models convert``; None looks in the model store.
        device, dtype: None picks by machine.
        preset: a key of ``PRESETS``; ``options`` win over it.
        options: fields of :class:`Geo4DOptions`.
    Raises:
        CheckpointError: no weights there, or not of this network.
        ValueError: an unknown option or preset.
    """
    known = {field.name for field in fields(Geo4DOptions)}
    unknown = sorted(set(options) - known)
    if unknown or preset not in PRESETS:
        raise ValueError(
            f"unknown options {unknown} or preset {preset!r}; options: {sorted(known)}, presets: {sorted(PRESETS)}"
        )
    folder = ModelFolder.open(Path(weights) if weights is not None else model_store() / name, family="geo4d")
    config = Geo4DConfig.from_dict(folder.config["network"])
    parts = ["unet", "vae", "point_vae"] + (["image", "resampler"] if config.per_frame_image_tokens else [])
    modules: dict[str, Any] = make_parts(config, parts)
    for part, module in modules.items():
        tensors = folder.part(part)
        missing = sorted(set(module.state_dict()) ^ set(tensors))
        if missing:
            raise CheckpointError(f"{folder.path}: part {part} has missing or surplus tensors: {missing[:5]}")
        module.load_state_dict(tensors, assign=True)
    chosen_device = device or default_device()
    chosen_dtype = default_dtype(chosen_device) if dtype is None else DTYPES[dtype]
    return Geo4DPredictor(
        config,
        modules["unet"],
        modules["vae"],
        modules["point_vae"],
        ContextConstants(**folder.part("context")),
        image_tower=modules.get("image"),
        resampler=modules.get("resampler"),
        options=Geo4DOptions(**(PRESETS[preset] | options)),
        device=chosen_device,
        dtype=chosen_dtype,
        weights_sha256=folder.sha256,
        weights_compared={"recorded": len(folder.shard_sha256)},
    )
