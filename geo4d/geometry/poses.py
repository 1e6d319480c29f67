"""Rotations, rigid motions and similarities: exp, log, inverse, interpolation; quaternions; changes of axes.

Rotations are matrices; quaternions are ``wxyz`` (``xyzw`` only at the border, by the named functions); angles are in
radians. A rigid motion is [4, 4] and acts on column vectors. A similarity is a [4, 4] whose upper left block is
scale * rotation.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SMALL_ANGLE = 1e-4


def skew(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix whose product with ``x`` is ``vector`` cross ``x``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape, 3)


def so3_exp(rotation_vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation about the direction of ``rotation_vector`` by its length, in radians.

    Examples:
        >>> (so3_exp(torch.tensor([0.0, 0.0, torch.pi / 2])) @ torch.tensor([1.0, 0.0, 0.0])).round().abs().tolist()
        [0.0, 1.0, 0.0]
    """
    angle_squared = (rotation_vector**2).sum(-1)[..., None, None]
    small = angle_squared < _SMALL_ANGLE**2
    safe = torch.where(small, torch.ones_like(angle_squared), angle_squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - angle_squared / 6, torch.sin(angle) / angle)
    second = torch.where(small, 0.5 - angle_squared / 24, (1 - torch.cos(angle)) / safe)
    generator = skew(rotation_vector)
    identity = torch.eye(3, dtype=rotation_vector.dtype, device=rotation_vector.device)
    return identity + first * generator + second * generator @ generator


