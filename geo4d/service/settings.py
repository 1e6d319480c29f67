"""How the service is run; what the results are is decided by the settings of ``geo4d.run.reconstruct`` alone."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from geo4d.errors import InputError

TOKEN_VARIABLE = "GEO4D_TOKEN"
MOST_WORKERS, MOST = 256, 1_000_000_000
"""Processes of a service, and anything else that is counted or measured: more is a slip of the keyboard."""
LEAST_TOKEN = 16
"""Letters of a token, at least: one that can be guessed guards nothing."""


@dataclass(frozen=True)
class ServiceSettings:
    """How the service is run.

    Attributes:
        folder: where jobs are kept; a second start on it goes on with them.
        host: address to serve on; the default is reachable from this machine only, others need a token.
        port: port to serve on.
        token_file: file with the token that clients must show; none takes the environment variable GEO4D_TOKEN, if set.
        names: host names under which the service may be asked, beside this machine's own: that of a proxy, say.
        origins: pages of other addresses that may ask, such as https://geo4d.example for a proxy.
        workers: processes that reconstruct; each holds the model.
        queue: jobs that may wait; more are refused with 429.
        uploads: uploads at the same time; more are refused with 429.
        max_mb: largest clip, in millions of bytes.
        max_frames: most frames of a job; a longer clip needs start, stop or stride.
        job_s: seconds of work after which a job is ended and has failed.
        upload_s: seconds that an upload or the check of a clip may take.
        stall_s: seconds without a byte after which an upload is given up.
        keep_h: hours after its end for which a job is kept with all that belongs to it.
        min_free_mb: free space on the disk of the folder, in millions of bytes, below which nothing is taken.
        fetch_urls: take also addresses of clips, which the server then fetches; never from private networks.
    """

    folder: Path = Path("geo4d-jobs")
    host: str = "127.0.0.1"
    port: int = 8090
    token_file: Path | None = None
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    workers: int = 1
    queue: int = 16
    uploads: int = 8
    max_mb: float = 1000.0
    max_frames: int = 1000
    job_s: float = 3600.0
    upload_s: float = 1800.0
    stall_s: float = 30.0
    keep_h: float = 24.0
    min_free_mb: float = 500.0
    fetch_urls: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "uploads", "max_frames"):
            most = MOST_WORKERS if name == "workers" else MOST
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"expected {name} of 1 to {most:g}, got {getattr(self, name)}")
        for name in ("max_mb", "job_s", "upload_s", "stall_s", "keep_h"):
            if not 0 < getattr(self, name) <= MOST:
                raise ValueError(
                    f"expected {name} of more than 0 and at most {MOST:g}, got {getattr(self, name)}"
                )
        if not 0 <= self.min_free_mb <= MOST:
            raise ValueError(f"expected min_free_mb of 0 to {MOST:g}, got {self.min_free_mb}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"expected a port of 0 to 65535, got {self.port}")

    @property
    def max_bytes(self) -> int:
        """Largest clip in bytes."""
        return int(self.max_mb * 1e6)


def read_token(settings: ServiceSettings) -> str | None:
    """The token that clients must show, or None where none is needed.

    Raises:
        InputError: its file cannot be read.
        ValueError: it is too short, or there is none although other machines reach the address.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"cannot read the token from {settings.token_file}: {error}") from error
    token = (token or "").strip()
    if not token:
        if not is_loopback(settings.host):
            raise ValueError(
                f"expected a token for {settings.host}, which other machines reach: write one of at least {LEAST_TOKEN} "
                f"letters to a file for --token-file, or set {TOKEN_VARIABLE}; 127.0.0.1 needs none"
            )
        return None
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ValueError(f"expected a token of at least {LEAST_TOKEN} ASCII letters, got {len(token)}")
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only; a name other than ``localhost`` may be any address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
