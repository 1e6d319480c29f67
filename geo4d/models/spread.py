"""A smooth field through values that are known here and there: along like colours, and from frame to frame."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SMOOTHNESS = 0.05
"""Weight of a step between neighbours of the same colour, in units of the weight of a confident pixel."""
STEADINESS = 0.02
"""The same between a pixel and itself in the next frame."""
EDGE = 0.15
"""Difference in colour (root mean square over the channels, in [0, 1]) at which a link falls to 0.6."""
LEAST_LINK = 0.1
"""Share of a link that the strongest edge leaves: what no evidence reaches follows its surroundings all the same."""
REACH = 24.0
"""Pixels of the field over which a correction fades out where there is no evidence."""
NUM_ITERATIONS = 60
"""Conjugate gradient steps from the pyramid's start; more change the depth by less than a thousandth."""


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
