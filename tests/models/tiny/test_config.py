import pytest

from geo4d.models.tiny.config import MODALITIES, TinyConfig, smallest_preset, tiny_preset
from geo4d.models.tiny.encoder import ENCODERS


@pytest.mark.parametrize(
    "config", [TinyConfig(), smallest_preset(), TinyConfig(disparity_channels=3, point_channels=11)]
)
def test_modalities_share_the_latent_without_overlap_or_gap(config: TinyConfig) -> None:
    channels = [
        c for modality in MODALITIES for c in range(config.latent_channels)[config.channels(modality)]
    ]
    assert channels == list(range(config.latent_channels))
    assert len(range(config.latent_channels)[config.channels("rays")]) == 6


@pytest.mark.parametrize(
    ("changes", "message"), [({"ray_channels": 5}, "6 ray"), ({"inner_width": 255}, "divisible by 4")]
)
def test_sizes_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        TinyConfig(**changes)


def test_the_smallest_network_has_the_parts_of_the_bundled_one() -> None:
    small, large = vars(smallest_preset()), vars(tiny_preset())
    assert set(small) == set(large)
    numbers = [name for name in small if isinstance(small[name], int)]
    assert len(numbers) == len(small) - 2
    assert all(0 < small[name] <= large[name] for name in numbers)
    assert len(small["depth_widths"]) == len(large["depth_widths"]) == 5
    assert {small["encoder"], large["encoder"]} == set(ENCODERS)
