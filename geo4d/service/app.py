"""The service over HTTP: addresses, their answers, and the page. Everything else is asked of ``Service``."""

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from geo4d import __version__
from geo4d.errors import Geo4DError
from geo4d.service.access import COOKIE, Access, Guard
from geo4d.service.crew import Died
from geo4d.service.exports import describe_exports
from geo4d.service.fetch import Fetcher
from geo4d.service.intake import list_examples, problem_of, take_job
from geo4d.service.jobs import EXPORTS, PREVIEW, Job
from geo4d.service.metrics import TEXT
from geo4d.service.refusals import Refusal
from geo4d.service.schema import (
    About,
    ExportFormat,
    ExportOptions,
    ExportView,
    Health,
    Jobs,
    JobView,
    Limits,
    Problem,
    form_schema,
)
from geo4d.service.service import Service, outcome_of

PAGE = ("index.html", "style.css", "app.js", "api.js", "films.js", "space.js", "icon.svg")
"""Files of the page; nothing else of the package is given out."""

Preview: TypeAlias = Literal["index.json", "frames.bin", "points.bin", "thumb.jpg"]
"""Files that the page shows of a result, as ``preview.py`` writes them."""

_LOOK_S = 0.2
"""Seconds between looks at a job whose progress somebody follows."""

_BINARY = "application/octet-stream"

EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["job", "removed"]},
        "data": {"type": "string", "description": "the job as JSON; {} when it was removed"},
    },
}
"""One event of a job, for OpenAPI."""

_SIGN_OF_LIFE_S = 15.0


