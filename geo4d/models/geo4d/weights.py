"""Authors' checkpoint keys <-> ours, with every key accounted for.

The tables are made from the config alone, so they can be checked against key lists without any weights. A
published tensor is either held by one of our modules, possibly reshaped (never reordered, never computed
with), or it is listed with the reason why it is not.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geo4d.diffusion.schedules import make_schedule, schedule_buffers
from geo4d.errors import CheckpointError
from geo4d.models.filling import fill_network
from geo4d.models.geo4d.conditioning import ImageTower, Resampler, TextTower
from geo4d.models.geo4d.config import Geo4DConfig, UNetConfig
from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.models.light_decoder import LightDecoder, LightDecoderConfig
from geo4d.models.store.folder import ModelFolder
from geo4d.models.store.looks import describe_keys

MAIN_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text": "cond_stage_model.model.",
    "image": "embedder.model.visual.",
    "resampler": "image_proj_model.",
}
"""Part of the network -> where its keys start in the authors' main file."""

POINT_VAE_PREFIX = "model."
"""Where the codec's keys start in the authors' fine-tuned point-map file."""

DEEPSPEED_PREFIX = "_forward_module."
"""What DeepSpeed puts in front of every key of the main file."""

LIGHT_DECODER = "light_decoder"
"""Part of a folder, and entry of its config, that training adds: the small decoder of point maps."""

_Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]

_ATTENTION: _Rules = [
    (r"self_attention\.|first_attention\.", "attn1."),
    (r"cross_attention\.|second_attention\.", "attn2."),
    (r"\btext_to_", "to_"),
    (r"\bimage_to_(.)", r"to_\1_ip"),
    (r"\bto_out\.", "to_out.0."),
    (r"\bnorm_self\.|\bnorm_first\.", "norm1."),
    (r"\bnorm_cross\.|\bnorm_second\.", "norm2."),
    (r"\bnorm_feed\.", "norm3."),
    (r"\bfeed\.proj_in\.", "ff.net.0.proj."),
    (r"\bfeed\.proj_out\.", "ff.net.2."),
    (r"\bblocks\.", "transformer_blocks."),
]
_RESIDUAL: _Rules = [
    (r"\btemporal\.norms\.(\d)", lambda m: f"temopral_conv.conv{int(m[1]) + 1}.0"),
    (r"\btemporal\.convs\.0", "temopral_conv.conv1.2"),
    (r"\btemporal\.convs\.(\d)", lambda m: f"temopral_conv.conv{int(m[1]) + 1}.3"),
    (r"^norm_in\.", "in_layers.0."),
    (r"^conv_in\.", "in_layers.2."),
    (r"^embedding\.", "emb_layers.1."),
    (r"^norm_out\.", "out_layers.0."),
    (r"^conv_out\.", "out_layers.3."),
    (r"^skip\.", "skip_connection."),
]
_EMBEDDING: _Rules = [(r"^proj_in\.", "0."), (r"^proj_out\.", "2.")]
_VAE: _Rules = [
    (r"^encoder\.levels\.(\d+)\.blocks", r"encoder.down.\1.block"),
    (r"^encoder\.levels\.(\d+)\.resample\.", r"encoder.down.\1.downsample."),
    (r"^encoder_adaptor\.level\.blocks", "encoder_adaptor.down.0.block"),
    (r"^decoder_adaptor\.level\.blocks", "decoder_adaptor.up.0.block"),
    (r"\bmiddle\.first\.", "mid.block_1."),
    (r"\bmiddle\.second\.", "mid.block_2."),
    (r"\bmiddle\.attention\.", "mid.attn_1."),
    (r"\battn_1\.to_out\.", "attn_1.proj_out."),
    (r"\battn_1\.to_([qkv])\.", r"attn_1.\1."),
    (r"\.skip\.", ".nin_shortcut."),
]
_TOWER: _Rules = [
    (r"^blocks\.", "transformer.resblocks."),
    (r"\.norm1\.", ".ln_1."),
    (r"\.norm2\.", ".ln_2."),
    (r"\.to_qkv\.", ".attn.in_proj_"),
    (r"\.to_out\.", ".attn.out_proj."),
    (r"\.feed_in\.", ".mlp.c_fc."),
    (r"\.feed_out\.", ".mlp.c_proj."),
    (r"^norm_out\.", "ln_final."),
    (r"^norm_in\.", "ln_pre."),
    (r"^patch_embedding\.", "conv1."),
]
_RESAMPLER: _Rules = [
    (r"^queries$", "latents"),
    (r"^(layers\.\d+)\.norm_tokens\.", r"\1.0.norm1."),
    (r"^(layers\.\d+)\.norm_queries\.", r"\1.0.norm2."),
    (r"^(layers\.\d+)\.to_", r"\1.0.to_"),
    (r"^(layers\.\d+)\.norm_feed\.", r"\1.1.0."),
    (r"^(layers\.\d+)\.feed_in\.", r"\1.1.1."),
    (r"^(layers\.\d+)\.feed_out\.", r"\1.1.3."),
]


