"""An MCAP file as ROS 2 reads it: by the decoder of ``mcap_ros2``, which shares nothing with the writer's messages.

Rules: REP 103 (optical frames: +z forward), REP 118 (depth), sensor_msgs/CameraInfo (pixel centres at integers).
"""

from pathlib import Path

import numpy as np
import pytest


def load(path: Path) -> tuple[dict[str, list], dict[str, str]]:
    """Messages by topic as (seconds, message), in the order of their times, and the metadata."""
    ros2 = pytest.importorskip("mcap_ros2.reader")
    from mcap.reader import make_reader

    topics: dict[str, list] = {}
    for found in ros2.read_ros2_messages(str(path)):
        topics.setdefault(found.channel.topic, []).append((found.log_time_ns / 1e9, found.ros_msg))
    with path.open("rb") as file:
        notes = {record.name: record.metadata for record in make_reader(file).iter_metadata()}
    return topics, notes["geo4d"]


def stamp(header) -> float:
    return header.stamp.sec + header.stamp.nanosec / 1e9


def matrix(translation, rotation) -> np.ndarray:
    """[4, 4] parent from child."""
    x, y, z, w = rotation.x, rotation.y, rotation.z, rotation.w
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation.x, translation.y, translation.z
    return pose


def image(message) -> np.ndarray:
    """[H, W] of a 32FC1 image, row by row."""
    assert message.encoding == "32FC1"
    rows = [
        np.frombuffer(bytes(message.data)[k * message.step : k * message.step + 4 * message.width], "<f4")
        for k in range(message.height)
    ]
    return np.stack(rows)


def cloud(message) -> dict[str, np.ndarray]:
    """Fields of a PointCloud2 by name; rgb as [N, 3]."""
    data = np.frombuffer(bytes(message.data), np.uint8).reshape(message.width, message.point_step)
    fields = {}
    for field in message.fields:
        assert field.datatype == 7
        column = np.ascontiguousarray(data[:, field.offset : field.offset + 4])
        fields[field.name] = column.view("<f4")[:, 0] if field.name != "rgb" else column[:, [2, 1, 0]]
    return fields
