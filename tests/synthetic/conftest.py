import pytest

pytest.importorskip("numba", reason="the extra 'synthetic' is not installed")
