"""The networks of one variant and the four stages that a video passes: prior maps, encoding, sampling, decoding.

Legend of shape letters: T frames, H W pixels of the video, h w latent size, c latent channels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geo4d.models.deep_cache import DeepCache
from geo4d.models.devices import DTYPES
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, SchedulerConfig, Variant
from geo4d.models.geometrycrafter.decode import (
    DecodedMaps,
    TangentSums,
    frame_tangents,
    iter_decode,
    maps_to_points,
    resize_maps,
)
from geo4d.models.geometrycrafter.embedding import embed_frames
from geo4d.models.geometrycrafter.prior_maps import (
    PriorStatistics,
    condition_prior,
    frame_records,
    merge_statistics,
)
from geo4d.models.geometrycrafter.tiles import run_tiled
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.models.geometrycrafter.windows import (
    Conditioning,
    frame_noise,
    sample_window,
    window_starts,
)
from geo4d.models.layers import use_channels_last


@dataclass(frozen=True)
class PointMapVideo:
    """Result of a whole video.

    Attributes:
        point_map: in each frame's own camera, one unknown scale for the video; finite also where not ``valid``.
        valid: True where the network believes a surface.
    """

    point_map: Float[Tensor, "T H W 3"]
    valid: Bool[Tensor, "T H W"]


class GeometryCrafter(nn.Module):
    """The networks of one variant, each in its own dtype, and the stages built from them.

    Attributes:
        variant: ``diff`` (generative) or ``determ``.
        config: settings of the run.
        device: where stages run. With ``config.offload`` a network is there only during its stage.
    """

    def __init__(
        self,
        variant: Variant,
        unet: FrameTokenUNet,
        point_map_vae: PointMapVAE,
        image_vae: ImageVAE,
        image_encoder: nn.Module,
        scheduler: SchedulerConfig,
        config: GeometryCrafterConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        expected = (3 if variant == "diff" else 2) * image_vae.config.latent_channels
        got = unet.conv_in.in_channels
        if got != expected:
            raise ValueError(
                f"expected a UNet with {expected} input channels for variant {variant}, got {got}"
            )
        self.variant: Variant = variant
        self.config = config
        self.scheduler = scheduler
        self.device = torch.device(device)
        # nn.Module.to: the library's own override warns about a cast that concerns none of these weights.
        self.unet = nn.Module.to(unet, dtype=DTYPES[config.unet_dtype])
        self.image_encoder = image_encoder.to(DTYPES[config.unet_dtype])
        self.image_vae = image_vae.to(DTYPES[config.encoder_dtype])
        self.point_map_vae = point_map_vae
        self.point_map_vae.encoder.to(DTYPES[config.encoder_dtype])
        if config.encoder_dtype != "float32":
            use_channels_last(self.image_vae)
            use_channels_last(self.point_map_vae.encoder)
        self.point_map_vae.decoder.cast(DTYPES[config.decoder_dtype])
        self.point_map_vae.decoder.frames_at_once = config.decode_frames_at_once
        self.eval().requires_grad_(False)
        if not config.offload:
            self.to(self.device)

    @contextmanager
    def _on_device(self, *networks: nn.Module) -> Iterator[None]:
        for network in networks:
            network.to(self.device)
        try:
            yield
        finally:
            if self.config.offload and self.device.type != "cpu":
                for network in networks:
                    network.to("cpu")

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the latent of frames of ``size`` pixels."""
        config = self.image_vae.config
        return config.latent_channels, size[0] // config.reduction, size[1] // config.reduction

    @torch.no_grad()
    def encode(
        self,
        rgb: Float[Tensor, "T H W 3"],
        points: Float[Tensor, "T H W 3"],
        mask: Bool[Tensor, "T H W"],
        statistics: PriorStatistics,
        size: tuple[int, int],
    ) -> Conditioning:
        """Conditioning of a few frames, on the CPU in float32; at most ``encode_chunk`` of them are in work at a time.

        Args:
            rgb: frames in [0, 1] at any size.
            points: of the prior, at the size of ``mask`` (usually the video's).
            mask: True where the prior believes its points.
            statistics: of the prior over the whole video.
            size: (height, width) of the network's frames.
        """
        parts = []
        with self._on_device(self.image_encoder, self.image_vae, self.point_map_vae.encoder):
            for start in range(0, len(rgb), self.config.encode_chunk):
                frames = slice(start, start + self.config.encode_chunk)
                parts.append(self._encode_chunk(rgb[frames], points[frames], mask[frames], statistics, size))
        return Conditioning.join(parts)

    def _encode_chunk(
        self, rgb: Tensor, points: Tensor, mask: Tensor, statistics: PriorStatistics, size: tuple[int, int]
    ) -> Conditioning:
        image = prepare_frames(rgb.to(self.device), size)
        tokens = embed_frames(image.to(DTYPES[self.config.unet_dtype]), self.image_encoder)
        maps = condition_prior(points.to(self.device), mask.to(self.device), statistics).encoder_input(size)
        video = self._tiled_encoder(self.image_vae.encode, image)
        prior = self._tiled_encoder(partial(self.point_map_vae.encode, image_vae=self.image_vae), maps)
        prior = prior.float() * self.image_vae.config.scaling_factor
        return Conditioning(tokens.float().cpu(), video.float().cpu(), prior.cpu())

    def _tiled_encoder(self, network: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        tile = self.config.encode_tile
        if tile is None:
            return network(image)
        reduction = self.image_vae.config.reduction
        overlap = int(tile * self.config.tile_overlap) // reduction * reduction
        return run_tiled(network, image, tile, overlap, Fraction(1, reduction))

    @torch.no_grad()
    def sample(
        self,
        conditioning: Conditioning,
        noise: Float[Tensor, "T c h w"] | None,
        previous: Float[Tensor, "o c h w"] | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Float[Tensor, "T c h w"]:
        """Scaled latents of one window, on the CPU in float32; see ``windows.sample_window``."""
        ids = torch.tensor(
            [[self.config.fps, self.config.motion_bucket, self.config.noise_augmentation]], device=self.device
        )

        cache = DeepCache(self.config.cache_interval)

        def unet(sample: Tensor, timestep: float, tokens: Tensor) -> Tensor:
            return self.unet(sample[None], timestep, tokens[None], ids, cache)[0].float()

        def place(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(self.device)

        here = Conditioning(*(x.to(self.device) for x in vars(conditioning).values()))
        with self._on_device(self.unet):
            latents = sample_window(
                self.variant, unet, here, place(noise), self.config, self.scheduler, place(previous), on_step
            )
        return latents.cpu()

    def sample_video(
        self,
        conditioning: Conditioning,
        noise: Float[Tensor, "window c h w"] | None,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Float[Tensor, "T c h w"]:
        """Scaled latents of a whole video, window after window.

        Args:
            conditioning: of all frames.
            noise: of one window, shared by all (``windows.frame_noise``); None for the deterministic variant.
            on_step: called with the window, the step and the latents after it, before blending.
        """
        num_frames = len(conditioning.tokens)
        length, overlap = self.config.window_length, self.config.overlap
        latents = conditioning.video_latents.new_zeros(conditioning.video_latents.shape)
        for index, start in enumerate(window_starts(num_frames, length, overlap)):
            stop = min(start + length, num_frames)
            shared = overlap if start > 0 else 0
            window_noise = None
            if noise is not None:
                window_noise = frame_noise(noise, torch.arange(start, stop))
            report = None if on_step is None else partial(on_step, index)
            latents[start:stop] = self.sample(
                conditioning[start:stop], window_noise, latents[start : start + shared], report
            )
        return latents

    @torch.no_grad()
    def decode_clip(self, latents: Float[Tensor, "T c h w"]) -> Float[Tensor, "T 3 H W"]:
        """Maps (theta, log depth, mask) of one clip of latents (not multiplied by the scaling factor), tiled if set."""

        def decode(part: Tensor) -> Tensor:
            maps = self.point_map_vae.decode(part, len(part))
            return torch.cat([m.float() for m in maps], dim=1)

        latents = latents.to(self.device)
        tile = self.config.decode_tile
        if tile is None:
            return decode(latents)
        reduction = self.image_vae.config.reduction
        overlap = int(tile * self.config.tile_overlap) // reduction
        return run_tiled(decode, latents, tile // reduction, overlap, Fraction(reduction))

    def iter_decode(self, latents: Float[Tensor, "T c h w"], size: tuple[int, int]) -> Iterator[DecodedMaps]:
        """Maps of consecutive frames at ``size``, a chunk at a time, from scaled latents."""
        unscaled = latents.float() / self.image_vae.config.scaling_factor
        with self._on_device(self.point_map_vae.decoder):
            for maps in iter_decode(
                self.decode_clip, unscaled, self.config.decode_chunk, self.config.decode_overlap
            ):
                yield resize_maps(maps, size, self.config.nearest_resize)

    def points(self, maps: Iterable[DecodedMaps], published: bool = True) -> PointMapVideo:
        """Points of a whole video from its decoded maps, on the CPU, with the configured kind of focal length."""
        pieces = list(maps)
        if not self.config.force_projection:
            points = [maps_to_points(piece).cpu() for piece in pieces]
        elif self.config.force_fixed_focal:
            sums = [TangentSums.of(piece) for piece in pieces]
            theta = sum(sums[1:], sums[0]).mean(published)
            points = [maps_to_points(piece, theta).cpu() for piece in pieces]
        else:
            points = [maps_to_points(piece, frame_tangents(piece, published)).cpu() for piece in pieces]
        return PointMapVideo(torch.cat(points), torch.cat([piece.valid.cpu() for piece in pieces]))

    def run(
        self,
        rgb: Float[Tensor, "T H W 3"],
        points: Float[Tensor, "T H W 3"],
        mask: Bool[Tensor, "T H W"],
        size: tuple[int, int],
        noise: Float[Tensor, "window c h w"] | None,
    ) -> PointMapVideo:
        """A whole video that fits into memory, with the published statistics over all its frames.

        Args:
            rgb: in [0, 1].
            points, mask: of the prior.
            size: of the network's frames, multiples of 64.
            noise: of one window (``windows.draw_noise``); None for the deterministic variant.
        """
        statistics = merge_statistics(frame_records(points, mask))
        conditioning = self.encode(rgb, points, mask, statistics, size)
        latents = self.sample_video(conditioning, noise)
        return self.points(self.iter_decode(latents, (rgb.shape[1], rgb.shape[2])))


def prepare_frames(rgb: Float[Tensor, "T H W 3"], size: tuple[int, int]) -> Float[Tensor, "T 3 h w"]:
    """Frames in [0, 1] to network frames in [-1, 1]; bicubic with antialiasing when the size differs."""
    image = rgb.movedim(-1, 1).float()
    if tuple(image.shape[-2:]) != size:
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(
            0, 1
        )
    return image * 2 - 1
