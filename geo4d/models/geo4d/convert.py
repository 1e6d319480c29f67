"""The authors' two files -> one folder of safetensors that holds what inference needs, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geo4d.formats.hashes import sha256_of
from geo4d.models.geo4d.conditioning import compute_constants
from geo4d.models.geo4d.config import Geo4DConfig, full
from geo4d.models.geo4d.weights import (
    from_published,
    main_table,
    make_parts,
    normalise_main,
    normalise_point_vae,
    point_vae_table,
)
from geo4d.models.store.folder import ModelFolder, iter_tensors, write_model_folder
from geo4d.models.store.reading import read_state
from geo4d.models.store.sources import GEO4D_LICENCE

NOTICE = """# Geo4D weights, converted

Converted from the authors' checkpoint files; the numbers are theirs, only names and containers changed (and the type,
where `dtype` in `config.json` names one). Not held: schedule tables (computed from the config) and{towers} what the
network never reads. The context of the cross-attention, a constant for this network, is stored in place of the towers.

Licence: {licence}. Ask the authors before any use beyond research.

Source files (SHA-256):

{hashes}
"""


def convert(
    main: Path,
    point_vae: Path,
    output: Path,
    *,
    config: Geo4DConfig | None = None,
    dtype: torch.dtype | None = None,
    keep_towers: bool = False,
    overwrite: bool = False,
    shard_bytes: int = 2 * 2**30,
) -> ModelFolder:
    """Convert a published Geo4D checkpoint.

    Args:
        main: the authors' whole model, Lightning or DeepSpeed form (or the same tensors as safetensors).
        point_vae: their fine-tuned point-map codec.
        output: folder to make.
        config: size of the network; None is the released one.
        dtype: type of the stored weights; None keeps the published one.
        keep_towers: also store image tower and resampler, for networks that look at every frame.
        overwrite: replace ``output``.
        shard_bytes: upper size of one file.
    Raises:
        CheckpointError: a file is unsafe, damaged, foreign or incomplete.
        OutputError: ``output`` exists or cannot be written.
    """
    config = config or full()
    parts, _ = from_published(normalise_main(read_state(main)), main_table(config), str(main))
    point, _ = from_published(
        normalise_point_vae(read_state(point_vae)), point_vae_table(config), str(point_vae)
    )
    constants = _constants(parts, config)
    held: dict[str, Mapping[str, Tensor]] = {
        "unet": parts["unet"],
        "vae": parts["vae"],
        **point,
        "context": constants,
    }
    if keep_towers or config.per_frame_image_tokens:
        held |= {"image": parts["image"], "resampler": parts["resampler"]}
    hashes = {"main": sha256_of(main), "point_vae": sha256_of(point_vae)}
    listed = "\n".join(f"- {role}: {digest}" for role, digest in hashes.items())
    towers = "" if "image" in held else " both CLIP towers, the resampler, and"
    return write_model_folder(
        output,
        dict(iter_tensors(held)),
        {
            "family": "geo4d",
            "format": 1,
            "network": config.to_dict(),
            "source": hashes,
            "licence": GEO4D_LICENCE,
        },
        NOTICE.format(licence=GEO4D_LICENCE, hashes=listed, towers=towers),
        dtype=dtype,
        overwrite=overwrite,
        shard_bytes=shard_bytes,
    )


def _constants(parts: Mapping[str, Mapping[str, Tensor]], config: Geo4DConfig) -> dict[str, Tensor]:
    """Context tokens that no video changes, in float32. The towers run on the mapped file and are let go."""
    towers: dict[str, Any] = make_parts(config, ["text", "image", "resampler"])
    for part, module in towers.items():
        float32 = {name: tensor.float() for name, tensor in parts[part].items()}
        module.load_state_dict(float32, assign=True)
    return {name: tensor.clone() for name, tensor in vars(compute_constants(**_by_role(towers))).items()}


def _by_role(towers: Mapping[str, Any]) -> dict[str, Any]:
    return {"text_tower": towers["text"], "image_tower": towers["image"], "resampler": towers["resampler"]}
