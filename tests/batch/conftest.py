import pytest

from geo4d.models import base
from tests.support.batch_stub import stub


@pytest.fixture(autouse=True, scope="module")
def stub_is_a_model():
    """The model ``stub`` is known while a file of these tests runs, and to no other test."""
    base.PREDICTORS["stub"] = stub.__name__
    yield
    del base.PREDICTORS["stub"]
