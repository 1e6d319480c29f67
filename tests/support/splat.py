"""A small Gaussian splat in torch, to see that what is exported can be trained on; it shares no code with the package.

Round Gaussians, blended from near to far in every pixel. Each reaches the square of pixels around its centre only, so
that thousands of them render in a tenth of a second on one core.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

REACH = 2
"""Pixels to each side of its own that a Gaussian reaches."""


@dataclass
class View:
    """One picture with its camera.

    Attributes:
        w2c: [4, 4] world to camera, OpenCV axes.
        focal: (fx, fy) in pixels of the picture.
        centre: (cx, cy), pixel centres at +0.5.
        picture: [H, W, 3] in [0, 1].
        static: [H, W] True where the loss looks.
    """

    w2c: Tensor
    focal: tuple[float, float]
    centre: tuple[float, float]
    picture: Tensor
    static: Tensor


class Splat(torch.nn.Module):
    """Gaussians as wide as their neighbours are near."""

    def __init__(self, points: np.ndarray, colours: np.ndarray) -> None:
        super().__init__()
        near = cKDTree(points).query(points, k=4)[0][:, 1:].mean(axis=1)
        self.position = torch.nn.Parameter(torch.tensor(points, dtype=torch.float32))
        self.colour = torch.nn.Parameter(torch.tensor(colours, dtype=torch.float32))
        self.log_width = torch.nn.Parameter(torch.tensor(near, dtype=torch.float32).clamp(min=1e-6).log())
        self.opacity = torch.nn.Parameter(torch.full((len(points),), 1.0))

    def forward(self, view: View) -> Tensor:
        """The picture [H, W, 3] before a black background."""
        height, width = view.static.shape
        camera = self.position @ view.w2c[:3, :3].T + view.w2c[:3, 3]
        z = camera[:, 2]
        x = view.focal[0] * camera[:, 0] / z.clamp(min=1e-6) + view.centre[0]
        y = view.focal[1] * camera[:, 1] / z.clamp(min=1e-6) + view.centre[1]
        seen = (z > 1e-3) & (x > -REACH) & (x < width + REACH) & (y > -REACH) & (y < height + REACH)
        x, y, z = x[seen], y[seen], z[seen]
        # Widths in pixels: never thinner than a pixel can show, never wider than the square that is filled.
        spread = (self.log_width[seen].exp() * view.focal[0] / z).clamp(0.3, REACH / 2)

        steps = torch.arange(-REACH, REACH + 1)
        dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
        column = x.detach().floor().long()[:, None] + dx
        row = y.detach().floor().long()[:, None] + dy
        distance = ((column + 0.5 - x[:, None]) ** 2 + (row + 0.5 - y[:, None]) ** 2) / spread[:, None] ** 2
        alpha = torch.sigmoid(self.opacity[seen])[:, None] * torch.exp(-0.5 * distance)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (alpha > 1 / 255)
        owner = torch.arange(len(z))[:, None].expand_as(column)[inside]
        pixel, alpha = (row * width + column)[inside], alpha[inside].clamp(max=0.99)

        # From near to far within every pixel: light that is left is the product of (1 - alpha) of those before.
        rank = torch.empty(len(z), dtype=torch.long)
        rank[torch.argsort(z.detach())] = torch.arange(len(z))
        order = torch.argsort(pixel * len(z) + rank[owner])
        pixel, alpha, owner = pixel[order], alpha[order], owner[order]
        log_left = torch.log1p(-alpha.double())
        before = torch.cumsum(log_left, 0) - log_left
        first = torch.ones_like(pixel, dtype=torch.bool)
        first[1:] = pixel[1:] != pixel[:-1]
        start = torch.cumsum(first, 0) - 1
        weight = alpha * torch.exp(before - before[first][start]).float()
        picture = torch.zeros(height * width, 3)
        picture = picture.index_add(0, pixel, weight[:, None] * self.colour[seen][owner])
        return picture.reshape(height, width, 3)


def error(splat: Splat, views: list[View]) -> float:
    """Mean absolute difference of colours where nothing moves, over some views."""
    with torch.no_grad():
        each = [(splat(view) - view.picture)[view.static].abs().mean() for view in views]
    return float(torch.stack(each).mean())


def train(splat: Splat, views: list[View], steps: int, seed: int = 0) -> None:
    """Adam on the mean absolute difference of one view a step, where nothing moves."""
    extent = float(splat.position.detach().std())
    optimiser = torch.optim.Adam(
        [
            {"params": [splat.position], "lr": 5e-4 * extent},
            {"params": [splat.colour], "lr": 0.02},
            {"params": [splat.log_width], "lr": 0.01},
            {"params": [splat.opacity], "lr": 0.05},
        ]
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        view = views[int(torch.randint(len(views), (1,), generator=generator))]
        optimiser.zero_grad()
        (splat(view) - view.picture)[view.static].abs().mean().backward()
        optimiser.step()
