"""Forms in pieces of every size, broken ones, slow ones, and a disk that is full."""

import asyncio
import resource
import signal
from pathlib import Path

import pytest

from geo4d.service.refusals import Refusal
from geo4d.service.uploads import MOST_FIELD_BYTES, Form, Limits, boundary_of, drain, receive_form

FILE = bytes(range(256)) * 40 + b"\r\n--x\r\n--boundary-not\r\n"
LIMITS = Limits(most_bytes=20_000, stall_s=5, total_s=20)


def form(*parts: tuple[str, bytes], end: bytes = b"--xx--\r\n") -> bytes:
    body = b""
    for words, data in parts:
        body += b"--xx\r\nContent-Disposition: form-data; " + words.encode() + b"\r\n\r\n" + data + b"\r\n"
    return body + end


GOOD = form(('name="stride"', b"2"), ('name="file"; filename="a b.mp4"', FILE), ('name="note"', "ü".encode()))


def read(path: Path, body: bytes, piece: int = 1000, limits: Limits = LIMITS, wait_s: float = 0) -> Form:
    async def pieces():
        for start in range(0, len(body), piece):
            await asyncio.sleep(wait_s)
            yield body[start : start + piece]

    return asyncio.run(receive_form(pieces(), b"xx", path, limits))


@pytest.mark.parametrize("piece", [1, 7, 1000, 10**6])
def test_a_form_in_pieces_of_any_size(piece, tmp_path) -> None:
    got = read(tmp_path / "file", GOOD, piece)
    assert got == Form({"stride": "2", "note": "ü"}, "a b.mp4", len(FILE))
    assert (tmp_path / "file").read_bytes() == FILE


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD[:-20], 400),
        (GOOD[: len(GOOD) // 2], 400),
        (b"", 400),
        (b"no form at all", 400),
        (form(('name="file"; filename="a"', b"x" * 20_001)), 413),
        (form(('name="a"', b"x" * (MOST_FIELD_BYTES + 1))), 413),
        (form(('name="' + "a" * 9000 + '"', b"x")), 400),
        (form(('name="a"', b"1"), ('name="a"', b"2")), 422),
        (form(*[(f'name="f{i}"', b"1") for i in range(50)]), 422),
        (form(('name="file"; filename="a"', b"1"), ('name="file"; filename="b"', b"2")), 422),
        (form(('name="film"; filename="a"', b"1")), 422),
        (form(("nothing", b"1")), 400),
    ],
)
def test_forms_that_are_refused(body, status, tmp_path) -> None:
    with pytest.raises(Refusal) as caught:
        read(tmp_path / "file", body)
    assert caught.value.status == status, caught.value


def test_a_client_that_stands_still_or_takes_for_ever(tmp_path) -> None:
    for number, limits in enumerate((Limits(20_000, 0.05, 20), Limits(20_000, 5, 0.3))):
        wait_s = 0.5 if limits.stall_s < 1 else 0.02
        with pytest.raises(Refusal) as caught:
            read(tmp_path / str(number), GOOD, 100, limits, wait_s)
        assert caught.value.status == 408


def test_a_disk_that_is_full(tmp_path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(Refusal) as caught:
            read(tmp_path / "file", GOOD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.status == 507


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
)
def test_other_types_are_no_forms(kind) -> None:
    with pytest.raises(Refusal) as caught:
        boundary_of(kind)
    assert caught.value.status == 415
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"


def test_the_rest_is_read_within_bounds(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.service.uploads.DRAINED", 500)
    read_pieces = []

    async def pieces(count: int):
        for number in range(count):
            read_pieces.append(number)
            yield bytes(100)

    asyncio.run(drain(pieces(3)))
    assert len(read_pieces) == 3
    asyncio.run(drain(pieces(100)))
    assert len(read_pieces) == 3 + 6
