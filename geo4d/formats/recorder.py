"""MCAP files with messages of ROS 2, written message by message; ``formats.bags`` reads them.

Every channel carries the definition of its messages, so ROS 2, Foxglove and the ``mcap`` tools need nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo4d.errors import MissingExtraError


class McapRecorder:
    """An MCAP file that is being written.

    Args:
        path: of the file; it must not exist.
        notes: texts by name, kept as metadata ``geo4d``.
    Raises:
        MissingExtraError: the extra ``ros`` is not installed.
    """

    def __init__(self, path: Path, notes: Mapping[str, str]) -> None:
        try:
            from mcap.writer import Writer
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("mcap>=1.2", "ros", "writing an MCAP file") from error

        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._channels: dict[str, int] = {}
        self._file = path.open("xb")
        self._writer = Writer(self._file)
        self._writer.start(profile="ros2", library="geo4d")
        self._writer.add_metadata("geo4d", dict(notes))

    def message(self, kind: str, **fields: Any) -> Any:
        """A message by the name of its type, such as ``std_msgs/msg/Header``; all fields are named."""
        return self._store.types[kind](**fields)

    def write(self, topic: str, time_ns: int, message: Any) -> None:
        """Add a message; all messages of a topic are of one type."""
        name = message.__msgtype__
        if topic not in self._channels:
            text, _ = self._store.generate_msgdef(name, ros_version=2)
            schema = self._writer.register_schema(name, "ros2msg", text.encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", schema)
        data = bytes(self._store.serialize_cdr(message, name))
        self._writer.add_message(self._channels[topic], time_ns, data, time_ns)

    def finish(self) -> None:
        """Write the index."""
        self._writer.finish()

    def __enter__(self) -> McapRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._file.close()
