import pytest
import torch

from geo4d.models.monodepth.network import DepthNetwork, FrameDepths, Remembered


class Counting:
    scale_kind = "affine"

    def __init__(self, size=None, sky=False):
        self.asked, self.size, self.sky = [], size, sky

    def __call__(self, rgb):
        self.asked.append(len(rgb))
        size = self.size or rgb.shape[1:3]
        value = rgb.mean() + torch.zeros(1, *size)
        return FrameDepths(value, torch.eye(3)[None], value > 0 if self.sky else None)


def test_every_picture_is_looked_at_once_and_alone():
    network = Counting(sky=True)
    assert isinstance(network, DepthNetwork)
    seen = Remembered(network, most=8)
    pictures = torch.rand(4, 5, 6, 3)
    first, again = seen(pictures), seen(pictures[[2, 0]])
    assert network.asked == [1] * 4
    torch.testing.assert_close(again.disparity, first.disparity[[2, 0]])
    assert again.intrinsics.shape == (2, 3, 3)
    assert again.sky.shape == (2, 5, 6)


def test_few_pictures_are_kept():
    network = Counting()
    seen = Remembered(network, most=2)
    pictures = torch.rand(3, 5, 6, 3)
    assert seen(pictures).sky is None
    seen(pictures[:1])
    assert len(network.asked) == 4
    seen(pictures[2:])
    assert len(network.asked) == 4


def test_a_picture_of_the_same_bytes_and_another_shape_is_another_one():
    network = Counting()
    seen = Remembered(network, most=8)
    picture = torch.rand(1, 4, 6, 3)
    assert seen(picture.reshape(1, 6, 4, 3)).disparity.shape == (1, 6, 4)
    assert seen(picture).disparity.shape == (1, 4, 6)


def test_a_network_that_answers_at_another_size_is_told():
    with pytest.raises(ValueError, match=r"expected disparity \(1, 5, 6\) .* got \(1, 2, 3\)"):
        Remembered(Counting(size=(2, 3)), most=2)(torch.rand(1, 5, 6, 3))
