"""What a layout decides beside the things it places."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Plan:
    """What a layout decides beside the primitives: where the camera starts and the light."""

    position: np.ndarray
    yaw: float
    pitch: float
    speed: float
    extent: float
    target: np.ndarray
    follow: bool = False
    indoor: bool = False
    lamp: np.ndarray | None = None
    low: np.ndarray | None = None  # [3] the camera stays inside this box
    high: np.ndarray | None = None
    subjects: list[int] = field(default_factory=list)
