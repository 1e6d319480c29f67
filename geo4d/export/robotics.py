"""MCAP for ROS 2, Foxglove and rviz: pictures, depth, camera info, transforms, path and points by the source's times."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export.common import chosen_frames, conventions, poses_of
from geo4d.export.config import ExportConfig
from geo4d.export.points import counted, thinned
from geo4d.formats.cameras import poses_to_quaternions
from geo4d.formats.points import PointCloud
from geo4d.formats.recorder import McapRecorder
from geo4d.types import Reconstruction

WORLD, CAMERA = "map", "camera_optical_frame"
"""Frames of reference: the world (in the axes of ``--up``), and the camera: +x right, +y down, +z forward."""

QUALITY = 95
"""Of the JPEG pictures."""

log = logging.getLogger(__name__)

_FIELDS = ("x", "y", "z", "rgb", "confidence")
_FLOAT32 = 7
"""Of ``sensor_msgs/PointField``."""


def save_mcap(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """An MCAP file with messages of ROS 2, one set a frame at the time of the frame in the source.

    ``/tf`` has the camera in the world, ``/path`` all of its poses, ``/camera/camera_info`` its intrinsics (no
    distortion), ``/camera/image/compressed`` the picture (JPEG), ``/camera/depth`` z-depth (32FC1; by REP 118 NaN where
    invalid, +inf in the sky), ``/points`` the points of the frame that pass the
    filters, in the world. The conventions are metadata ``geo4d``.
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    if config.metres_per_unit != 1:
        log.warning(
            "ROS takes lengths for metres; these are %s: see --reference, or 'geo4d reconstruct --trajectory'",
            conventions(reconstruction, config)["unit"],
        )
    notes = {
        **conventions(reconstruction, config),
        "frames_of_reference": f"{WORLD}: the world; {CAMERA}: the camera, +x right, +y down, +z forward",
        "source_frames": " ".join(str(int(reconstruction.source_frames[frame])) for frame in frames),
    }
    c2w = poses_of(reconstruction, frames)
    times_ns = [round(float(reconstruction.times_s[frame]) * 1e9) for frame in frames]
    with McapRecorder(path, notes) as recorder:
        scribe = _Scribe(recorder)
        recorder.write("/path", times_ns[0], scribe.path(times_ns, c2w))
        clouds = thinned(counted(reconstruction, frames, config), len(frames), config)
        for time_ns, pose, frame, cloud in zip(times_ns, c2w, frames, clouds, strict=True):
            intrinsics = np.asarray(reconstruction.intrinsics[frame], np.float64)
            depth = np.asarray(reconstruction.depth[frame], np.float32)
            recorder.write("/tf", time_ns, scribe.transform(time_ns, pose))
            recorder.write(
                "/camera/camera_info", time_ns, scribe.camera(time_ns, intrinsics, reconstruction.size)
            )
            if reconstruction.rgb is not None:
                picture = np.clip(np.asarray(reconstruction.rgb[frame], np.float32), 0, 1)
                message = scribe.picture(time_ns, np.round(255 * picture).astype(np.uint8))
                recorder.write("/camera/image/compressed", time_ns, message)
            recorder.write("/camera/depth", time_ns, scribe.depth(time_ns, depth))
            recorder.write("/points", time_ns, scribe.points(time_ns, cloud))
    return [path]


class _Scribe:
    """Values as messages of ROS 2."""

    def __init__(self, recorder: McapRecorder) -> None:
        self._make = recorder.message

    def transform(self, time_ns: int, c2w: np.ndarray) -> Any:
        """The camera in the world."""
        make = self._make
        moved = make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(time_ns, WORLD),
            child_frame_id=CAMERA,
            transform=make(
                "geometry_msgs/msg/Transform",
                translation=self._vector("Vector3", c2w),
                rotation=self._turn(c2w),
            ),
        )
        return make("tf2_msgs/msg/TFMessage", transforms=[moved])

    def path(self, times_ns: list[int], c2w: np.ndarray) -> Any:
        """All poses."""
        make = self._make
        poses = [
            make(
                "geometry_msgs/msg/PoseStamped",
                header=self._header(time_ns, WORLD),
                pose=make(
                    "geometry_msgs/msg/Pose",
                    position=self._vector("Point", pose),
                    orientation=self._turn(pose),
                ),
            )
            for time_ns, pose in zip(times_ns, c2w, strict=True)
        ]
        return make("nav_msgs/msg/Path", header=self._header(times_ns[0], WORLD), poses=poses)

    def camera(self, time_ns: int, intrinsics: np.ndarray, size: tuple[int, int]) -> Any:
        """Intrinsics with the first pixel's centre at 0, as ROS counts."""
        matrix = intrinsics.copy()
        matrix[:2, 2] -= 0.5
        region = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            header=self._header(time_ns, CAMERA),
            height=size[0],
            width=size[1],
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.column_stack([matrix, np.zeros(3)]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def picture(self, time_ns: int, rgb: np.ndarray) -> Any:
        """[H, W, 3] uint8."""
        import cv2

        _, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        return self._make(
            "sensor_msgs/msg/CompressedImage",
            header=self._header(time_ns, CAMERA),
            format="jpeg",
            data=np.asarray(data, np.uint8).ravel(),
        )

    def depth(self, time_ns: int, depth: np.ndarray) -> Any:
        """[H, W] float32."""
        height, width = depth.shape
        return self._make(
            "sensor_msgs/msg/Image",
            header=self._header(time_ns, CAMERA),
            height=height,
            width=width,
            encoding="32FC1",
            is_bigendian=0,
            step=4 * width,
            data=np.ascontiguousarray(depth, "<f4").view(np.uint8).ravel(),
        )

    def points(self, time_ns: int, cloud: PointCloud) -> Any:
        """Points of the world; colour is packed as rviz wants it: 0x00RRGGBB in the bits of a float."""
        rows = np.zeros(cloud.num_points, [(name, "<u4" if name == "rgb" else "<f4") for name in _FIELDS])
        for k, axis in enumerate("xyz"):
            rows[axis] = cloud.positions[:, k]
        if cloud.colours is not None:
            red, green, blue = cloud.colours.astype(np.uint32).T
            rows["rgb"] = red << 16 | green << 8 | blue
        if cloud.confidence is not None:
            rows["confidence"] = cloud.confidence
        fields = [
            self._make("sensor_msgs/msg/PointField", name=name, offset=4 * k, datatype=_FLOAT32, count=1)
            for k, name in enumerate(_FIELDS)
        ]
        return self._make(
            "sensor_msgs/msg/PointCloud2",
            header=self._header(time_ns, WORLD),
            height=1,
            width=cloud.num_points,
            fields=fields,
            is_bigendian=False,
            point_step=rows.dtype.itemsize,
            row_step=rows.nbytes,
            data=rows.view(np.uint8).ravel(),
            is_dense=True,
        )

    def _header(self, time_ns: int, frame_id: str) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", sec=time_ns // 10**9, nanosec=time_ns % 10**9)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _vector(self, kind: str, c2w: np.ndarray) -> Any:
        x, y, z = (float(value) for value in c2w[:3, 3])
        return self._make(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)

    def _turn(self, c2w: np.ndarray) -> Any:
        w, x, y, z = (float(value) for value in poses_to_quaternions(c2w[None])[0])
        return self._make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
