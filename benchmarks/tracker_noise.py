"""The error of the tracker where nothing but sampling makes one: the floor ``cameras.thresholds.LEAST_NOISE``.

    python benchmarks/tracker_noise.py

A picture without frequencies above half of what the grid can hold is moved by known parts of a pixel (exactly, by the
phase of its Fourier transform), written as bytes, and its corners are followed. What the positions are off by is the
error of interpolation and of bytes, without noise of a sensor, motion blur, or a change of view.
"""

from __future__ import annotations

import numpy as np
import torch

from geo4d.tracks.follow import follow_points


def moved(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The periodic picture, moved by (dx, dy) pixels."""
    y, x = np.meshgrid(np.fft.fftfreq(picture.shape[0]), np.fft.fftfreq(picture.shape[1]), indexing="ij")
    return np.fft.ifft2(np.fft.fft2(picture) * np.exp(-2j * np.pi * (x * dx + y * dy))).real


def main() -> None:
    rng = np.random.default_rng(8_100_021)
    size = (240, 320)
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    frequency = np.hypot(x, y)
    spectrum = np.fft.fft2(rng.normal(size=size)) * (frequency < 0.25) / np.maximum(frequency, 0.02)
    picture = np.fft.ifft2(spectrum).real
    picture = 0.5 + 0.15 * picture / picture.std()
    shifts = rng.uniform(-2, 2, (12, 2))
    shifts[0] = 0
    frames = [
        torch.from_numpy(np.repeat(moved(picture, *s).clip(0, 1)[..., None], 3, 2)).float() for s in shifts
    ]
    rows, columns = np.meshgrid(np.arange(30, 210, 12), np.arange(30, 290, 12), indexing="ij")
    points = torch.from_numpy(np.stack([columns, rows], -1).reshape(-1, 2)).float() + 0.5
    xy, visible = follow_points(frames, points)
    expected = points + torch.from_numpy(shifts).float()[:, None]
    error = (xy - expected)[1:][visible[1:]]
    print(
        f"{len(error)} positions, standard deviation of a coordinate {float(error.square().mean().sqrt()):.4f} px, "
        f"median distance {float(error.norm(dim=1).median()):.4f} px"
    )


if __name__ == "__main__":
    main()
