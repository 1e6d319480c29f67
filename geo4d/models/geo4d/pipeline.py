"""Window -> Prediction: resize, encode, sample, decode, read.

Shapes: B windows, T frames, H W pixels, h w latent pixels, L context tokens.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.diffusion.denoiser import denoise_from_v
from geo4d.diffusion.samplers import sample_ddim
from geo4d.diffusion.schedules import make_ddim_table, make_schedule
from geo4d.errors import CheckpointError
from geo4d.models.base import PredictorInfo, remark_on_width, require_multiple
from geo4d.models.chunks import Chunks
from geo4d.models.deep_cache import DeepCache
from geo4d.models.devices import (
    DTYPES,
    OnDevice,
    default_device,
    default_dtype,
    frames_at_once,
    windows_at_once,
)
from geo4d.models.geo4d.conditioning import ContextConstants, ImageTower, Resampler
from geo4d.models.geo4d.config import Geo4DConfig, UNetConfig
from geo4d.models.geo4d.noise import WindowNoise, draw_noise
from geo4d.models.geo4d.options import PRESETS, WINDOW_LENGTH, Geo4DOptions
from geo4d.models.geo4d.reading import DecodedMaps, read_maps
from geo4d.models.geo4d.unet import ContextKeys, UNet
from geo4d.models.geo4d.vae import VAE, LightPointVAE, sample_moments
from geo4d.models.geo4d.weights import load_config, load_light_decoder, make_parts
from geo4d.models.geo4d.widths import modalities_of, require_complete
from geo4d.models.layers import hold_weights, use_channels_last
from geo4d.models.store.download import model_store
from geo4d.models.store.folder import ModelFolder
from geo4d.models.store.sources import GEO4D_LICENCE
from geo4d.types import EvidenceMaps, Prediction, Window
from geo4d.video.resize import plan_size
from geo4d.video.windows import padded_indices

log = logging.getLogger(__name__)


class Geo4DPredictor:
    """The Geo4D network as a predictor. Owns the weights; a pure function of window and seed."""

    def __init__(
        self,
        config: Geo4DConfig,
        unet: UNet,
        vae: VAE,
        point_vae: VAE | LightPointVAE,
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
            # The codec's activations leave the range of float16, and what overflows there would end as masked pixels.
            codec = dtype == torch.float16 and isinstance(module, VAE | LightPointVAE)
            hold_weights(module, torch.float32 if codec else dtype)
            if dtype != torch.float32 or self.device.type != "cpu":
                use_channels_last(module)
            module.to(home)
        if self.options.compile:
            unet.compile_transformers()
        self._constant_keys: list[ContextKeys] = []
        self._chunks = Chunks(
            {"encode": self.options.encode_chunk, "decode": self._decode_chunk(), "sample": 2**20},
            self.device,
            "use --model-option preset=low-memory, a smaller max_area, or --dtype bfloat16",
        )
        self.info = PredictorInfo(
            name="geo4d",
            description=f"Geo4D: {_listed(modalities_of(config))} of {WINDOW_LENGTH} frames by a video diffusion network",
            licence=GEO4D_LICENCE,
            weights_sha256=weights_sha256,
            weights_compared=weights_compared,
            window_length=WINDOW_LENGTH,
            window_stride=self.options.window_stride,
            takes_gaps=True,
            windows_at_once=1 if self.options.offload else windows_at_once(self.device),
            smaller="--model-option preset=low-memory",
            config={
                "network": config.to_dict(),
                "options": asdict(self.options),
                "dtype": str(dtype).removeprefix("torch."),
                "device": self.device.type,
            },
            remark=remark_on_width(config.unet.model_channels, UNetConfig.model_channels),
        )

    def _decode_chunk(self) -> int:
        return self.options.decode_chunk or frames_at_once(self.device)

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
        frames_per_call = max(self.options.encode_chunk, self._decode_chunk())
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
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Predict one window; see ``models.base.Predictor``. Evidence, context and previous are not used."""
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
        noises = [self._draw_noise(seed, window.index, size) for window in windows]
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

    def _draw_noise(self, seed: int, window_index: int, size: tuple[int, int]) -> WindowNoise:
        num_steps = self.options.num_steps if self.options.eta > 0 else None
        return draw_noise(seed, window_index, self.config, size, num_steps=num_steps)

    def read(self, maps: DecodedMaps, window: Window, seed: int) -> Prediction:
        """Decoded maps to a prediction; see ``reading.read_maps``."""
        return read_maps(
            maps,
            window,
            seed=seed,
            sky_tolerance=self.options.sky_tolerance,
            provenance={
                "predictor": self.info.name,
                "weights_sha256": self.info.weights_sha256,
                "options": asdict(self.options),
                "dtype": str(self.dtype).removeprefix("torch."),
            },
        )

    @torch.no_grad()
    def encode(self, rgb: Float[Tensor, "T H W 3"], noise: WindowNoise) -> Float[Tensor, "1 C T h w"]:
        """Colour latent of a window, scaled for the diffusion network.

        Args:
            rgb: in [0, 1], sides multiples of 64.
        """
        pictures = (rgb * 2.0 - 1.0).movedim(-1, 1)
        with self._at_work(self.vae):
            moments = self._chunks.run(
                "encode", lambda x: self.vae.moments(x.to(self.device)).float(), pictures
            )
        draw = noise.posterior if self.options.posterior == "sample" else None
        latent = sample_moments(moments, draw) * self.config.latent_scale
        return latent.transpose(0, 1)[None]

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
        frames = pictures.flatten(0, 1).movedim(-1, 1)
        with self._at_work(self.image_tower), self._at_work(self.resampler):
            tower = self.image_tower
            tokens = self._chunks.run("encode", lambda x: tower(x.to(self.device)), frames)
            return self.resampler(tokens.unflatten(0, pictures.shape[:2])).float()

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

            conditions = [_Condition(one, DeepCache(options.cache_interval)) for one in keys]

            def predict_v(x: Tensor, timestep: Tensor, condition: object) -> Tensor:
                assert isinstance(condition, _Condition)
                seen = torch.cat([x, rgb_latent], dim=1)
                return self.unet(seen, timestep, condition.keys, speed, condition.cache)

            denoise = denoise_from_v(
                predict_v,
                conditions,
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
            return self._chunks.run("sample", run, indices)

    @torch.no_grad()
    def decode(self, latent: Float[Tensor, "1 C2 T h w"]) -> DecodedMaps:
        """The maps of one window that the network predicts; memory is bounded by ``decode_chunk`` frames."""
        (window,) = latent
        frames = window.transpose(0, 1).float() / self.config.latent_scale
        groups = dict(
            zip(self.config.latent_groups, frames.split(self.config.vae.latent_channels, dim=1), strict=True)
        )

        def chunked(decode: Callable[[Tensor], Tensor], group: str) -> Tensor:
            latents = groups[group].to(self.device)
            # The maps wait on the device: the host reads them once, when the whole window is there.
            return self._chunks.run("decode", lambda z: decode(z).float().movedim(1, -1), latents)

        with self._at_work(self.point_vae):
            maps = {"point_map": chunked(self.point_vae.decode_with_uncertainty, "point_map")}
        with self._at_work(self.vae):
            maps |= {group: chunked(self.vae.decode, group) for group in groups if group != "point_map"}
        if "disparity" in maps:
            maps["disparity"] = maps["disparity"].mean(-1)
        return DecodedMaps(**{group: values.cpu() for group, values in maps.items()})

    def _at_work(self, module: torch.nn.Module) -> "OnDevice":
        return OnDevice(module, self.device, self.options.offload)


@dataclass(frozen=True)
class _Condition:
    """One branch of the guidance over the steps of a sampling run."""

    keys: ContextKeys
    cache: DeepCache


def _listed(modalities: Sequence[str]) -> str:
    """points; points and rays; points, rays and disparity."""
    *others, last = modalities
    return f"{', '.join(others)} and {last}" if others else last


def _stated_options(folder: ModelFolder) -> dict[str, Any]:
    """Defaults of inference that a trained folder brings.

    Raises:
        CheckpointError: an option that there is not.
    """
    stated = dict(folder.config.get("options", {}))
    if unknown := set(stated) - {field.name for field in fields(Geo4DOptions)}:
        raise CheckpointError(f"{folder.path}: config.json states unknown options {sorted(unknown)}")
    return stated


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
    config = load_config(folder)
    require_complete(folder, config)
    stated = _stated_options(folder)
    chosen = Geo4DOptions(**(stated | PRESETS[preset] | options))
    if chosen.num_steps != (trained := stated.get("num_steps", chosen.num_steps)):
        log.warning(
            "%s was trained to take %d step(s), is asked for %d", folder.path, trained, chosen.num_steps
        )
    own_decoder = ["point_vae"] if chosen.decoder == "full" else []
    parts = ["unet", "vae", *own_decoder] + (["image", "resampler"] if config.per_frame_image_tokens else [])
    modules: dict[str, Any] = make_parts(config, parts)
    for part, module in modules.items():
        tensors = folder.part(part)
        missing = sorted(set(module.state_dict()) ^ set(tensors))
        if missing:
            raise CheckpointError(f"{folder.path}: part {part} has missing or surplus tensors: {missing[:5]}")
        module.load_state_dict(tensors, assign=True)
    if chosen.decoder == "light":
        light = load_light_decoder(folder)
        if light is None:
            raise CheckpointError(
                f"expected a light decoder in {folder.path} for decoder=light, found none; train one with: "
                f"geo4d train light-decoder --family geo4d --start {folder.path} -o RUN"
            )
        modules["point_vae"] = LightPointVAE(light)
    chosen_device = device or default_device(mps=True)
    chosen_dtype = default_dtype(chosen_device) if dtype is None else DTYPES[dtype]
    return Geo4DPredictor(
        config,
        modules["unet"],
        modules["vae"],
        modules["point_vae"],
        ContextConstants(**folder.part("context")),
        image_tower=modules.get("image"),
        resampler=modules.get("resampler"),
        options=chosen,
        device=chosen_device,
        dtype=chosen_dtype,
        weights_sha256=folder.sha256,
        weights_compared={"recorded": len(folder.shard_sha256)},
    )
