"""Pictures in memory as a source of frames."""

import numpy as np
from torch import Tensor

from geo4d.errors import InputError
from geo4d.video.limits import MAX_PIXELS


class ArraySource:
    """Frames in memory, uint8 or float in [0, 1]."""

    def __init__(self, array: np.ndarray | Tensor) -> None:
        array = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
        if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
            raise ValueError(f"expected video [T, H, W, 3] with T, H, W >= 1, got {list(array.shape)}")
        if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"expected uint8, or float in [0, 1], got {array.dtype}")
        if array.shape[1] * array.shape[2] > MAX_PIXELS:
            raise InputError(f"expected at most {MAX_PIXELS} pixels per frame, got {list(array.shape)}")
        self.array = array
        self.num_frames = array.shape[0]
        self.size = (array.shape[1], array.shape[2])

    def read(self, index: int) -> np.ndarray:
        frame = self.array[index]
        if frame.dtype != np.uint8:
            if not np.isfinite(frame).all() or frame.min() < -1e-3 or frame.max() > 1 + 1e-3:
                raise InputError(f"frame {index}: expected float colour in [0, 1], got values outside")
            frame = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(frame)

    def close(self) -> None:
        pass