def create_app(service: Service, access: Access, fetcher: Fetcher | None = None) -> Guard:
    """The application (ASGI).

    Args:
        service: that has begun its work.
        access: who may ask.
        fetcher: for addresses of clips; None takes one that reaches public hosts only.
    """
    app = FastAPI(
        title="geo4d",
        version=__version__,
        description="Monocular video in, 4D geometry out: depth, cameras, what moves and confidence for every frame.",
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    settings = service.settings
    fetcher = fetcher or Fetcher(settings.max_bytes, settings.stall_s, settings.upload_s)

    def answer(refusal: Refusal) -> JSONResponse:
        service.metrics.refused(refusal.status)
        headers = {} if refusal.retry_s is None else {"Retry-After": str(max(round(refusal.retry_s), 1))}
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        problem = Problem(detail=str(refusal), exit_code=refusal.code)
        return JSONResponse(problem.model_dump(), refusal.status, headers)

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(Refusal(422, problem_of(error.errors()), code=2))

    @app.exception_handler(HTTPException)
    async def refuse_plain(request: Request, error: HTTPException) -> Response:
        response = answer(Refusal(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    _add_jobs(app, service, fetcher)
    _add_downloads(app, service)
    _add_rest(app, service, access)
    return Guard(app, access, answer)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals of an address, for OpenAPI; every one may say 401 and 403."""
    return {status: {"model": Problem} for status in sorted({401, 403, *statuses})}


def _view(service: Service, job: Job) -> JobView:
    waiting = [one.id for one in service.store.waiting()] if job.state == "queued" else []
    place = waiting.index(job.id) + 1 if job.id in waiting else None
    return JobView.of(job, place, service.settings.keep_h * 3600)


def _add_jobs(app: FastAPI, service: Service, fetcher: Fetcher) -> None:
    """Making, listing, following and ending jobs."""

    @app.post(
        "/api/jobs",
        status_code=201,
        response_model=JobView,
        responses=_problems(400, 408, 413, 415, 422, 429, 500, 501, 503, 507),
        openapi_extra={"requestBody": form_schema()},
    )
    async def create_job(request: Request) -> JobView:
        """Send a clip; it is looked at, and becomes a job that waits for its turn."""
        return _view(service, await take_job(service, request, fetcher))

    @app.get("/api/jobs", response_model=Jobs, responses=_problems())
    async def list_jobs() -> Jobs:
        """All jobs, the newest first."""
        return Jobs(jobs=[_view(service, job) for job in service.store.all()])

    @app.get("/api/jobs/{job}", response_model=JobView, responses=_problems(404, 422))
    async def get_job(job: str) -> JobView:
        """A job as it is now."""
        return _view(service, service.require(job))

    @app.delete("/api/jobs/{job}", status_code=204, responses=_problems(404, 422))
    async def delete_job(job: str) -> Response:
        """End a job if it has not ended, and remove all of it."""
        await asyncio.to_thread(service.delete, job)
        return Response(status_code=204)

    @app.post("/api/jobs/{job}/cancel", response_model=JobView, responses=_problems(404, 409, 422))
    async def cancel_job(job: str) -> JobView:
        """End a job that waits or runs; its files are removed."""
        return _view(service, await asyncio.to_thread(service.cancel, job))

    @app.get(
        "/api/jobs/{job}/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": EVENT}}},
            **_problems(404, 422),
        },
    )
    async def follow_job(job: str) -> StreamingResponse:
        """Events ``job`` with the job whenever it changes, until it has ended."""
        service.require(job)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(service, job), media_type="text/event-stream", headers=headers)


async def _events(service: Service, id: str) -> AsyncIterator[str]:
    last, quiet = "", 0.0
    while not service.is_stopping:
        job = service.store.get(id)
        if job is None:
            yield "event: removed\ndata: {}\n\n"
            return
        text = _view(service, job).model_dump_json()
        if text != last:
            yield f"event: job\ndata: {text}\n\n"
            last, quiet = text, 0.0
        elif quiet >= _SIGN_OF_LIFE_S:
            yield ": still here\n\n"
            quiet = 0.0
        if job.is_ended:
            return
        await asyncio.sleep(_LOOK_S)
        quiet += _LOOK_S


def _add_downloads(app: FastAPI, service: Service) -> None:
    """What a finished job gives."""
    binary = {"content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}}}
    preview = {"content": {**binary["content"], "application/json": {}, "image/jpeg": {}}}
    options_of = Annotated[ExportOptions, Query()]

    @app.get(
        "/api/jobs/{job}/preview/{part}",
        response_class=FileResponse,
        responses={200: preview, 206: preview, **_problems(404, 409, 416, 422)},
    )
    async def get_preview(job: str, part: Preview) -> FileResponse:
        """Small pictures of every frame, points and cameras, as the page shows them."""
        path = service.store.place(_done(service, job).id) / PREVIEW / part
        if not path.is_file():
            raise Refusal(404, f"the job has no {part}")
        kind = mimetypes.guess_type(part)[0] or _BINARY
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @app.post(
        "/api/jobs/{job}/exports/{name}",
        response_model=ExportView,
        status_code=202,
        responses=_export_problems(),
    )
    async def prepare_export(job: str, name: str, options: options_of) -> ExportView:
        """Begin to write an export, and say how far it is; ask again until it is ready."""
        one = _done(service, job)
        path = service.exports.find(one, name, options.given())
        if path is None:
            ticket = service.exports.start(one, name, options.given())
            await asyncio.wait([asyncio.wrap_future(ticket.outcome)], timeout=1)
            if not ticket.outcome.done():
                return ExportView(name=name, state="working", num_bytes=None, file_name=None)
            path = await _written(service, one, name, options)
        return ExportView(
            name=name, state="ready", num_bytes=path.stat().st_size, file_name=_shown(one, name, path)
        )

    @app.get(
        "/api/jobs/{job}/exports/{name}",
        response_class=FileResponse,
        responses={200: binary, 206: binary, **_export_problems(416)},
    )
    async def get_export(job: str, name: str, options: options_of) -> FileResponse:
        """The file of an export, a zip where it is a folder; the answer waits until it is written."""
        one = _done(service, job)
        path = service.exports.find(one, name, options.given()) or await _written(service, one, name, options)
        # Whatever it is, it is saved: a page shown under this address could ask the service.
        return FileResponse(path, media_type=_BINARY, filename=_shown(one, name, path))


def _export_problems(*more: int) -> dict[int | str, dict[str, Any]]:
    return _problems(404, 409, 422, 429, 500, 501, 503, 507, *more)


def _done(service: Service, id: str) -> Job:
    """
    Raises:
        Refusal: there is no such job, or it has no result.
    """
    job = service.require(id)
    if job.state != "done":
        raise Refusal(409, f"the job has no result: it is {job.state}")
    return job


async def _written(service: Service, job: Job, name: str, options: ExportOptions) -> Path:
    """The file of an export, once it is written.

    Raises:
        Refusal: it cannot be.
    """
    ticket = service.exports.start(job, name, options.given())
    try:
        note = outcome_of(await asyncio.wrap_future(ticket.outcome))
    except Died as error:
        raise Refusal(503 if error.why == "stop" else 500, f"the export was not written: {error}") from error
    except Refusal:
        raise
    except Geo4DError as error:
        raise Refusal(503, str(error), code=error.exit_code) from error
    return service.store.place(job.id) / EXPORTS / note["file"]


def _shown(job: Job, name: str, path: Path) -> str:
    """Name that a client saves an export under."""
    return f"{Path(job.name).stem}-{name}{path.suffix}"


def _add_rest(app: FastAPI, service: Service, access: Access) -> None:
    """The service itself, its session, its figures and its page."""

    @app.get("/api/about", response_model=About, responses=_problems())
    async def about() -> About:
        """Model, limits, exports and examples."""
        settings = service.settings
        limits = Limits(
            max_bytes=settings.max_bytes,
            max_frames=settings.max_frames,
            job_s=settings.job_s,
            keep_s=settings.keep_h * 3600,
            queue=settings.queue,
        )
        return About(
            version=__version__,
            model=dict(service.workers.about or {}),
            limits=limits,
            fetches=settings.fetch_urls,
            exports=[ExportFormat(**row) for row in describe_exports()],
            examples=list_examples(),
        )

    @app.post("/api/session", status_code=204, responses=_problems())
    async def open_session(request: Request) -> Response:
        """Take the token, and give the browser a cookie in its place."""
        if not access.knows(request.headers.get("authorization", "")):
            raise Refusal(401, "this is not the token of the service")
        response = Response(status_code=204)
        if access.session is not None:
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, access.session, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/health", response_model=Health, responses={503: {"model": Health}, **_problems()})
    async def health(response: Response) -> Health:
        """Whether the service works; 503 where it does not."""
        state = _health(service)
        response.status_code = 200 if state.status == "ok" else 503
        return state

    @app.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems()},
    )
    async def metrics() -> Response:
        """Figures for Prometheus."""
        workers = service.workers
        counts = {"ready": workers.ready, "busy": workers.busy, "wanted": workers.size}
        text = service.metrics.render(service.store.all(), counts, service.store.folder)
        return Response(text, media_type=TEXT)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _page_file(name)


def _health(service: Service) -> Health:
    workers = service.workers
    if service.is_stopping:
        status: Literal["ok", "starting", "failing", "ending"] = "ending"
    elif workers.ready:
        status = "ok"
    else:
        status = "failing" if workers.fault is not None else "starting"
    reason = "" if workers.fault is None or status == "ok" else str(workers.fault)
    queued = len(service.store.waiting())
    return Health(
        status=status,
        workers=workers.size,
        ready=workers.ready,
        busy=workers.busy,
        queued=queued,
        reason=reason,
    )


def _page_file(name: str) -> Response:
    if name not in PAGE:
        raise Refusal(404, "there is no such file")
    data = files("geo4d.service").joinpath("page", name).read_bytes()
    kind = mimetypes.guess_type(name)[0] or _BINARY
    return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})
