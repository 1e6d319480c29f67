"""One CLIP image embedding per frame, with the published resize."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.errors import MissingExtraError
from geo4d.models.geometrycrafter.config import ImageEncoderConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def gaussian_kernel(factor: float) -> Float[Tensor, " k"]:
    """Blur before shrinking one axis by ``factor``: normalised Gaussian of odd length, centred."""
    deviation = max((factor - 1) / 2, 0.001)
    length = int(max(4 * deviation, 3))
    length += 1 - length % 2
    offsets = torch.arange(length, dtype=torch.float32) - length // 2
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    return weights / weights.sum()


def resize_for_clip(
    image: Float[Tensor, "N C H W"], size: tuple[int, int] = (224, 224)
) -> Float[Tensor, "N C h w"]:
    """Blur by the shrinking factor of each axis, then bicubic interpolation that keeps the corner pixels in place.

    Values may overshoot; nothing is clamped. Computed in float32.
    """
    image = image.float()
    channels = image.shape[1]
    for axis, target in ((3, size[1]), (2, size[0])):
        kernel = gaussian_kernel(image.shape[axis] / target).to(image.device)
        if image.shape[axis] <= len(kernel) // 2:
            raise ValueError(
                f"expected more than {len(kernel) // 2} pixels along each side, got {image.shape[axis]}"
            )
        shape = [1, 1, 1, 1]
        shape[axis] = len(kernel)
        half = len(kernel) // 2
        pad = (half, half, 0, 0) if axis == 3 else (0, 0, half, half)
        weight = kernel.view(shape).expand(channels, 1, -1, -1)
        image = F.conv2d(F.pad(image, pad, mode="reflect"), weight, groups=channels)
    return F.interpolate(image, size=size, mode="bicubic", align_corners=True)


def clip_pixels(
    image: Float[Tensor, "N 3 H W"], size: tuple[int, int] = (224, 224)
) -> Float[Tensor, "N 3 h w"]:
    """Images in [-1, 1] to the encoder's normalised input, float32."""
    pixels = (resize_for_clip(image, size) + 1) / 2
    mean = pixels.new_tensor(CLIP_MEAN)[:, None, None]
    std = pixels.new_tensor(CLIP_STD)[:, None, None]
    return (pixels - mean) / std


def build_image_encoder(config: ImageEncoderConfig) -> nn.Module:
    """CLIP's image encoder with projection, without weights.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError as error:
        raise MissingExtraError("transformers", "geometrycrafter", "GeometryCrafter") from error
    from dataclasses import asdict

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**asdict(config)))


def embed_frames(image: Float[Tensor, "N 3 H W"], encoder: nn.Module) -> Float[Tensor, "N D"]:
    """CLIP embeddings of images in [-1, 1], in the encoder's dtype."""
    side = int(encoder.config.image_size)  # type: ignore[union-attr,arg-type]
    pixels = clip_pixels(image, (side, side))
    return encoder(pixels.to(next(encoder.parameters()).dtype)).image_embeds
