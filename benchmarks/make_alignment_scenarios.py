"""Further scenarios of window predictions with known truth, in the format of the reference folder.

A ray-cast world (undulating ground, spheres, boxes, hills, sky, one moving thing) on a smooth camera path, and what a
Geo4D-family network would hand to the alignment for each window, with the errors that its README lists.

    python benchmarks/make_alignment_scenarios.py OUT_FOLDER [--only NAME]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FAR = 30.0


@dataclass(frozen=True)
class Plan:
    """One scenario.

    Attributes:
        name: of the file.
        seed: of scene, path and noise.
        num_frames, height, width: of the video.
        focal: in units of the width.
        stride: frames between window starts.
        bad: number of the bad window; -1 for none, -2 for the last one.
        pitch_deg: how far the camera looks down; less shows more sky.
        travel: length of the path, units.
        turn_deg: how far the view turns over the video.
        noise: factor on all errors.
    """

    name: str
    seed: int
    num_frames: int
    height: int
    width: int
    focal: float
    stride: int = 4
    bad: int = -1
    pitch_deg: float = 12.0
    travel: float = 3.0
    turn_deg: float = 40.0
    noise: float = 1.0


PLANS = (
    Plan("wide_lens", 11, 32, 80, 128, 0.6, bad=2),
    Plan("long_lens", 12, 32, 72, 112, 1.5, bad=1, travel=2.0, turn_deg=20),
    Plan("portrait", 13, 36, 128, 80, 1.1, bad=3),
    Plan("square", 14, 40, 96, 96, 0.9, bad=-1),
    Plan("bad_first", 15, 32, 64, 96, 0.9, bad=0),
    Plan("bad_last", 16, 36, 72, 112, 0.85, bad=-2),
    Plan("clean", 17, 48, 72, 128, 1.0, bad=-1, turn_deg=60),
    Plan("off_grid", 18, 43, 64, 112, 0.8, bad=5),
    Plan("noisy", 19, 40, 80, 120, 0.95, bad=4, noise=1.6),
    Plan("sky", 20, 40, 72, 128, 0.9, bad=3, pitch_deg=0.0),
    Plan("stride_8", 21, 56, 64, 96, 0.9, stride=8, bad=2),
    Plan("slow", 22, 40, 72, 112, 1.0, bad=6, travel=1.2, turn_deg=15),
)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers on a coarse grid, interpolated linearly over every axis; standard deviation about 1."""
    field = rng.standard_normal([c + 1 for c in cells])
    for axis, (length, count) in enumerate(zip(shape, cells, strict=True)):
        position = np.linspace(0, count, length)
        low = np.minimum(position.astype(int), count - 1)
        part = (position - low).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        field = np.take(field, low, axis) * (1 - part) + np.take(field, low + 1, axis) * part
    return field / max(field.std(), 1e-9)


