"""What the deep levels of a denoising UNet answered, kept for the next sampling steps.

Neighbouring steps differ most in the fine details, which the outermost level sees: the output of everything below it is
computed on every n-th step and used again in between. Source: Ma et al., "DeepCache: Accelerating Diffusion Models for
Free", CVPR 2024.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class DeepCache:
    """For one window and one condition, over the steps of one sampling run.

    Attributes:
        interval: steps from one full pass to the next; 1 makes every pass full.
    """

    interval: int
    _hidden: Tensor | None = None
    _uses: int = 0

    def __post_init__(self) -> None:
        require_interval(self.interval)

    @property
    def holds(self) -> bool:
        """Whether this pass can use what an earlier one kept."""
        return self._hidden is not None

    def keep(self, hidden: Tensor) -> None:
        """Keep what enters the outermost level on the way up, for the next ``interval`` - 1 passes."""
        self._uses = self.interval - 1
        self._hidden = hidden if self._uses else None

    def read(self) -> Tensor:
        """What was kept; with the last use it is forgotten, so that the next pass is a full one.

        Raises:
            ValueError: nothing is there.
        """
        if self._hidden is None:
            raise ValueError("expected a full pass before one that reads the cache")
        hidden, self._uses = self._hidden, self._uses - 1
        if self._uses == 0:
            self._hidden = None
        return hidden


def require_interval(interval: int) -> None:
    """Check the option ``cache_interval``.

    Raises:
        ValueError: less than 1.
    """
    if interval < 1:
        raise ValueError(f"expected cache_interval >= 1 (1 computes every step in full), got {interval}")
