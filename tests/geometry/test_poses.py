import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d.geometry.poses import (
    interpolate_rigid,
    inverse,
    inverse_similarity,
    matrix_to_quaternion,
    nearest_rotation,
    ned_to_opencv,
    opencv_to_opengl,
    opengl_to_opencv,
    quaternion_to_matrix,
    relative,
    rigid,
    rotation_angle,
    similarity,
    similarity_parts,
    so3_exp,
    so3_log,
    transform,
    transform_cameras,
    unreal_to_opencv,
    wxyz_to_xyzw,
    xyzw_to_wxyz,
)
from tests.support.poses import se3_exp

VECTORS = st.tuples(*[st.floats(-1.7, 1.7)] * 3).map(lambda v: torch.tensor(v, dtype=torch.float64))


def random_rigid(generator: torch.Generator, *batch: int) -> torch.Tensor:
    return se3_exp(torch.randn(*batch, 6, generator=generator, dtype=torch.float64))


@settings(max_examples=80, deadline=None)
@given(VECTORS)
def test_log_inverts_exp(vector: torch.Tensor) -> None:
    torch.testing.assert_close(so3_log(so3_exp(vector)), vector, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 1e-4, 0.1, 3.0, math.pi - 1e-6, math.pi])
def test_rotation_log_is_stable_from_zero_to_pi(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    rotation = so3_exp(angle * axis)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert rotation_angle(rotation).item() == pytest.approx(angle, abs=1e-9)
    torch.testing.assert_close(so3_exp(so3_log(rotation)), rotation, atol=1e-9, rtol=0)


def test_gradient_of_exp_is_finite_at_zero() -> None:
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(so3_exp, (vector,))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_group_axioms(batch: tuple[int, ...], generator: torch.Generator) -> None:
    a, b, c = (random_rigid(generator, *batch) for _ in range(3))
    identity = torch.eye(4, dtype=torch.float64).expand_as(a)
    torch.testing.assert_close(inverse(a) @ a, identity)
    torch.testing.assert_close(inverse(a @ b), inverse(b) @ inverse(a))
    torch.testing.assert_close((a @ b) @ c, a @ (b @ c))
    torch.testing.assert_close(a @ relative(a, b), b)
    points = torch.randn(*batch, 5, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transform(a @ b, points), transform(a, transform(b, points)))
    maps = torch.randn(*batch, 2, 5, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transform(a, maps)[..., 1, :, :], transform(a, maps[..., 1, :, :]))
    torch.testing.assert_close(transform(a, points[..., 0, :]), transform(a, points)[..., 0, :])


def test_similarity_inverse_and_parts(generator: torch.Generator) -> None:
    motion = random_rigid(generator, 3)
    scale = torch.tensor([0.2, 1.0, 7.0], dtype=torch.float64)
    sim = similarity(scale, motion[:, :3, :3], motion[:, :3, 3])
    parts = similarity_parts(sim)
    torch.testing.assert_close(parts[0], scale)
    torch.testing.assert_close(parts[1], motion[:, :3, :3])
    torch.testing.assert_close(
        inverse_similarity(sim) @ sim, torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    )


def test_moving_the_world_moves_cameras_and_points_alike(generator: torch.Generator) -> None:
    c2w = random_rigid(generator, 4)
    motion = random_rigid(generator)
    sim = similarity(torch.tensor(2.5, dtype=torch.float64), motion[:3, :3], motion[:3, 3])
    camera_points = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
    moved = transform_cameras(sim, c2w)
    expected = transform(sim.expand(4, 4, 4), transform(c2w, camera_points))
    torch.testing.assert_close(transform(moved, 2.5 * camera_points), expected)


def test_quaternions_agree_with_scipy(generator: torch.Generator) -> None:
    from scipy.spatial.transform import Rotation

    rotation = random_rigid(generator, 50)[:, :3, :3]
    quaternion = matrix_to_quaternion(rotation)
    theirs = Rotation.from_matrix(rotation.numpy())
    expected = torch.from_numpy(theirs.as_quat(canonical=True))
    torch.testing.assert_close(wxyz_to_xyzw(quaternion), expected)
    torch.testing.assert_close(xyzw_to_wxyz(wxyz_to_xyzw(quaternion)), quaternion)
    torch.testing.assert_close(quaternion_to_matrix(3 * quaternion), rotation)
    torch.testing.assert_close(so3_log(rotation), torch.from_numpy(theirs.as_rotvec()))


def test_nearest_rotation_is_proper(generator: torch.Generator) -> None:
    matrix = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    rotation = nearest_rotation(matrix)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(nearest_rotation(rotation), rotation)


def test_interpolation_hits_both_ends_and_halves_the_angle(generator: torch.Generator) -> None:
    start, end = random_rigid(generator, 2)
    fractions = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    path = interpolate_rigid(start.expand(3, 4, 4), end.expand(3, 4, 4), fractions)
    torch.testing.assert_close(path[0], start)
    torch.testing.assert_close(path[2], end)
    first, second = rotation_angle(relative(path[:2], path[1:])[:, :3, :3])
    assert first.item() == pytest.approx(second.item())


def test_axis_conventions() -> None:
    looking_forward_in_ned = torch.eye(4)
    looking_forward_in_ned[:3, 3] = torch.tensor([3.0, 1.0, 2.0])  # 3 forward, 1 right, 2 down
    ours = ned_to_opencv(looking_forward_in_ned)
    torch.testing.assert_close(ours[:3, :3], torch.eye(3))
    assert ours[:3, 3].tolist() == [1.0, 2.0, 3.0]
    c2w = rigid(so3_exp(torch.tensor([0.1, 0.2, 0.3])), torch.tensor([1.0, 2.0, 3.0]))
    opengl = opencv_to_opengl(c2w)
    torch.testing.assert_close(opengl[:3, 2], -c2w[:3, 2])  # OpenGL looks along -z
    torch.testing.assert_close(opengl_to_opencv(opengl), c2w)


def test_unreal_cameras_turn_as_its_documentation_says():
    zero = torch.zeros(1, dtype=torch.float64)
    angle = torch.full((1,), 0.3, dtype=torch.float64)

    def axes(yaw, pitch, roll):
        pose = unreal_to_opencv(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), yaw, pitch, roll)[0]
        assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1)
        return pose

    still = axes(zero, zero, zero)
    # Forward 1, right 2, up 3: in our axes right, down, forward.
    torch.testing.assert_close(still[:3, 3], torch.tensor([2.0, -3.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(still[:3, :3], torch.eye(3, dtype=torch.float64))
    assert axes(angle, zero, zero)[0, 2] > 0.2  # yaw: looks to the right
    assert axes(zero, angle, zero)[1, 2] < -0.2  # pitch: looks up
    assert axes(zero, zero, angle)[1, 0] > 0.2  # roll: clockwise, its right side goes down
    # Yaw about the world's axis comes first: pitch does not tilt the camera sideways.
    assert axes(angle, angle, zero)[1, 0] == pytest.approx(0)
