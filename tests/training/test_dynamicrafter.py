import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import full, small
from geo4d.models.geo4d.weights import main_table
from geo4d.models.geo4d.widths import with_modalities
from geo4d.training.dynamicrafter import dynamicrafter_table, from_dynamicrafter


def made_up_state(config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(key.shape, generator=generator) for name, key in dynamicrafter_table(config).items()
    }


def test_the_key_list_is_that_of_the_released_network_but_for_what_is_new() -> None:
    released, start = main_table(full()), dynamicrafter_table(full())
    missing = {name for name in released if name not in start}
    assert all("_adaptor." in name or "." not in name for name in missing)
    pairs = {name: (start[name].shape, released[name].shape) for name in start}
    changed = {name: (narrow, wide) for name, (narrow, wide) in pairs.items() if narrow != wide}
    assert changed == {
        "model.diffusion_model.input_blocks.0.0.weight": ((320, 8, 3, 3), (320, 20, 3, 3)),
        "model.diffusion_model.out.2.weight": ((4, 320, 3, 3), (16, 320, 3, 3)),
        "model.diffusion_model.out.2.bias": ((4,), (16,)),
    }
    # What the public checkpoints are known to hold, by the names used there.
    for name, shape in {
        "model.diffusion_model.time_embed.0.weight": (1280, 320),
        "model.diffusion_model.fps_embedding.2.bias": (1280,),
        "model.diffusion_model.init_attn.0.proj_in.weight": (512, 320, 1),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight": (320, 1024),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
        "image_proj_model.latents": (1, 256, 1024),
        "cond_stage_model.model.token_embedding.weight": (49408, 1024),
    }.items():
        assert start[name].shape == shape, name


def test_every_tensor_lands_in_a_part_and_the_wide_layers_repeat_the_narrow_ones() -> None:
    config = small()
    state = made_up_state(config)
    parts = from_dynamicrafter(state, config)
    unet = parts["unet"]
    narrow = state["model.diffusion_model.input_blocks.0.0.weight"]
    assert unet["conv_in.weight"].shape[1] == 20
    torch.testing.assert_close(unet["conv_in.weight"][:, :16].reshape(-1, 4, 4, 3, 3).sum(1), narrow[:, :4])
    assert torch.equal(unet["conv_in.weight"][:, 16:], narrow[:, 4:])
    for group in range(4):
        part = slice(4 * group, 4 * group + 4)
        assert torch.equal(unet["conv_out.bias"][part], state["model.diffusion_model.out.2.bias"])
    from geo4d.models.geo4d.weights import make_parts

    for name, module in make_parts(config).items():
        expected = {key for key in module.state_dict() if "_adaptor." not in key}
        assert set(parts[name]) == expected
        for key in expected:
            assert parts[name][key].shape == module.state_dict()[key].shape


def test_older_names_are_understood_and_gaps_are_named() -> None:
    config = small()
    state = made_up_state(config)
    older = {name.replace("fps_embedding", "framestride_embed"): tensor for name, tensor in state.items()}
    older["betas"] = torch.zeros(1000)
    assert set(from_dynamicrafter(older, config)["unet"]) == set(from_dynamicrafter(state, config)["unet"])
    del older["model.diffusion_model.framestride_embed.0.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: model\.diffusion_model\.fps_embedding\.0\.weight"):
        from_dynamicrafter(older, config)


def test_a_network_of_points_alone_takes_both_convolutions_as_they_are() -> None:
    state = made_up_state(small())
    config = with_modalities(small(), ("points",))
    unet = from_dynamicrafter(state, config)["unet"]
    assert torch.equal(unet["conv_in.weight"], state["model.diffusion_model.input_blocks.0.0.weight"])
    assert torch.equal(unet["conv_out.weight"], state["model.diffusion_model.out.2.weight"])
    assert torch.equal(unet["conv_out.bias"], state["model.diffusion_model.out.2.bias"])
    rays = from_dynamicrafter(state, with_modalities(small(), ("points", "rays")))["unet"]
    assert rays["conv_in.weight"].shape[1] == 4 * 3 + 4
    assert rays["conv_out.bias"].shape == (4 * 3,)
