import numpy as np
import pytest

from geo4d.errors import InputError, MissingExtraError
from geo4d.formats.bags import Bag, bag_files, bag_kind
from tests.support.bags import KINDS, START_NS, camera_info, raw_image, version_of, write_bag

NAMES = {"ros1": "ROS 1 bag", "ros2-sqlite": "ROS 2 bag", "ros2-mcap": "ROS 2 bag"}


def messages(version, num=5):
    for t in range(num):
        stamp = START_NS + t * 50_000_000
        yield "/cam/image_raw", stamp + 7, raw_image(version, stamp, np.full((4, 6), t, np.uint8), "mono8")
        yield "/cam/camera_info", stamp + 8, camera_info(version, stamp, (4, 6), (5, 5, 2.5, 1.5))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bag_gives_its_topics_and_messages(tmp_path, kind):
    path = write_bag(tmp_path / "bag", kind, messages(version_of(kind)))
    assert bag_kind(path) == NAMES.get(kind, "MCAP file")
    assert all(file.is_file() for file in bag_files(path))
    with Bag(path) as bag:
        assert {t.name: (t.type, t.count) for t in bag.topics.values()} == {
            "/cam/image_raw": ("sensor_msgs/msg/Image", 5),
            "/cam/camera_info": ("sensor_msgs/msg/CameraInfo", 5),
        }
        found = list(bag.messages("/cam/image_raw"))
        assert [m.value.data[0] for m in found] == [0, 1, 2, 3, 4]
        assert [m.time_ns for m in found] == [START_NS + 7 + t * 50_000_000 for t in range(5)]
        assert found[0].value.header.stamp.nanosec == START_NS % 10**9
        late = list(bag.messages("/cam/image_raw", start_ns=found[3].time_ns))
        assert [m.value.data[0] for m in late] == [3, 4]


@pytest.mark.parametrize("kind", ["ros1", "mcap"])
def test_a_cut_bag_is_one_error(tmp_path, kind):
    path = write_bag(tmp_path / "bag", kind, messages(version_of(kind)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut"), Bag(path) as bag:
        list(bag.messages("/cam/image_raw"))


def test_other_files_are_no_bags(tmp_path):
    (tmp_path / "x.bag").write_text("hello")
    (tmp_path / "metadata.yaml").write_text("{}")
    assert bag_kind(tmp_path / "x.bag") is None
    assert bag_kind(tmp_path) is None
    assert bag_kind(tmp_path / "none") is None
    with pytest.raises(InputError, match="expected a ROS bag"):
        Bag(tmp_path / "x.bag")


def test_messages_of_other_encodings_are_named(tmp_path):
    from mcap.writer import Writer

    path = tmp_path / "other.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedImage", "protobuf", b"")
        channel = writer.register_channel("/image", "protobuf", schema)
        writer.add_message(channel, 1, b"x", 1)
        writer.finish()
    with Bag(path) as bag:
        assert bag.topics["/image"].type == "foxglove.CompressedImage as protobuf"
        with pytest.raises(InputError, match="in the encodings of ROS"):
            list(bag.messages("/image"))


@pytest.mark.parametrize(("kind", "module"), [("ros1", "rosbags.highlevel"), ("mcap", "mcap.reader")])
def test_without_the_libraries_the_extra_is_named(tmp_path, kind, module, monkeypatch):
    path = write_bag(tmp_path / "bag", kind, messages(version_of(kind), 1))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"geo4d\[ros\]"):
        Bag(path)
