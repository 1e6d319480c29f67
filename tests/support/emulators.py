"""Azure's and Google's stores on loopback, by their emulators (azurite from npm, gcp-storage-emulator)."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "bucket"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of azurite's one account, the same everywhere."""

_ASKS_FOR_MORE = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
"""Lets gcsfs ask for kinds of buckets that the emulator does not know."""

PROGRAMS = {"az": "azurite-blob", "gs": "gcp-storage-emulator"}


def missing(kind: str) -> str | None:
    """Why the emulator of a kind of store cannot be started, or None."""
    if shutil.which(PROGRAMS[kind]) is None:
        return f"no {PROGRAMS[kind]}; .ci/stores installs it"
    return None


@contextmanager
def emulated(kind: str, folder: Path) -> Iterator[str]:
    """A bucket that fsspec reaches at the address that is given, as long as this lasts."""
    import fsspec

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    if kind == "az":
        words = ["--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck", "--silent"]
        words.append("--disableTelemetry")
        reached = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
        options = {"connection_string": f"{reached}BlobEndpoint={place}/{_ACCOUNT};"}
    else:
        words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
        options = {"token": "anon", "endpoint_url": place}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAMS[kind], *words], stdout=log, stderr=log)
    asks = os.environ.get(_ASKS_FOR_MORE)
    os.environ[_ASKS_FOR_MORE] = "false"
    before = fsspec.config.conf.get(kind)
    fsspec.config.conf[kind] = options
    os.environ[f"FSSPEC_{kind.upper()}"] = json.dumps(options)  # for worker processes
    try:
        _wait_for(port, process)
        store = fsspec.filesystem(kind)
        if kind == "az":
            store.mkdir(BUCKET)
        yield f"{kind}://{BUCKET}"
    finally:
        fsspec.config.conf.pop(kind)
        os.environ.pop(f"FSSPEC_{kind.upper()}")
        os.environ.pop(_ASKS_FOR_MORE)
        if asks is not None:
            os.environ[_ASKS_FOR_MORE] = asks
        if before is not None:
            fsspec.config.conf[kind] = before
        fsspec.get_filesystem_class(kind).clear_instance_cache()
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the emulator did not start (exit code {process.poll()})")
