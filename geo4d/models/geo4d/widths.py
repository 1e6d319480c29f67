"""Channels of the UNet for its modalities: networks of point maps alone, with ray maps, or of all three.

The first convolution reads the noisy latent of every modality, then the colour latent; the last one gives v of every
modality. All else in the network is the same, whatever it predicts.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.store.folder import ModelFolder

GROUPS: Mapping[str, tuple[str, ...]] = {
    "points": ("point_map",),
    "rays": ("ray_direction", "ray_moment"),
    "disparity": ("disparity",),
}
"""Modality -> its groups of latent channels, in the order of the channels. Training's stages have the same names."""

MODALITIES: Mapping[str, tuple[str, ...]] = {
    "points": ("points",),
    "points+rays": ("points", "rays"),
    "all": ("points", "rays", "disparity"),
}
"""Name for people -> the modalities of a network."""


def modalities_of(config: Geo4DConfig, source: str = "the network") -> tuple[str, ...]:
    """The modalities that a network has channels for, in the order of ``GROUPS``.

    Args:
        source: named in errors.
    Raises:
        CheckpointError: its groups are those of no such network, or do not fit the widths of the UNet.
    """
    found = tuple(name for name, groups in GROUPS.items() if set(groups) <= set(config.latent_groups))
    latent = config.vae.latent_channels
    widths = (config.unet.in_channels, config.unet.out_channels)
    expected = ((len(config.latent_groups) + 1) * latent, len(config.latent_groups) * latent)
    if found not in MODALITIES.values() or sorted(config.latent_groups) != sorted(_groups(found)):
        known = "; ".join(", ".join(_groups(names)) for names in MODALITIES.values())
        raise CheckpointError(
            f"{source}: expected latent groups out of ({known}), got {', '.join(config.latent_groups) or 'none'}"
        )
    if widths != expected:
        raise CheckpointError(
            f"{source}: expected a UNet with {expected[0]} channels in and {expected[1]} out for the latent groups "
            f"{', '.join(config.latent_groups)}, got {widths[0]} and {widths[1]}"
        )
    return found


def with_modalities(config: Geo4DConfig, modalities: Collection[str]) -> Geo4DConfig:
    """The config of the same network with channels of these modalities alone, in the order that it has them in.

    Raises:
        ValueError: modalities that no network has together.
        CheckpointError: the network has no channels of one of them.
    """
    if set(modalities) not in [set(names) for names in MODALITIES.values()]:
        known = "; ".join(", ".join(names) for names in MODALITIES.values())
        raise ValueError(f"expected modalities out of ({known}), got {', '.join(modalities) or 'none'}")
    present = modalities_of(config)
    if absent := [name for name in GROUPS if name in modalities and name not in present]:
        raise CheckpointError(
            f"expected a network with channels of {', '.join(absent)} to take them from, this one has those of "
            f"{', '.join(present)}; start from a wider one, or from DynamiCrafter's checkpoint"
        )
    kept = _groups(modalities)
    groups = tuple(group for group in config.latent_groups if group in kept)
    latent = config.vae.latent_channels
    unet = replace(config.unet, in_channels=(len(groups) + 1) * latent, out_channels=len(groups) * latent)
    return replace(config, unet=unet, latent_groups=groups)


def take_channels(unet: Mapping[str, Tensor], wide: Geo4DConfig, narrow: Geo4DConfig) -> dict[str, Tensor]:
    """Weights of a UNet of fewer modalities out of a wider one's.

    The first convolution keeps the input channels of the latent groups that stay and of the colour latent, the last one
    the output channels (weight [C_out, C, 3, 3] and bias [C_out]) of those groups; nothing is rescaled. So the result
    gives what the wide network gives where the other groups of its noisy latent are zero.

    Args:
        unet: our name -> tensor; the convolutions are ``conv_in.weight`` [C, C_in, 3, 3] and ``conv_out``.
        wide: config of these weights.
        narrow: config of the result; its latent groups are some of ``wide``'s (see :func:`with_modalities`).
    """
    latent = wide.vae.latent_channels
    places = [wide.latent_groups.index(group) for group in narrow.latent_groups]
    kept = torch.cat([torch.arange(latent) + place * latent for place in places])
    colour = torch.arange(latent) + len(wide.latent_groups) * latent
    return {
        **unet,
        "conv_in.weight": unet["conv_in.weight"][:, torch.cat([kept, colour])].contiguous(),
        "conv_out.weight": unet["conv_out.weight"][kept].contiguous(),
        "conv_out.bias": unet["conv_out.bias"][kept].contiguous(),
    }


def trained_modalities(folder: ModelFolder, config: Geo4DConfig) -> tuple[str, ...]:
    """What the network in a folder predicts, in the order of ``GROUPS``; converted weights predict all they have.

    Raises:
        CheckpointError: the folder states modalities that its network has no channels for, or its config is foreign.
    """
    present = modalities_of(config, str(folder.path))
    stated: Any = folder.config.get("modalities", present)
    if not isinstance(stated, list | tuple) or not set(map(str, stated)) <= set(present):
        raise CheckpointError(
            f"{folder.path}: expected modalities out of {', '.join(present)}, the channels of its network; config.json "
            f"states {stated!r}"
        )
    return tuple(name for name in present if name in stated)


def require_complete(folder: ModelFolder, config: Geo4DConfig) -> tuple[str, ...]:
    """The modalities of a network that predicts all that it has channels for.

    Raises:
        CheckpointError: it was trained for some of them only; says how to go on from it.
    """
    present, trained = modalities_of(config, str(folder.path)), trained_modalities(folder, config)
    if trained == present:
        return present
    narrower = [name for name, names in MODALITIES.items() if names == trained]
    alone = "".join(
        f", or narrow it to {', '.join(trained)}: geo4d train {trained[-1]} --modalities {name} --start {folder.path}"
        for name in narrower
    )
    raise CheckpointError(
        f"{folder.path}: expected a network that predicts {', '.join(present)}, whose channels it has, this one was "
        f"trained up to {', '.join(trained) or 'none of them'}; go on from it (geo4d train --start) up to the stage "
        f"'{present[-1]}'{alone}"
    )


def _groups(modalities: Collection[str]) -> tuple[str, ...]:
    return tuple(group for name, groups in GROUPS.items() if name in modalities for group in groups)