@dataclass(frozen=True)
class PublishedKey:
    """One tensor of a published file.

    Attributes:
        shape: in that file.
        part: the part of our network that holds it, or None.
        ours: its name in that part, or None.
        our_shape: its shape there; the same number of elements in the same order.
        why_not: the reason when no part holds it.
    """

    shape: tuple[int, ...]
    part: str | None = None
    ours: str | None = None
    our_shape: tuple[int, ...] = ()
    why_not: str = ""


def make_parts(config: Geo4DConfig, parts: Iterable[str] = MAIN_PREFIXES) -> dict[str, nn.Module]:
    """Modules without storage, by part: for names and shapes, or to be filled with ``assign=True``."""
    makers: dict[str, tuple[type[nn.Module], object]] = {
        "unet": (UNet, config.unet),
        "vae": (VAE, config.vae),
        "point_vae": (VAE, config.vae),
        "text": (TextTower, config.clip),
        "image": (ImageTower, config.clip),
        "resampler": (Resampler, config.resampler),
    }
    modules = {}
    with torch.device("meta"):
        for part in parts:
            make, argument = makers[part]
            modules[part] = make(argument)
    return modules


def load_config(folder: ModelFolder) -> Geo4DConfig:
    """The sizes that a folder states.

    Raises:
        CheckpointError: there are none, or of another network.
    """
    stated = folder.config.get("network")
    if not isinstance(stated, Mapping):
        raise CheckpointError(
            f"{folder.path}: expected sizes of a Geo4D network as 'network' in config.json, got {stated!r}"
        )
    return Geo4DConfig.from_dict(stated)


def load_light_decoder(folder: ModelFolder) -> LightDecoder | None:
    """The light decoder of a folder, in single precision; None where there is none.

    Raises:
        CheckpointError: its config is foreign, or tensors are missing or do not fit.
    """
    stated = folder.config.get(LIGHT_DECODER)
    if stated is None:
        return None
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stated.items()}
        config = LightDecoderConfig(**values)
    except (TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{folder.path}: expected sizes of a light decoder, got {stated!r}: {error}"
        ) from error
    with torch.device("meta"):
        decoder = LightDecoder(config)
    return fill_network(decoder, folder.part(LIGHT_DECODER), torch.float32, f"{folder.path}: {LIGHT_DECODER}")


def main_table(config: Geo4DConfig) -> dict[str, PublishedKey]:
    """Every key of the authors' main checkpoint."""
    table = {}
    for part, module in make_parts(config).items():
        prefix = MAIN_PREFIXES[part]
        for ours, tensor in module.state_dict().items():
            table[prefix + _published_name(part, ours, config)] = _held(part, ours, tensor)
    for name, buffer in schedule_buffers(make_schedule(config.schedule)).items():
        if name != "lvlb_weights":
            table[name] = PublishedKey(
                tuple(buffer.shape), why_not="schedule table, computed from the config"
            )
    table.update(_unused_of_towers(config))
    return table


def point_vae_table(config: Geo4DConfig) -> dict[str, PublishedKey]:
    """Every codec key of the authors' fine-tuned point-map file."""
    module = make_parts(config, ["point_vae"])["point_vae"]
    return {
        POINT_VAE_PREFIX + _published_name("vae", ours, config): _held("point_vae", ours, tensor)
        for ours, tensor in module.state_dict().items()
    }


