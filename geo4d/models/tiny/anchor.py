"""Pull a predicted depth onto confident evidence, and take the surroundings along.

The network knows the layout, the sweep knows the depth where it is sure. The logarithm of their ratio is spread from
confident pixels over their neighbours of like colour, in the picture and from frame to frame: a smooth field that
follows the evidence where it is sure, bends at the edges of the picture, and returns to no change away from all evidence.
Where there is none at all, nothing changes. Measured: see the model card.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geo4d.models.tiny.network import Evidence

SMOOTHNESS = 0.05
"""Weight of a step between neighbours of the same colour, in units of the weight of a confident pixel."""
STEADINESS = 0.02
"""The same between a pixel and itself in the next frame."""
EDGE = 0.15
"""Difference in colour (root mean square over the channels, in [0, 1]) at which a link falls to 0.6."""
LEAST_LINK = 0.1
"""Share of a link that the strongest edge leaves: what no evidence reaches follows its surroundings all the same."""
REACH = 24.0
"""Pixels of the evidence channels over which a correction fades out where there is no evidence."""
NUM_ITERATIONS = 60
"""Conjugate gradient steps from the pyramid's start; more change the depth by less than a thousandth."""
MAX_CHANGE = 1.6
"""Bound on the logarithm of the correction: a factor of five."""
TOP = 1.2
"""Evidence nearer than this many times its own top is cut off in the channels: its value says no more than "near"."""


def log_correction(
    disparity: Float[Tensor, "B T 1 H W"], evidence: Evidence, rgb: Float[Tensor, "B T 3 H W"]
) -> Float[Tensor, "B T 1 H W"]:
    """Logarithm of the factor that brings a predicted disparity onto the evidence.

    One factor for the whole window is left out: the prediction keeps its own scale.

    Args:
        disparity: >= 0, any unit.
        evidence: its depth channels are used.
        rgb: the pictures, in [-1, 1]; their edges bound what the evidence pulls along.
    """
    batch, num_frames = disparity.shape[:2]
    confidence = evidence.depth[:, :, 2].float()
    size = (confidence.shape[-2], confidence.shape[-1])
    measured = ((evidence.depth[:, :, 0].float() + 1) / 2).clamp(min=0.01)
    small = F.interpolate(disparity.flatten(0, 1).float(), size, mode="area")
    small = small.unflatten(0, (batch, num_frames))[:, :, 0].clamp(min=0.01)
    sure = torch.where(measured < TOP, confidence, 0.0)
    ratio = measured.log() - small.log()
    offset = _weighted_median(ratio.flatten(1), sure.flatten(1))[:, None, None, None]
    ratio = (ratio - offset).clamp(-MAX_CHANGE, MAX_CHANGE)
    colour = F.interpolate(rgb.flatten(0, 1).float() / 2, size, mode="area").unflatten(0, (batch, num_frames))
    field = spread_field(ratio, sure, colour)
    full = F.interpolate(field.flatten(0, 1)[:, None], disparity.shape[-2:], mode="bilinear")
    return full.unflatten(0, (batch, num_frames))


def spread_field(
    values: Float[Tensor, "B T h w"],
    weight: Float[Tensor, "B T h w"],
    colour: Float[Tensor, "B T 3 h w"],
    num_iterations: int = NUM_ITERATIONS,
) -> Float[Tensor, "B T h w"]:
    """The smooth field x that minimises sum w (x - v)^2 + sum_links a (x_i - x_j)^2 + m sum x^2.

    Links join neighbours in the picture and in time and weaken with their difference in colour; m makes the field fade
    over ``REACH`` pixels where no weight is near.

    Args:
        colour: in a range of one.
        num_iterations: conjugate gradient steps.
    """
    links = (
        STEADINESS * _likeness(colour[:, 1:] - colour[:, :-1]),
        SMOOTHNESS * _likeness(colour[..., 1:, :] - colour[..., :-1, :]),
        SMOOTHNESS * _likeness(colour[..., 1:] - colour[..., :-1]),
    )
    fading = SMOOTHNESS / REACH**2

    def steps(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[:, 1:] - x[:, :-1], x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]

    def apply(x: Tensor) -> Tensor:
        result = (weight + fading) * x
        in_time, down, across = (a * step for a, step in zip(links, steps(x), strict=True))
        result[:, 1:] += in_time
        result[:, :-1] -= in_time
        result[..., 1:, :] += down
        result[..., :-1, :] -= down
        result[..., 1:] += across
        result[..., :-1] -= across
        return result

    diagonal = weight + fading
    for a, later, earlier in zip(links, _later(diagonal), _earlier(diagonal), strict=True):
        later += a
        earlier += a
    right = weight * values
    x = _pyramid_start(right, weight, fading)
    residual = right - apply(x)
    scaled = residual / diagonal
    direction = scaled.clone()
    size = (residual * scaled).flatten(1).sum(1)
    for _ in range(num_iterations):
        product = apply(direction)
        length = size / (direction * product).flatten(1).sum(1).clamp(min=1e-20)
        x = x + length[:, None, None, None] * direction
        residual = residual - length[:, None, None, None] * product
        scaled = residual / diagonal
        new = (residual * scaled).flatten(1).sum(1)
        direction = scaled + (new / size.clamp(min=1e-20))[:, None, None, None] * direction
        size = new
    return x


def _likeness(step: Float[Tensor, "B t 3 h w"]) -> Float[Tensor, "B t h w"]:
    return LEAST_LINK + (1 - LEAST_LINK) * torch.exp(-0.5 * step.square().mean(2) / EDGE**2)


def _later(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of the second pixel of every link: in time, down, across."""
    return x[:, 1:], x[..., 1:, :], x[..., 1:]


def _earlier(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x[:, :-1], x[..., :-1, :], x[..., :-1]


def _pyramid_start(
    right: Float[Tensor, "B T h w"], weight: Float[Tensor, "B T h w"], fading: float
) -> Float[Tensor, "B T h w"]:
    """Weighted means over growing neighbourhoods, near ones first: where conjugate gradients begin."""
    total, mass, share = torch.zeros_like(right), torch.full_like(right, fading), 1.0
    for radius in (1, 3, 7, 17):
        for kept, values in ((total, right), (mass, weight)):
            averaged, width = values.flatten(0, 1)[:, None], 2 * radius + 1
            for window, padding in (((1, width), (0, radius)), ((width, 1), (radius, 0))):
                averaged = F.avg_pool2d(averaged, window, stride=1, padding=padding)
            kept += share * averaged[:, 0].unflatten(0, values.shape[:2])
        share /= 4
    return total / mass


def _weighted_median(values: Float[Tensor, "B n"], weight: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """0 where all weights are."""
    order = values.argsort(dim=1)
    cumulated = weight.gather(1, order).cumsum(1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(1, keepdim=True).clamp(max=values.shape[1] - 1)
    found = values.gather(1, order).gather(1, middle)[:, 0]
    return torch.where(cumulated[:, -1] > 0, found, 0.0)
