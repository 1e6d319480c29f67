"""Shot cuts: where a video jumps from one scene to another, so that no window looks across."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_ROWS, _COLUMNS, _BINS = 18, 32, 4


@dataclass(frozen=True)
class ShotConfig:
    """When a change between frames counts as a cut.

    Attributes:
        min_colour: change of the colour histogram (half the 1-norm, in [0, 1]) that a cut exceeds.
        min_picture: mean change of the small picture, in [0, 1], that a cut exceeds.
        ratio: a cut changes both this many times more than is usual around it.
        context: frames on either side that tell what is usual.
        min_length: shots shorter than this many frames stay with the one before.
    """

    min_colour: float = 0.25
    min_picture: float = 0.06
    ratio: float = 3.0
    context: int = 8
    min_length: int = 4


class ShotFinder:
    """Hard cuts of a video whose frames come one by one; a few small pictures are kept.

    A cut must change the colours and the picture, by itself and against what is usual around it, and the change must
    last: a flash of one frame is no cut. Fades and dissolves are not found.
    """

    def __init__(self, config: ShotConfig | None = None) -> None:
        self.count = 0
        self._config = config or ShotConfig()
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=4)
        self._changes: list[tuple[float, float]] = []
        self._lasting: list[tuple[float, float]] = []

    def add(self, frame: Float[Tensor, "H W 3"]) -> None:
        """The next frame, colour in [0, 1]."""
        recent = self._recent
        recent.append(_signature(frame))
        self.count += 1
        if self.count >= 2:
            self._changes.append(_change(recent[-2], recent[-1]))
        if self.count >= 4:
            # The cut between the two middle frames must also separate their neighbours.
            pairs = [_change(recent[a], recent[b]) for a in (0, 1) for b in (2, 3)]
            self._lasting.append((min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)))

    def shots(self) -> list[tuple[int, int]]:
        """[start, end) of every shot so far; empty before the first frame."""
        if self.count == 0:
            return []
        config, changes = self._config, self._changes
        # Change number t lies between frames t and t + 1; at the ends there is no neighbour to ask.
        lasting = [changes[0], *self._lasting, changes[-1]] if self.count >= 4 else changes
        cuts = [0]
        for t in range(len(changes)):
            around = [
                *changes[max(0, t - config.context) : t],
                *changes[t + 1 : t + 1 + config.context],
            ]
            usual_colour = float(np.median([change[0] for change in around])) if around else 0.0
            usual_picture = float(np.median([change[1] for change in around])) if around else 0.0
            if (
                lasting[t][0] > max(config.min_colour, config.ratio * usual_colour)
                and lasting[t][1] > max(config.min_picture, config.ratio * usual_picture)
                and t + 1 - cuts[-1] >= config.min_length
                and self.count - (t + 1) >= config.min_length
            ):
                cuts.append(t + 1)
        return list(zip(cuts, [*cuts[1:], self.count], strict=True))


def _signature(frame: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Colour histogram that sums to 1, and a small picture in [0, 1]."""
    chw = frame.detach().to("cpu", torch.float32).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(chw, size=(_ROWS, _COLUMNS), mode="area")[0].clamp(0, 1)
    bins = (small * (_BINS - 1e-3)).long()
    flat = (bins[0] * _BINS + bins[1]) * _BINS + bins[2]
    histogram = torch.bincount(flat.reshape(-1), minlength=_BINS**3).float() / flat.numel()
    return histogram.numpy(), small.numpy()


def _change(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    return 0.5 * float(np.abs(first[0] - second[0]).sum()), float(np.abs(first[1] - second[1]).mean())
