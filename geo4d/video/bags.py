"""Pictures of a topic of a ROS bag or MCAP file as a source of frames, and the camera that is recorded beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.errors import InputError
from geo4d.formats.bags import Bag, Message, bag_files
from geo4d.geometry.distortion import Distortion
from geo4d.video.limits import MAX_PIXELS
from geo4d.video.pictures import check_picture, sniff_image

RAW, COMPRESSED, CAMERA = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
)

_READ_ON = 64
"""Messages that are passed over rather than looked up anew by their time."""

_SHORTEST, _LONGEST = 0.1, 1e7
"""Pixels between which focal lengths lie in a camera info that means something; others hold zeros or rubbish."""

_CHANNELS = {"mono8": 1, "8UC1": 1, "rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4}
_CHANNELS |= {f"bayer_{pattern}8": 1 for pattern in ("rggb", "bggr", "gbrg", "grbg")}
_CHANNELS |= {"yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}
"""Encoding of raw pictures -> bytes of a pixel."""

_CONVERSIONS = {
    **{"mono8": "GRAY2RGB", "8UC1": "GRAY2RGB", "bgr8": "BGR2RGB", "8UC3": "BGR2RGB"},
    **{"rgba8": "RGBA2RGB", "bgra8": "BGRA2RGB", "8UC4": "BGRA2RGB"},
    **{f"bayer_{p}8": f"Bayer{p.upper()}2RGB" for p in ("rggb", "bggr", "gbrg", "grbg")},
    **{
        "yuv422": "YUV2RGB_UYVY",
        "uyvy": "YUV2RGB_UYVY",
        "yuv422_yuy2": "YUV2RGB_YUY2",
        "yuyv": "YUV2RGB_YUY2",
    },
}
"""Encoding -> OpenCV's name of the conversion to RGB."""


def choose_topic(bag: Bag, wanted: str | None) -> str:
    """The topic with the pictures.

    Args:
        wanted: what the user named; None takes the only one that holds pictures that are read.
    Raises:
        InputError: there is none, or there are several; the message lists them.
    """
    listed = {
        name: topic for name, topic in bag.topics.items() if topic.type in (RAW, COMPRESSED) and topic.count
    }
    if wanted is not None:
        name = wanted if wanted in listed else f"/{wanted.strip('/')}"
        if name in listed:
            return name
        found = "\n".join(_described(bag, name) for name in listed) or "none"
        raise InputError(f"expected a topic with pictures in {bag.path}, got {wanted!r}; there are: {found}")
    usable = [name for name in listed if _fault(_first(bag, name)) is None]
    if len(usable) == 1:
        return usable[0]
    if usable:
        found = ", ".join(_described(bag, name) for name in usable)
        raise InputError(
            f"{bag.path} holds pictures on {len(usable)} topics; choose one with --topic: {found}"
        )
    if listed:
        faults = ", ".join(f"{name}: {_fault(_first(bag, name))}" for name in listed)
        raise InputError(f"{bag.path} holds no pictures that geo4d reads: {faults}")
    others = (
        ", ".join(f"{topic.name} ({topic.type})" for topic in list(bag.topics.values())[:12]) or "nothing"
    )
    raise InputError(f"expected {RAW} or {COMPRESSED} in {bag.path}, found {others}")


