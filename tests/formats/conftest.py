"""Cameras that formats are tried on."""

import numpy as np
import pytest


@pytest.fixture
def c2w(generator) -> np.ndarray:
    # Inside, because tests of files run where there is no torch, see .ci/decoders.
    import torch

    from tests.support.poses import se3_exp

    return se3_exp(torch.randn(5, 6, generator=generator, dtype=torch.float64)).numpy()


@pytest.fixture
def intrinsics() -> np.ndarray:
    return np.array([[50.0, 0, 20.5], [0, 51.0, 16.0], [0, 0, 1]])
