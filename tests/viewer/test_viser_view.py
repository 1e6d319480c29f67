import shutil
import socket
import types
import urllib.request

import numpy as np
import pytest
import torch

from geo4d.errors import OutputError
from geo4d.geometry.cameras import centred_intrinsics
from geo4d.types import Reconstruction
from geo4d.viewer.viser_view import ViewConfig, Viewer

SIZE = (48, 64)


@pytest.fixture
def scene() -> Reconstruction:
    """A grey wall with a red square that moves from left to right; the camera moves a little."""
    depth = np.full((6, *SIZE), 3.0, np.float32)
    rgb = np.full((6, *SIZE, 3), 0.6, np.float32)
    dynamic = np.zeros((6, *SIZE), np.float32)
    for t in range(6):
        square = np.s_[16:32, 4 + 8 * t : 16 + 8 * t]
        depth[t][square], dynamic[t][square] = 2.0, 1.0
        rgb[t][square] = [1.0, 0.0, 0.0]
    c2w = np.tile(np.eye(4), (6, 1, 1))
    c2w[:, 0, 3] = np.linspace(0, 0.2, 6)
    return Reconstruction(
        depth=depth,
        confidence=np.ones_like(depth),
        intrinsics=centred_intrinsics(torch.full((6,), 60.0), SIZE).numpy(),
        times_s=np.arange(6) / 10,
        source_frames=np.arange(6),
        c2w=c2w,
        dynamic=dynamic,
        rgb=rgb,
        reliable=np.array([True] * 5 + [False]),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_serves_on_loopback_and_stops(scene) -> None:
    port = free_port()
    with Viewer(scene, ViewConfig(port=port)) as viewer:
        assert viewer.url == f"http://127.0.0.1:{port}"
        page = urllib.request.urlopen(viewer.url, timeout=10).read()
        assert b"<html" in page.lower()
        viewer.panel.frame.value = 5
        viewer._show_frame()
        assert "unreliable" in viewer.panel.legend.content
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_moving_points_are_shown_over_static_ones(scene) -> None:
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        assert viewer._static is not None
        assert (viewer._static.colours[:, 1] > 100).all()  # nothing of the red square
        moving = np.asarray(viewer._points.points)
        assert 0 < len(moving) <= 16 * 12
        viewer.panel.static.value = False
        viewer._show_static()
        viewer._show_frame()
        assert len(np.asarray(viewer._points.points)) > 1000
        viewer.panel.share.value = 1
        viewer._show_frame()


def test_points_take_the_colours_that_are_chosen(scene) -> None:
    scene.dynamic[:, 32:] = 1.0  # below the wall something moves, in every frame
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        assert viewer.panel.colour.options == ("picture", "depth", "confidence", "moving")
        assert {tuple(c) for c in np.asarray(viewer._points.colors).tolist()} <= {
            (255, 0, 0),
            (153, 153, 153),
        }
        viewer.panel.static.value = False
        viewer.panel.colour.value = "depth"
        viewer._recolour()
        z, colours = np.asarray(viewer._points.points)[:, 2], np.asarray(viewer._points.colors).astype(int)
        near, far = colours[np.abs(z - 2) < 0.1], colours[np.abs(z - 3) < 0.1]
        assert len(near) > 50
        assert len(far) > 1000
        assert (near[:, 0] > near[:, 2]).all()  # red
        assert (far[:, 2] > far[:, 0]).all()  # blue
        assert "near 0.5" not in viewer.panel.legend.content
        assert "near 2" in viewer.panel.legend.content
        viewer.panel.colour.value = "moving"
        viewer._recolour()
        colours = np.asarray(viewer._points.colors).astype(int)
        assert (colours[np.abs(z - 2) < 0.1][:, 0] > 200).all()  # yellow
        assert viewer.panel.map.label == "moving"


def test_panes_show_the_frame(scene) -> None:
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        viewer.panel.frame.value = 3
        viewer._show_frame()
        np.testing.assert_array_equal(viewer.panel.picture.image, np.round(255 * scene.rgb[3]))
        square = np.s_[16:32, 28:40]
        assert (viewer.panel.map.image[square][..., 0] > 100).all()
        assert (viewer.panel.map.image[:16, :, 0] < 100).all()


def test_the_share_counts_points(scene) -> None:
    scene.confidence[:] = np.linspace(0.02, 0.12, 48 * 64).reshape(48, 64)
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        viewer.panel.static.value = False
        counts = []
        for share in (100, 50, 10):
            viewer.panel.share.value = share
            viewer._show_all()
            counts.append(len(np.asarray(viewer._points.points)))
            assert ("less than half" in viewer.panel.legend.content) == (share < 100)
        assert counts[1] == pytest.approx(0.5 * counts[0], rel=0.1)
        assert counts[2] == pytest.approx(0.1 * counts[0], rel=0.2)


class Visitor:
    """What the viewer asks of a browser."""

    def __init__(self) -> None:
        self.camera = types.SimpleNamespace(image_height=4, image_width=6, fov=1.3)
        self.files: dict[str, bytes] = {}
        self.notes: list[str] = []

    def get_render(self, height: int, width: int, *, transport_format: str) -> np.ndarray:
        return np.tile(np.uint8([10, 20, 30]), (height, width, 1))

    def send_file_download(self, name: str, content: bytes, *, save_immediately: bool) -> None:
        assert save_immediately
        self.files[name] = content

    def add_notification(self, title: str, body: str, *, color: str) -> None:
        self.notes.append(body)


def test_buttons_send_files_and_set_the_view_back(scene) -> None:
    import cv2

    visitor = Visitor()
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        viewer.panel.frame.value = 2
        viewer._send_screenshot(visitor)
        viewer._send_export(visitor, "points of this frame (PLY)")
        picture = cv2.imdecode(np.frombuffer(visitor.files["frame_2.png"], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (1080, 1620, 3)
        visitor.camera.image_height, visitor.camera.image_width = 1200, 1600
        viewer._send_screenshot(visitor)
        picture = cv2.imdecode(np.frombuffer(visitor.files["frame_2.png"], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (1200, 1600, 3)
        assert visitor.files["frame_2.ply"].startswith(b"ply\n")
        scene.c2w[:] = np.eye(4)
        viewer._place_viewer(visitor)
        assert visitor.camera.look_at.tolist() == pytest.approx([0, 0, viewer.unit])
        near = -visitor.camera.position[2]
        visitor.camera.image_width, visitor.camera.image_height = 390, 844
        viewer._place_viewer(visitor)
        assert -visitor.camera.position[2] > 1.5 * near  # a narrow window needs more distance
        scene.depth[:] = np.nan
        viewer._send_export(visitor, "points of this frame (PLY)")
        assert len(visitor.notes) == 1


def test_without_poses_and_with_a_wrong_scene(scene) -> None:
    import dataclasses

    with Viewer(dataclasses.replace(scene, c2w=None), ViewConfig(port=free_port())) as viewer:
        assert viewer._static is None
        assert len(np.asarray(viewer._points.points)) > 1000
    with pytest.raises(ValueError, match="scene"):
        Viewer(scene, ViewConfig(port=free_port(), scene=3))


def test_unusable_address(scene) -> None:
    with pytest.raises(OutputError, match="--port"):
        Viewer(scene, ViewConfig(host="192.0.2.1", port=free_port()))
    for port in (-1, 0, 65536):
        with pytest.raises(ValueError, match=f"1 to 65535, got {port}"):
            Viewer(scene, ViewConfig(port=port))


@pytest.fixture
def chromium(request: pytest.FixtureRequest) -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    playwright = pytest.importorskip if not request.config.getoption("--browser-required") else __import__
    playwright("playwright")
    if path is None:
        message = "no Chromium on this machine; install it to run the browser tests"
        if request.config.getoption("--browser-required"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.mark.browser
def test_page_draws_points_and_the_slider_moves_them(scene, chromium, tmp_path) -> None:
    import cv2
    from playwright.sync_api import sync_playwright

    def red_columns(name: str) -> np.ndarray:
        """Columns of the picture where the moving square is seen; the panel on the right is left out."""
        picture = cv2.imread(str(tmp_path / name))[:, :, ::-1].astype(int)
        red = (picture[..., 0] > 150) & (picture[..., 1] < 60) & (picture[..., 2] < 60)
        return np.flatnonzero(red[:, :620].sum(0) > 3)

    with Viewer(scene, ViewConfig(port=free_port())) as viewer, sync_playwright() as playwright:
        viewer.panel.cameras.value = False
        viewer._show_cameras()
        viewer.panel.size.value = 5.0
        viewer._resize_points()
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
                  "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )  # fmt: skip
        page = browser.new_page(viewport={"width": 960, "height": 600})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(viewer.url)
        page.wait_for_selector("canvas", timeout=30_000)

        def wait_for_square(name: str, right_of: float) -> np.ndarray:
            """Columns of the square once it is drawn beyond ``right_of``; software rendering may take its time."""
            for _ in range(60):
                page.wait_for_timeout(1000)
                page.screenshot(path=str(tmp_path / name))
                columns = red_columns(name)
                if len(columns) > 5 and columns.mean() > right_of:
                    return columns
            pytest.fail(
                f"expected the moving square right of column {right_of}, found {len(columns)} red columns"
            )

        first = wait_for_square("first.png", 0)
        slider = page.get_by_role("slider").first
        slider.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(300)
        wait_for_square("last.png", first.mean() + 30)
        with page.expect_download() as sent:
            page.get_by_role("button", name="screenshot").click()
        picture = cv2.imread(str(sent.value.path()))
        height, width = picture.shape[:2]
        assert height == 1080
        assert 1080 < width < 1500  # in the shape of what is seen, beside the panel
        page.get_by_text("Files", exact=True).click()
        with page.expect_download() as sent:
            page.get_by_role("button", name="Download").click()
        assert sent.value.suggested_filename == "frame_5.ply"
        browser.close()
        assert viewer.panel.frame.value == 5
        assert not errors
