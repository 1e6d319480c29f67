"""Sizes of frames, and a frame at another size."""

import numpy as np


def fit_size(size: tuple[int, int], max_size: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most ``max_size``, aspect kept, never enlarged."""
    height, width = size
    if max_size is None or max(size) <= max_size:
        return size
    scale = max_size / max(size)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, C] at ``size`` (height, width): averaged where it shrinks, bilinear where it grows."""
    import cv2

    height, width = size
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height * width < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
