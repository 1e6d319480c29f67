import pytest
import torch
from torch import nn

from geo4d.models import layers
from geo4d.models.layers import (
    MOST_SEQUENCES,
    GroupNorm,
    LayerNorm,
    TimeConv,
    as_layout_of,
    attention,
    flatten_time_convs,
    hold_weights,
    set_norm_groups,
    use_channels_last,
)
from tests.support.fake_device import DEVICE, FakeDevice


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_group_norm(x: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
    grouped = x.double().reshape(x.shape[0], norm.num_groups, -1)
    mean, variance = grouped.mean(-1, keepdim=True), grouped.var(-1, correction=0, keepdim=True)
    normal = ((grouped - mean) / (variance + norm.eps).sqrt()).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return normal * norm.weight.double().reshape(shape) + norm.bias.double().reshape(shape)


@pytest.mark.parametrize("innermost", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_in_any_layout_and_type(innermost: bool, dtype: torch.dtype) -> None:
    norm = GroupNorm(4, 12)
    with torch.no_grad():
        norm.weight.copy_(draw(12, seed=1))
        norm.bias.copy_(draw(12, seed=2))
    x = (3 + 2 * draw(2, 12, 10, 14)).to(dtype)
    if innermost:
        x = x.contiguous(memory_format=torch.channels_last)
    found = norm(x)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.double(), exact_group_norm(x, norm), atol=tolerance, rtol=tolerance)


def test_sums_over_a_large_picture_keep_their_digits() -> None:
    norm = GroupNorm(1, 4)
    x = (1000 + draw(1, 4, 256, 256)).float().contiguous(memory_format=torch.channels_last)
    error = (norm(x).double() - exact_group_norm(x, norm)).abs().max()
    assert error < 1e-4


def test_layer_norm_keeps_the_type_of_its_input() -> None:
    norm = LayerNorm(6)
    x = draw(3, 5, 6)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x.float()).double(), expected, atol=1e-6, rtol=1e-5)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_attention_is_softmax_of_scaled_products() -> None:
    q, k, v = draw(2, 3, 4, 5, seed=1), draw(2, 7, 4, 5, seed=2), draw(2, 7, 4, 5, seed=3)
    weights = torch.softmax(torch.einsum("blhd,bshd->bhls", q, k) / 5**0.5, -1)
    expected = torch.einsum("bhls,bshd->blhd", weights, v).flatten(2)
    torch.testing.assert_close(attention(q, k, v), expected)


def test_causal_attention_does_not_look_ahead() -> None:
    q, k, v = (draw(1, 6, 2, 4, seed=s) for s in (1, 2, 3))
    later = v.clone()
    later[:, 4:] += 100
    first, second = attention(q, k, v, causal=True), attention(q, k, later, causal=True)
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert (first[:, 4:] - second[:, 4:]).abs().min() > 1
    torch.testing.assert_close(first[:, 0], v[:, 0].flatten(1))


def test_features_take_type_and_layout_of_the_kernel() -> None:
    conv = nn.Conv2d(3, 5, 3)
    x = draw(2, 3, 4, 6)
    plain = as_layout_of(conv.weight, x)
    assert plain.dtype == torch.float32
    assert plain.is_contiguous()
    use_channels_last(conv)
    innermost = as_layout_of(conv.weight, x)
    assert innermost.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, innermost)


def test_norms_and_embeddings_stay_in_float32() -> None:
    module = nn.ModuleDict(
        {"a": nn.Conv2d(8, 8, 3), "b": nn.Linear(2, 2), "n": GroupNorm(2, 8), "e": nn.Embedding(3, 2)}
    )
    hold_weights(module, torch.bfloat16)
    kinds = {name: next(child.parameters()).dtype for name, child in module.items()}
    assert kinds == {"a": torch.bfloat16, "b": torch.bfloat16, "n": torch.float32, "e": torch.float32}


def test_attention_is_split_where_a_fused_kernel_takes_no_more_sequences() -> None:
    query, key, value = torch.randn(3, MOST_SEQUENCES + 10, 2, 1, 4).unbind()
    plain = attention(query, key, value)
    with FakeDevice() as device:
        moved = [tensor.to(DEVICE) for tensor in (query, key, value)]
        found = attention(*moved).cpu()
        # 32 windows of 320x512: one sequence for each latent pixel of a window.
        assert max(device.attention_batches) <= 65_535
        assert sum(device.attention_batches) == len(query)
    torch.testing.assert_close(found, plain)


def test_attention_written_out_in_training_is_that_of_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [draw(2, length, 3, 4, seed=length).requires_grad_() for length in (5, 7, 7)]
    weight = draw(2, 5, 12, seed=1)

    def answers() -> list[torch.Tensor]:
        out = attention(*given)
        return [out, *torch.autograd.grad((out * weight).sum(), given)]

    calls: list[int] = []
    fused = nn.functional.scaled_dot_product_attention

    def counted(*args: torch.Tensor, **options: bool) -> torch.Tensor:
        calls.append(1)
        return fused(*args, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
    written = answers()
    assert not calls
    monkeypatch.setattr(layers, "LARGEST_TABLE", 2 * 3 * 5 * 7 - 1)
    torch.testing.assert_close(answers(), written)
    assert len(calls) == 1
    with torch.no_grad():
        monkeypatch.undo()
        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
        torch.testing.assert_close(attention(*given), written[0])
    assert len(calls) == 2


def test_convolutions_over_time_alone_are_flattened_and_answer_the_same() -> None:
    network = nn.ModuleList([
        nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(4, 6, (3, 3, 3), padding=1),
        nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0), stride=(2, 1, 1)),
    ])  # fmt: skip
    x = torch.randn(2, 4, 5, 6, 7)
    before = [layer(x) for layer in network]
    names = list(network.state_dict())
    flatten_time_convs(network)
    assert [type(layer) for layer in network] == [TimeConv, nn.Conv3d, nn.Conv3d]
    assert list(network.state_dict()) == names
    for layer, wanted in zip(network, before, strict=True):
        torch.testing.assert_close(layer(x), wanted)
    gradients = torch.autograd.grad(network[0](x).square().sum(), list(network[0].parameters()))
    reference = nn.functional.conv3d(x, network[0].weight, network[0].bias, padding=(1, 0, 0))
    wanted = torch.autograd.grad(reference.square().sum(), list(network[0].parameters()))
    torch.testing.assert_close(gradients, wanted)


def test_groups_of_every_norm_are_set_and_what_a_map_is_as_a_whole_gets_through() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 16, 1, bias=False), GroupNorm(16, 16), nn.Sequential(nn.GroupNorm(16, 16))
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.linspace(-1, 1, 16).reshape(16, 1, 1, 1))
    far = torch.rand(1, 1, 8, 8)
    near = far + 5
    # Norms of single channels answer the same for both: the level of a map is gone.
    torch.testing.assert_close(network(near), network(far), rtol=1e-3, atol=1e-3)
    assert set_norm_groups(network, 4) is network
    assert [norm.num_groups for norm in network.modules() if isinstance(norm, nn.GroupNorm)] == [4, 4]
    assert (network(near) - network(far)).abs().mean() > 0.1
    with pytest.raises(ValueError, match=r"divides 16 channels \(1\), got 5"):
        set_norm_groups(network, 5)
