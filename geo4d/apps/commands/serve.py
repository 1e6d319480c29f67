"""Serve reconstruction over HTTP: a page to drop clips on, and an API.

geo4d serve

geo4d serve --folder /data/jobs --host 0.0.0.0 --token-file token.txt --names films.example --queue 50

Jobs live in the folder, and go on after a restart. See docs/serve.md.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tyro

from geo4d.apps.commands.reconstruct import RunOptions
from geo4d.errors import MissingExtraError
from geo4d.service.settings import ServiceSettings, is_loopback, read_token

if TYPE_CHECKING:
    from geo4d.service.service import Service

EXAMPLES = (
    "geo4d serve",
    "geo4d serve --port 9000",
)


@dataclass(frozen=True)
class ServeOptions(RunOptions):
    """Serve reconstruction over HTTP."""

    how: tyro.conf.OmitArgPrefixes[ServiceSettings] = field(default_factory=ServiceSettings)


def run(options: ServeOptions) -> int:
    """Serve until interrupted.

    Raises:
        ValueError: nonsensical options, or no token for an address that other machines reach.
        MissingExtraError: the extra ``serve`` is not installed.
        OutputError: the folder or the port is not to be had.
        CheckpointError: the model cannot be loaded.
    """
    token = read_token(options.how)
    _require_extra()
    from geo4d.service.access import Access
    from geo4d.service.app import create_app
    from geo4d.service.server import listen, serve
    from geo4d.service.service import Service

    with listen(options.how) as socket, Service(options.how, options.keywords()) as service:
        app = create_app(service, Access(options.how, token))
        host, port = socket.getsockname()[:2]
        print("\n".join(_lines(service, f"[{host}]" if ":" in host else host, port)), flush=True)
        serve(app, socket)
    print("stopped; jobs go on with the next start")
    return 0


def _lines(service: "Service", host: str, port: int) -> list[str]:
    """What a user sees first."""
    settings, about = service.settings, service.workers.about or {}
    lines = [
        f"model    {about.get('name')}: {about.get('description')} [{about.get('licence')}]",
        f"jobs     in {service.store.folder}, kept for {settings.keep_h:g} h"
        + (f"; {service.taken_up} of an earlier start go on" if service.taken_up else ""),
        f"page     http://{host}:{port}/ (stop with Ctrl-C)",
    ]
    if not is_loopback(settings.host):
        lines.insert(
            2, "reached  by other machines, with the token; in the open: put a proxy with TLS before it"
        )
    return lines


def _require_extra() -> None:
    """
    Raises:
        MissingExtraError: a package of the extra ``serve`` is not installed.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "geo4d serve") from error
