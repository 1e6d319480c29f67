"""Unknowns of the alignment from a stated seed."""

import numpy as np
import torch

from geo4d.fusion.variables import Variables
from geo4d.geometry.poses import so3_exp


def random_variables(num_frames: int, num_windows: int, num_tracks: int, num_samples: int) -> Variables:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Variables(
        rotation=so3_exp(0.02 * draw(num_frames, 3)),
        centre=0.1 * draw(num_frames, 3),
        log_focal=torch.full((num_frames,), float(np.log(36.0)), dtype=torch.float64),
        window_scale=0.5 + 0.05 * draw(num_windows).abs(),
        window_rotation=so3_exp(0.05 * draw(num_windows, 3)),
        window_translation=torch.tensor([0.0, 0.0, 1.0]).double() + 0.05 * draw(num_windows, 3),
        disparity_scale=1 + 0.1 * draw(num_windows).abs(),
        disparity_shift=0.3 + 0.05 * draw(num_windows),
        trajectory_scale=1 + 0.1 * draw(num_tracks).abs(),
        trajectory_rotation=so3_exp(0.02 * draw(num_tracks, 3)),
        trajectory_translation=0.1 * draw(num_tracks, 3),
        log_depth=(0.2 * draw(num_frames, num_samples)).float(),
    )
