import math

import pytest
import torch

from geo4d.diffusion.karras import guided, karras_noise_levels, v_denoiser, v_preconditioning


def test_published_levels():
    levels = karras_noise_levels(5)
    expected = torch.tensor([700.0, 134.85445, 15.589968, 0.678146, 0.002, 0.0])
    torch.testing.assert_close(levels, expected, rtol=1e-6, atol=0)
    assert karras_noise_levels(1).tolist() == [700.0, 0.0]


@pytest.mark.parametrize("num_steps", [2, 7, 40])
def test_levels_fall_strictly_to_zero(num_steps):
    levels = karras_noise_levels(num_steps, 0.1, 50.0, rho=3.0)
    assert levels[0] == 50
    assert levels[-2] == pytest.approx(0.1)
    assert levels[-1] == 0
    assert (levels[1:] < levels[:-1]).all()


def test_wrong_levels_are_refused():
    for arguments in ((0,), (3, -1.0), (3, 2.0, 1.0)):
        with pytest.raises(ValueError, match="expected"):
            karras_noise_levels(*arguments)
    with pytest.raises(ValueError, match="positive"):
        v_preconditioning(0.0)


@pytest.mark.parametrize("level", [0.002, 1.0, 700.0])
def test_preconditioning_inverts_the_definition_of_v(level):
    """For unit-variance scaling, v = cos * noise - sin * x0 with tan(angle) = level."""
    x0, noise = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    cos, sin = 1 / math.hypot(1, level), level / math.hypot(1, level)
    v = cos * noise - sin * x0
    factors = v_preconditioning(level)
    x = x0 + level * noise
    torch.testing.assert_close(factors.skip * x + factors.out * v, x0, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(factors.scale_in * x, cos * x0 + sin * noise)
    assert factors.timestep == pytest.approx(math.log(level) / 4)


def test_denoiser_passes_scaled_input_and_timestep():
    seen = []

    def network(x, timestep):
        seen.append((x, timestep))
        return torch.zeros_like(x)

    x = torch.ones(3)
    torch.testing.assert_close(v_denoiser(network)(x, 3.0), x / 10)
    torch.testing.assert_close(seen[0][0], x / math.sqrt(10))
    assert seen[0][1] == pytest.approx(math.log(3) / 4)


def test_guidance_of_one_is_the_condition():
    both = guided(lambda x, t: 2 * x, lambda x, t: x, 1.0)
    x = torch.randn(4)
    torch.testing.assert_close(both(x, 0.0), 2 * x)
    stronger = guided(lambda x, t: 2 * x, lambda x, t: x, 3.0)
    torch.testing.assert_close(stronger(x, 0.0), 4 * x)
