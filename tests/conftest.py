"""Shared fixtures."""

import importlib.util
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is loaded
os.environ.setdefault("GOMP_SPINCOUNT", "0")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # one numerical thread per core: the workers share the cores

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:  # tests of files and containers run where there is no torch, see .ci/decoders
    from collections.abc import Iterator

    import torch

    from tests.support.s3 import Proxy

if importlib.util.find_spec("torch"):  # the tests of decoders and files run without it
    from tests.support.rooms import make_room  # noqa: F401  # a fixture of many folders

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def generator() -> "torch.Generator":
    """Seeded torch generator."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded numpy generator."""
    return np.random.default_rng(0)


@pytest.fixture
def one_thread() -> "Iterator[None]":
    """One thread of torch, as the command has with one core."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def s3() -> "Iterator[Proxy]":
    """A store on loopback that can be told to fail."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    from tests.support.s3 import faulty_s3

    with faulty_s3() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public samples and reference files, named by the environment variable GEO4D_SHARED."""
    folder = os.environ.get("GEO4D_SHARED")
    if not folder:
        pytest.skip("set GEO4D_SHARED to a folder with the public samples to run this test")
    return Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--browser-required", action="store_true", help="fail, not skip, when there is no Chromium"
    )
    parser.addoption(
        "--stores-required", action="store_true", help="fail, not skip, without the emulators of stores"
    )
