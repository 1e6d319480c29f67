"""The page in a browser: from a clip to its download, on a desk and on a phone, and what it says when all goes wrong."""

import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from geo4d.service.access import Access
from geo4d.service.app import create_app
from geo4d.service.service import Service
from geo4d.service.settings import ServiceSettings
from tests.support.batch_stub import write_clip
from tests.support.served import chromium, served, stub_run

pytestmark = pytest.mark.browser

TOKEN = "a token for the tests"
GPU = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Windows take a while, so that progress, queue and cancelling can be seen."""
    settings = ServiceSettings(folder=tmp_path_factory.mktemp("page") / "jobs", min_free_mb=1, max_frames=30)
    run = {**stub_run(sleep=0.6), "output_size": "source"}
    with Service(settings, run) as started:
        yield started


@pytest.fixture(scope="module")
def address(service):
    with served(create_app(service, Access(service.settings, None))) as base:
        yield base


@pytest.fixture(scope="module")
def browser(request):
    required = request.config.getoption("--browser-required")
    if not required:
        pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        (pytest.fail if required else pytest.skip)(
            "no Chromium on this machine; install it to run the browser tests"
        )
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=list(GPU))
        yield one
        one.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desk", "phone"])
def page(request, browser, address):
    """A page of the size of a desk's or a phone's screen; nothing may go wrong in it."""
    width, height = request.param
    one = browser.new_page(viewport={"width": width, "height": height}, has_touch=width < 500)
    errors: list[str] = []
    one.on("pageerror", lambda error: errors.append(str(error)))
    one.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
    one.goto(address)
    one.wait_for_selector("#home:not([hidden])")
    yield one
    one.close()
    assert not errors


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("film") / "box.mp4", 12)


def pixels(page, selector: str) -> np.ndarray:
    """[H, W, 3] of a canvas, as it is drawn."""
    import base64

    import cv2

    text = page.evaluate("s => document.querySelector(s).toDataURL('image/png').split(',')[1]", selector)
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(
        float
    )


def until(page, expression: str, *argument: object, seconds: float = 30) -> None:
    """Wait for an expression to be true; asked from outside, since the page allows no text to be run in it."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression, *argument):
        assert time.monotonic() < deadline, f"waited in vain: {expression}"
        page.wait_for_timeout(50)


def upload(page, path: Path) -> None:
    page.set_input_files("#file", str(path))
    page.wait_for_selector("#job:not([hidden])")


def wait_viewer(page) -> None:
    page.wait_for_selector("#viewer:not([hidden])", timeout=90_000)
    until(page, "document.querySelector('#panels canvas[data-frame]')")
    until(page, "Number(document.querySelector('#space canvas').dataset.points) > 1000")


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def seek(page, frame: int) -> None:
    page.evaluate(
        "t => { const s = document.getElementById('frame'); s.value = t; s.dispatchEvent(new Event('input')); }",
        frame,
    )
    until(
        page,
        "t => [...document.querySelectorAll('#panels canvas, #space canvas')].every(c => c.dataset.frame === String(t))",
        frame,
    )


def test_from_a_clip_to_its_download(page, film, tmp_path) -> None:
    assert "tiny" not in page.inner_text("#model")
    assert "licence as the package" in page.inner_text("#model")
    upload(page, film)
    page.wait_for_selector("#progress:not([hidden]) .now")
    until(page, "document.getElementById('plan').innerText.includes('12 frames')")
    assert "as the package" in page.inner_text("#plan")
    assert fits(page)
    wait_viewer(page)
    assert page.inner_text("#job-state") == "done"
    assert "usable" in page.inner_text("#result")
    assert fits(page)

    first = {name: pixels(page, f"[data-panel={name}] canvas") for name in ("picture", "depth", "confidence")}
    assert all(panel.std() > 5 for name, panel in first.items() if name != "confidence")
    seek(page, 11)
    last = pixels(page, "[data-panel=picture] canvas")
    assert np.abs(last - first["picture"]).mean() > 3
    assert page.inner_text("#clock").startswith("frame 11 · 0.440 s")

    page.click("#on-one")
    page.click("#back-one")
    seek(page, 3)
    page.click("#play")
    until(page, "document.querySelector('#panels canvas').dataset.frame > 3")
    page.click("#play")

    with page.expect_download() as caught:
        page.click("[data-format=tum] button")
    assert caught.value.suggested_filename == "box-tum.txt"
    rows = [line.split() for line in Path(caught.value.path()).read_text().splitlines() if line[0] != "#"]
    assert len(rows) == 12
    page.select_option("[name=up]", "z")
    with page.expect_download() as caught:
        page.click("[data-format=exr] button")
    archive = zipfile.ZipFile(io.BytesIO(Path(caught.value.path()).read_bytes()))
    assert len([name for name in archive.namelist() if name.endswith(".exr")]) == 12
    page.select_option("[name=up]", "camera")
    page.click("[data-format=usd] button")
    page.wait_for_selector("[data-format=usd] .wrong")
    assert "expected up out of y, z" in page.inner_text("[data-format=usd] .wrong")


