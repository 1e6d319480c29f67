"""The model folder that every stage writes: in the layout of the release, complete, with a record of what it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from geo4d.formats.files import link_file
from geo4d.models.geometrycrafter.weights import LIGHT_DECODER, SVD_FOLDER, weight_files
from geo4d.models.trained import write_trained

WEIGHTS = "diffusion_pytorch_model.safetensors"
COMPONENTS = ("vae", "image_encoder", "point_map_vae", LIGHT_DECODER, "unet_diff", "unet_determ")


@dataclass(frozen=True)
class FolderPlan:
    """What goes into a stage's folder beside what it trained.

    Attributes:
        start: the folder before, whose other networks are taken over; None for the first stage.
        facts: JSON values of the record.
        without: networks of the folder before that do not fit what is trained any more, and are left out.
    """

    start: Path | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def write(self, folder: Path, networks: Mapping[str, tuple[nn.Module, Any]]) -> None:
        """Write networks, take over the others, record everything.

        Args:
            folder: empty.
            networks: component -> network and its config.
        """
        for name, (network, config) in networks.items():
            write_component(folder / name, network, config)
        if self.start is not None:
            for name in COMPONENTS:
                if name not in networks and name not in self.without:
                    _take_over(self.start, name, folder / name)
        write_trained(folder, {"family": "geometrycrafter", **self.facts})


def write_component(folder: Path, network: nn.Module, config: Any) -> None:
    """One network as ``config.json`` and a safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS))
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")


def _take_over(start: Path, name: str, target: Path) -> None:
    """The files of a network of the folder before, without copying their bytes where the disk allows it."""
    for source in (start / name, start / SVD_FOLDER / name):
        if source.is_dir():
            target.mkdir()
            for file in [source / "config.json", *weight_files(source)]:
                link_file(file, target / file.name)
            return
