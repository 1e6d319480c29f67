import torch

from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from tests.support.tiny_networks import inputs, run


def test_one_step_from_noise_is_minus_v() -> None:
    torch.manual_seed(1)
    model = TinyModel(smallest_preset())
    model.network.latent_out.weight.data.normal_(0, 0.1)
    rgb, noise, frames = inputs(1)
    evidence = no_evidence(1, 3, (32, 48), rgb)
    v = run(model.network, rgb, noise, frames)
    torch.testing.assert_close(model.sample(rgb, evidence, frames, noise, 1), -v, rtol=1e-4, atol=1e-5)


def test_several_steps_end_on_a_clean_latent() -> None:
    """A network that always knows the answer must end on it, whatever the number of steps."""
    from geo4d.diffusion.schedules import make_schedule
    from geo4d.models.tiny.model import SCHEDULE

    model = TinyModel(smallest_preset())
    rgb, noise, frames = inputs(1)
    truth = torch.randn_like(noise)
    power = make_schedule(SCHEDULE).alphas_cumprod.float()

    def knowing(latent, timestep, condition, positions):
        signal, spread = power[timestep].sqrt(), (1 - power[timestep]).sqrt()
        return (signal * latent - truth) / spread

    model.network.forward = knowing  # type: ignore[method-assign]
    for steps in (1, 2, 5, 25):
        found = model.sample(rgb, no_evidence(1, 3, (32, 48), rgb), frames, noise, steps)
        torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-3)
