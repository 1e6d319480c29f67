"""The point-map VAE: offset encoder and point-map decoder around a frozen image VAE."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.models.geometrycrafter.decode import DecodedMaps
from geo4d.models.geometrycrafter.vae import PointMapVAE
from geo4d.training.loop import Task
from geo4d.training.tasks.geometrycrafter.folder import FolderPlan
from geo4d.training.tasks.geometrycrafter.losses import PointMapWeights, point_map_losses
from geo4d.training.tasks.geometrycrafter.maps import NormalisedWindow, frames_seen, normalise_window
from geo4d.training.tasks.geometrycrafter.networks import BLOCKS, FrozenNetworks, choose_trained
from geo4d.training.tasks.geometrycrafter.scores import mean_scores, window_scores
from geo4d.training.tasks.geometrycrafter.windows import Windows


def to_maps(decoded: tuple[Tensor, Tensor, Tensor]) -> DecodedMaps:
    """The decoder's three outputs as maps in float32."""
    theta, log_depth, mask = (part[:, 0].float() for part in decoded)
    return DecodedMaps(theta, log_depth, mask)


def normalised(batch: Windows) -> list[NormalisedWindow]:
    """True maps of every window of a batch."""
    pairs = zip(batch.depth, batch.intrinsics, strict=True)
    return [normalise_window(depth, intrinsics) for depth, intrinsics in pairs]


class PointMapCoding(Task):
    """Losses (1) to (7) of the supplement.

    Args:
        seen: of a window's frames those that pass through the networks (``maps.frames_seen``); the others only take part
            in what depth is divided by. None: all.
        temporal_only: the second stage: train the layers of the decoder that mix frames. The encoder stays as it is,
            so the identity term is left out.
        checkpointing: compute activations once more in the backward pass.
        validation: windows that check the run.
    """

    blocks = BLOCKS

    def __init__(
        self,
        vae: PointMapVAE,
        frozen: FrozenNetworks,
        weights: PointMapWeights,
        folder: FolderPlan,
        *,
        seen: int | None = None,
        temporal_only: bool = False,
        checkpointing: bool = False,
        validation: list[Windows] | None = None,
    ) -> None:
        super().__init__()
        if checkpointing:
            vae.recompute()
            frozen.image_vae.recompute_decoder()
        self.vae, self.weights, self.folder = vae, weights, folder
        self.frozen, self.seen, self.temporal_only = frozen, seen, temporal_only
        self.validation = validation or []
        choose_trained(vae.decoder, temporal_only=temporal_only)
        vae.encoder.requires_grad_(not temporal_only)
        self._chosen = {name for name, value in self.named_parameters() if value.requires_grad}
        if temporal_only and not torch.cuda.is_available():
            # torch 2.13 on a CPU ends with a segmentation fault in the backward pass of this decoder when the weights of
            # its 2-D convolutions want no gradient. So they get one, and nobody reads it.
            for module in vae.decoder.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.requires_grad_(True)

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Parameters of the stage: all, or those over time alone."""
        return {name: value for name, value in self.named_parameters() if name in self._chosen}

    def forward(self, batch: Windows) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the decoded point maps, and its named parts."""
        device = batch.rgb.device
        for name, value in self.named_parameters():
            if name not in self._chosen:
                value.grad = None
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            chosen = [frames_seen(sample, batch.num_frames, self.seen) for sample in batch.samples.tolist()]
            windows = [one.part(part) for one, part in zip(normalised(batch), chosen, strict=True)]
            frames = len(windows[0].valid)
            maps = torch.cat([window.encoder_input for window in windows])
            valid = torch.cat([window.valid for window in windows])
        image_vae = self.frozen.on(device).image_vae
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.temporal_only):
            latent = self.vae.encode(maps, image_vae)
        decoded = to_maps(self.vae.decode(latent, frames))
        picture = maps[:, 2:3].expand(-1, 3, -1, -1)
        seen = picture if self.temporal_only else image_vae.decode(latent, frames).float()
        truth = DecodedMaps(maps[:, 0], maps[:, 1], maps[:, 3])
        with torch.autocast(device.type, enabled=False):
            loss, parts = point_map_losses(decoded, truth, valid, picture, seen, self.weights)
        if self.temporal_only:
            del parts["identity"]
        return loss, parts

    def evaluate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Round trip of true maps, and what the frozen image decoder makes of the latent and of the picture's own."""
        rows = []
        panels: dict[str, Tensor] = {}
        device = next(self.vae.parameters()).device
        image_vae = self.frozen.on(device).image_vae
        for window in self.validation:
            window = window.to(device)
            (truth,) = normalised(window)
            count = window.num_frames
            latent = self.vae.encode(truth.encoder_input, image_vae)
            decoded = to_maps(self.vae.decode(latent, count))
            own = image_vae.decode(image_vae.encode(truth.picture), count).float()
            seen = image_vae.decode(latent, count).float()
            rows.append(
                {
                    **window_scores(decoded.depth, window.depth[0]),
                    "theta": float((decoded.theta / truth.maps.theta - 1).abs()[truth.valid].mean()),
                    "mask": float((decoded.valid == truth.valid).float().mean()),
                    "identity": float((seen - truth.picture).square().mean()),
                    "identity_of_picture": float((own - truth.picture).square().mean()),
                }
            )
            if not panels:
                panels["round_trip"] = depth_panel(
                    [truth.maps.log_depth[0], decoded.log_depth[0]], truth.valid[0]
                )
        return mean_scores(rows), panels

    def export(self, folder: Path) -> None:
        """Write the point-map coder into a model folder."""
        self.folder.write(folder, {"point_map_vae": (self.vae, self.vae.config)})


def depth_panel(
    log_depths: list[Float[Tensor, "H W"]], valid: Bool[Tensor, "H W"]
) -> Float[Tensor, "3 H W2"]:
    """Log depths side by side in grey, each about its own median, near is bright."""
    parts = [
        (0.5 - 0.4 * (one - one[valid].median())).clamp(0, 1) if bool(valid.any()) else one
        for one in log_depths
    ]
    return torch.cat(parts, dim=1).expand(3, -1, -1)
