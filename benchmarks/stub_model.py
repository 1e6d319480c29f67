"""A predictor that knows its answer, so that what is measured is all that surrounds a network."""

import time
from dataclasses import dataclass
from typing import Any

from tests.support.truth import BoxWorld, TruthPredictor


@dataclass
class BusyPredictor(TruthPredictor):
    """Computes for so many seconds of CPU per window, as a network would."""

    busy: float = 0.0

    def predict(self, window: Any, **rest: Any) -> Any:
        """As of ``TruthPredictor``."""
        until = time.thread_time() + self.busy
        while time.thread_time() < until:
            pass
        return super().predict(window, **rest)


def load(
    name: str, *, weights: Any = None, device: Any = None, dtype: Any = None, **options: Any
) -> TruthPredictor:
    """As a loader of another package: found by its name in every process."""
    return BusyPredictor(BoxWorld((24, 40)), **{"length": 8, "stride": 4, **options})
