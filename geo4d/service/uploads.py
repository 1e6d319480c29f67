"""A form with a clip, written to the disk as it comes in: never more than a piece of it is in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from geo4d.service.refusals import Refusal, full_disk

MOST_FIELDS, MOST_FIELD_BYTES, MOST_HEADER_BYTES = 40, 4096, 8192
OVERHEAD = 2**18
"""Bytes of a form beside its clip, at most."""

DRAINED, _DRAIN_S, _QUIET_S = 2**23, 10.0, 0.5
"""Bytes and seconds of a form that are read though it is refused, since a client that sends hears the answer only then;
and seconds without a byte after which it must be listening."""

_PIECE = 2**20


@dataclass(frozen=True)
class Limits:
    """What a form may be.

    Attributes:
        most_bytes: of the clip.
        stall_s: seconds without a byte.
        total_s: seconds altogether.
    """

    most_bytes: int
    stall_s: float
    total_s: float


@dataclass
class Form:
    """What came in.

    Attributes:
        fields: the plain fields.
        file_name: as the client called its file; None where there was no file.
        num_bytes: of the file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None
    num_bytes: int = 0


def boundary_of(content_type: str) -> bytes:
    """The words between the parts of a form.

    Raises:
        Refusal: it is no form with files.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Refusal(415, "expected a form (multipart/form-data) with the clip as the file 'file'")
    return boundary


async def receive_form(pieces: AsyncIterator[bytes], boundary: bytes, path: Path, limits: Limits) -> Form:
    """Read a form; its file 'file' is written to ``path``.

    Args:
        pieces: of the body, as they come in.
    Raises:
        Refusal: it is broken, too large, too slow, or the disk is full.
    """
    try:
        with full_disk(), path.open("xb") as file:  # closing writes, too
            reader = _Reader(file, limits.most_bytes)
            parser = MultipartParser(boundary, reader.callbacks())
            async with asyncio.timeout(limits.total_s):
                while True:
                    async with asyncio.timeout(limits.stall_s):
                        piece = await anext(pieces, b"")
                    if not piece:
                        break
                    parser.write(piece)
                    reader.require_size()
                    if reader.pending >= _PIECE:
                        await asyncio.to_thread(reader.flush)
                await asyncio.to_thread(reader.flush)
            parser.finalize()
    except TimeoutError as error:
        raise Refusal(408, "the upload took too long or stood still; send it again") from error
    except MultipartParseError as error:
        raise Refusal(400, f"the form cannot be read: {error}") from error
    if not reader.is_complete:
        raise Refusal(400, "the form ends before its end")
    return reader.form


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Read the rest of a body that is refused, within bounds."""
    count = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while count <= DRAINED:
                async with asyncio.timeout(_QUIET_S):
                    piece = await anext(pieces, b"")
                if not piece:
                    return
                count += len(piece)


class _Reader:
    """What the parser tells, as a form."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self.form, self.pending, self.is_complete = Form(), 0, False
        self._file, self._most = file, most_bytes
        self._waiting: list[bytes] = []
        self._headers: list[tuple[str, str]] = []
        self._key, self._value, self._text = b"", b"", b""
        self._name, self._is_file = "", False

    def callbacks(self) -> Any:
        """For the parser."""
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        table: dict[str, Callable[..., None]] = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        return table

    def require_size(self) -> None:
        """
        Raises:
            Refusal: the file is too large.
        """
        if self.form.num_bytes > self._most:
            raise Refusal(413, f"expected a clip of at most {self._most / 1e6:g} MB, got more", code=3)

    def flush(self) -> None:
        """Write what has come in; for a thread of its own, since a disk may be slow."""
        with full_disk():
            for piece in self._waiting:
                self._file.write(piece)
            self._file.flush()
        self._waiting, self.pending = [], 0

    def _part_begin(self) -> None:
        self._headers, self._key, self._value, self._text = [], b"", b"", b""
        self._name, self._is_file = "", False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]
        self._require_short(len(self._key), MOST_HEADER_BYTES)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._require_short(len(self._value), MOST_HEADER_BYTES)

    def _header_end(self) -> None:
        self._headers.append((self._key.decode("latin-1").lower(), self._value.decode("utf-8", "replace")))
        self._require_short(len(self._headers), MOST_FIELDS)
        self._key, self._value = b"", b""

    def _headers_finished(self) -> None:
        disposition = dict(self._headers).get("content-disposition", "")
        _, options = parse_options_header(disposition.encode())
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if not self._name:
            raise Refusal(400, "the form has a part without a name")
        if self._is_file:
            if self._name != "file" or self.form.file_name is not None:
                raise Refusal(422, "expected one file, named 'file', in the form", code=2)
            self.form.file_name = options[b"filename"].decode("utf-8", "replace")
        elif self._name in self.form.fields or len(self.form.fields) >= MOST_FIELDS:
            raise Refusal(
                422, f"expected every field once, got {self._name[:40]!r} again, or too many", code=2
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.form.num_bytes += end - start
            self.pending += end - start
            self._waiting.append(data[start:end])
        else:
            self._text += data[start:end]
            self._require_short(len(self._text), MOST_FIELD_BYTES)

    def _part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_complete = True

    def _require_short(self, count: int, most: int) -> None:
        if count > most:
            raise Refusal(
                413,
                f"a field of the form is longer than {most}; expected short ones and the file 'file'",
                code=2,
            )
