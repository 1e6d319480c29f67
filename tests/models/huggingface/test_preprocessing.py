"""Pictures for the network, against transformers' own processors where these run without torchvision, else by hand."""

import cv2
import numpy as np
import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.huggingface.preprocessing import Preprocessing, read_preprocessing

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIZES = [(48, 80), (70, 61), (120, 33), (56, 56)]


def picture(size):
    """Smooth colours, as bytes."""
    coarse = np.random.default_rng(3).uniform(0, 255, (7, 9, 3)).astype(np.float32)
    return (
        np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 255)
        .round()
        .astype(np.uint8)
    )


def ours(family, settings, image):
    return read_preprocessing(family, settings, "here").image(torch.from_numpy(image)[None].float() / 255)


DPT_SETTINGS = {
    "depth anything": {
        "size": {"height": 56, "width": 56},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "resample": 3,
        **IMAGENET,
    },
    "midas": {"size": {"height": 64, "width": 64}, "resample": 3},
    "one number": {"size": 40, "resample": 2, "ensure_multiple_of": 8},
    "unscaled": {"size": {"height": 64, "width": 48}, "resample": 2, "rescale_factor": 1 / 127.5},
    "plain": {"size": {"height": 64, "width": 48}, "do_normalize": False},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", DPT_SETTINGS.values(), ids=DPT_SETTINGS)
def test_dpt_and_depth_anything_see_what_their_processor_makes(size, settings):
    pytest.importorskip("transformers")
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    image = picture(size)
    theirs = DPTImageProcessorPil(**settings)(image, return_tensors="pt")["pixel_values"]
    mine = ours("dpt", settings, image)
    assert mine.shape == theirs.shape
    # Theirs rounds to bytes after each of the two passes of its resize.
    step = 255 * settings.get("rescale_factor", 1 / 255) / min(settings.get("image_std", [0.5])) / 255
    assert (mine - theirs).abs().max() < 1.6 * step
    assert (mine - theirs).abs().mean() < 0.4 * step


@pytest.mark.parametrize("size", SIZES)
def test_zoedepth_sees_what_its_processor_makes(size):
    pytest.importorskip("transformers")
    from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

    settings = {
        "size": {"height": 64, "width": 96},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
    }
    image = picture(size)
    theirs = ZoeDepthImageProcessorPil(**settings)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours("zoedepth", settings, image), theirs.float(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_depth_pro_sees_a_plain_resize_of_normalised_colours(size):
    """OpenCV's bilinear filter (no antialiasing, half-pixel centres) stands for torch's."""
    image = picture(size)
    settings = {"size": {"height": 96, "width": 128}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    expected = cv2.resize((image / np.float32(255) - 0.5) / 0.25, (128, 96), interpolation=cv2.INTER_LINEAR)
    mine = ours("depth_pro", settings, image)[0].movedim(0, -1).numpy()
    assert np.abs(mine - expected).max() < 1e-3


def test_defaults_are_those_of_the_processors():
    pytest.importorskip("transformers")
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil as Dpt
    from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil as Zoe

    for family, made in (("dpt", Dpt()), ("zoedepth", Zoe())):
        found = read_preprocessing(family, {}, "here")
        assert found.size == (made.size["height"], made.size["width"])
        assert found.mean == tuple(made.image_mean)
        assert found.spread == tuple(made.image_std)
        assert found.keep_aspect == made.keep_aspect_ratio
        assert found.pad == made.do_pad


def test_depth_anything_covers_the_size_that_it_was_trained_at():
    """518 and multiples of 14: the authors' own resize; the processor's where a frame is not smaller than that."""
    rule = read_preprocessing("depth_anything", {**DPT_SETTINGS["depth anything"], "size": 518}, "here")
    for size in ((360, 640), (720, 1280), (1080, 1920)):
        assert rule.network_size(size) == (518, 924)
    assert rule.network_size((640, 360)) == (924, 518)
    assert rule.network_size((480, 640)) == (518, 686)
    other = read_preprocessing("dpt", {**DPT_SETTINGS["depth anything"], "size": 518}, "here")
    for size in ((480, 640), (1080, 1920), (700, 700)):
        assert other.network_size(size) == rule.network_size(size)
    assert other.network_size((360, 640)) == (294, 518)


def test_there_and_back_keeps_the_place(tmp_path):
    """A ramp over the network's picture is the same ramp over the source, mirrored border or not."""
    for pad in (False, True):
        rule = Preprocessing("zoedepth" if pad else "dpt", (64, 96), keep_aspect=True, multiple=32, pad=pad)
        size = (50, 90)
        height, width = rule.network_size(size)
        _, columns = rule.border(size)
        across = (torch.arange(width) + 0.5) / width * (size[1] + 2 * columns) - columns
        back = rule.back(across.expand(1, height, width), size)
        expected = (torch.arange(size[1]) + 0.5).expand(1, *size)
        inner = slice(3, -3)
        torch.testing.assert_close(back[..., inner], expected[..., inner], atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"do_pad": True}, "without padding to a divisor"),
        ({"do_resize": False}, "expected preprocessing that resizes"),
        ({"resample": 1}, "filter 2 or 3"),
        ({"size": {"shortest_edge": 384}}, "a size with height and width"),
    ],
)
def test_what_is_not_followed_is_refused(settings, says):
    with pytest.raises(CheckpointError, match=says):
        read_preprocessing("dpt", settings, "here")


def test_another_size_can_be_asked_for():
    assert read_preprocessing("dpt", {"size": 384}, "here", size=128).size == (128, 128)
