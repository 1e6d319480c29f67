"""Places that a video shows twice, by the look of its frames: a window over both visits closes the loop.

Source: place recognition by sequences of small normalised pictures, as in SeqSLAM (Milford and Wyeth, 2012).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ROWS, _COLUMNS, _PATCH = 18, 32, 6


@dataclass(frozen=True)
class RevisitConfig:
    """When two stretches of frames count as the same place.

    Attributes:
        min_gap: frames between the two visits at least.
        spacing: frames between two reported second visits at least.
        step: frames between the second visits that are tried.
        min_likeness: mean correlation of the small pictures of the two stretches that a revisit reaches.
        min_departure: in between, the likeness to the second visit falls this far below it; so a camera that stands still
            revisits nothing.
    """

    min_gap: int = 60
    spacing: int = 40
    step: int = 4
    min_likeness: float = 0.7
    min_departure: float = 0.4


class FrameLooks:
    """Small normalised pictures of a video's frames; about 1.2 kB a frame are kept."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, frame: Float[Tensor, "H W 3"]) -> None:
        """Remember the next frame."""
        self._rows.append(_look(frame))

    def revisits(
        self, start: int, end: int, length: int, config: RevisitConfig | None = None
    ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Pairs of stretches of ``length`` frames of the shot [start, end) that show the same place.

        The place may have been passed in the opposite direction; the frames of a stretch still come in the order of time.

        Raises:
            ValueError: a frame of the shot was not watched.
        """
        config = config or RevisitConfig()
        if end > len(self._rows):
            raise ValueError(f"expected all {end} frames to be watched, got {len(self._rows)}")
        found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        looks = torch.stack(self._rows[start:end]).float() if end > start else torch.zeros(0, 1)
        nearest = max(config.min_gap, length)
        next_allowed = nearest + length
        for second in range(nearest + length, end - start - length + 1, config.step):
            if second < next_allowed:
                continue
            earlier = second - nearest
            likeness = looks[second : second + length] @ looks[:second].T  # length x earlier frames
            forward = _along(likeness[:, :earlier])
            backward = _along(likeness[:, :earlier].flip(0))
            best = torch.maximum(forward, backward)
            first = int(best.argmax())
            between = float(likeness[:, first + length : second].mean(0).min())
            if float(best[first]) >= max(config.min_likeness, between + config.min_departure):
                found.append(
                    (
                        tuple(range(start + first, start + first + length)),
                        tuple(range(start + second, start + second + length)),
                    )
                )
                next_allowed = second + config.spacing
        return found


def _along(likeness: Float[Tensor, "V N"]) -> Float[Tensor, " M"]:
    """Mean over the diagonals: entry m compares frame i of the stretch with frame m + i."""
    length, count = likeness.shape
    pieces = [likeness[i, i : count - length + 1 + i] for i in range(length)]
    return torch.stack(pieces).mean(0)


def _look(frame: Tensor) -> Tensor:
    """Small grey picture, evened out patch by patch against changes of light, with mean 0 and norm 1; half precision."""
    grey = frame.detach().to("cpu", torch.float32).mean(-1)[None, None]
    small = torch.nn.functional.interpolate(grey, size=(_ROWS, _COLUMNS), mode="area")
    window = 2 * _PATCH + 1
    mean = torch.nn.functional.avg_pool2d(small, window, 1, _PATCH, count_include_pad=False)
    square = torch.nn.functional.avg_pool2d(small**2, window, 1, _PATCH, count_include_pad=False)
    flat = ((small - mean) / (square - mean**2).clamp_min(1e-4).sqrt()).reshape(-1)
    flat = flat - flat.mean()
    return (flat / flat.norm().clamp_min(1e-6)).half()
