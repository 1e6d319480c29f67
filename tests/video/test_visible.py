import pytest
import torch

from geo4d.video.visible import DARK, EVEN, outside_bars, shows_something, visible_pixels


def picture(height: int = 90, width: int = 160) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))


def noise(spread: float, height: int = 90, width: int = 160) -> torch.Tensor:
    return spread * torch.randn(height, width, 3, generator=torch.Generator().manual_seed(1))


def test_a_picture_is_visible_everywhere() -> None:
    assert bool(visible_pixels(picture()).all())
    dim = 0.08 * picture() + 0.02
    assert bool(visible_pixels(dim).all())


@pytest.mark.parametrize("level", [0.0, 16 / 255, 0.5, 1.0])
def test_flat_frames_show_nothing(level: float) -> None:
    frame = (torch.full((90, 160, 3), level) + noise(0.004)).clamp(0, 1)
    visible = visible_pixels(frame)
    assert not bool(visible.any())
    assert not shows_something(visible)


def test_a_smooth_cast_of_light_shows_nothing() -> None:
    frame = torch.linspace(0.3, 0.5, 160)[None, :, None].expand(90, 160, 3)
    assert not shows_something(visible_pixels(frame))


def test_letterbox_bars_are_not_visible_and_the_picture_between_them_is() -> None:
    frame = (torch.full((90, 160, 3), 16 / 255) + noise(0.003)).clamp(0, 1)
    frame[12:78] = picture(66)
    visible = visible_pixels(frame)
    assert not bool(visible[:12].any())
    assert not bool(visible[78:].any())
    assert bool(visible[12:78].all())
    assert shows_something(visible)
    assert torch.equal(outside_bars(frame), visible)
    assert bool(outside_bars(torch.full((90, 160, 3), 0.5)).all())  # flat, but bright
    pillars = frame.transpose(0, 1)
    assert torch.equal(visible_pixels(pillars), visible.T)


def test_a_dark_floor_is_no_bar() -> None:
    frame = picture()
    frame[60:] = 0.05 * picture(30)  # dark, but it has structure
    assert bool(visible_pixels(frame).all())


def test_a_small_picture_in_the_dark_is_no_usable_frame() -> None:
    frame = torch.zeros(90, 160, 3)
    frame[40:50, 70:90] = picture(10, 20)
    visible = visible_pixels(frame)
    assert int(visible.sum()) == 200
    assert not shows_something(visible)


def plain_bars(rgb: torch.Tensor) -> torch.Tensor:
    """Line by line from each border: as long as the line is dark and flat."""
    grey = rgb.mean(-1)
    outside = torch.ones(grey.shape, dtype=torch.bool)
    for lines, mask in ((grey, outside), (grey.T, outside.T)):
        for order in (range(len(lines)), range(len(lines) - 1, -1, -1)):
            for line in order:
                if lines[line].max() >= DARK or lines[line].std(correction=0) >= EVEN:
                    break
                mask[line] = False
    return outside


@pytest.mark.parametrize(
    "sides", [(0, 0, 0, 0), (9, 0, 0, 0), (0, 4, 0, 0), (0, 0, 7, 3), (5, 5, 5, 5), (90, 0, 0, 0)]
)
def test_bars_are_those_of_a_plain_loop(sides: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = sides
    frame = picture()
    frame[40:44] = 0.01  # a dark line inside is no bar
    frame[:top], frame[90 - bottom :], frame[:, :left], frame[:, 160 - right :] = 0.02, 0.03, 0.01, 0.0
    if top == 9:
        frame[4, ::7] = 0.07  # dark, but not flat: the bar ends above it
    assert torch.equal(outside_bars(frame), plain_bars(frame))
