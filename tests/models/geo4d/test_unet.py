"""The UNet against itself: layouts, contexts, batches, frames."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geo4d.models.deep_cache import DeepCache
from geo4d.models.geo4d.blocks import TemporalConv, sinusoidal_embedding
from geo4d.models.geo4d.unet import UNet
from geo4d.models.layers import GroupNorm, hold_weights, use_channels_last


def inputs(
    unet: UNet, batch: int = 1, frames: int = 4, tokens: int | None = None, size: int = 8
) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(3)
    config = unet.config
    tokens = config.text_tokens + config.image_tokens_per_frame * frames if tokens is None else tokens
    return (
        torch.randn(batch, config.in_channels, frames, size, size, generator=generator),
        torch.tensor([999, 40, 7][:batch]),
        torch.randn(batch, tokens, config.context_dim, generator=generator),
        torch.tensor([24, 8, 30][:batch]),
    )


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_windows_of_a_batch_do_not_mix(make_part: Callable[..., UNet]) -> None:
    unet = make_part("unet").double()  # rounding aside, whatever the number of threads
    x, t, context, fps = (v.double() if v.is_floating_point() else v for v in inputs(unet, batch=3))
    together = unet(x, t, context, fps)
    apart = torch.cat(
        [unet(x[i : i + 1], t[i : i + 1], context[i : i + 1], fps[i : i + 1]) for i in range(3)]
    )
    assert relative(together, apart) < 1e-6


@pytest.mark.parametrize("tokens", [None, 90])
def test_precomputed_keys_give_the_same(make_part: Callable[..., UNet], tokens: int | None) -> None:
    unet = make_part("unet")
    x, t, context, fps = inputs(unet, batch=2, tokens=tokens)
    shared = context[:1]
    keys = unet.context_keys(shared)
    torch.testing.assert_close(unet(x, t, keys, fps), unet(x, t, shared.expand(2, -1, -1), fps))


def test_layouts_agree(make_part: Callable[..., UNet]) -> None:
    plain, last = make_part("unet"), use_channels_last(make_part("unet"))
    arguments = inputs(plain, batch=2)
    assert relative(last(*arguments), plain(*arguments)) < 5e-6


def test_bfloat16_is_close(make_part: Callable[..., UNet]) -> None:
    plain = make_part("unet")
    half = use_channels_last(hold_weights(make_part("unet"), torch.bfloat16))
    arguments = inputs(plain)
    assert half.norm_out.weight.dtype == torch.float32
    assert 1e-5 < relative(half(*arguments), plain(*arguments)) < 4e-2


def test_timestep_per_frame(make_part: Callable[..., UNet]) -> None:
    unet = make_part("unet")
    x, t, context, fps = inputs(unet)
    torch.testing.assert_close(unet(x, t[:, None].expand(1, 4), context, fps), unet(x, t, context, fps))
    varied = unet(x, torch.tensor([[999, 999, 5, 999]]), context, fps)
    assert relative(varied, unet(x, t, context, fps)) > 1e-3


def test_each_frame_sees_its_own_image_tokens(make_part: Callable[..., UNet]) -> None:
    unet = make_part("unet")
    x, t, context, fps = inputs(unet)
    text, image = context[:, :77], context[:, 77:].unflatten(1, (4, 16))
    swapped = torch.cat([text, image[:, [1, 0, 2, 3]].flatten(1, 2)], 1)
    assert relative(unet(x, t, swapped, fps), unet(x, t, context, fps)) > 1e-3
    within = torch.cat([text.flip(1), image.flip(2).flatten(1, 2)], 1)
    assert relative(unet(x, t, within, fps), unet(x, t, context, fps)) < 1e-5


def test_wrong_inputs(make_part: Callable[..., UNet]) -> None:
    unet = make_part("unet")
    x, t, context, fps = inputs(unet, size=9)
    with pytest.raises(ValueError, match="divisible by 2, got 9 x 9"):
        unet(x, t, context, fps)
    with pytest.raises(ValueError, match="more than 77 context tokens"):
        unet.context_keys(context[:, :77])


def test_feed_forward_in_blocks(make_part: Callable[..., UNet], monkeypatch: pytest.MonkeyPatch) -> None:
    unet = make_part("unet")
    arguments = inputs(unet)
    with torch.no_grad():
        whole = unet(*arguments)
        monkeypatch.setattr("geo4d.models.geo4d.blocks.FEED_FORWARD_ROWS", 100)
        assert relative(unet(*arguments), whole) < 1e-6


def test_gradient_checkpointing_gives_the_same_gradients(make_part: Callable[..., UNet]) -> None:
    gradients = []
    for checkpointing in (False, True):
        unet = make_part("unet").requires_grad_(True)
        unet.gradient_checkpointing = checkpointing
        unet(*inputs(unet, frames=2)).square().mean().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters()})
    assert all(g is not None and g.abs().max() > 0 for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)


COMPILED = """
import torch
from torch._dynamo.utils import counters
from geo4d.models.geo4d.config import small
from geo4d.models.geo4d.blocks import SpatialBlock, TemporalBlock
from geo4d.models.geo4d.unet import UNet

