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

    plain = weight + fading
    inverse = plain.clone()
    for a, later, earlier in zip(links, _later(inverse), _earlier(inverse), strict=True):
        later += a
        earlier += a
    inverse.reciprocal_()  # of the diagonal
    step = [torch.empty_like(a) for a in links]

    def apply(x: Tensor, result: Tensor) -> Tensor:
        """The system's matrix times x. This is most of the work: nothing is allocated here."""
        torch.mul(plain, x, out=result)
        parts = zip(links, step, _later(x), _earlier(x), _later(result), _earlier(result), strict=True)
        for a, difference, x_later, x_earlier, later, earlier in parts:
            torch.sub(x_later, x_earlier, out=difference).mul_(a)
            later += difference
            earlier -= difference
        return result

    def product_of(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None, None]

    right = weight * values
    x = _pyramid_start(right, weight, fading)
    product = torch.empty_like(x)
    residual = right - apply(x, product)
    scaled = residual * inverse
    direction = scaled.clone()
    size = product_of(residual, scaled)
    for _ in range(num_iterations):
        apply(direction, product)
        length = size / product_of(direction, product).clamp(min=1e-20)
        x.addcmul_(direction, length)
        residual.addcmul_(product, length, value=-1)
        torch.mul(residual, inverse, out=scaled)
        new = product_of(residual, scaled)
        direction.mul_(new / size.clamp(min=1e-20)).add_(scaled)
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
