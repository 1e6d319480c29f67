"""The page on the screens of a phone and of a desk, in Chromium: what the panel leaves of the scene."""

import numpy as np
import pytest

from geo4d.viewer.viser_view import ViewConfig, Viewer
from tests.viewer.test_viser_view import chromium, free_port, scene  # noqa: F401

OPTIONS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

COVERED = """() => {
  const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect(), found = [];
  for (let y = box.top + 2; y < box.bottom; y += 10)
    for (let x = box.left + 2; x < box.right; x += 10) {
      const top = document.elementFromPoint(x, y);
      found.push(!(top.tagName === "CANVAS" || top.querySelector("canvas") || top.closest("[class*=Notification]")));
    }
  const across = found.length / Math.ceil((box.height - 2) / 10);
  return { found, across, width: box.width, height: box.height };
}"""
"""Of points over the canvas: is something before it? Notes that viser shows and takes away do not count."""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)], ids=["phone", "desk"])
def test_the_scene_is_seen_beside_the_panel(scene, chromium, tmp_path, width, height) -> None:  # noqa: F811
    import cv2
    from playwright.sync_api import sync_playwright

    phone = width < 500
    with Viewer(scene, ViewConfig(port=free_port())) as viewer, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS))
        page = browser.new_page(viewport={"width": width, "height": height}, has_touch=phone)
        page.goto(viewer.url)
        page.get_by_role("button", name="screenshot").wait_for(timeout=30_000)
        page.wait_for_timeout(3000)  # panels glide to their place
        seen = page.evaluate(COVERED)
        covered = np.array(seen["found"]).reshape(-1, round(seen["across"]))
        assert covered.mean() < (0.3 if phone else 0.01)
        assert (
            covered[: round(0.6 * len(covered))].mean() < 0.01
        )  # where the scene is; a divider may be at its edge
        assert seen["width"] == width if phone else seen["width"] >= 0.75 * width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_by_text("source frame 0, 0.000 s").is_visible()
        panes = page.locator("img[src^='blob:']:visible")
        if phone:  # closed at first; a tap opens the panes, another the whole sheet's handle
            assert panes.count() == 0
            page.get_by_text("Pictures · Points · Files", exact=True).tap()
            panes.first.wait_for(timeout=10_000)
            page.get_by_text("geo4d", exact=True).first.tap()
            page.wait_for_timeout(1500)
            assert np.mean(page.evaluate(COVERED)["found"]) < 0.1
        else:
            assert panes.count() == 2
        for _ in range(60):  # software rendering may take its time
            page.screenshot(path=str(tmp_path / "page.png"))
            picture = cv2.imread(str(tmp_path / "page.png"))[:, : round(seen["width"]), ::-1].astype(int)
            wall = (np.abs(picture - 153) < 4).all(-1)
            if wall.sum() > 2000:
                break
            page.wait_for_timeout(1000)
        columns = np.flatnonzero(wall.sum(0) > 5)
        browser.close()
    assert len(columns) > 0.3 * width  # the wall, with both of its edges in the window
    assert columns[0] > 5
    assert columns[-1] < seen["width"] - 5
