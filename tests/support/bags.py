"""ROS bags and MCAP files of a few kilobytes, written by the libraries' own writers."""

import cv2
import numpy as np
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

STORES = {1: get_typestore(Stores.ROS1_NOETIC), 2: get_typestore(Stores.ROS2_HUMBLE)}
KINDS = ("ros1", "ros2-sqlite", "ros2-mcap", "mcap", "mcap-ros1")
START_NS = 1_700_000_000_123_456_789


def header(version, stamp_ns, frame_id="cam"):
    types = STORES[version].types
    time = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    more = {"seq": 0} if version == 1 else {}
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id, **more)


def raw_image(version, stamp_ns, pixels, encoding, padding=0):
    """Args:
    pixels: [H, W, ...] uint8 or wider, as the encoding stores them.
    padding: bytes behind each row.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return STORES[version].types["sensor_msgs/msg/Image"](
        header=header(version, stamp_ns), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=rows.shape[1], data=rows.ravel(),
    )  # fmt: skip


def compressed_image(version, stamp_ns, rgb, suffix=".png"):
    data = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]))[1].ravel()
    kind = STORES[version].types["sensor_msgs/msg/CompressedImage"]
    return kind(header=header(version, stamp_ns), format=suffix[1:], data=data)


def camera_info(version, stamp_ns, size, K, D=(), model="plumb_bob", P=None):
    """K, P: fx fy cx cy, the first pixel's centre at 0."""
    types = STORES[version].types

    def matrix(values, columns):
        fx, fy, cx, cy = values
        rows = np.zeros((3, columns))
        rows[:, :3] = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
        return rows.ravel()

    fields = {"D": np.array(D, np.float64), "K": matrix(K, 3), "R": np.eye(3).ravel(), "P": matrix(P or K, 4)}
    if version == 2:
        fields = {name.lower(): value for name, value in fields.items()}
    region = types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return types["sensor_msgs/msg/CameraInfo"](
        header=header(version, stamp_ns), height=size[0], width=size[1], distortion_model=model, binning_x=0,
        binning_y=0, roi=region, **fields,
    )  # fmt: skip


def version_of(kind):
    return 1 if kind in ("ros1", "mcap-ros1") else 2


def write_bag(path, kind, messages):
    """Write (topic, time of recording in ns, message) and return the path of the bag, with its right ending."""
    store = STORES[version_of(kind)]
    if kind.startswith("mcap"):
        return _write_mcap(path.with_suffix(".mcap"), store, kind, messages)
    if kind == "ros1":
        path = path.with_suffix(".bag")
        writer = Writer1(path)
        writer.set_compression(Writer1.CompressionFormat.LZ4)
    else:
        plugin = StoragePlugin.MCAP if kind == "ros2-mcap" else StoragePlugin.SQLITE3
        writer = Writer2(path, version=9, storage_plugin=plugin)
    with writer:
        connections = {}
        for topic, time_ns, message in messages:
            name = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            serialise = store.serialize_ros1 if kind == "ros1" else store.serialize_cdr
            writer.write(connections[topic], time_ns, serialise(message, name))
    return path


def _write_mcap(path, store, kind, messages):
    old = kind == "mcap-ros1"
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=4096)
        writer.start(profile="ros1" if old else "ros2", library="test")
        channels = {}
        for topic, time_ns, message in messages:
            name = message.__msgtype__
            if topic not in channels:
                text, _ = store.generate_msgdef(name, ros_version=1 if old else 2)
                short = name.replace("/msg/", "/") if old else name
                schema = writer.register_schema(short, "ros1msg" if old else "ros2msg", text.encode())
                channels[topic] = writer.register_channel(topic, "ros1" if old else "cdr", schema)
            data = store.serialize_ros1(message, name) if old else store.serialize_cdr(message, name)
            writer.add_message(channels[topic], time_ns, bytes(data), time_ns)
        writer.finish()
    return path
