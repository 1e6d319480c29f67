"""DynamiCrafter's weights as the start of a Geo4D network: which tensor goes where, and what is new.

The two networks differ in the first and the last convolution of the UNet (4 latent channels against 4 per group) and
in the codec's two adaptors, which DynamiCrafter does not have. Everything else is taken over unchanged.

The published papers do not say how the wider layers start; we repeat the 4 output channels for each group of latent
channels and share the 4 input channels out among them (divided by the number of groups), so that at the start every
group is denoised as a picture would be. A network of point maps alone has one group, and takes both layers as they are.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.weights import (
    MAIN_PREFIXES,
    PublishedKey,
    from_published,
    main_table,
    normalise_main,
)

_WIDENED = ("conv_in.weight", "conv_out.weight", "conv_out.bias")


def dynamicrafter_table(config: Geo4DConfig) -> dict[str, PublishedKey]:
    """Every key that a DynamiCrafter checkpoint of this size holds; shapes as in that file.

    Schedule tables are not expected: they are computed from the config.
    """
    table = {}
    for name, key in main_table(config).items():
        if "_adaptor." in name or not name.startswith(tuple(_prefixes())):
            continue
        if key.part == "unet" and key.ours in _WIDENED:
            shape = _narrow_shape(key.ours or "", key.shape, config)
            key = replace(key, shape=shape, our_shape=shape)
        table[name] = key
    return table


def from_dynamicrafter(
    state: Mapping[str, Tensor], config: Geo4DConfig, source: str = "the checkpoint"
) -> dict[str, dict[str, Tensor]]:
    """Our parts from a DynamiCrafter state; the adaptors of the codec are not among them.

    Raises:
        CheckpointError: keys miss, are surplus, or have another shape; it says which.
    """
    expected = tuple(_prefixes())
    kept = {name: tensor for name, tensor in normalise_main(state).items() if name.startswith(expected)}
    parts, _ = from_published(kept, dynamicrafter_table(config), source)
    groups = len(config.latent_groups)
    unet = parts["unet"]
    first = unet["conv_in.weight"]
    latent = config.vae.latent_channels
    noisy, colour = first[:, :latent], first[:, latent:]
    unet["conv_in.weight"] = torch.cat([noisy.repeat(1, groups, 1, 1) / groups, colour], dim=1)
    unet["conv_out.weight"] = unet["conv_out.weight"].repeat(groups, 1, 1, 1)
    unet["conv_out.bias"] = unet["conv_out.bias"].repeat(groups)
    return parts


def _prefixes() -> list[str]:
    # The image embedder stores unused leftovers of its text side beside the vision tower.
    return [prefix.replace("visual.", "") for prefix in MAIN_PREFIXES.values()]


def _narrow_shape(name: str, shape: tuple[int, ...], config: Geo4DConfig) -> tuple[int, ...]:
    latent = config.vae.latent_channels
    if name == "conv_in.weight":
        return (shape[0], 2 * latent, *shape[2:])
    return (latent, *shape[1:])
