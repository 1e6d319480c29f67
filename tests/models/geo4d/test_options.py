import pytest

from geo4d.models.geo4d.options import PRESETS, Geo4DOptions


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_options(name: str) -> None:
    Geo4DOptions(**PRESETS[name])


def test_presets_for_less_memory_take_less() -> None:
    default, smaller, smallest = (Geo4DOptions(**PRESETS[n]) for n in ("default", "gpu-12gb", "low-memory"))
    assert default == Geo4DOptions()
    assert not default.offload
    assert smaller.offload
    assert smaller.encode_chunk <= default.encode_chunk
    assert smallest.max_area is not None
    assert smaller.max_area is None
    assert smallest.max_area == 192 * 512  # of the trained sizes' order, a multiple of 64 squared
    assert smallest.max_area % 64**2 == 0


@pytest.mark.parametrize("sides", [{"height": 64}, {"width": 64}])
def test_one_side_alone_is_no_size(sides) -> None:
    with pytest.raises(ValueError, match="height and width together"):
        Geo4DOptions(**sides)


@pytest.mark.parametrize(
    ("height", "width", "name"), [(100, 128, "height"), (128, 100, "width"), (0, 64, "height")]
)
def test_sides_are_multiples_of_64(height: int, width: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name} to be a multiple of 64"):
        Geo4DOptions(height=height, width=width)
    assert Geo4DOptions(height=64, width=128).height == 64
