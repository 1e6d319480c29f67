"""TCMonoDepth-small under geo4d's cameras and fusion: what a plug-in for a network of single pictures looks like.

Weights: GitHub yu-li/TCMonoDepth, ``weights/_ckpt_small.pt.tar`` as a plain state dictionary (MIT); the user has it.
An encoder of ShuffleNet-v2 blocks and a decoder of three stages; module names are those of the file.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.errors import CheckpointError
from geo4d.models.monodepth.network import FrameDepths
from geo4d.models.monodepth.pipeline import DepthPredictor, MonoDepthConfig
from geo4d.models.store.identity import check_weights

SHORT_SIDE, MULTIPLE = 192, 32


def separable(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
    """Depth-wise 3 x 3 and point-wise convolution, each with a norm, the second with a ReLU."""
    return [
        nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),
        nn.BatchNorm2d(inside),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    ]


class Block(nn.Module):
    """ShuffleNet-v2: the even channels stay, or go through a branch of their own where the size is halved."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        half = outside // 2
        entering = inside if stride == 2 else inside // 2
        self.branch_main = nn.Sequential(
            nn.Conv2d(entering, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            *separable(half, outside - inside if stride == 2 else half, stride),
        )
        self.branch_proj = nn.Sequential(*separable(inside, inside, 2)) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.branch_proj is not None:
            return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)
        return torch.cat([x[:, ::2], self.branch_main(x[:, 1::2])], 1)


class Up(nn.Module):
    """The deep map at the size of an earlier one, and both together."""

    def __init__(self, deep: int, skip: int, outside: int) -> None:
        super().__init__()
        self.skip_conv = nn.Sequential(
            nn.Conv2d(skip, deep // 4, 1, bias=False), nn.BatchNorm2d(deep // 4), nn.ReLU()
        )
        both = deep + deep // 4
        conv = nn.Sequential(
            nn.Conv2d(both, both, 3, 1, 1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU(),
            nn.Conv2d(both, outside, 1, bias=False),
        )
        inner = nn.Module()
        inner.conv = conv
        self.last_conv = nn.Sequential(inner, nn.BatchNorm2d(outside), nn.ReLU())

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        skip = self.skip_conv(skip)
        x = torch.cat([F.interpolate(deep, skip.shape[-2:], mode="bilinear"), skip], 1)
        return self.last_conv[2](self.last_conv[1](self.last_conv[0].conv(x)))


class Encoder(nn.Module):
    """Features at a half, a quarter, an eighth and a sixteenth of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        inside, number = 24, 0
        for stage, (count, outside) in enumerate(((4, 48), (8, 96), (4, 192)), 1):
            blocks = nn.Module()
            for k in range(count):
                blocks.add_module(
                    str(number), Block(inside if k == 0 else outside, outside, 2 if k == 0 else 1)
                )
                number += 1
            self.add_module(f"stage{stage}", blocks)
            inside = outside

    def forward(self, x: Tensor) -> list[Tensor]:
        kept = [self.first_conv(x)]
        for stage in (self.stage1, self.stage2, self.stage3):
            x = kept[-1]
            for block in stage.children():
                x = block(x)
            kept.append(x)
        return kept


class Network(nn.Module):
    """Pictures [N 3 H W] in [0, 1], sides multiples of 32 -> disparity [N 1 H W] up to scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = nn.Module()
        for level, (deep, skip) in {3: (192, 96), 2: (96, 48), 1: (48, 24)}.items():
            self.decoder.add_module(f"decoder{level}", Up(deep, skip, skip))
        self.decoder.final = nn.Conv2d(24, 1, 3, 1, 1)

    def forward(self, picture: Tensor) -> Tensor:
        *kept, x = self.encoder(picture)
        for level in (3, 2, 1):
            x = getattr(self.decoder, f"decoder{level}")(x, kept[level - 1])
        return F.interpolate(F.relu(self.decoder.final(x)), scale_factor=2.0, mode="bilinear")


class TCMonoDepth:
    """The network as geo4d asks depth networks."""

    scale_kind = "affine"

    def __init__(self, network: Network, device: str) -> None:
        self.network, self.device = network.to(device).eval(), device

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> FrameDepths:
        height, width = rgb.shape[1:3]
        scale = SHORT_SIDE / min(height, width)
        size = [max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (height, width)]
        small = F.interpolate(rgb.movedim(-1, 1), size, mode="bicubic", antialias=True).clamp(0, 1)
        disparity = self.network(small.to(self.device)).cpu()
        return FrameDepths(F.interpolate(disparity, (height, width), mode="bilinear")[:, 0])


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> DepthPredictor:
    """What the entry point names. Weights must be given: this package carries none.

    Raises:
        CheckpointError: no weights, or those of another network.
        ValueError: another type than float32.
    """
    if weights is None:
        raise CheckpointError("expected --weights FILE with the state dictionary of TCMonoDepth-small")
    if dtype not in (None, "float32"):
        raise ValueError(f"expected float32, got {dtype}")
    checked = check_weights([Path(weights)])
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = Network()
    try:
        # Every tensor of the encoder stands in the file twice; two heads were for its training only.
        wanted = network.state_dict().keys()
        network.load_state_dict({key: value for key, value in state.items() if key in wanted})
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: no TCMonoDepth-small: {error}") from error
    return DepthPredictor(
        TCMonoDepth(network, device or "cpu"),
        name=name,
        description="TCMonoDepth-small under the cameras from tracks",
        licence="MIT",
        weights_sha256=next(iter(checked.sha256.values())),
        weights_compared=checked.compared,
        config=MonoDepthConfig(**{"max_side": 384, **options}),
    )
