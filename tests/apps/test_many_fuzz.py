"""Any value of any option of ``batch`` and ``serve``: a documented exit code, not 70; no answer of the service is 500.

Processes are not started: workers of the batch are in this process, and the service has none. Bounded; more examples with
GEO4D_FUZZ_EXAMPLES.
"""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d.apps import cli
from geo4d.batch.local import LocalEngine
from geo4d.batch.ray_engine import require_answer
from geo4d.errors import BatchError
from geo4d.models import base
from geo4d.service.crew import Crew
from tests.apps.test_exit_code_fuzz import values
from tests.support import batch_stub as batches
from tests.support.commands import options_of
from tests.support.inline_engine import InlineEngine

EXAMPLES = int(os.environ.get("GEO4D_FUZZ_EXAMPLES", "15"))
DOCUMENTED = set(range(12))
OPTIONS = {command: options_of(command) for command in ("batch", "serve")}

bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    batches.write_clip(folder / "a.mp4", 3)
    return folder


@pytest.fixture(scope="module")
def patch(tmp_path_factory):
    """Relative names lie in a folder of their own; the model is the stub; the network gives nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        patch.setenv("GEO4D_MODELS", str(tmp_path_factory.mktemp("store")))
        patch.setitem(base.PREDICTORS, "stub", batches.stub.__name__)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
        yield patch


extra = st.sampled_from(
    [
        "s3://",
        "s3://none/x",
        "memory://a/b",
        "memory://",
        "ftp://a",
        "://",
        "127.0.0.1:1",
        ":99999",
        "ray://x:y",
        "1/2",
    ]
    + [
        "0/0",
        "2/1",
        "1/99999999999",
        "local",
        "ray",
        "all",
        "md",
        "::1",
        "0.0.0.0",
        "localhost",
        "[::1]",
        "1e18",
    ]
)

usual = st.sampled_from(
    ["1", "2", "3", "60", "1.5", "1/1", "md", "local", "all"]
)  # else nearly all are refused at once


def draw_words(data: st.DataObject, command: str, without: tuple[str, ...] = ()) -> list[str]:
    words = []
    names = sorted(set(OPTIONS[command]) - set(without))
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        words += [
            name,
            *(data.draw(usual | usual | usual | values | extra) for _ in range(OPTIONS[command][name])),
        ]
    return words


def run_settings() -> set[str]:
    """Options that ``reconstruct`` has, too, and that its own tests try."""
    return set(options_of("reconstruct"))


@bounded
@given(st.data())
def test_any_value_of_any_option_of_batch(clips, tmp_path_factory, patch, data) -> None:
    place = tmp_path_factory.mktemp("fuzz")

    def make(how, job, keywords, *, stall_s=None) -> Any:
        if how.engine == "local":
            LocalEngine(how.workers, job, keywords, threads=how.worker_cpus, stall_s=stall_s)
            return InlineEngine(job, keywords)
        require_answer(how.ray_address or "", 0.1)
        raise BatchError("no cluster")

    patch.setattr("geo4d.batch.run.make_engine", make)
    anything = values.filter(
        lambda text: text not in ("/", "..", ".", "//")
    )  # the whole disk is walked, which takes long
    source = data.draw(st.sampled_from([str(clips), str(clips / "a.mp4")] * 3) | anything | extra)
    output = data.draw(st.sampled_from([str(place / "out")] * 4) | extra)
    own = draw_words(
        data, "batch", tuple({*run_settings(), "--output"} - {"--workers", "--worker-cpus", "--engine"})
    )
    small = ["--model", "stub", "--output-size", "model", "--tries", "0", "--no-motion", "--no-wait"]
    words = ["batch", source, "-o", output, *small, *own]
    code = cli.main(words)
    assert code in DOCUMENTED, (code, words)


@bounded
@given(st.data())
def test_any_value_of_any_option_of_serve(tmp_path_factory, patch, data) -> None:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    asked = []

    def ask(app, opened: socket.socket) -> None:
        host = f"127.0.0.1:{opened.getsockname()[1]}"
        client = TestClient(app, base_url=f"http://{host}", raise_server_exceptions=False)
        for address in ("/health", "/metrics", "/api/about", "/api/jobs", "/", "/openapi.json"):
            asked.append(client.get(address).status_code)
        asked.append(client.post("/api/jobs", files={"stride": (None, "2")}).status_code)

    patch.setattr("geo4d.service.server.serve", ask)
    patch.setattr(Crew, "__enter__", lambda crew: crew)
    patch.setattr(Crew, "wait_ready", lambda crew, seconds: {"name": "stub"})
    folder = tmp_path_factory.mktemp("serve") / "jobs"
    words = ["serve", "--folder", str(folder), "--port", "0", "--model", "stub", *draw_words(data, "serve")]
    code = cli.main(words)
    assert code in DOCUMENTED, (code, words)
    assert not [status for status in asked if status == 500 or status > 503], (asked, words)


def test_what_is_no_number_of_workers_or_seconds_is_said(clips, tmp_path, capsys) -> None:
    for words in (
        ("--workers", "9" * 30), ("--lease-s", "nan"), ("--lease-s", "inf"), ("--clip-timeout-s", "inf"),
        ("--worker-cpus", "9" * 12), ("--engine", "ray", "--worker-gpus", "nan"),
    ):  # fmt: skip
        assert cli.main(["batch", str(clips), "-o", str(tmp_path / "out"), *words]) == 2, words
        assert "expected" in capsys.readouterr().err
    for words in (("--workers", "99999"), ("--keep-h", "inf"), ("--max-mb", "inf"), ("--min-free-mb", "nan")):
        assert cli.main(["serve", "--folder", str(tmp_path / "jobs"), *words]) == 2, words
    assert list(tmp_path.iterdir()) == []
