import pytest
import torch

from geo4d.models.deep_cache import DeepCache
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geometrycrafter.config import GeometryCrafterConfig


@pytest.mark.parametrize("interval", [1, 2, 3, 10])
def test_every_nth_pass_is_a_full_one(interval: int) -> None:
    cache = DeepCache(interval)
    full = []
    for step in range(7):
        if cache.holds:
            full.append(False)
            assert int(cache.read()) == step - step % interval
        else:
            full.append(True)
            cache.keep(torch.tensor(step))
    assert full == [step % interval == 0 for step in range(7)]


def test_nothing_is_kept_where_nothing_will_read_it() -> None:
    cache = DeepCache(1)
    cache.keep(torch.zeros(1))
    with pytest.raises(ValueError, match="full pass before"):
        cache.read()


def test_an_interval_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="cache_interval >= 1"):
        DeepCache(0)
    for options in (Geo4DOptions, GeometryCrafterConfig):
        with pytest.raises(ValueError, match=r"cache_interval >= 1 .* got 0"):
            options(cache_interval=0)