def _first(bag: Bag, topic: str) -> Message:
    """The first message of a topic that its bag says to hold some.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    for message in bag.messages(topic):
        return message
    raise InputError(f"{bag.path} is damaged: it lists messages on {topic} and holds none")


def _described(bag: Bag, name: str) -> str:
    message = _first(bag, name).value
    kind = getattr(message, "encoding", None) or f"compressed, {message.format}"
    return f"{name} ({bag.topics[name].count} pictures, {kind})"


@dataclass(frozen=True)
class BagCamera:
    """What a bag says of the camera of a topic.

    Attributes:
        intrinsics: fx fy cx cy of the pictures as they are, pixel centres at +0.5; None where it says nothing of use.
        size: (height, width) that they belong to.
        distortion: of the pictures; None without.
        words: where the numbers come from, or why there are none.
    """

    intrinsics: tuple[float, float, float, float] | None
    size: tuple[int, int] | None
    distortion: Distortion | None
    words: str


def find_camera(path: Path, topic: str | None) -> BagCamera:
    """The camera info beside a topic of pictures: ``NAMESPACE/camera_info``, or the only one of the bag.

    Args:
        topic: as ``choose_topic`` takes it.
    Raises:
        InputError: as ``Bag`` and ``choose_topic``, or a distortion of an unknown model.
    """
    with Bag(path) as bag:
        pictures = choose_topic(bag, topic).removesuffix("/compressed")
        infos = [name for name, topic in bag.topics.items() if topic.type == CAMERA and topic.count]
        name = f"{pictures.rpartition('/')[0]}/camera_info"
        if name not in infos:
            if len(infos) != 1:
                found = f"; there are {', '.join(infos)}" if infos else ""
                return BagCamera(None, None, None, f"there is no {name}{found}")
            name = infos[0]
        info = _first(bag, name).value
    rectified = "rect" in pictures.rpartition("/")[2]
    return _camera_of(info, name, rectified)


def _camera_of(info: Any, name: str, rectified: bool) -> BagCamera:
    """Args:
    rectified: the pictures are undistorted already, and the projection matrix is theirs.
    """
    capital = hasattr(info, "K")  # ROS 1
    K, D, P = (np.asarray(getattr(info, n if capital else n.lower()), np.float64).ravel() for n in "KDP")
    fx, fy, cx, cy = (P[0], P[5], P[2], P[6]) if rectified else (K[0], K[4], K[2], K[5])
    size = (int(info.height), int(info.width))
    if not (min(fx, fy) > _SHORTEST and np.abs([fx, fy, cx, cy]).max() < _LONGEST):
        return BagCamera(None, None, None, f"{name} is not calibrated")
    distortion = None
    if not rectified and len(D) and (D.any() or info.distortion_model == "equidistant"):
        try:
            distortion = Distortion.named(info.distortion_model, tuple(float(k) for k in D))
        except ValueError as error:
            raise InputError(f"{name}: {error}; --distortion none takes the pictures as they are") from error
    kind = (
        "rectified pictures" if rectified else "distorted pictures" if distortion else "undistorted pictures"
    )
    return BagCamera(
        (float(fx), float(fy), float(cx) + 0.5, float(cy) + 0.5),
        size if min(size) > 0 else None,
        distortion,
        f"{name}, of {kind}",
    )


class BagFrames:
    """Pictures of one topic. One that is damaged, or a damaged bag, ends the readable part.

    Args:
        path: the bag.
        topic: as ``choose_topic`` takes it.
        stop: number of frames that will ever be asked for; None: all.
    Raises:
        InputError: no bag, no such topic, no picture is readable, or times that do not increase.

    Attributes:
        topic: name.
        files: that the bag consists of.
        size: (height, width).
        times_s: [frames] seconds, from the headers of the pictures.
        expected: frames that should be there.
        damage: why fewer are readable, or None.
        notes: statements for the user.
        frame_id: frame of reference that the headers name.
    """

    def __init__(self, path: Path, topic: str | None = None, stop: int | None = None) -> None:
        self._bag = Bag(path)
        try:
            self.topic = choose_topic(self._bag, topic)
            self.files = bag_files(path)
            self.damage: str | None = None
            self._logged: list[int] = []
            stamps: list[int] = []
            self.frame_id = ""
            total = self._bag.topics[self.topic].count
            self.expected = total if stop is None else min(total, stop)
            try:
                for message in self._bag.messages(self.topic):
                    if len(stamps) == stop:
                        break
                    self._take(message, stamps)
            except InputError as error:
                if not stamps:
                    raise
                self.damage = f"picture {len(stamps)} of {self.topic}: {error}"
            self.times_s, about = _times(stamps, self._logged, self.topic)
        except BaseException:
            self._bag.close()
            raise
        frame = f", frame of reference {self.frame_id}" if self.frame_id else ""
        self.notes = [f"{self._bag.kind}: {len(stamps)} of {total} pictures of {self.topic}{frame}; {about}"]
        self._next: tuple[int, Iterator[Message]] | None = None

    def _take(self, message: Message, stamps: list[int]) -> None:
        fault = _fault(message)
        if fault is not None:
            raise InputError(fault)
        size = _size(message)
        if not stamps:
            self.size = size
            self.frame_id = str(message.value.header.frame_id)
        elif size != self.size:
            raise InputError(f"is {size[1]} x {size[0]}, the first is {self.size[1]} x {self.size[0]}")
        stamp = message.value.header.stamp
        stamps.append(int(stamp.sec) * 10**9 + int(stamp.nanosec))
        self._logged.append(message.time_ns)

    @property
    def num_frames(self) -> int:
        """Number of pictures in the sequence."""
        return len(self._logged)

    def read(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8.

        Raises:
            InputError: the bag changed, or the picture cannot be decoded.
        """
        at, messages = self._next or (self.num_frames, iter(()))
        if not at <= index <= at + _READ_ON:
            time_ns = self._logged[index]
            messages = self._bag.messages(self.topic, time_ns)
            at = self._logged.index(time_ns)
        for message in messages:
            at += 1
            if at > index:
                self._next = (at, messages)
                return decode(message)
        self._next = None
        raise InputError(f"{self._bag.path}: picture {index} of {self.topic} is not there any more")

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()