def rotation_from_angles(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera to world, world axes like the camera's (y down): yaw about y, then pitch about x, then roll about z."""
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


class World:
    """Ground height field, spheres and boxes; the first two objects move together."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.waves = [
            (rng.uniform(0.1, 0.5), rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi), rng.uniform(0.05, 0.25))
            for _ in range(4)
        ]
        self.hill = (rng.uniform(1.0, 2.5), rng.uniform(0.15, 0.3), rng.uniform(0, 6))
        count = 9
        self.kind = rng.integers(0, 2, count)
        self.kind[:2] = 0, 1
        self.radius = rng.uniform(0.35, 1.1, count)
        self.place = np.stack([rng.uniform(-5, 5, count), np.zeros(count), rng.uniform(4, 14, count)], 1)
        self.place[:2] = [[-1.0, 0, 6.0], [-0.3, 0, 6.3]]
        self.radius[:2] = 0.6, 0.5
        self.place[:, 1] = self.ground(self.place[:, 0], self.place[:, 2]) - 0.8 * self.radius
        self.velocity = np.array(
            [rng.uniform(0.06, 0.1) * rng.choice([-1, 1]), 0.0, rng.uniform(-0.03, 0.03)]
        )
        self.spin = rng.uniform(0.05, 0.12)

    def ground(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """y of the ground (down is positive): 0 near the camera, rising to hills far away."""
        height = sum(a * np.sin(f * (x * np.cos(d) + z * np.sin(d)) + p) for f, p, d, a in self.waves)
        top, frequency, phase = self.hill
        far = 1 / (1 + np.exp(-(z - 16) / 2))
        return -height - far * top * (1 + np.sin(frequency * x + phase))

    def cast(self, origin: np.ndarray, direction: np.ndarray, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Distance along each direction (inf where nothing is hit within FAR) and whether it is a moving thing."""
        flat = direction.reshape(-1, 3)
        best = np.full(len(flat), np.inf)
        moving = np.zeros(len(flat), bool)
        steps = np.geomspace(0.3, 1.3 * FAR, 180)
        last = np.zeros(len(flat))
        found = np.zeros(len(flat), bool)
        hit = np.full(len(flat), np.inf)
        for step in steps:
            p = origin + step * flat
            below = (p[:, 1] > self.ground(p[:, 0], p[:, 2])) & ~found
            hit[below] = step
            last[~found & ~below] = step
            found |= below
        low, high = last[found], hit[found]
        rays = flat[found]
        for _ in range(25):
            middle = 0.5 * (low + high)
            p = origin + middle[:, None] * rays
            inside = p[:, 1] > self.ground(p[:, 0], p[:, 2])
            high, low = np.where(inside, middle, high), np.where(inside, low, middle)
        best[found] = 0.5 * (low + high)
        for index in range(len(self.kind)):
            centre = self.place[index] + (self.velocity * time if index < 2 else 0)
            start = origin - centre
            if self.kind[index] == 0:
                a, b = (flat**2).sum(1), flat @ start
                discriminant = b * b - a * (start @ start - self.radius[index] ** 2)
                distance = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
                distance[(discriminant <= 0) | (distance <= 0)] = np.inf
            else:
                turn = rotation_from_angles(0.3 * index + (self.spin * time if index < 2 else 0), 0, 0)
                rays_b, start_b = flat @ turn, start @ turn
                with np.errstate(divide="ignore", invalid="ignore"):
                    one = (-self.radius[index] - start_b) / rays_b
                    two = (self.radius[index] - start_b) / rays_b
                near, far = np.minimum(one, two).max(1), np.maximum(one, two).min(1)
                distance = np.where((near < far) & (near > 0), near, np.inf)
            closer = distance < best
            best[closer] = distance[closer]
            moving[closer] = index < 2
        best[best * np.abs(flat[:, 2]) > FAR * 1.2] = np.inf
        return best.reshape(direction.shape[:-1]), moving.reshape(direction.shape[:-1])


def camera_path(plan: Plan, rng: np.random.Generator, world: World) -> np.ndarray:
    """Smooth path with a little hand shake, [T, 4, 4]."""
    time = np.linspace(0, 1, plan.num_frames)
    c2w = np.tile(np.eye(4), (plan.num_frames, 1, 1))
    side = rng.choice([-1, 1])
    centre = np.stack(
        [
            side * plan.travel * 0.6 * np.sin(2.2 * time + rng.uniform(0, 0.5)),
            -1.6 + 0.25 * np.sin(2 * np.pi * time * rng.uniform(0.6, 1.2)),
            -1.0 + plan.travel * 0.7 * time**1.3,
        ],
        1,
    )
    shake = np.cumsum(rng.standard_normal((plan.num_frames, 6)), 0)
    shake = 0.5 * (shake + np.roll(shake, 1, 0))
    shake[0] = shake[1]
    yaw = -side * np.radians(plan.turn_deg) * (0.5 - np.abs(time - 0.55) ** 0.9 + 0.05 * np.sin(7 * time))
    for t in range(plan.num_frames):
        pitch = -np.radians(plan.pitch_deg) - 0.02 * np.sin(5 * time[t])
        wobble = 0.0012 * shake[t, 3:]
        c2w[t, :3, :3] = rotation_from_angles(yaw[t] + wobble[0], pitch + wobble[1], wobble[2])
        c2w[t, :3, 3] = centre[t] + 0.002 * shake[t, :3]
    return c2w


def make(plan: Plan) -> dict[str, np.ndarray]:
    """All arrays of a scenario file."""
    rng = np.random.default_rng(plan.seed)
    world = World(rng)
    c2w = camera_path(plan, rng, world)
    height, width, frames = plan.height, plan.width, plan.num_frames
    focal = plan.focal * width
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    rays = np.stack([(u - width / 2) / focal, (v - height / 2) / focal, np.ones((height, width))], -1)
    depth = np.zeros((frames, height, width))
    dynamic = np.zeros((frames, height, width), bool)
    for t in range(frames):
        distance, moving = world.cast(c2w[t, :3, 3], rays @ c2w[t, :3, :3].T, t)
        depth[t] = np.where(
            np.isfinite(distance) & (distance < FAR), distance, 0
        )  # rays have z = 1: distance is depth
        dynamic[t] = moving & (depth[t] > 0)
    depth = depth.astype(np.float16).astype(np.float64)
    length = 16
    starts = list(range(0, frames - length + 1, plan.stride))
    if starts[-1] != frames - length:
        starts.append(frames - length)
    bad = len(starts) - 1 if plan.bad == -2 else plan.bad
    out: dict[str, list[np.ndarray]] = {}
    for g, start in enumerate(starts):
        part = predict_window(
            rng, plan, depth[start : start + length], c2w[start : start + length], rays, g == bad
        )
        for name, value in part.items():
            out.setdefault(name, []).append(value)
    arrays = {name: np.stack(values) for name, values in out.items()}
    arrays.update(
        window_start=np.array(starts),
        window_length=np.array(length),
        bad_window=np.array(bad),
        true_depth=depth.astype(np.float16),
        true_dynamic=dynamic,
        true_K=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]),
        true_c2w=c2w,
    )
    return arrays


