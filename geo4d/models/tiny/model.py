"""The whole bundled model as one module, and one call from pictures and evidence to a latent."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.diffusion.denoiser import denoise_from_v
from geo4d.diffusion.samplers import sample_ddim
from geo4d.diffusion.schedules import ScheduleConfig, make_ddim_table, make_schedule
from geo4d.models.tiny.anchor import log_correction
from geo4d.models.tiny.calibration import Calibration
from geo4d.models.tiny.codec import LatentCodec
from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.depth import DepthMaps, DepthNetwork
from geo4d.models.tiny.modalities import MAX_DISPARITY, restore_disparity
from geo4d.models.tiny.network import Evidence, TinyUNet

SCHEDULE = ScheduleConfig(dynamic_rescale=False)
"""Zero terminal SNR as in Geo4D. No dynamic rescale: the latent has unit spread, and one step must return it whole."""


MAX_STEP = 2.0
"""Bound on the ray moments that the evidence adds to the answer, in median depths."""


@dataclass(frozen=True)
class Condition:
    """What stays the same over the steps of one window.

    Attributes:
        features: of pictures and evidence.
        ray_step: what the cameras of the evidence add to the rays of a camera that never moves.
    """

    features: Float[Tensor, "BT D h w"]
    ray_step: Float[Tensor, "B T 6 h w"]


class TinyModel(nn.Module):
    """Diffusion network with its fixed codec, and depth network.

    The network answers relative to the cameras of the evidence: their motion is added to the rays it predicts, so it
    need not learn to copy them, only to correct them and to fill in where there are none.

    Attributes:
        calibration: of the depth network's spreads; plain numbers, kept in the weight file's metadata.
    """

    alphas_cumprod: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.network = TinyUNet(config)
        self.codec = LatentCodec(config)
        self.depth = DepthNetwork(config)
        self.calibration = Calibration()
        power = make_schedule(SCHEDULE).alphas_cumprod.float()
        self.register_buffer("alphas_cumprod", power, persistent=False)

    def channels_last(self) -> "TinyModel":
        """Kernels in the layout that convolutions run fastest in."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def condition(self, rgb: Float[Tensor, "B T 3 H W"], evidence: Evidence) -> Condition:
        """Features of the window, and the camera motion of the evidence."""
        return Condition(self.network.encode_condition(rgb, evidence), ray_step(evidence))

    def predict_v(
        self,
        latent: Float[Tensor, "B T C h w"],
        timestep: Int[Tensor, " B"],
        condition: Condition,
        frames: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T C h w"]:
        """v of a noisy latent. Adding s to the clean latent takes sqrt(1 - a) s off v."""
        v = self.network(latent, timestep, condition.features, frames)
        rays = self.config.channels("rays")
        spread = self.codec.latent_std[rays][:, None, None]
        weight = (1 - self.alphas_cumprod[timestep]).sqrt()[:, None, None, None, None]
        return torch.cat([v[:, :, : rays.start], v[:, :, rays] - weight * condition.ray_step / spread], dim=2)

    def sample(
        self,
        rgb: Float[Tensor, "B T 3 H W"],
        evidence: Evidence,
        frames: Float[Tensor, "B T"],
        noise: Float[Tensor, "B T C h w"],
        num_steps: int,
    ) -> Float[Tensor, "B T C h w"]:
        """DDIM from ``noise`` to a clean latent."""
        condition = self.condition(rgb, evidence)

        def predict_v(x: Tensor, timestep: Tensor, fixed: object) -> Tensor:
            assert isinstance(fixed, Condition)
            return self.predict_v(x, timestep, fixed, frames)

        schedule = make_schedule(SCHEDULE)
        denoise = denoise_from_v(predict_v, [condition], schedule.alphas_cumprod)
        return sample_ddim(denoise, noise, make_ddim_table(schedule, num_steps, clean_end=True))

    def depth_maps(
        self,
        rgb: Float[Tensor, "B T 3 H W"],
        evidence: Evidence,
        frames: Float[Tensor, "B T"],
        *,
        anchor: bool = True,
        features: list[Tensor] | None = None,
    ) -> DepthMaps:
        """Disparity, its spread and the sky; the diffusion network has no part in it.

        Args:
            rgb: in [-1, 1]; sides that are multiples of 32.
            evidence: encoded for half the size of ``rgb``.
            frames: position of every frame, counted from the first.
            anchor: pull what the network starts from onto the evidence.
            features: of the pictures, where they are known already (``depth.features``).
        """
        size = (rgb.shape[-2] // 2, rgb.shape[-1] // 2)
        with torch.autocast(rgb.device.type, enabled=False):
            mean = F.interpolate(self.codec.template[None, None], size, mode="bilinear")
            known = mean[None].expand(*rgb.shape[:2], -1, -1, -1)
            if anchor:
                known = anchored(known, evidence, halved(rgb))
        return self.depth(self.depth.features(rgb) if features is None else features, known, evidence, frames)


def anchored(
    disparity: Float[Tensor, "B T 1 h w"], evidence: Evidence, rgb: Float[Tensor, "B T 3 h w"]
) -> Float[Tensor, "B T 1 h w"]:
    """Normalised disparity pulled onto confident evidence; the same where there is none."""
    change = log_correction(restore_disparity(disparity), evidence, rgb)
    moved = 2 * (restore_disparity(disparity) * change.exp()).clamp(max=MAX_DISPARITY) - 1
    return torch.where(change.abs() > 1e-4, moved, disparity)


def halved(rgb: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T 3 h w"]:
    """Pictures as the diffusion network sees them: half the size, each pixel the mean of four."""
    return F.avg_pool2d(rgb.flatten(0, 1), 2).unflatten(0, rgb.shape[:2])


def ray_step(evidence: Evidence) -> Float[Tensor, "B T 6 h w"]:
    """Change of the rays by the motion of the evidence's cameras; fades out below a trust of one half."""
    rotation, position = evidence.cameras[:, :, 6:7].float(), evidence.cameras[:, :, 7:8].float()
    direction = evidence.cameras[:, :, :3].float() / rotation.clamp(min=1e-3)
    both = _gain(rotation) * _gain(rotation[:, :1])
    moment = evidence.cameras[:, :, 3:6].float() / position.clamp(min=1e-3)
    moment = moment.clamp(-MAX_STEP, MAX_STEP) * _gain(position)
    return torch.cat([(direction - direction[:, :1]) * both, moment], dim=2)


def _gain(trust: Tensor) -> Tensor:
    return (trust / 0.5).clamp(max=1.0)