def _times(stamps: list[int], logged: list[int], topic: str) -> tuple[np.ndarray, str]:
    """[frames] seconds, and where they come from: the headers, or the recording where those do not increase."""
    for values, about in (
        (stamps, "times are the stamps of the pictures"),
        (logged, "times are those of the recording, since the stamps of the pictures do not increase"),
    ):
        if (np.diff(np.array(values, np.int64)) > 0).all() and (len(values) == 1 or values[-1] > 0):
            return np.array([value / 10**9 for value in values]), about
    raise InputError(
        f"expected increasing times of the pictures of {topic}, neither stamps nor recording have them"
    )


def _fault(message: Message) -> str | None:
    """Why a picture cannot be read, or None; nothing is decoded."""
    value = message.value
    if hasattr(value, "encoding"):
        channels = _CHANNELS.get(value.encoding)
        if channels is None:
            return f"expected pictures encoded as {', '.join(_CHANNELS)}, got {value.encoding}"
        height, width, step = int(value.height), int(value.width), int(value.step)
        if not 0 < height * width <= MAX_PIXELS:
            return f"declares {width} x {height} pixels; expected 1 to {MAX_PIXELS}"
        if step < width * channels or len(value.data) < step * height:
            needed = f"{width} x {height} pixels of {value.encoding} need more"
            return f"holds {len(value.data)} bytes in rows of {step}; {needed}"
        return None
    if sniff_image(bytes(value.data[:16])) not in ("png", "jpeg", "webp"):
        return f"expected a PNG, JPEG or WebP picture, got {value.format!r}"
    try:
        check_picture(value.data.tobytes())
    except InputError as error:
        return str(error)
    return None


def _size(message: Message) -> tuple[int, int]:
    value = message.value
    if hasattr(value, "encoding"):
        return int(value.height), int(value.width)
    return check_picture(value.data.tobytes())


def decode(message: Message) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a message that ``_fault`` finds nothing about.

    Raises:
        InputError: it cannot be decoded.
    """
    import cv2

    value = message.value
    if not hasattr(value, "encoding"):
        # As it is stored: an orientation tag is none of ROS's.
        picture = cv2.imdecode(value.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None:
            raise InputError(f"a picture of {message.topic} cannot be decoded; it is damaged")
        return np.ascontiguousarray(picture[..., ::-1])
    channels = _CHANNELS[value.encoding]
    height, width, step = int(value.height), int(value.width), int(value.step)
    rows = np.asarray(value.data[: step * height], np.uint8).reshape(height, step)[:, : width * channels]
    picture = np.array(rows).reshape((height, width) if channels == 1 else (height, width, channels))
    if value.encoding == "rgb8":
        return picture
    return cv2.cvtColor(picture, getattr(cv2, f"COLOR_{_CONVERSIONS[value.encoding]}"))
