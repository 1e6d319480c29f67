import logging

import pytest

from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, ImageVAEConfig, from_published


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"window_length": 0}, "window_length >= 1"),
        ({"decode_chunk": 0}, "decode_chunk >= 1"),
        ({"encode_chunk": -1}, "encode_chunk >= 1"),
        ({"overlap": 110}, "overlap < window_length"),
        ({"overlap": -1}, "overlap < window_length"),
        ({"decode_overlap": 8}, "decode_overlap < decode_chunk"),
        ({"tile_overlap": 0.6}, r"tile_overlap in \[0, 0.5\]"),
        ({"decode_frames_at_once": 0}, "decode_frames_at_once"),
        ({"decode_tile": 60}, "decode_tile"),
        ({"encode_tile": 100}, "multiple of 8"),
        ({"height": 320}, "height and width together"),
        ({"height": 320, "width": 500}, "expected width to be a multiple of 64"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        GeometryCrafterConfig(**changes)


def test_bounds_themselves_are_allowed() -> None:
    config = GeometryCrafterConfig(
        overlap=109, decode_overlap=7, tile_overlap=0.5, decode_tile=64, height=64, width=128, num_steps=1
    )
    assert config.overlap == 109
    assert GeometryCrafterConfig(overlap=0).overlap == 0


def test_defaults_are_those_of_the_published_command_line() -> None:
    config = GeometryCrafterConfig()
    assert (config.window_length, config.overlap, config.decode_chunk) == (110, 25, 8)
    assert (config.num_steps, config.guidance_scale) == (5, 1.0)
    assert (config.fps, config.motion_bucket, config.noise_augmentation) == (7, 127, 0.02)
    assert config.force_projection
    assert config.force_fixed_focal


def test_what_a_library_wrote_beside_the_sizes_is_passed_over_and_said(caplog) -> None:
    caplog.set_level(logging.INFO)
    published = {"_class_name": "AutoencoderKL", "scaling_factor": 0.5, "libraries": "of the day"}
    found = from_published(ImageVAEConfig, published)
    assert found.scaling_factor == 0.5
    assert "ignoring keys libraries" in caplog.text
    assert "_class_name" not in caplog.text


def test_lists_become_tuples() -> None:
    found = from_published(ImageVAEConfig, {"block_out_channels": [8, 16]})
    assert found.block_out_channels == (8, 16)


def test_reused_steps_are_not_guided():
    with pytest.raises(ValueError, match="guidance_scale 1 with cache_interval 2, got 3"):
        GeometryCrafterConfig(cache_interval=2, guidance_scale=3.0)
