import pytest

from tests.support.evaluated import settings


@pytest.mark.parametrize(
    "wrong",
    [{"model": "tiny"}, {"predictions": None}, {"protocol": "none"}],
)
def test_nonsensical_settings(tmp_path, wrong):
    with pytest.raises(ValueError):
        settings(**{"predictions": tmp_path, **wrong})
