import pytest

from geo4d.service.access import COOKIE, HEADERS, Access
from geo4d.service.app import create_app
from geo4d.service.refusals import Refusal
from geo4d.service.settings import ServiceSettings

TOKEN = "0123456789abcdef"


def status(
    access: Access, *, path="/api/jobs", host="localhost:8090", origins=(), token="", cookie=""
) -> int:
    try:
        access.require(path, [host] if isinstance(host, str) else host, list(origins), token, cookie)
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "origins", "answer"),
    [
        ("localhost:8090", (), 200),
        ("127.0.0.1:8090", ("http://127.0.0.1:8090",), 200),
        ("[::1]:8090", (), 200),
        ("rebound.example:8090", (), 403),
        ("localhost:8090", ("http://evil.example",), 403),
        ("localhost:8090", ("http://localhost:9999",), 403),
        ("localhost:8090", ("null",), 403),
        ("localhost:8090", ("http://localhost:8090", "http://localhost:8090"), 403),
        ([], (), 403),
        (["localhost", "evil.example"], (), 403),
        ("films.example", ("https://films.example",), 200),
        ("films.example", (), 200),
        ("behind.example", (), 200),
    ],
)
def test_pages_of_other_sites_are_refused(host, origins, answer) -> None:
    settings = ServiceSettings(names=("behind.example",), origins=("https://films.example",))
    assert status(Access(settings, None), host=host, origins=origins) == answer
    assert status(Access(settings, None), host=host, origins=origins, path="/") == answer


def test_the_token_opens_and_nothing_else() -> None:
    access = Access(ServiceSettings(host="0.0.0.0"), TOKEN)
    assert status(access, token=f"Bearer {TOKEN}") == 200
    assert status(access, token=f"bearer {TOKEN} ") == 200
    for wrong in ("", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \udcff"):
        assert status(access, token=wrong) == 401, wrong
    assert access.session not in (None, TOKEN)
    assert status(access, cookie=f"a=b; {COOKIE}={access.session}") == 200
    for wrong in (f"{COOKIE}={TOKEN}", f"{COOKIE}=", "geo4d=x", "\x00;;=", f"x{COOKIE}={access.session}"):
        assert status(access, cookie=wrong) == 401, wrong
    for path in ("/", "/page/app.js", "/health", "/openapi.json", "/api/session"):
        assert status(access, path=path) == 200
    for path in ("/api/jobs", "/metrics", "/api/about", "//", "/page", "/pages/x"):
        assert status(access, path=path) == 401


def test_the_session_of_another_token_is_none() -> None:
    other = Access(ServiceSettings(), TOKEN + "x")
    access = Access(ServiceSettings(), TOKEN)
    assert status(access, cookie=f"{COOKIE}={other.session}") == 401


def test_a_browser_gets_a_cookie_in_place_of_the_token(service) -> None:
    from starlette.testclient import TestClient

    access = Access(service.settings, TOKEN)
    browser = TestClient(create_app(service, access), base_url="http://localhost")
    refused = browser.get("/api/jobs")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert browser.post("/api/session", headers={"Authorization": "Bearer no"}).status_code == 401
    opened = browser.post("/api/session", headers={"Authorization": f"Bearer {TOKEN}"})
    assert opened.status_code == 204
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert browser.get("/api/jobs").status_code == 200


def test_every_answer_has_the_headers_refusals_too(client) -> None:
    for answer in (
        client.get("/"),
        client.get("/api/jobs/x"),
        client.get("/", headers={"Host": "evil.example"}),
    ):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
