"""MoGe-2: DINOv2 features to a camera-frame point map, a mask and the metres of its unit.

Legend of shape letters: B pictures, H W pixels of the picture, h w patches, C channels.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import use_channels_last
from geo4d.models.moge.backbone import PATCH, DinoV2, LayerScale
from geo4d.models.moge.config import ENCODERS, MoGe2Config
from geo4d.models.moge.model import remap_exp, view_plane
from geo4d.models.moge.stack import ConvStack

LEVELS = 5


class Encoder(nn.Module):
    """The backbone, and the sum of projections of some of its layers."""

    def __init__(self, config: MoGe2Config) -> None:
        super().__init__()
        width, depth, heads = ENCODERS[config.encoder]
        self.layers = config.layers
        self.backbone = DinoV2(width, depth, heads)
        self.output_projections = nn.ModuleList(nn.Conv2d(width, config.dim_out, 1) for _ in self.layers)
        self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.image_mean: Tensor
        self.image_std: Tensor

    def forward(
        self, image: Float[Tensor, "B 3 H W"], rows: int, columns: int
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B D"]]:
        """Features of rows x columns patches, and the class token of the last layer, for a picture in [0, 1]."""
        size = (rows * PATCH, columns * PATCH)
        resized = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
        layers = self.backbone.at_layers((resized - self.image_mean) / self.image_std, self.layers)
        dtype = next(self.output_projections.parameters()).dtype
        parts = [
            project(patches.to(dtype))
            for project, (patches, _) in zip(self.output_projections, layers, strict=True)
        ]
        return torch.stack(parts).sum(0), layers[-1][1]


class MoGe2(nn.Module):
    """The network; ``infer`` knows how pictures are sized and how points become a pinhole view.

    Normals, which some checkpoints give, too, are left out.
    """

    def __init__(self, config: MoGe2Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.neck = ConvStack(config.neck)
        self.points_head = ConvStack(config.points_head)
        self.mask_head = ConvStack(config.mask_head)
        layers: list[nn.Module] = []
        for a, b in zip(config.scale_dims, config.scale_dims[1:], strict=False):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.scale_head = nn.Sequential(*layers[:-1])

    def cast(self, dtype: torch.dtype) -> "MoGe2":
        """Run a float32 network in ``dtype``, in place; norms, tokens, position embedding and the scale stay float32.

        float32 changes nothing: it does not take an earlier cast back.
        """
        if dtype == torch.float32:
            return self
        kept = set(self.scale_head.modules())
        for module in self.modules():
            if (
                isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module not in kept
            ) or isinstance(module, LayerScale):
                module.to(dtype)
        for part in (self.neck, self.points_head, self.mask_head):
            use_channels_last(part)
        return self

    def forward(
        self, image: Float[Tensor, "B 3 H W"], num_tokens: int
    ) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W"], Float[Tensor, " B"]]:
        """Points up to scale and z-shift, the probability of a surface, and metres per unit.

        Args:
            image: in [0, 1].
            num_tokens: about so many patches are looked at, whatever the size of the picture.
        """
        size = (int(image.shape[2]), int(image.shape[3]))
        aspect = size[1] / size[0]
        rows, columns = round(math.sqrt(num_tokens / aspect)), round(math.sqrt(num_tokens * aspect))
        features, token = self.encoder(image, rows, columns)
        pyramid: list[Tensor] = []
        for level in range(LEVELS):
            plane = view_plane((rows * 2**level, columns * 2**level), aspect, image.device)
            plane = plane.to(features.dtype).movedim(-1, 0).expand(len(image), -1, -1, -1)
            pyramid.append(torch.cat([features, plane], 1) if level == 0 else plane)
        shared = self.neck(pyramid)
        raw, mask = (
            F.interpolate(head(shared)[-1].float(), size, mode="bilinear", align_corners=False)
            for head in (self.points_head, self.mask_head)
        )
        metres = self.scale_head(token.to(next(self.scale_head.parameters()).dtype)).float()[:, 0].exp()
        return remap_exp(raw), mask[:, 0].sigmoid(), metres
