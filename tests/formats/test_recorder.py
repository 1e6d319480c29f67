import sys

import numpy as np
import pytest

from geo4d.errors import MissingExtraError
from geo4d.formats.bags import Bag
from geo4d.formats.recorder import McapRecorder


def record(path):
    with McapRecorder(path, {"unit": "metres"}) as recorder:
        for t in range(3):
            time = recorder.message("builtin_interfaces/msg/Time", sec=t, nanosec=5)
            header = recorder.message("std_msgs/msg/Header", stamp=time, frame_id="map")
            point = recorder.message("geometry_msgs/msg/Point", x=1.0 * t, y=2.0, z=-3.0)
            recorder.write(
                "/at",
                t * 10**9 + 5,
                recorder.message("geometry_msgs/msg/PointStamped", header=header, point=point),
            )


def test_messages_there_and_back(tmp_path):
    record(tmp_path / "a.mcap")
    with Bag(tmp_path / "a.mcap") as bag:
        found = list(bag.messages("/at"))
    assert [m.time_ns for m in found] == [5, 10**9 + 5, 2 * 10**9 + 5]
    np.testing.assert_array_equal([m.value.point.x for m in found], [0, 1, 2])
    assert found[1].value.header.frame_id == "map"


def test_the_mcap_project_reads_it(tmp_path):
    reader = pytest.importorskip("mcap_ros2.reader")
    record(tmp_path / "a.mcap")
    found = list(reader.read_ros2_messages(str(tmp_path / "a.mcap")))
    assert [m.ros_msg.point.x for m in found] == [0, 1, 2]
    assert found[0].channel.message_encoding == "cdr"


def test_a_file_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "a.mcap").write_text("mine")
    with pytest.raises(FileExistsError):
        record(tmp_path / "a.mcap")
    assert (tmp_path / "a.mcap").read_text() == "mine"


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcap.writer", None)
    with pytest.raises(MissingExtraError, match=r"geo4d\[ros\]"):
        record(tmp_path / "a.mcap")
