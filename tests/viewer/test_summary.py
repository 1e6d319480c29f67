"""What prints when a reconstruction is named in a terminal or a notebook."""

import dataclasses
from html.parser import HTMLParser

import numpy as np

from geo4d.types import LazyFrames, Reconstruction
from geo4d.viewer.summary import source_name
from tests.viewer.test_report import scene  # noqa: F401


class Alts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str | None] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


def test_repr_has_five_lines_and_reads_no_map(scene) -> None:  # noqa: F811
    def refuse(t: int) -> np.ndarray:
        raise AssertionError("repr read a map")

    closed = LazyFrames(scene.depth.shape, np.dtype(np.float32), refuse)
    lazy = dataclasses.replace(scene, depth=closed, confidence=closed, dynamic=closed)
    lines = repr(lazy).splitlines()
    assert len(lines) == 5
    assert "5 frames of 30x20 (width x height), 0.16 s" in lines[0]
    assert "depth, confidence, dynamic, rgb" in lines[1]
    assert "one unknown factor" in lines[2]
    assert "poses, 37.6 to 41.1 degrees" in lines[3]  # 2 atan(15 / 44) and 2 atan(15 / 40)
    assert "usable" in lines[4]


def test_repr_names_what_is_missing_and_doubtful(scene) -> None:  # noqa: F811
    bare = dataclasses.replace(
        scene, c2w=None, rgb=None, dynamic=None, scale_kind="metric", scene=np.array([0, 0, 1, 1, 1]),
        reliable=np.array([True, False, False, False, False]),
    )  # fmt: skip
    text = repr(bare)
    assert "maps    depth, confidence;" in text
    assert "metres" in text
    assert "no poses" in text
    assert "2 scenes" in text
    assert "doubtful: only 1 of 5 frames are reliable" in text


def test_html_shows_pictures_and_depth_with_words_and_escapes(scene) -> None:  # noqa: F811
    page = Alts()
    page.feed(scene._repr_html_())
    assert page.alts[:2] == [
        "picture of frame 0, 0.00 s",
        "depth of frame 0, 0.00 s: red near, blue far",
    ]
    assert len(page.alts) == 8
    assert "script" not in page.tags  # of the name of the clip
    without = Alts()
    without.feed(dataclasses.replace(scene, rgb=None)._repr_html_())
    assert len(without.alts) == 4


def test_the_name_of_the_source(scene) -> None:  # noqa: F811
    for source, name in (({"name": "a.mp4"}, "a.mp4"), ("films/b.mp4", "b.mp4"), (None, "video")):
        renamed: Reconstruction = dataclasses.replace(scene, provenance={"source": source})
        assert source_name(renamed) == name
