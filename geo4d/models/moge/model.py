"""MoGe-1: DINOv2 features to a camera-frame point map and a mask.

Legend of shape letters: B pictures, H W pixels of the network's image, h w feature size, C channels.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.models.layers import GroupNorm, use_channels_last
from geo4d.models.moge.backbone import PATCH, DinoV2, LayerScale
from geo4d.models.moge.config import ENCODERS, MoGeConfig


def view_plane(size: tuple[int, int], aspect: float, device: torch.device | str) -> Float[Tensor, "H W 2"]:
    """u and v of pixel centres on a view plane whose half diagonal is 1.

    Args:
        size: (height, width) of the grid.
        aspect: width over height of the picture that the grid covers.
    """
    height, width = size
    span_x, span_y = aspect / (1 + aspect**2) ** 0.5, 1 / (1 + aspect**2) ** 0.5
    u = torch.linspace(-span_x * (width - 1) / width, span_x * (width - 1) / width, width, device=device)
    v = torch.linspace(-span_y * (height - 1) / height, span_y * (height - 1) / height, height, device=device)
    v_grid, u_grid = torch.meshgrid(v, u, indexing="ij")
    return torch.stack([u_grid, v_grid], dim=-1)


def _with_view_plane(x: Tensor, aspect: float) -> Tensor:
    height, width = x.shape[-2:]
    plane = view_plane((height, width), aspect, x.device).to(x.dtype).movedim(-1, 0)
    return torch.cat([x, plane.expand(len(x), -1, -1, -1)], dim=1)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with norms before them, beside a skip."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            GroupNorm(1, channels),
            nn.ReLU(),
            _conv3x3(channels, hidden),
            GroupNorm(hidden // 32, hidden),
            nn.ReLU(),
            _conv3x3(hidden, channels),
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Channels and sizes stay."""
        return x + self.layers(x)


class Head(nn.Module):
    """Features of four blocks to three point channels and one mask channel at the size of the image."""

    def __init__(self, config: MoGeConfig, width: int) -> None:
        super().__init__()
        self.projects = nn.ModuleList(
            nn.Conv2d(width, config.dim_proj, 1) for _ in range(config.intermediate_layers)
        )
        widths = (config.dim_proj, *config.dim_upsample)
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(
                    nn.ConvTranspose2d(before + 2, after, kernel_size=2, stride=2), _conv3x3(after, after)
                ),
                *(
                    ResidualBlock(after, config.dim_times_res_block_hidden * after)
                    for _ in range(config.num_res_blocks)
                ),
            )
            for before, after in itertools.pairwise(widths)
        )
        last, size = config.last_conv_channels, config.last_conv_size
        self.output_block = nn.ModuleList(
            nn.Sequential(
                _conv3x3(widths[-1] + 2, last),
                nn.ReLU(),
                nn.Conv2d(last, channels, size, padding=size // 2, padding_mode="replicate"),
            )
            for channels in (3, 1)
        )

    def forward(
        self, features: list[Float[Tensor, "B C h w"]], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 H W"]]:
        """Raw point channels and mask, float32 from the last interpolation on.

        Args:
            features: one per projection.
            size: (height, width) of the result.
        """
        aspect = size[1] / size[0]
        x = torch.stack([p(f) for p, f in zip(self.projects, features, strict=True)]).sum(0)
        for block in self.upsample_blocks:
            x = block(_with_view_plane(x, aspect))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        x = _with_view_plane(x.to(next(self.output_block.parameters()).dtype), aspect)
        points, mask = (block(x) for block in self.output_block)
        return points.float(), mask.float()


class MoGe(nn.Module):
    """The network; ``pipeline`` knows how pictures are sized and how points become a pinhole view."""

    def __init__(self, config: MoGeConfig) -> None:
        super().__init__()
        self.config = config
        width, depth, heads = ENCODERS[config.encoder]
        self.backbone = DinoV2(width, depth, heads)
        self.head = Head(config, width)
        self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.image_mean: Tensor
        self.image_std: Tensor

    def cast(self, dtype: torch.dtype) -> "MoGe":
        """Run a float32 network in ``dtype``, in place; norms, tokens, position embedding and last layers stay float32.

        float32 changes nothing: it does not take an earlier cast back.
        """
        if dtype == torch.float32:
            return self
        last = set(self.head.output_block.modules())
        for module in self.modules():
            if (
                isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module not in last
            ) or isinstance(module, LayerScale):
                module.to(dtype)
        use_channels_last(self.head)  # the layout of tokens, and of the fast 16-bit convolutions
        return self

    def features(
        self, image: Float[Tensor, "B 3 H W"]
    ) -> list[tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C"]]]:
        """Normed patch features and class tokens of the last blocks, for a picture in [0, 1]."""
        height, width = image.shape[-2:]
        normalised = (image.float() - self.image_mean) / self.image_std
        size = (height // PATCH * PATCH, width // PATCH * PATCH)
        if min(size) < PATCH:
            raise ValueError(f"expected a picture of at least {PATCH} pixels per side, got {height}x{width}")
        resized = F.interpolate(normalised, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.backbone(resized, self.config.intermediate_layers)

    def raw(self, image: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B H W"]]:
        """Point channels before the remap, and the raw mask (valid above 0.5)."""
        height, width = image.shape[-2:]
        points, mask = self.head([patch for patch, _ in self.features(image)], (height, width))
        return points, mask[:, 0]

    def forward(
        self, image: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W"]]:
        """Points up to scale and z-shift, and the raw mask, at the size of ``image`` (in [0, 1])."""
        points, mask = self.raw(image)
        return remap_exp(points), mask


def remap_exp(raw: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W 3"]:
    """(a, b, c) -> exp(c) * (a, b, 1)."""
    a, b, c = raw.unbind(1)
    z = c.exp()
    return torch.stack([a * z, b * z, z], dim=-1)
