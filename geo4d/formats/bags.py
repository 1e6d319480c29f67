"""ROS 1 and ROS 2 bags and MCAP files: which topics they hold, and their messages in order of recording.

``rosbags`` reads ``.bag``, ``.db3`` and ROS 2 folders, ``mcap`` single MCAP files; messages are decoded by the
definitions that the file carries. Nothing but what is read at the moment is in memory: one chunk of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geo4d.errors import Geo4DError, InputError, MissingExtraError

BagKind = Literal["ROS 1 bag", "ROS 2 bag", "MCAP file"]

_ENCODINGS = {"cdr": "ros2msg", "ros1": "ros1msg"}
"""Encoding of messages in an MCAP file that is read -> of its definitions."""


def bag_kind(path: Path) -> BagKind | None:
    """What kind of bag lies at a path, by its first bytes; None for anything else. Loads no library."""
    if path.is_dir():
        found = (path / "metadata.yaml").is_file() and any(
            file.suffix in (".db3", ".mcap") for file in path.iterdir()
        )
        return "ROS 2 bag" if found else None
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"#ROSBAG V2.0"):
        return "ROS 1 bag"
    if head.startswith(b"\x89MCAP0\r\n"):
        return "MCAP file"
    return "ROS 2 bag" if head.startswith(b"SQLite format 3") and path.suffix == ".db3" else None


def bag_files(path: Path) -> list[Path]:
    """The files that a bag consists of."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


@dataclass(frozen=True)
class Topic:
    """One topic of a bag.

    Attributes:
        name: of the topic.
        type: of its messages, as ``sensor_msgs/msg/Image``.
        count: number of messages.
    """

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        topic: name.
        time_ns: when it was recorded.
        value: its fields as attributes, as ROS names them; arrays are numpy arrays.
    """

    topic: str
    time_ns: int
    value: Any


class Bag:
    """A bag that is open for reading.

    Args:
        path: a ``.bag``, ``.db3`` or ``.mcap`` file, or a ROS 2 folder with ``metadata.yaml``.
    Raises:
        InputError: no bag, damaged, or its messages are encoded in another way than ROS does.
        MissingExtraError: the extra ``ros`` is not installed.

    Attributes:
        path, kind: of the bag.
        topics: by name; topics of two types are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = bag_kind(path)
        if kind is None:
            raise InputError(f"expected a ROS bag or an MCAP file at {path}")
        self.kind = kind
        self._stack = ExitStack()
        try:
            with damage_in(path):
                self._inside = _Mcap(path, self._stack) if kind == "MCAP file" else _RosBag(path, self._stack)
        except BaseException:
            self._stack.close()
            raise
        self.topics: dict[str, Topic] = self._inside.topics

    def messages(self, topic: str, start_ns: int | None = None) -> Iterator[Message]:
        """Messages of a topic in the order of recording.

        Args:
            start_ns: leave out what was recorded before.
        Raises:
            InputError: the bag is damaged.
        """
        with damage_in(self.path):
            yield from self._inside.messages(topic, start_ns)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextmanager
def damage_in(path: Path) -> Iterator[None]:
    """Whatever the libraries raise on a damaged bag becomes one error; they raise nearly everything."""
    try:
        yield
    except (Geo4DError, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise InputError(
            f"{path} cannot be read, it is damaged or cut: {type(error).__name__}: {error}"
        ) from error


class _RosBag:
    """By ``rosbags``."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("rosbags>=0.10", "ros", "reading a ROS bag") from error

        # ROS 2 bags of before 2023 carry no definitions: those of the standard messages, which have not changed since.
        self._reader = stack.enter_context(
            AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        )
        self.topics: dict[str, Topic] = {}
        for name, info in self._reader.topics.items():
            if info.msgtype is not None:
                self.topics[name] = Topic(name, info.msgtype, info.msgcount)

    def messages(self, topic: str, start_ns: int | None) -> Iterator[Message]:
        connections = [c for c in self._reader.connections if c.topic == topic]
        for connection, time_ns, data in self._reader.messages(connections, start=start_ns):
            yield Message(topic, time_ns, self._reader.deserialize(data, connection.msgtype))


class _Mcap:
    """By ``mcap``, messages decoded by ``rosbags``."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        try:
            from mcap.reader import make_reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("mcap>=1.2", "ros", "reading an MCAP file") from error

        self._reader = make_reader(stack.enter_context(path.open("rb")))
        summary = self._reader.get_summary()
        if summary is None or summary.statistics is None:
            raise InputError(
                f"{path} has no index at its end, as if the recording was cut; 'mcap recover' writes one"
            )
        self._stores = {name: get_typestore(Stores.EMPTY) for name in _ENCODINGS}
        self._known: set[tuple[str, int]] = set()
        self.topics: dict[str, Topic] = {}
        counts = summary.statistics.channel_message_counts
        for channel in summary.channels.values():
            schema = summary.schemas.get(channel.schema_id)
            if schema is None or _ENCODINGS.get(channel.message_encoding) != schema.encoding:
                name = f"{'?' if schema is None else schema.name} as {channel.message_encoding}"
                self.topics.setdefault(channel.topic, Topic(channel.topic, name, 0))
                continue
            before = self.topics.get(channel.topic)
            count = counts.get(channel.id, 0) + (0 if before is None else before.count)
            self.topics[channel.topic] = Topic(channel.topic, _full_name(schema.name), count)

    def messages(self, topic: str, start_ns: int | None) -> Iterator[Message]:
        for schema, channel, message in self._reader.iter_messages(topics=[topic], start_time=start_ns):
            if schema is None or channel.message_encoding not in self._stores:
                raise InputError(
                    f"expected messages in the encodings of ROS ({', '.join(_ENCODINGS)}) on {topic}, got "
                    f"{channel.message_encoding!r}"
                )
            name, store = _full_name(schema.name), self._stores[channel.message_encoding]
            if (channel.message_encoding, schema.id) not in self._known:
                from rosbags.typesys import get_types_from_msg

                store.register(get_types_from_msg(schema.data.decode(), name))
                self._known.add((channel.message_encoding, schema.id))
            decode = store.deserialize_cdr if channel.message_encoding == "cdr" else store.deserialize_ros1
            yield Message(topic, message.log_time, decode(message.data, name))


def _full_name(name: str) -> str:
    """ROS 2's name of a type, which ROS 1 writes without ``msg``."""
    package, _, kind = name.rpartition("/")
    return f"{package.removesuffix('/msg')}/msg/{kind}"