def so3_log(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vector of length in [0, pi], radians; inverse of ``so3_exp``, stable at 0 and at pi."""
    quaternion = matrix_to_quaternion(rotation)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    norm = xyz.norm(dim=-1, keepdim=True)
    small = norm < _SMALL_ANGLE
    safe = torch.where(small, torch.ones_like(norm), norm)
    factor = torch.where(small, 2 / w - 2 * norm**2 / (3 * w**3), 2 * torch.atan2(safe, w) / safe)
    return factor * xyz


def rigid(rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """[4, 4] from a rotation (or scaled rotation) and a translation."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


def similarity(
    scale: Float[Tensor, "*b"], rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 4 4"]:
    """[4, 4] that takes x to scale * rotation @ x + translation."""
    return rigid(scale[..., None, None] * rotation, translation)


def similarity_parts(
    sim: Float[Tensor, "*b 4 4"],
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """Scale, rotation and translation of a similarity (or rigid motion)."""
    scale = torch.linalg.det(sim[..., :3, :3]).clamp(min=1e-30) ** (1 / 3)
    return scale, sim[..., :3, :3] / scale[..., None, None], sim[..., :3, 3]


def inverse(motion: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of a rigid motion (exact transpose, no matrix inversion): ``w2c`` of ``c2w``.

    Examples:
        >>> c2w = rigid(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
        >>> inverse(c2w)[:3, 3].tolist()
        [-1.0, -2.0, -3.0]
    """
    rotation_t = motion[..., :3, :3].mT
    return rigid(rotation_t, -(rotation_t @ motion[..., :3, 3:])[..., 0])


def inverse_similarity(sim: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of a similarity."""
    scale, rotation, translation = similarity_parts(sim)
    rotation_t = rotation.mT / scale[..., None, None]
    return rigid(rotation_t, -(rotation_t @ translation[..., None])[..., 0])


def transform(motion: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
    """Move points by a rigid motion or similarity.

    The batch axes of ``motion`` are the leading axes of ``points``: with motion [T, 4, 4], points are [T, ..., 3].

    Examples:
        >>> transform(rigid(torch.eye(3), torch.tensor([1.0, 2.0, 3.0])), torch.zeros(2, 3)).tolist()
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    """
    batch = motion.ndim - 2
    extra = points.ndim - 1 - batch
    shape = (*motion.shape[:-2], *([1] * max(extra - 1, 0)))
    rotation = motion[..., :3, :3].reshape(*shape, 3, 3)
    translation = motion[..., :3, 3]
    if extra == 0:
        return (rotation @ points[..., None])[..., 0] + translation
    return points @ rotation.mT + translation.reshape(*shape, 1, 3)


def transform_cameras(sim: Float[Tensor, "4 4"], c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Cameras in the world that ``sim`` maps to: centres move by the similarity, rotations stay rotations."""
    _, rotation, _ = similarity_parts(sim)
    return rigid(
        rotation @ c2w[..., :3, :3],
        transform(sim, c2w[..., :3, 3].reshape(-1, 3)).reshape(c2w.shape[:-2] + (3,)),
    )


def relative(
    first_c2w: Float[Tensor, "*b 4 4"], second_c2w: Float[Tensor, "*b 4 4"]
) -> Float[Tensor, "*b 4 4"]:
    """Motion from the second camera's frame to the first's: inverse(first) @ second."""
    return inverse(first_c2w) @ second_c2w


def first_camera_world(
    c2w: Float[Tensor, "T 4 4"], scene: Int[Tensor, " T"] | None = None
) -> Float[Tensor, "T 4 4"]:
    """The same cameras in the world of the first camera of each scene, whose pose becomes the identity exactly.

    Args:
        c2w: camera to any world.
        scene: number of the world of each frame; None: all share one.
    """
    moved = c2w.clone()
    for number in [None] if scene is None else scene.unique().tolist():
        rows = torch.arange(len(c2w)) if number is None else torch.nonzero(scene == number)[:, 0]
        if len(rows):
            moved[rows] = inverse(c2w[rows[0]]) @ c2w[rows]
            moved[rows[0]] = torch.eye(4, dtype=c2w.dtype, device=c2w.device)
    return moved


def rotation_angle(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle in radians in [0, pi], precise for small angles."""
    return so3_log(rotation).norm(dim=-1)


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to ``matrix`` in the Frobenius norm."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh)
    flip = torch.ones_like(matrix[..., 0])
    flip[..., 2] = sign
    return u * flip[..., None, :] @ vh


def matrix_to_quaternion(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternion ``wxyz`` with w >= 0."""
    m = rotation
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Four candidates (Shepperd): each is the quaternion times twice one of its own entries; take the best conditioned.
    w = torch.stack(
        [1 + trace, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )
    x = torch.stack(
        [w[..., 1], 1 + 2 * m[..., 0, 0] - trace, m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0]],
        -1,
    )
    y = torch.stack([w[..., 2], x[..., 2], 1 + 2 * m[..., 1, 1] - trace, m[..., 1, 2] + m[..., 2, 1]], -1)
    z = torch.stack([w[..., 3], x[..., 3], y[..., 3], 1 + 2 * m[..., 2, 2] - trace], -1)
    candidates = torch.stack([w, x, y, z], dim=-2)
    best = torch.stack([w[..., 0], x[..., 1], y[..., 2], z[..., 3]], -1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    quaternion = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation of a quaternion ``wxyz``, which is normalised first.

    Examples:
        >>> quaternion_to_matrix(torch.tensor([0.0, 0.0, 0.0, 2.0])).tolist()
        [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).reshape(*quaternion.shape[:-1], 3, 3)


def wxyz_to_xyzw(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Our order to that of TUM files and scipy."""
    return quaternion.roll(-1, dims=-1)


def xyzw_to_wxyz(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The order of TUM files and scipy to ours.

    Examples:
        >>> xyzw_to_wxyz(torch.tensor([0.1, 0.2, 0.3, 0.9])).tolist() == torch.tensor([0.9, 0.1, 0.2, 0.3]).tolist()
        True
    """
    return quaternion.roll(1, dims=-1)


def interpolate_rigid(
    start: Float[Tensor, "*b 4 4"], end: Float[Tensor, "*b 4 4"], fraction: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 4 4"]:
    """Between two rigid motions: centres on the straight line, rotations on the shortest arc.

    Args:
        fraction: 0 gives ``start``, 1 gives ``end``; values outside extrapolate.
    Examples:
        >>> start, end = torch.eye(4), rigid(torch.eye(3), torch.tensor([4.0, 0.0, 0.0]))
        >>> interpolate_rigid(start, end, torch.tensor(0.25))[:3, 3].tolist()
        [1.0, 0.0, 0.0]
    """
    step = so3_log(start[..., :3, :3].mT @ end[..., :3, :3])
    rotation = start[..., :3, :3] @ so3_exp(fraction[..., None] * step)
    translation = torch.lerp(start[..., :3, 3], end[..., :3, 3], fraction[..., None])
    return rigid(rotation, translation)


_NED_TO_OPENCV = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


def opencv_to_opengl(c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Camera axes from ours (x right, y down, z forward) to OpenGL's (x right, y up, z backward); world unchanged.

    Its own inverse.

    Examples:
        >>> opencv_to_opengl(torch.eye(4)).diagonal().tolist()
        [1.0, -1.0, -1.0, 1.0]
    """
    flip = c2w.new_tensor([1.0, -1.0, -1.0, 1.0])
    return c2w * flip


def opengl_to_opencv(c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Camera axes from OpenGL's (Blender, nerfstudio) to ours; world unchanged."""
    return opencv_to_opengl(c2w)


def ned_to_opencv(c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Camera and world axes from NED (x forward, y right, z down; TartanAir) to ours."""
    change = c2w.new_tensor(_NED_TO_OPENCV)
    return rigid(change @ c2w[..., :3, :3] @ change.mT, c2w[..., :3, 3] @ change.mT)


_UNREAL_TO_OPENCV = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0))


def unreal_to_opencv(
    position: Float[Tensor, "*b 3"],
    yaw: Float[Tensor, "*b"],
    pitch: Float[Tensor, "*b"],
    roll: Float[Tensor, "*b"],
) -> Float[Tensor, "*b 4 4"]:
    """Camera to world, both in our axes, of a camera as Unreal Engine states it (left-handed: x forward, y right, z up).

    Args:
        position: in Unreal's axes; its unit stays.
        yaw: first, about the world's z axis; positive turns to the right; radians.
        pitch: second, about the camera's own y axis; positive looks up.
        roll: last, about the camera's own x axis; positive turns clockwise as seen by the camera.
    Source: unreal/render/unreal_coordinate_system.md of PerceivingSystems/bedlam_render.
    """
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    turn = matrix((yaw.cos(), -yaw.sin(), zero), (yaw.sin(), yaw.cos(), zero), (zero, zero, one))
    lift = matrix((pitch.cos(), zero, -pitch.sin()), (zero, one, zero), (pitch.sin(), zero, pitch.cos()))
    tilt = matrix((one, zero, zero), (zero, roll.cos(), roll.sin()), (zero, -roll.sin(), roll.cos()))
    change = position.new_tensor(_UNREAL_TO_OPENCV)
    return rigid(change @ (turn @ lift @ tilt) @ change.mT, position @ change.mT)
