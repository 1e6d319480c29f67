"""Where pulled models live, and single weight files brought there."""

import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from geo4d.errors import CheckpointError
from geo4d.formats.hashes import sha256_of

log = logging.getLogger(__name__)


def model_store() -> Path:
    """Where pulled models live: ``GEO4D_MODELS``, or ``models`` in the user's cache folder for geo4d."""
    if "GEO4D_MODELS" in os.environ:
        return Path(os.environ["GEO4D_MODELS"])
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "geo4d" / "models"


def fetch_file(source: str, target: Path, *, sha256: str | None = None, offline: bool = False) -> Path:
    """Bring one weight file to ``target`` from a path or an https address.

    A broken download goes on where it stopped. The file appears under its name only when it is complete and its hash
    (when one is given) is right.

    Args:
        source: local path, or ``https://...``.
        sha256: expected hash.
        offline: refuse anything but a local path, before the network is touched.
    Returns:
        the local path itself, or ``target``.
    Raises:
        CheckpointError: not there, wrong hash, no network, or offline.
    """
    scheme = urllib.parse.urlparse(source).scheme
    if scheme not in ("http", "https") or Path(source).exists():
        path = Path(source)
        if not path.is_file():
            raise CheckpointError(
                f"expected a weight file or an https address, got {source!r}, which is not there"
            )
        _check_hash(path, sha256)
        return path
    if target.is_file():
        try:
            _check_hash(target, sha256)
            return target
        except CheckpointError as error:
            aside = target.with_name(target.name + ".rejected")
            os.replace(target, aside)
            log.warning("%s; it is now called %s", error, aside.name)
    if offline:
        raise CheckpointError(f"{source} is not in the local store and --offline is set")
    if scheme != "https":
        raise CheckpointError(f"expected an https address, got {source!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _download(source, part)
    try:
        _check_hash(part, sha256)
    except CheckpointError:
        part.unlink()  # complete and wrong: there is nothing to go on with
        raise
    os.replace(part, target)
    return target


def _download(url: str, part: Path, timeout_s: float = 60.0) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            resumed = done > 0 and reply.status == 206
            expected = reply.headers.get("Content-Length")
            with part.open("ab" if resumed else "wb") as file:
                received = 0
                while block := reply.read(2**20):
                    file.write(block)
                    received += len(block)
        if expected is not None and received != int(expected):
            raise CheckpointError(
                f"{url}: got {received} of {expected} bytes; run the same command again to go on"
            )
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:
            return
        raise CheckpointError(f"cannot download {url}: {error}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot download {url}: {error}; run the same command again to go on"
        ) from error


def _check_hash(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256.lower():
        raise CheckpointError(f"{path}: SHA-256 is {found}, expected {sha256}; delete it and get it again")
