"""What Geo4D's stages start from and leave behind: a folder that the next stage and ``geo4d reconstruct`` load."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.conditioning import ContextConstants, compute_constants
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.models.geo4d.weights import LIGHT_DECODER, load_config, load_light_decoder, make_parts
from geo4d.models.geo4d.widths import modalities_of, take_channels, trained_modalities, with_modalities
from geo4d.models.light_decoder import LightDecoder
from geo4d.models.store.folder import ModelFolder, iter_tensors, write_model_folder
from geo4d.models.store.reading import read_state
from geo4d.models.store.sources import GEO4D_LICENCE

logger = logging.getLogger(__name__)

NOTICE = """# Geo4D weights, trained here

Stages: {stages}. Settings are in `config.json`.

Licence: {licence}
"""

OWN_LICENCE = "that of this package; trained from nothing, on whatever data config.json names"


@dataclass(frozen=True)
class Geo4DNetworks:
    """All parts of a Geo4D model.

    Attributes:
        config: sizes and latent scale.
        unet: the diffusion network.
        vae: the codec of colour and of all maps; frozen but in the stage that makes it.
        point_vae: the same codec with the decoder that is trained on point maps and their uncertainty.
        constants: context of the cross-attention.
        light: the small decoder that was distilled from ``point_vae``; None where there is none.
        before: what the folder it came from says of its training.
        trained: the modalities that the diffusion network predicts; it may have channels of others.
        licence: of the weights.
    """

    config: Geo4DConfig
    unet: UNet
    vae: VAE
    point_vae: VAE
    constants: ContextConstants
    light: LightDecoder | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    licence: str = OWN_LICENCE


def fresh_networks(config: Geo4DConfig, modalities: Collection[str] | None = None) -> Geo4DNetworks:
    """Networks as they are drawn; the context, a constant that towers give elsewhere, is drawn like them.

    Args:
        modalities: what the diffusion network has channels of; None: as ``config`` says.
    """
    config = config if modalities is None else with_modalities(config, modalities)
    text = (1, config.unet.text_tokens, config.unet.context_dim)
    image = (1, config.resampler.num_queries * config.resampler.num_frames, config.unet.context_dim)
    constants = ContextConstants(torch.randn(text), torch.randn(text), torch.randn(image))
    return Geo4DNetworks(config, UNet(config.unet), VAE(config.vae), VAE(config.vae), constants)


def load_networks(
    start: Path, config: Geo4DConfig, modalities: Collection[str] | None = None
) -> Geo4DNetworks:
    """The networks of a folder of weights (a stage's, or converted ones), or those of a DynamiCrafter checkpoint.

    Args:
        config: sizes of the checkpoint; a folder states its own.
        modalities: what the diffusion network has channels of: a folder's is narrowed to them (``narrow``), of a
            checkpoint the four latent channels are repeated for each group; None: as the folder has them, or ``config``.
    Raises:
        CheckpointError: they are missing, changed, incomplete, or do not fit; or have no channels of a modality.
    """
    if start.is_dir():
        return narrow(_load_folder(start), modalities)
    from geo4d.training.dynamicrafter import from_dynamicrafter

    config = config if modalities is None else with_modalities(config, modalities)
    parts = from_dynamicrafter(read_state(start), config, str(start))
    modules: dict[str, Any] = make_parts(config)
    vae, point_vae = VAE(config.vae), VAE(config.vae)  # with fresh adaptors, which the start does not have
    for codec in (vae, point_vae):
        codec.load_state_dict(parts["vae"], strict=False)
    for name in ("unet", "text", "image", "resampler"):
        modules[name].load_state_dict(parts[name], assign=True)
    constants = _constants(modules["text"], modules["image"], modules["resampler"])
    return Geo4DNetworks(config, modules["unet"], vae, point_vae, constants, licence=GEO4D_LICENCE)


def _constants(text: Any, image: Any, resampler: Any) -> ContextConstants:
    with torch.no_grad():
        return compute_constants(text, image, resampler)


def present_modalities(start: Path) -> tuple[str, ...]:
    """What the network of a folder has channels of.

    Raises:
        CheckpointError: it is no folder of Geo4D weights, or a changed one.
    """
    folder = ModelFolder.open(start, family="geo4d")
    return modalities_of(load_config(folder), str(start))


def narrow(networks: Geo4DNetworks, modalities: Collection[str] | None) -> Geo4DNetworks:
    """The same networks with a UNet that has channels of these modalities alone (``widths.take_channels``).

    What the network predicted stays true if it is among them, since the input of all others was zero. A network that
    predicted more has never been without them: it must be trained before it predicts anything.

    Raises:
        CheckpointError: the network has no channels of one of them.
    """
    old = networks.config
    if modalities is None or set(modalities) == set(modalities_of(old)):
        return networks
    config = with_modalities(old, modalities)
    unet = make_parts(config, ["unet"])["unet"]
    unet.load_state_dict(take_channels(networks.unet.state_dict(), old, config), assign=True)
    assert isinstance(unet, UNet)
    logger.info(
        "the network keeps its channels of %s, out of %s", *map(", ".join, map(modalities_of, (config, old)))
    )
    trained = networks.trained if set(networks.trained) <= set(modalities) else ()
    return replace(networks, config=config, unet=unet, trained=trained)


def _load_folder(start: Path) -> Geo4DNetworks:
    folder = ModelFolder.open(start, family="geo4d")
    config = load_config(folder)
    if config.per_frame_image_tokens:
        raise CheckpointError(f"{start}: expected a network with constant image tokens, as the released one")
    modules: dict[str, Any] = make_parts(config, ["unet", "vae", "point_vae"])
    for part, module in modules.items():
        # Single precision to train in, whatever the folder keeps.
        tensors = {name: tensor.float().clone() for name, tensor in folder.part(part).items()}
        different = sorted(set(module.state_dict()) ^ set(tensors))
        if different:
            raise CheckpointError(f"{start}: part {part} has missing or surplus tensors: {different[:5]}")
        module.load_state_dict(tensors, assign=True)
    constants = ContextConstants(**{name: t.float().clone() for name, t in folder.part("context").items()})
    light = load_light_decoder(folder)
    licence = str(folder.config.get("licence", GEO4D_LICENCE))
    before = dict(folder.config.get("training", {}))
    if before:
        before["options"] = folder.config.get("options", {})
    return Geo4DNetworks(
        config,
        modules["unet"],
        modules["vae"],
        modules["point_vae"],
        constants,
        light,
        before,
        trained_modalities(folder, config),
        licence,
    )


@dataclass(frozen=True)
class FolderPlan:
    """What goes into a stage's folder beside what it trained.

    Attributes:
        networks: as they were at the start.
        facts: JSON values about the training: ``stage``, ``stages`` and more.
        modalities: what the network predicts.
        options: defaults of inference.
        keep_light: the light decoder still fits what is trained.
    """

    networks: Geo4DNetworks
    facts: Mapping[str, Any]
    modalities: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_light: bool = True

    def write(
        self, folder: Path, trained: Mapping[str, nn.Module], latent_scale: float | None = None
    ) -> None:
        """Write all parts, those in ``trained`` in place of the plan's.

        Args:
            folder: an empty one is replaced.
            trained: part (``unet``, ``vae``, ``point_vae``, ``light_decoder``) -> network.
            latent_scale: in place of the config's.
        Raises:
            OutputError: it cannot be written.
        """
        old = self.networks
        config = old.config if latent_scale is None else replace(old.config, latent_scale=latent_scale)
        modules: dict[str, nn.Module] = {"unet": old.unet, "vae": old.vae, "point_vae": old.point_vae}
        if old.light is not None and self.keep_light:
            modules[LIGHT_DECODER] = old.light
        modules |= trained
        light = modules.get(LIGHT_DECODER)
        parts: dict[str, Mapping[str, Any]] = {
            name: {key: value.detach().cpu() for key, value in module.state_dict().items()}
            for name, module in modules.items()
        }
        parts["context"] = {name: value.detach().cpu() for name, value in vars(old.constants).items()}
        write_model_folder(
            folder,
            dict(iter_tensors(parts)),
            {
                "family": "geo4d",
                "format": 1,
                "network": config.to_dict(),
                "source": {"training": self.facts.get("stages", [])},
                "licence": old.licence,
                "training": dict(self.facts),
                "modalities": list(self.modalities),
                "options": dict(self.options),
                **({LIGHT_DECODER: asdict(light.config)} if isinstance(light, LightDecoder) else {}),
            },
            NOTICE.format(stages=", ".join(self.facts.get("stages", [])), licence=old.licence),
            overwrite=True,
        )