def test_space_through_the_camera_is_the_picture(page, film) -> None:
    """Points and cameras agree with the film, and the drawing with both: what is drawn looks like the frame itself."""
    upload(page, film)
    wait_viewer(page)
    orbit = pixels(page, "#space canvas")
    page.click("#view-camera")
    for _ in range(4):
        page.click("#larger")
    for frame in (0, 11):
        seek(page, frame)
        picture = pixels(page, "[data-panel=picture] canvas")
        drawn = pixels(page, "#space canvas")
        assert np.abs(orbit - drawn).mean() > 5
        height, width = drawn.shape[:2]
        factor = min(width / picture.shape[1], height / picture.shape[0])
        rows, columns = round(picture.shape[0] * factor), round(picture.shape[1] * factor)
        top, left = (height - rows) // 2, (width - columns) // 2
        import cv2

        # Away from the caption above and the buttons below, which lie over the canvas only on the page.
        inner = cv2.resize(
            drawn[top : top + rows, left : left + columns], picture.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        blurred = [cv2.GaussianBlur(one, (0, 0), 3) for one in (picture, inner)]
        seen = inner.sum(-1) > 60
        assert seen.mean() > 0.8
        agreement = np.corrcoef(blurred[0][seen].ravel(), blurred[1][seen].ravel())[0, 1]
        assert agreement > 0.8, (frame, agreement)


def test_queue_cancel_and_delete(page, film) -> None:
    upload(page, film)
    first = page.url
    page.goto(page.url.split("#")[0])
    page.wait_for_selector("#home:not([hidden])")
    upload(page, film)
    until(page, "document.getElementById('progress-words').innerText.includes('clip')")
    assert page.inner_text("#job-state") == "waiting"
    page.click("#cancel")
    until(page, "document.getElementById('job-state').innerText === 'cancelled'")
    assert "Cancelled" in page.inner_text("#job-reason")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    page.wait_for_selector("#home:not([hidden])")
    page.goto(first)
    page.click("#cancel")
    until(page, "document.getElementById('job-state').innerText === 'cancelled'")
    page.click(".back")
    page.wait_for_selector("#jobs a")
    assert fits(page)


def test_what_is_wrong_is_said(page, tmp_path, film) -> None:
    wrong = tmp_path / "letter <b>.mp4"
    wrong.write_text("Dear film, you are none." * 10)
    page.set_input_files("#file", str(wrong))
    page.wait_for_selector("#notice:not([hidden])")
    assert page.inner_text("#notice") == "letter _b_.mp4 is not a video file that geo4d opens: it is text."
    assert page.locator("#notice b").count() == 0
    page.click("#options summary")
    page.fill("[name=stride]", "0")
    page.set_input_files("#file", str(film))
    assert page.evaluate("document.querySelector('[name=stride]').matches(':invalid')")
    assert page.is_visible("#home")
    page.goto(page.url.split("#")[0] + "#job=" + "0" * 32)
    until(page, "document.getElementById('notice').innerText.includes('no such job')")


def test_the_token_is_asked_for(browser, service) -> None:
    with served(create_app(service, Access(service.settings, TOKEN))) as base:
        page = browser.new_page()
        page.goto(base)
        page.wait_for_selector("#token[open]")
        page.fill("#token-text", "wrong")
        page.click("#token button")
        page.wait_for_selector("#token-wrong:not([hidden])")
        page.fill("#token-text", TOKEN)
        page.click("#token button")
        page.wait_for_selector("#model:not([hidden])")
        assert "licence" in page.inner_text("#model")
        assert TOKEN not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
        page.close()
