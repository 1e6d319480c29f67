import subprocess
import sys

import numpy as np
import pytest
import torch

from geo4d.errors import WorkSpaceFull
from geo4d.optimise import scratch
from geo4d.optimise.band import BorderedBandSystem
from geo4d.optimise.scratch import Scratch
from tests.optimise.test_band import random_pieces


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_values_stay_when_pages_are_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "HELD_BYTES", 1000)
    monkeypatch.setattr(scratch, "RESIDENT_BYTES", 4096)
    store = Scratch((1000, 3), np.float64, tmp_path)
    expected = np.arange(3000.0).reshape(1000, 3)
    for row in range(1000):
        store.array[row] = expected[row]
        store.touched(24)
    np.testing.assert_array_equal(store.array, expected)
    store.clear()
    assert not store.array.any()
    assert list(tmp_path.iterdir()) == []  # nameless: nothing is left behind however the process ends


def test_a_large_array_is_not_held_in_memory(tmp_path):
    before = resident_bytes()
    store = Scratch((64, 2**20), np.float64, tmp_path)
    for row in store.array:
        row[:] = 1.0
        store.touched(row.nbytes)
    assert resident_bytes() - before < 64 * 2**20  # of 512 MiB
    assert float(store.array[40, 7]) == 1.0


def test_no_room_names_place_and_bytes(tmp_path, monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    with pytest.raises(WorkSpaceFull, match=f"{tmp_path}: the disk is full; {2**25} bytes of work space"):
        Scratch((2**25,), np.uint8, tmp_path)


def test_a_system_on_disk_gives_the_same_bits(tmp_path, monkeypatch):
    piece = random_pieces(90, 3, 5)

    def step() -> np.ndarray:
        system = BorderedBandSystem([piece.columns], 90, 93, tmp_path)
        system.assemble([piece])
        return system.solve(1e-3, None)

    held = step()
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)
    monkeypatch.setattr(scratch, "RESIDENT_BYTES", 64)
    assert np.array_equal(step(), held)
    assert torch.isfinite(torch.from_numpy(held)).all()


HEAPS = """
import ctypes, sys, threading
from geo4d.optimise.scratch import keep_one_heap
libc = ctypes.CDLL(None)
if sys.argv[1] == "one":
    keep_one_heap()
all_there, enough = threading.Barrier(9), threading.Event()
libc.malloc.restype = ctypes.c_void_p
def take():
    libc.malloc(5000)
    all_there.wait()
    enough.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
all_there.wait()
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
enough.set()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of glibc")
@pytest.mark.parametrize(("which", "least", "most"), [("one", 1, 2), ("many", 4, 99)])
def test_threads_take_their_memory_from_one_heap(which: str, least: int, most: int):
    done = subprocess.run(
        [sys.executable, "-c", HEAPS, which], capture_output=True, text=True, timeout=60, check=True
    )
    assert least <= done.stdout.count("<heap nr=") <= most
