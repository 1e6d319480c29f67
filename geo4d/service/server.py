"""The server that answers: uvicorn on a socket that was opened before anything else was begun."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from geo4d.errors import OutputError
from geo4d.service.settings import ServiceSettings

_CLOSE_S = 3
"""Seconds that answers have to end when the service does."""

_IDLE_S = 30
"""Seconds after which a connection without a request is closed."""


@contextmanager
def listen(settings: ServiceSettings) -> Iterator[socket.socket]:
    """A socket on the address of the service.

    Raises:
        OutputError: it is not to be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        opened = socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise OutputError(
            f"cannot serve on {settings.host}:{settings.port}: {error.strerror or error}; try another --port or --host"
        ) from error
    with opened:
        yield opened


def serve(app: Any, opened: socket.socket) -> None:
    """Answer until the process is interrupted or asked to end."""
    import uvicorn

    for name in ("uvicorn.error", "uvicorn.access"):  # who asked for what is the business of a proxy's log
        logging.getLogger(name).setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_CLOSE_S,
        h11_max_incomplete_event_size=64 * 1024,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
        uvicorn.Server(config).run(sockets=[opened])
