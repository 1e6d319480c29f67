"""Camera paths in seconds: static, handheld, dolly, orbit, driving, pan.

All paths stay within their ``extent`` however long the clip is (they turn back smoothly), so that a clip of thousands
of frames still sees its scene.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from geo4d.synthetic.objects.motions import rotation_x, rotation_y, rotation_z

CameraKind = Literal["static", "handheld", "dolly", "orbit", "driving", "pan"]
CAMERA_KINDS: tuple[CameraKind, ...] = get_args(CameraKind)


@dataclass(frozen=True)
class PathStart:
    """Where a path begins and how far it may go.

    Attributes:
        position: ``[3]`` metres, world.
        yaw: radians; 0 looks along +z, positive to +x.
        pitch: radians; positive looks up.
        speed: typical speed, m/s.
        extent: longest way from the start, metres.
        target: ``[T, 3]`` what an orbit circles and a following camera looks at.
        follow: keep ``target`` in view.
    """

    position: np.ndarray
    yaw: float
    pitch: float
    speed: float
    extent: float
    target: np.ndarray
    follow: bool


def smooth_noise(rng: np.random.RandomState, times_s: np.ndarray, rate: float, channels: int) -> np.ndarray:
    """``[T, channels]`` smooth signals of deviation about 1 that start at 0; ``rate`` is their main frequency, Hz."""
    signal = np.zeros((len(times_s), channels))
    for octave in (0.5, 1.0, 2.1):
        phase = rng.uniform(0.0, 2.0 * np.pi, channels)
        frequency = 2.0 * np.pi * rate * octave * rng.uniform(0.7, 1.3, channels)
        amplitude = rng.normal(0.0, 0.8, channels) / octave
        signal += amplitude * (np.sin(times_s[:, None] * frequency + phase) - np.sin(phase))
    return signal


def travel(times_s: np.ndarray, speed: float, extent: float) -> np.ndarray:
    """Way covered at ``speed`` that eases out and turns back at ``extent``."""
    return extent * np.sin(speed * times_s / extent)


def camera_path(
    rng: np.random.RandomState, kind: CameraKind, times_s: np.ndarray, start: PathStart
) -> np.ndarray:
    """``c2w [T, 4, 4]`` of a path of ``kind``."""
    count = len(times_s)
    position = np.tile(start.position, (count, 1))
    yaw = np.full(count, start.yaw)
    pitch = np.full(count, start.pitch)
    roll = np.full(count, rng.normal(0.0, 0.03))
    follow = start.follow
    if kind == "pan":
        duration = max(times_s[-1], 1e-6)
        sweep = np.deg2rad(rng.uniform(5.0, 90.0)) * rng.choice([-1.0, 1.0])
        share = times_s / duration if duration < 6.0 else np.sin(times_s * rng.uniform(0.4, 0.9))
        ease = share if rng.rand() < 0.6 else share * share * (3.0 - 2.0 * np.abs(share))
        yaw = yaw + sweep * (ease - 0.5)
        pitch = pitch + np.deg2rad(rng.normal(0.0, 6.0)) * ease
        follow = False
    elif kind == "handheld":
        heading = rng.uniform(0.0, 2.0 * np.pi)
        along = travel(times_s, start.speed * rng.uniform(0.1, 1.0), start.extent)
        position = position + along[:, None] * np.array([np.sin(heading), 0.0, np.cos(heading)])
        position = position + smooth_noise(rng, times_s, 0.4, 3) * np.array([0.10, 0.05, 0.10]) * rng.uniform(
            0.3, 1.6
        )
        turn = (
            smooth_noise(rng, times_s, 0.3, 3) * np.array([1.0, 0.5, 0.25]) * rng.choice([0.02, 0.06, 0.15])
        )
        yaw, pitch, roll = yaw + turn[:, 0], pitch + turn[:, 1], roll + turn[:, 2]
    elif kind == "dolly":
        style = rng.rand()
        if style < 0.4:  # forwards or backwards
            direction = np.array([np.sin(start.yaw), 0.0, np.cos(start.yaw)]) * rng.choice([1.0, 1.0, -1.0])
        elif style < 0.8:  # sideways
            direction = np.array([np.cos(start.yaw), 0.0, -np.sin(start.yaw)]) * rng.choice([-1.0, 1.0])
        else:
            direction = np.array([rng.normal(), -abs(rng.normal()) * 0.5, rng.normal()])
            direction = direction / np.linalg.norm(direction)
        position = position + travel(times_s, start.speed, start.extent)[:, None] * direction
        if rng.rand() < 0.5:
            yaw = yaw + smooth_noise(rng, times_s, 0.15, 1)[:, 0] * 0.1
    elif kind == "orbit":
        away = start.position - start.target[0]
        radius = max(float(np.hypot(away[0], away[2])), 0.3)
        rate = start.speed / radius * rng.choice([-1.0, 1.0])
        limit = 2.0 * np.pi if start.extent > radius else start.extent / radius
        angle = np.arctan2(away[0], away[2]) + limit * np.sin(rate * times_s / limit)
        radii = radius * (1.0 + 0.08 * smooth_noise(rng, times_s, 0.2, 1)[:, 0])
        centre = start.target[0]
        position = np.stack(
            [centre[0] + radii * np.sin(angle), position[:, 1], centre[2] + radii * np.cos(angle)], -1
        )
        position[:, 1] += 0.1 * smooth_noise(rng, times_s, 0.25, 1)[:, 0]
        follow = True
    elif kind == "driving":
        curve = rng.normal(0.0, 0.05) * (rng.rand() < 0.6)
        along = travel(times_s, start.speed, start.extent)
        yaw = start.yaw + curve * along / max(1.0, start.speed / 3.0)
        step = np.diff(along, prepend=0.0)
        position = position + np.cumsum(np.stack([np.sin(yaw) * step, 0.0 * step, np.cos(yaw) * step], -1), 0)
        position[:, 1] += 0.015 * smooth_noise(rng, times_s, 1.2, 1)[:, 0]
        pitch = pitch + 0.008 * smooth_noise(rng, times_s, 1.2, 1)[:, 0]
        yaw = yaw + rng.choice([0.0, 0.0, rng.normal(0.0, 0.6)])  # sometimes through a side window
        follow = False
    elif kind != "static":
        raise ValueError(f"expected a camera kind out of {CAMERA_KINDS}, got {kind!r}")
    if follow and kind != "static":
        look = start.target - position
        aim_yaw = np.arctan2(look[:, 0], look[:, 2])
        aim_pitch = np.arctan2(-look[:, 1], np.hypot(look[:, 0], look[:, 2]))
        wander = smooth_noise(rng, times_s, 0.3, 2) * 0.03
        lag = rng.normal(0.0, 0.08, 2)
        yaw = np.unwrap(aim_yaw) + wander[:, 0] + lag[0]
        pitch = aim_pitch + wander[:, 1] + lag[1] * 0.5
    if kind not in ("static", "pan") or (kind == "pan" and rng.rand() < 0.4):
        shake = rng.choice([0.0, 0.001, 0.004])
        yaw, pitch, roll = (angle + shake * rng.normal(size=count) for angle in (yaw, pitch, roll))
    c2w = rotation_y(yaw) @ rotation_x(pitch) @ rotation_z(roll)
    c2w[:, :3, 3] = position
    return c2w
