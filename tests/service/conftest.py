from pathlib import Path

import pytest

from geo4d.service.access import Access
from geo4d.service.app import create_app
from geo4d.service.service import Service
from geo4d.service.settings import ServiceSettings
from tests.support import batch_stub, served


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A clip of 10 frames of 160x96 pixels."""
    return batch_stub.write_clip(tmp_path_factory.mktemp("clips") / "box.mp4", 10)


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """A service with the stub, for all tests that break nothing of it."""
    settings = ServiceSettings(
        folder=tmp_path_factory.mktemp("service") / "jobs", max_mb=2, max_frames=50, min_free_mb=1
    )
    with Service(settings, served.stub_run()) as started:
        yield started


@pytest.fixture(scope="session")
def client(service):
    """Asks the service without a socket between."""
    from starlette.testclient import TestClient

    app = create_app(service, Access(service.settings, None))
    return TestClient(app, base_url="http://localhost")


@pytest.fixture(scope="session")
def done(client, clip) -> dict:
    """A job that is done; tests leave it as it is."""
    return wait_ended(client, send(client, clip).json()["id"])


def send(client, path: Path, name: str | None = None, **fields):
    with path.open("rb") as file:
        return client.post("/api/jobs", files={"file": (name or path.name, file)}, data=fields)


def wait_ended(client, id: str) -> dict:
    """The job when it has ended."""
    ended = ("done", "failed", "cancelled")
    served.await_true(lambda: client.get(f"/api/jobs/{id}").json()["state"] in ended, "the job never ended")
    return client.get(f"/api/jobs/{id}").json()