def from_published(
    state: Mapping[str, Tensor], table: Mapping[str, PublishedKey], source: str = "the checkpoint"
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Split a published state into our parts.

    Args:
        state: exactly the keys of ``table`` (see :func:`normalise_main` and :func:`normalise_point_vae`).
        table: :func:`main_table` or :func:`point_vae_table`.
        source: named in errors.
    Returns:
        part -> (our name -> tensor), and the tensors that no part holds under their published names.
    Raises:
        CheckpointError: keys miss, are surplus, or have another shape; it says which and what the file looks
            like.
    """
    check_coverage({name: tuple(tensor.shape) for name, tensor in state.items()}, table, source)
    parts: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, key in table.items():
        if key.part is None or key.ours is None:
            rest[name] = state[name]
        else:
            parts.setdefault(key.part, {})[key.ours] = state[name].reshape(key.our_shape)
    return parts, rest


def to_published(
    parts: Mapping[str, Mapping[str, Tensor]], rest: Mapping[str, Tensor], table: Mapping[str, PublishedKey]
) -> dict[str, Tensor]:
    """Inverse of :func:`from_published`."""
    state = {}
    for name, key in table.items():
        held = key.part is not None and key.ours is not None
        tensor = parts[key.part][key.ours] if held else rest[name]  # type: ignore[index]
        state[name] = tensor.reshape(key.shape)
    return state


def check_coverage(
    shapes: Mapping[str, tuple[int, ...]], table: Mapping[str, PublishedKey], source: str
) -> None:
    """Compare the keys and shapes of a file with what is expected.

    Raises:
        CheckpointError: they differ.
    """
    missing = [name for name in table if name not in shapes]
    surplus = [name for name in shapes if name not in table]
    wrong = [
        f"{name}: expected {list(key.shape)}, got {list(shapes[name])}"
        for name, key in table.items()
        if name in shapes and shapes[name] != key.shape
    ]
    if not (missing or surplus or wrong):
        return
    lines = [f"{source} does not fit: of {len(table)} expected keys {len(table) - len(missing)} are present"]
    for label, names in (("missing", missing), ("surplus", surplus), ("other shape", wrong)):
        if names:
            shown = ", ".join(names[:5]) + (f", and {len(names) - 5} more" if len(names) > 5 else "")
            lines.append(f"{len(names)} {label}: {shown}")
    lines.append(f"it looks like {describe_keys(shapes)}")
    raise CheckpointError("; ".join(lines))


def normalise_main(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the keys of the authors' main file into the form of :func:`main_table`.

    Undoes DeepSpeed's prefix and the older name of the fps embedding. Text-tower masks, which some versions
    store and which carry no information, are dropped.
    """
    if state and all(name.startswith(DEEPSPEED_PREFIX) for name in state):
        state = {name[len(DEEPSPEED_PREFIX) :]: tensor for name, tensor in state.items()}
    return {
        name.replace("framestride_embed", "fps_embedding"): tensor
        for name, tensor in state.items()
        if not name.endswith(".attn_mask") and name != "lvlb_weights"
    }


def normalise_point_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the codec of the authors' fine-tuned point-map file; its losses and discriminators are not
    needed.
    """
    return {name: tensor for name, tensor in state.items() if name.startswith(POINT_VAE_PREFIX)}


_UNIT_AXES = {"temporal": (1,), "conv1d": (1,), "conv2d": (1, 1)}
"""Kernel axes of length one that a published tensor has and ours has not."""


def _kernel_kind(part: str, ours: str) -> str:
    patterns = {
        "temporal": ("unet", r"temporal\.convs\.\d\.weight$"),
        "conv1d": ("unet", r"^initial_attention\.proj_(in|out)\.weight$"),
        "conv2d": ("vae", r"middle\.attention\.to_\w+\.weight$"),
    }
    for kind, (where, pattern) in patterns.items():
        if part.endswith(where) and re.search(pattern, ours):
            return kind
    return "same"


def _held(part: str, ours: str, tensor: Tensor) -> PublishedKey:
    our_shape = tuple(tensor.shape)
    return PublishedKey(our_shape + _UNIT_AXES.get(_kernel_kind(part, ours), ()), part, ours, our_shape)


def _rename(name: str, rules: _Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _published_name(part: str, ours: str, config: Geo4DConfig) -> str:
    """Name inside the part, without its prefix in the file."""
    if part == "unet":
        return _published_unet_name(ours, config.unet)
    if part == "vae":
        levels = len(config.vae.channel_mult)
        name = re.sub(
            r"^decoder\.levels\.(\d+)\.(blocks|resample)",
            lambda m: f"decoder.up.{levels - 1 - int(m[1])}." + ("block" if m[2] == "blocks" else "upsample"),
            ours,
        )
        return _rename(name, _VAE)
    return _rename(ours, _RESAMPLER if part == "resampler" else _TOWER)


def _published_unet_name(ours: str, config: UNetConfig) -> str:
    fixed = {
        "time_embedding.": ("time_embed.", _EMBEDDING),
        "fps_embedding.": ("fps_embedding.", _EMBEDDING),
        "conv_in.": ("input_blocks.0.0.", []),
        "initial_attention.": ("init_attn.0.", _ATTENTION),
        "middle.first.residual.": ("middle_block.0.", _RESIDUAL),
        "middle.first.spatial.": ("middle_block.1.", _ATTENTION),
        "middle.first.temporal.": ("middle_block.2.", _ATTENTION),
        "middle.second.": ("middle_block.3.", _RESIDUAL),
        "norm_out.": ("out.0.", []),
        "conv_out.": ("out.2.", []),
    }
    for prefix, (published, rules) in fixed.items():
        if ours.startswith(prefix):
            return published + _rename(ours[len(prefix) :], rules)
    match = re.match(r"(down|up)\.(\d+)\.(.*)", ours)
    if match is None:
        raise AssertionError(f"no published name for {ours}")
    side, index, rest = match[1], int(match[2]), match[3]
    block = f"input_blocks.{index + 1}" if side == "down" else f"output_blocks.{index}"
    if rest in ("weight", "bias"):
        return f"{block}.0.op.{rest}"
    child, leaf = rest.split(".", 1)
    if child == "residual":
        return f"{block}.0.{_rename(leaf, _RESIDUAL)}"
    if child == "spatial":
        return f"{block}.1.{_rename(leaf, _ATTENTION)}"
    if child == "temporal":
        return f"{block}.2.{_rename(leaf, _ATTENTION)}"
    # The upsampler sits behind the transformers where there are any.
    level = len(config.channel_mult) - 1 - index // (config.num_res_blocks + 1)
    return f"{block}.{3 if config.has_attention(level) else 1}.{leaf}"


def _unused_of_towers(config: Geo4DConfig) -> dict[str, PublishedKey]:
    """Keys of both CLIP models that the network never reads."""
    clip = config.clip
    text, embed = clip.text_width, clip.embed_dim
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    prefix = MAIN_PREFIXES["text"]
    projection = "projects into a joint space that is not used"
    shapes[prefix + "text_projection"] = ((text, embed), projection)
    shapes[prefix + "logit_scale"] = ((), projection)
    for block in range(clip.text_layers - clip.text_skip_last, clip.text_layers):
        for leaf, shape in _tower_block_shapes(text).items():
            shapes[f"{prefix}transformer.resblocks.{block}.{leaf}"] = (shape, "behind the layer that is read")
    leftover = "text side of the image embedder, never run"
    prefix = "embedder.model."
    shapes[prefix + "positional_embedding"] = ((clip.context_length, text), leftover)
    shapes[prefix + "token_embedding.weight"] = ((clip.vocabulary, text), leftover)
    shapes[prefix + "text_projection"] = ((text, embed), leftover)
    shapes[prefix + "logit_scale"] = ((), leftover)
    shapes[prefix + "ln_final.weight"] = ((text,), leftover)
    shapes[prefix + "ln_final.bias"] = ((text,), leftover)
    shapes[prefix + "visual.proj"] = ((clip.image_width, embed), projection)
    shapes[prefix + "visual.ln_post.weight"] = ((clip.image_width,), projection)
    shapes[prefix + "visual.ln_post.bias"] = ((clip.image_width,), projection)
    return {name: PublishedKey(shape, why_not=reason) for name, (shape, reason) in shapes.items()}


def _tower_block_shapes(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
