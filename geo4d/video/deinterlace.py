"""Frames of two fields, made whole."""

from collections import deque
from collections.abc import Iterator
from typing import Any


def deinterlaced(frames: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Each frame with the picture that bwdif makes of it from its neighbours; progressive ones come back as they are."""
    import av

    waiting: deque[Any] = deque()
    graph: Any = None

    def pulled() -> Iterator[tuple[Any, Any]]:
        while True:
            try:
                picture = graph.vpull()
            except (BlockingIOError, EOFError):
                return
            yield waiting.popleft(), picture

    for frame in frames:
        if graph is None:
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            weave = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
            sink = graph.add("buffersink")
            source.link_to(weave)
            weave.link_to(sink)
            graph.configure()
        waiting.append(frame)
        graph.vpush(frame)
        yield from pulled()
    if graph is not None:
        graph.vpush(None)
        yield from pulled()
