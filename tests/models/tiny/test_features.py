import torch

from geo4d.models.tiny.encoder import SMALLEST, PictureEncoder
from geo4d.models.tiny.features import SharedFeatures


class Counting(PictureEncoder):
    """An encoder that notes how many pictures it was given."""

    def __init__(self) -> None:
        super().__init__(SMALLEST)
        self.given: list[int] = []

    def forward(self, rgb):
        self.given.append(len(rgb))
        return super().forward(rgb)


def _pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 64, generator=torch.Generator().manual_seed(count)) * 2 - 1


def test_features_are_those_of_all_pictures_at_once_and_none_is_made_twice() -> None:
    encoder, video = Counting().eval(), _pictures(24)
    shared = SharedFeatures(encoder)
    with torch.no_grad():
        whole = PictureEncoder.forward(encoder, video)
        for start in (0, 8):
            frames = list(range(start, start + 16))
            for found, expected in zip(shared.of(video[frames], frames), whole, strict=True):
                torch.testing.assert_close(found, expected[frames], rtol=1e-5, atol=1e-6)
        assert sum(encoder.given) == 24
        shared.of(video[8:24], list(range(8, 24)))
    assert sum(encoder.given) == 24


def test_other_pictures_of_the_same_numbers_are_not_mistaken() -> None:
    encoder = Counting().eval()
    shared = SharedFeatures(encoder)
    first, second = _pictures(6), _pictures(6).flip(-1)
    with torch.no_grad():
        shared.of(first, list(range(6)))
        found = shared.of(second, list(range(6)))
        expected = PictureEncoder.forward(encoder, second)
    for level, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-5, atol=1e-6)


def test_only_the_last_window_is_kept() -> None:
    encoder = Counting().eval()
    shared = SharedFeatures(encoder)
    with torch.no_grad():
        for start in (0, 100, 0):
            shared.of(_pictures(4), list(range(start, start + 4)))
    assert sum(encoder.given) == 12
