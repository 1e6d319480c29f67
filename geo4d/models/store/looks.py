"""What a foreign file looks like, from its first bytes or the names of its tensors."""

import re
from collections.abc import Iterable


def describe_head(head: bytes) -> str:
    """What a file that is no weight file seems to be, from its first bytes."""
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the real file with 'git lfs pull'"
    if head.lstrip()[:1] == b"<":
        return "it is a web page; the download needs a login or a confirmation"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "it is a bare pickle or a PyTorch file older than 1.6; re-save it with a newer PyTorch"
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return "it is a compressed or tar archive; unpack it first"
    return f"it starts with {head[:8]!r}"


_LOOKS: list[tuple[str, str]] = [
    (r"^(_forward_module\.)?model\.diffusion_model\.fps_embedding\.", "a Geo4D main checkpoint"),
    (
        r"^(_forward_module\.)?model\.diffusion_model\.framestride_embed\.",
        "a DynamiCrafter-type main checkpoint",
    ),
    (r"^model\.diffusion_model\.input_blocks\.", "a latent-diffusion checkpoint of another network"),
    (r"^model\.(encoder|decoder)_adaptor\.", "a Geo4D point-map codec file"),
    (r"^(model\.|first_stage_model\.)?encoder\.down\.\d+\.block\.", "a latent-diffusion codec"),
    (
        r"^down_blocks\.\d+\.(resnets|attentions)\.\d+\.(spatial|temporal)",
        "a diffusers video UNet",
    ),
    (r"^(encoder\.)?down_blocks\.", "a diffusers network"),
    (r"^backbone\.blocks\.\d+\.|^backbone\.pretrained\.", "a MoGe checkpoint"),
    (r"^visual\.|^transformer\.resblocks\.", "an OpenCLIP model"),
    (r"^vision_model\.", "a transformers CLIP model"),
    (r"^(unet|vae|point_vae|context)\.", "a file of a converted geo4d folder"),
]


def describe_keys(keys: Iterable[str]) -> str:
    """What kind of checkpoint a list of tensor names belongs to."""
    names = list(keys)
    for pattern, description in _LOOKS:
        if any(re.match(pattern, name) for name in names):
            return description
    return f"nothing known (first names: {', '.join(names[:3])})" if names else "an empty checkpoint"
