import pytest
import torch

from geo4d.models.moge.backbone import PATCH, TRAINED_PATCHES, Attention, DinoV2, LayerScale


@pytest.fixture(scope="module")
def network() -> DinoV2:
    torch.manual_seed(0)
    net = DinoV2(width=12, depth=3, heads=2).eval()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return net


def picture(height: int = 2, width: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, PATCH * height, PATCH * width, generator=torch.Generator().manual_seed(1))


def test_features_of_the_last_layers_in_order(network: DinoV2) -> None:
    two, three = network(picture(), 2), network(picture(), 3)
    assert len(two) == 2
    assert len(three) == 3
    for (patches, token), (same, same_token) in zip(two, three[1:], strict=True):
        assert patches.shape == (2, 12, 2, 3)
        assert token.shape == (2, 12)
        assert torch.equal(patches, same)
        assert torch.equal(token, same_token)


def test_features_are_normed(network: DinoV2) -> None:
    patches, _ = network(picture(), 1)[0]
    plain = (patches - network.norm.bias[None, :, None, None]) / network.norm.weight[None, :, None, None]
    torch.testing.assert_close(plain.mean(1), torch.zeros(2, 2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(plain.var(1, correction=0), torch.ones(2, 2, 3), atol=1e-3, rtol=0)


def test_pictures_do_not_see_each_other_and_patches_do(network: DinoV2) -> None:
    whole = network(picture(), 1)[0][0]
    changed = picture()
    changed[0, :, :PATCH, :PATCH] += 1
    other = network(changed, 1)[0][0]
    assert torch.equal(whole[1], other[1])
    assert (whole[0] != other[0]).flatten(1).any(0).all()  # every patch of that picture


def test_positions_of_the_trained_grid_are_the_stored_ones(network: DinoV2) -> None:
    assert torch.equal(network.position(TRAINED_PATCHES, TRAINED_PATCHES), network.pos_embed)


def test_other_grids_sample_the_trained_one() -> None:
    net = DinoV2(width=2, depth=1, heads=1)
    row = torch.linspace(0, 1, TRAINED_PATCHES)
    grid = torch.stack(torch.meshgrid(row, row, indexing="ij"), -1).reshape(1, -1, 2)
    net.pos_embed.data = torch.cat([torch.full((1, 1, 2), 9.0), grid], 1)
    found = net.position(18, 25)
    assert found.shape == (1, 1 + 18 * 25, 2)
    assert found[0, 0].tolist() == [9, 9]  # the class token has no place
    places = found[0, 1:].reshape(18, 25, 2)
    expected = ((torch.arange(18) + 0.5) / 18 * TRAINED_PATCHES - 0.5) / (TRAINED_PATCHES - 1)
    torch.testing.assert_close(places[2:-2, 12, 0], expected[2:-2], atol=0.02, rtol=0)
    assert (places[:, :, 1].diff(dim=1)[:, 2:-2] > 0).all()


def test_attention_of_one_token_is_a_matrix() -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2)
    x = torch.randn(3, 1, 8)
    value = layer.qkv(x)[..., 16:]
    torch.testing.assert_close(layer(x), layer.proj(value))


def test_scale_starts_small_so_that_a_fresh_layer_hardly_acts() -> None:
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(LayerScale(4)(x), 1e-5 * x)
