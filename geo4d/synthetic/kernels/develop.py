"""Linear light to bytes: box filter, exposure, tone curve, noise of the sensor."""

from typing import no_type_check

import numpy as np

from geo4d.synthetic.kernels.compiled import kernel


@kernel
@no_type_check
def develop_frame(color, factor, block, gains, contrast, pivot, saturation, curve, noise, seed, rgb):
    """Linear colour [H * block, W * block, 3] to bytes [H, W, 3]: box filter, exposure, tone curve, noise.

    curve is a table over [0, 1]; noise is the deviation of a near-Gaussian that depends on seed and position.
    """
    height, width = rgb.shape[0], rgb.shape[1]
    last = curve.shape[0] - 1
    values = np.zeros(3)
    for i in range(height):
        for j in range(width):
            for c in range(3):
                total = 0.0
                for a in range(block):
                    for b in range(block):
                        total += color[i * block + a, j * block + b, c]
                x = max(0.0, min(1.0, total * factor * gains[c] / (block * block))) * last
                k = min(int(x), last - 1)
                values[c] = curve[k] + (curve[k + 1] - curve[k]) * (x - k)
            grey = (values[0] + values[1] + values[2]) / 3.0
            state = np.uint64(seed) + np.uint64(i * width + j) * np.uint64(0x9E3779B97F4A7C15)
            for c in range(3):
                value = grey + (values[c] - grey) * saturation
                value = (value - pivot) * contrast + pivot
                if noise > 0.0:
                    state += np.uint64(0x9E3779B97F4A7C15)
                    z = state
                    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    z = z ^ (z >> np.uint64(31))
                    # sum of four 16-bit uniforms: deviation sqrt(4 / 12)
                    total = 0.0
                    for _ in range(4):
                        total += float(z & np.uint64(0xFFFF)) / 65535.0
                        z = z >> np.uint64(16)
                    value += (total - 2.0) * 1.7320508 * noise
                rgb[i, j, c] = np.uint8(max(0.0, min(1.0, value)) * 255.0 + 0.5)
