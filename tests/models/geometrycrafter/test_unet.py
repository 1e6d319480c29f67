import pytest
import torch


@pytest.mark.parametrize("variant", ["diff", "determ"])
@torch.no_grad()
def test_recorded_output(variant, golden, golden_folder, small):
    data = golden(f"unet_{variant}")
    unet = small.make_unet(golden_folder, variant)
    out = unet(data["sample"], data["timestep"], data["encoder_hidden_states"], data["added_time_ids"])
    assert (out - data["out"]).abs().max() < 2e-5


@torch.no_grad()
def test_latent_sides_must_be_multiples_of_eight(golden_folder, small):
    unet = small.make_unet(golden_folder, "determ")
    with pytest.raises(ValueError, match="multiples of 8"):
        unet(torch.zeros(1, 1, 8, 8, 12), 1.0, torch.zeros(1, 1, 48), torch.zeros(1, 3))
