"""TCMonoDepth-small as a yardstick: a public network that gives relative disparity from one picture.

Weights: GitHub yu-li/TCMonoDepth, commit 128a98c, ``weights/_ckpt_small.pt.tar`` (MIT); the user has the file. Only its
layers are described here, as plain functions of the file's tensors.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BLOCKS = {"stage1": range(0, 4), "stage2": range(4, 12), "stage3": range(12, 16)}
SHORT_SIDE = 192


def network(path: Path, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """Pictures [N 3 H W] in [0, 1], sides multiples of 32 -> disparity [N 1 H W] up to scale and shift."""
    state = torch.load(path, map_location=device, weights_only=True)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def branch(x: Tensor, name: str, stride: int) -> Tensor:
        x = F.relu(norm(conv(x, f"{name}.0"), f"{name}.1"))
        x = norm(conv(x, f"{name}.3", stride), f"{name}.4")
        return F.relu(norm(conv(x, f"{name}.5"), f"{name}.6"))

    def block(x: Tensor, name: str, first: bool) -> Tensor:
        if not first:
            return torch.cat([x[:, ::2], branch(x[:, 1::2], f"{name}.branch_main", 1)], 1)
        kept = norm(conv(x, f"{name}.branch_proj.0", 2), f"{name}.branch_proj.1")
        kept = F.relu(norm(conv(kept, f"{name}.branch_proj.2"), f"{name}.branch_proj.3"))
        return torch.cat([kept, branch(x, f"{name}.branch_main", 2)], 1)

    def forward(x: Tensor) -> Tensor:
        x = F.relu(norm(conv(x, "encoder.first_conv.0", 2), "encoder.first_conv.1"))
        kept = [x]
        for stage, numbers in BLOCKS.items():
            for number in numbers:
                x = block(x, f"encoder.{stage}.{number}", number == numbers[0])
            kept.append(x)
        for level in (3, 2, 1):
            name, skip = f"decoder.decoder{level}", kept[level - 1]
            skip = F.relu(norm(conv(skip, f"{name}.skip_conv.0"), f"{name}.skip_conv.1"))
            x = torch.cat([F.interpolate(x, skip.shape[-2:], mode="bilinear"), skip], 1)
            x = F.relu(norm(conv(x, f"{name}.last_conv.0.conv.0"), f"{name}.last_conv.0.conv.1"))
            x = F.relu(norm(conv(x, f"{name}.last_conv.0.conv.3"), f"{name}.last_conv.1"))
        return F.interpolate(F.relu(conv(x, "decoder.final")), scale_factor=2.0, mode="bilinear")

    return forward


def tcmonodepth(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures [T H W 3] uint8 -> log disparity [T h w]."""
    forward = network(path)

    def run(pictures: np.ndarray) -> np.ndarray:
        height, width = pictures.shape[1:3]
        scale = SHORT_SIDE / min(height, width)
        size = tuple(max(1, round(side * scale / 32)) * 32 for side in (height, width))
        answers = []
        for picture in pictures:
            small = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
            with torch.no_grad():
                answer = forward(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)[0, 0]
            answers.append((answer / answer.quantile(0.98).clamp(min=1e-6)).clamp(min=0.01).log().numpy())
        return np.stack(answers)

    return run
