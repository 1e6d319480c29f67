"""A network of transformers as a ``DepthNetwork``: pictures in, disparity out, whatever its own output means."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.models.huggingface.config import Meaning
from geo4d.models.huggingface.preprocessing import Preprocessing
from geo4d.models.monodepth.network import FrameDepths
from geo4d.types import ScaleKind

NEAREST, FARTHEST = 1e-2, 1e4
"""Metres to which metric depth is held."""
SKY = 0.005
"""Relative disparity below this share of the picture's top counts as infinitely far: they were taught 0 there."""


class HubNetwork:
    """One picture at a time through a network of transformers.

    Args:
        network: gives ``predicted_depth``, and ``field_of_view`` where its inverse depth is free of the focal length.
        preprocessing: of its pictures.
        meaning: of its output.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        meaning: Meaning,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.preprocessing, self.meaning = network.to(device), preprocessing, meaning
        self.device = torch.device(device)
        self.dtype = next(network.parameters()).dtype
        self.scale_kind: ScaleKind = "affine" if meaning == "relative disparity" else "metric"

    @torch.no_grad()
    def __call__(self, rgb: Float[Tensor, "N H W 3"]) -> FrameDepths:
        """Disparity of pictures in [0, 1]; in 1/m where the network knows metres."""
        size = (rgb.shape[1], rgb.shape[2])
        found = self.network(self.preprocessing.image(rgb).to(self.device, self.dtype))
        output = found.predicted_depth.float().cpu()
        if self.meaning == "metric depth":
            disparity = 1 / output.clamp(NEAREST, FARTHEST)
            return FrameDepths(self.preprocessing.back(disparity, size))
        disparity = self.preprocessing.back(output, size)
        if self.meaning == "relative disparity":
            top = disparity.flatten(1).amax(1)[:, None, None]
            return FrameDepths(disparity, None, disparity <= SKY * top)
        fov = torch.deg2rad(found.field_of_view.float().cpu().reshape(-1).clamp(1, 170))
        width_over_focal = 2 * torch.tan(fov / 2)
        metric = (disparity * width_over_focal[:, None, None]).clamp(1 / FARTHEST, 1 / NEAREST)
        return FrameDepths(metric, centred_intrinsics(size[1] / width_over_focal, size))
