"""v-prediction, its target, and guidance."""

import pytest
import torch

from geo4d.diffusion.denoiser import denoise_from_v, guide, noised, v_target, v_to_x0, v_training_pair
from geo4d.diffusion.schedules import make_schedule


def test_the_target_leads_back_to_the_clean_latent() -> None:
    schedule = make_schedule()
    clean, noise = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    timestep = torch.tensor([0, 10, 500, 999])
    x = noised(clean, noise, timestep, schedule.alphas_cumprod)
    v = v_target(clean, noise, timestep, schedule.alphas_cumprod)
    torch.testing.assert_close(v_to_x0(x, v, timestep, schedule.alphas_cumprod), clean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x[3], noise[3])
    torch.testing.assert_close(v[3], -clean[3])


def test_training_pair_includes_the_dynamic_rescale() -> None:
    schedule = make_schedule()
    latent, noise, timestep = torch.randn(2, 6), torch.randn(2, 6), torch.tensor([100, 800])
    x, target = v_training_pair(latent, noise, timestep, schedule.alphas_cumprod, schedule.scale)
    scaled = latent * schedule.scale[timestep, None].float()
    torch.testing.assert_close(x, noised(scaled, noise, timestep, schedule.alphas_cumprod))
    torch.testing.assert_close(target, v_target(scaled, noise, timestep, schedule.alphas_cumprod))


def test_guidance() -> None:
    c, u, p = torch.randn(3, 2, 8, 8).unbind(0)
    torch.testing.assert_close(guide(c, u, 1.0), c)
    torch.testing.assert_close(guide(c, u, 0.0), u)
    torch.testing.assert_close(guide(c, u, 3.0, partial=p, partial_scale=1.0), p + 3 * (c - p))
    torch.testing.assert_close(guide(c, u, 3.0, partial=u, partial_scale=5.0), guide(c, u, 3.0))
    pulled = guide(c, u, 5.0, rescale=1.0)
    torch.testing.assert_close(pulled.std((1, 2)), c.std((1, 2)))
    mixed = guide(c, u, 5.0, rescale=0.25)
    torch.testing.assert_close(mixed, 0.25 * pulled + 0.75 * guide(c, u, 5.0))


def test_branches_are_evaluated_only_when_needed() -> None:
    schedule = make_schedule()
    seen: list[object] = []

    def predict_v(x: torch.Tensor, timestep: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append(condition)
        return x * {"full": 1.0, "none": 2.0, "image": 3.0}[str(condition)]

    x, timestep = torch.randn(1, 4), torch.tensor([999])
    conditions = ["full", "none", "image"]
    x0 = denoise_from_v(predict_v, conditions, schedule.alphas_cumprod)(x, timestep)
    assert seen == ["full"]
    torch.testing.assert_close(x0, -x)
    seen.clear()
    guided = denoise_from_v(predict_v, conditions, schedule.alphas_cumprod, scale=2.0)(x, timestep)
    assert seen == ["full", "none"]
    torch.testing.assert_close(guided, -(2 * x + 2 * (x - 2 * x)))
    seen.clear()
    denoise_from_v(predict_v, conditions, schedule.alphas_cumprod, scale=2.0, partial_scale=1.5)(x, timestep)
    assert seen == conditions
    with pytest.raises(ValueError, match="expected 3 conditions"):
        denoise_from_v(predict_v, conditions[:2], schedule.alphas_cumprod, partial_scale=1.5)
