"""A request for a new job, from its first byte to the job: uploaded, fetched, or one of the examples."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from geo4d.service.crew import Died
from geo4d.service.fetch import Fetcher
from geo4d.service.jobs import SOURCE, Job, file_name
from geo4d.service.refusals import Refusal, full_disk
from geo4d.service.schema import Example, JobOptions
from geo4d.service.service import Service, outcome_of
from geo4d.service.uploads import OVERHEAD, Form, Limits, boundary_of, drain, receive_form

EXAMPLES = {"room.mp4": "A room drawn by geo4d: known depth and cameras, things that move"}
"""Clips beside the page, with their titles."""

_INCOMING = "incoming"


def list_examples() -> list[Example]:
    """The clips that come with the service."""
    return [
        Example(name=name, title=title, num_bytes=len(_example(name))) for name, title in EXAMPLES.items()
    ]


def _example(name: str) -> bytes:
    return files("geo4d.service").joinpath("page", "examples", name).read_bytes()


async def take_job(service: Service, request: Request, fetcher: Fetcher) -> Job:
    """Make a job of a form.

    Raises:
        Refusal: anything is wrong with it, or there is no room.
    """
    pieces = _pieces(request)
    try:
        boundary = boundary_of(request.headers.get("content-type", ""))
        stated = request.headers.get("content-length", "")
        size = max(int(stated) - OVERHEAD, 0) if stated.isdecimal() else 0
        with service.slot(size) as place:
            incoming = place / SOURCE / _INCOMING
            limits = Limits(service.settings.max_bytes, service.settings.stall_s, service.settings.upload_s)
            form = await receive_form(pieces, boundary, incoming, limits)
            options = read_options(form.fields)
            name = file_name(await _clip(service, form, incoming, fetcher))
            source = incoming.rename(incoming.with_name(name))
            return await _checked(service, place, source, options)
    except Refusal:
        await drain(pieces)
        raise
    except ClientDisconnect as error:
        raise Refusal(400, "the client went away") from error


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


def read_options(fields: Mapping[str, str]) -> dict[str, Any]:
    """The settings among the fields of a form; an empty one is not given.

    Raises:
        Refusal: unknown ones, or nonsense.
    """
    given = {name: text for name, text in fields.items() if text and name not in ("example", "url")}
    try:
        return JobOptions.model_validate(given).given()
    except ValidationError as error:
        raise Refusal(422, problem_of(error.errors()), code=2) from error


def problem_of(errors: Any) -> str:
    """What pydantic found, in a line."""
    known = ", ".join(JobOptions.model_fields)
    lines = []
    for one in errors:
        name = ".".join(str(part) for part in one["loc"]) or "the request"
        if one["type"] == "extra_forbidden":
            lines.append(f"unknown setting {name[:40]!r}; expected some of {known}")
        else:
            lines.append(f"{name[:40]}: {one['msg']}, got {str(one.get('input'))[:40]!r}")
    return "; ".join(lines)


async def _clip(service: Service, form: Form, path: Path, fetcher: Fetcher) -> str:
    """See to it that the clip lies at ``path``; its name.

    Raises:
        Refusal: there is not one clip.
    """
    given = [name for name in ("example", "url") if form.fields.get(name)]
    if form.file_name is not None:
        given.append("file")
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise Refusal(422, f"expected one of a file 'file', an 'example' or a 'url', got {got}", code=2)
    if given == ["file"]:
        return form.file_name or ""
    text = form.fields[given[0]]
    if given == ["example"]:
        if text not in EXAMPLES:
            raise Refusal(
                422, f"expected one of {', '.join(EXAMPLES)} as the example, got {text[:80]!r}", code=2
            )
        with full_disk():
            path.write_bytes(_example(text))
        return text
    if not service.settings.fetch_urls:
        raise Refusal(
            403, "this service fetches no addresses (--fetch-urls allows it); send the file itself", code=2
        )
    path.unlink()
    name, _ = await asyncio.to_thread(fetcher.fetch, text, path)
    return name


async def _checked(service: Service, place: Path, source: Path, options: dict[str, Any]) -> Job:
    """A job of a clip that opens.

    Raises:
        Refusal: it does not.
    """
    size = source.stat().st_size
    ticket = service.check(source, options)
    try:
        note = await asyncio.wrap_future(ticket.outcome)
    except Died as error:
        if error.why == "stop":
            raise Refusal(503, "the service ends; try again when it is back", retry_s=30) from error
        raise Refusal(422, f"{source.name} cannot be opened: {error}", code=3) from error
    except asyncio.CancelledError:
        service.checker.cancel(ticket)
        raise
    outcome_of(note)
    with full_disk():
        return service.accept(place, source.name, size, options)