def predict_window(
    rng: np.random.Generator, plan: Plan, depth: np.ndarray, c2w: np.ndarray, rays: np.ndarray, bad: bool
) -> dict[str, np.ndarray]:
    """What a network would say about one window."""
    length, height, width = depth.shape
    relative = np.linalg.inv(c2w[0]) @ c2w
    points = (depth[..., None] * rays) @ np.swapaxes(relative[:, None, :3, :3], -1, -2) + relative[
        :, None, None, :3, 3
    ]
    valid = depth > 0
    z = points[..., 2][valid]
    m = np.quantile(z, 0.02) - 0.01
    s = np.quantile(z, 0.98) + 0.01 - m
    local = np.arange(length)[:, None, None] / (length - 1)
    normal = np.stack([2 * points[..., 0] / s, 2 * points[..., 1] / s, 2 * (points[..., 2] - m) / s - 1], -1)
    # Spread: floor, distance, depth edges, slow patches, distance from the first frame.
    filled = np.where(valid, depth, depth[valid].max())
    edge = np.maximum(np.abs(np.gradient(filled, axis=1)), np.abs(np.gradient(filled, axis=2))) / s
    patches = np.exp(0.5 * smooth_noise(rng, depth.shape, (3, 4, 5)))
    sigma = (
        plan.noise
        * (0.004 + 0.008 * (filled / (m + s)) + np.minimum(0.35 * edge, 0.5))
        * patches
        * (1 + 1.3 * local)
    )
    if bad:
        sigma = sigma * 8
    spread = np.where(valid, sigma, 0.02)
    noise = rng.laplace(size=normal.shape) * spread[..., None] / np.sqrt(2)
    smooth = np.stack([smooth_noise(rng, depth.shape, (3, 3, 4)) for _ in range(3)], -1)
    amount = plan.noise * 2 * (0.0024 + 0.0056 * local)[..., None]
    if bad:
        amount = np.full_like(amount, 0.14)
    bend = plan.noise * 0.02 * rng.uniform(-1, 1)
    predicted = normal + noise + amount * smooth
    predicted[..., 2] += bend * (normal[..., 2] ** 2 - 1)
    moved = rng.random(depth.shape) < 0.004
    predicted[moved] = rng.uniform(-1, 1, (int(moved.sum()), 3))
    yy, xx = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    announced = np.ones(depth.shape)
    for t in range(length):
        for _ in range(2):
            radius = rng.uniform(0.03, 0.07) * width
            disc = (yy - rng.uniform(0, height)) ** 2 + (xx - rng.uniform(0, width)) ** 2 < radius**2
            predicted[t, disc, 2] += plan.noise * rng.uniform(-0.15, 0.15)
            announced[t, disc] = rng.uniform(1, 3)
    sky = ~valid
    predicted[sky] = 1.05 + 0.025 * rng.standard_normal((int(sky.sum()), 3))
    torn = sky & (rng.random(depth.shape) < 0.01)
    predicted[torn] = rng.uniform(-0.5, 1.0, (int(torn.sum()), 3))
    predicted = np.clip(predicted, -2, 2)
    uncertainty = spread * announced * np.exp(0.25 * rng.standard_normal(depth.shape))
    uncertainty[sky] = 0.3 * np.exp(0.25 * rng.standard_normal(int(sky.sum())))
    # Disparity.
    inverse = np.where(valid, 1 / np.maximum(depth, 1e-6), 0)
    q = np.quantile(inverse[valid], 0.02) - 0.01
    r = np.quantile(inverse[valid], 0.98) + 0.01 - q
    disparity = 2 * (inverse - q) / r - 1
    disparity += (
        plan.noise
        * rng.laplace(size=depth.shape)
        * (0.006 + 0.01 * (1 - (disparity + 1) / 2) + 0.3 * np.minimum(edge, 0.3))
    )
    disparity += plan.noise * (0.008 + 0.01 * local) * smooth_noise(rng, depth.shape, (3, 3, 4))
    if bad:
        disparity = 0.8 * smooth_noise(rng, depth.shape, (3, 3, 4))
    disparity[sky] = -1.05 + 0.02 * rng.standard_normal(int(sky.sum()))
    disparity = np.clip(disparity, -1.1, 1.1)
    # Ray maps: cameras with slow and fast rotation errors, centres with a few per cent, and a scale of their own.
    drift = np.stack([smooth_noise(rng, (length,), (4,)) for _ in range(3)], 1) * np.radians(0.35)
    angles = plan.noise * (drift + np.radians(0.12) * rng.standard_normal((length, 3)))
    if bad:
        angles = np.radians(7) * rng.standard_normal((length, 3))
    scale = s * (1 + 0.06 * rng.standard_normal())
    cameras = np.tile(np.eye(4), (length, 1, 1))
    extent = np.abs(relative[:, :3, 3]).max()
    for t in range(length):
        cameras[t, :3, :3] = rotation_from_angles(*angles[t]) @ relative[t, :3, :3]
        wander = plan.noise * 0.03 * extent * (t > 0) * rng.standard_normal(3)
        cameras[t, :3, 3] = (relative[t, :3, 3] + wander) / scale
    first = cameras[0, :3, :3].T
    cameras[:, :3, :3] = first @ cameras[:, :3, :3]
    rows = np.round(np.linspace(0, height - 1, 8)).astype(int)
    columns = np.round(np.linspace(0, width - 1, 12)).astype(int)
    direction = rays[rows][:, columns] @ np.swapaxes(cameras[:, None, :3, :3], -1, -2)
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    moment = np.cross(np.broadcast_to(cameras[:, None, None, :3, 3], direction.shape), direction)
    return {
        "point_map": predicted.astype(np.float16),
        "uncertainty": uncertainty.astype(np.float16),
        "disparity": disparity.astype(np.float16),
        "ray_direction": (direction * (1 + 0.01 * rng.standard_normal(direction.shape))).astype(np.float16),
        "ray_moment": moment.astype(np.float32),
        "ray_c2w": cameras.astype(np.float32),
        "true_point_scale": np.array(s),
        "true_point_shift": np.array(m),
        "true_disparity_scale": np.array(r, np.float32),
        "true_disparity_shift": np.array(q, np.float32),
        "true_trajectory_scale": np.array(scale),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for plan in PLANS:
        if options.only is None or plan.name in options.only:
            name = f"{plan.name}_{plan.num_frames}x{plan.height}x{plan.width}.npz"
            np.savez_compressed(options.out / name, **make(plan))
            print(options.out / name)


if __name__ == "__main__":
    main()
