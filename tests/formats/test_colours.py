import numpy as np

from geo4d.formats.colours import linear_to_srgb, srgb_to_linear


def test_known_values_and_round_trip() -> None:
    known = {0.0: 0.0, 0.04045: 0.0031308, 0.5: 0.21404114, 0.73536: 0.5, 1.0: 1.0}  # IEC 61966-2-1
    np.testing.assert_allclose(srgb_to_linear(np.array([*known])), [*known.values()], atol=1e-5)
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-6)
    assert srgb_to_linear(levels).dtype == np.float32
    assert srgb_to_linear(np.array([-1.0, 2.0])).tolist() == [0.0, 1.0]
