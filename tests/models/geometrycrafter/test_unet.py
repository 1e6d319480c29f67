import pytest
import torch

from geo4d.models.deep_cache import DeepCache


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


def test_every_convolution_over_time_is_replaced(golden_folder, small):
    unet = small.make_unet(golden_folder, "determ")
    kinds = {type(module).__name__ for module in unet.modules() if isinstance(module, torch.nn.Conv3d)}
    assert kinds == {"TimeConv"}


@pytest.mark.parametrize("broadcast", [False, True])
def test_one_token_attention_equals_the_library_one(broadcast):
    from diffusers.models.attention_processor import Attention

    from geo4d.models.geometrycrafter.unet import OneTokenAttention

    attention = Attention(query_dim=16, cross_attention_dim=12, heads=2, dim_head=8).requires_grad_(False)
    x = torch.randn(6, 5, 16)
    token = torch.randn(1, 1, 12).expand(6, 1, 12) if broadcast else torch.randn(6, 1, 12)
    expected = attention(x, encoder_hidden_states=token)
    attention.set_processor(OneTokenAttention())
    torch.testing.assert_close(attention(x, encoder_hidden_states=token), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="one token"):
        attention(x, encoder_hidden_states=torch.randn(6, 2, 12))


@torch.no_grad()
def test_a_pass_that_reads_the_cache_sees_the_deep_levels_of_the_pass_before(golden, golden_folder, small):
    """Against a full pass in which a hook puts the earlier answer of the deep levels in the place of the new one."""
    data = golden("unet_diff")
    unet = small.make_unet(golden_folder, "diff")
    sample, *rest = (data[name] for name in ("sample", "timestep", "encoder_hidden_states", "added_time_ids"))
    cache, kept, last_deep = DeepCache(2), [], unet.up_blocks[-2]
    hook = last_deep.register_forward_hook(lambda module, seen, out: kept.append(out))
    assert torch.equal(unet(sample, *rest, cache), unet(sample, *rest))
    hook.remove()
    hook = last_deep.register_forward_hook(lambda module, seen, out: kept[0])
    wanted = unet(sample * 0.7, *rest)
    hook.remove()
    ran = []
    for part in (unet.mid_block, last_deep, unet.down_blocks[1]):
        part.register_forward_hook(lambda *unused: ran.append(unused))
    found = unet(sample * 0.7, *rest, cache)
    assert not ran
    torch.testing.assert_close(found, wanted)
    assert (found - unet(sample * 0.7, *rest)).abs().max() > 1e-5
    assert len(ran) == 3