torch.manual_seed(0)
unet = UNet(small().unet).eval().requires_grad_(False)
arguments = torch.randn(1, 20, 2, 8, 8), torch.tensor([5]), torch.randn(1, 109, 64), torch.tensor([24])
plain = unet(*arguments)
unet.compile_transformers("eager")
torch.testing.assert_close(unet(*arguments), plain)
blocks = sum(isinstance(m, SpatialBlock | TemporalBlock) for m in unet.modules())
print(counters["stats"]["unique_graphs"], blocks)
"""


def test_compiled_transformers_share_their_graphs(repository: Path) -> None:
    """In a process of its own: the shape checks of the tests are nothing that a compiler can follow."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=repository, check=False
    )
    assert done.returncode == 0, done.stderr
    graphs, blocks = map(int, done.stdout.split())
    assert blocks == 33
    assert 2 <= graphs <= 10


def test_temporal_conv_is_the_three_dimensional_one() -> None:
    torch.manual_seed(0)
    ours = TemporalConv(32)
    x = torch.randn(6, 32, 5, 7)  # two windows of three frames
    hidden = identity = x.unflatten(0, (2, 3)).transpose(1, 2)
    for norm, conv in zip(ours.norms, ours.convs, strict=True):
        hidden = torch.nn.functional.silu(norm(hidden))
        hidden = torch.nn.functional.conv3d(hidden, conv.weight[..., None], conv.bias, padding=(1, 0, 0))
    expected = (identity + hidden).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(ours(x, 3), expected, rtol=1e-5, atol=1e-5)


def test_group_norm_layouts() -> None:
    norm = GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 8, 6, 5) + 3
    exact = torch.nn.functional.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        assert relative(norm(x.contiguous(memory_format=layout)), exact) < 2e-7
    half = norm(x.bfloat16().contiguous(memory_format=torch.channels_last))
    assert half.dtype == torch.bfloat16
    assert relative(half, exact) < 1e-2


def test_sinusoidal_embedding_starts_with_cosines() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0.0, 2.0]), 8)
    assert embedding[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    frequency = torch.tensor([10000.0 ** (-k / 4) for k in range(4)])
    torch.testing.assert_close(embedding[1], torch.cat([(2 * frequency).cos(), (2 * frequency).sin()]))


@torch.no_grad()
def test_a_pass_that_reads_the_cache_sees_the_deep_levels_of_the_pass_before(
    make_part: Callable[..., UNet],
) -> None:
    """Against a full pass in which a hook puts the earlier answer of the deep levels in the place of the new one."""
    unet = make_part("unet").double()
    x, t, context, fps = (v.double() if v.is_floating_point() else v for v in inputs(unet, batch=2))
    cache = DeepCache(2)
    kept: list[torch.Tensor] = []
    last_deep = unet.up[-unet.config.num_res_blocks - 2]
    hook = last_deep.register_forward_hook(lambda module, seen, out: kept.append(out))
    first = unet(x, t, context, fps, cache)
    assert torch.equal(first, unet(x, t, context, fps))
    hook.remove()
    other, later = x.flip(0) * 0.7, t - 5
    hook = last_deep.register_forward_hook(lambda module, seen, out: kept[0])
    wanted = unet(other, later, context, fps)
    hook.remove()
    ran = []
    for part in (unet.middle, last_deep, unet.down[-1]):
        part.register_forward_hook(lambda *unused: ran.append(unused))
    found = unet(other, later, context, fps, cache)
    assert not ran
    torch.testing.assert_close(found, wanted)
    assert relative(found, unet(other, later, context, fps)) > 1e-6
    assert len(ran) == 3
    assert not cache.holds
