import pytest
import torch
from torch import Tensor

from geo4d.errors import ResourceError
from geo4d.models.chunks import Chunks


def chunks(**sizes: int) -> Chunks:
    return Chunks(sizes, torch.device("cpu"), "use less")


def limited(limit: int, calls: list[int]):
    def work(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return 2 * x

    return work


def test_pieces_are_joined_in_order() -> None:
    calls: list[int] = []
    items = torch.arange(7.0)
    assert torch.equal(chunks(decode=3).run("decode", limited(9, calls), items), 2 * items)
    assert calls == [3, 3, 1]


def test_pieces_halve_until_they_fit_and_stay_small() -> None:
    calls: list[int] = []
    held = chunks(decode=100, encode=100)
    items = torch.arange(10.0)
    assert torch.equal(held.run("decode", limited(2, calls), items), 2 * items)
    assert calls[:3] == [10, 5, 2]  # at most what there is, then half of it
    assert held.sizes == {"decode": 2, "encode": 100}
    calls.clear()
    held.run("decode", limited(2, calls), items)
    assert calls == [2] * 5


def test_one_item_that_does_not_fit_says_what_to_do() -> None:
    with pytest.raises(ResourceError, match=r"sample stage with one item at a time; use less"):
        chunks(sample=4).run("sample", limited(0, []), torch.arange(3.0))
    with pytest.raises(ResourceError):
        chunks(sample=4).run("sample", limited(0, []), torch.arange(1.0))


def test_other_errors_pass_through_at_once() -> None:
    calls: list[int] = []

    def work(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        chunks(decode=4).run("decode", work, torch.arange(8.0))
    assert calls == [4]


def test_sizes_belong_to_the_one_who_asked() -> None:
    given = {"decode": 4}
    held = Chunks(given, torch.device("cpu"), "")
    held.run("decode", limited(1, []), torch.arange(4.0))
    assert given == {"decode": 4}
