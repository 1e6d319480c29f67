import pytest
import torch

from geo4d.fusion import terms
from geo4d.geometry.poses import so3_exp


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotation_difference_is_its_linearised_length():
    first, second = so3_exp(0.1 * draw(5, 3)), so3_exp(0.1 * draw(5, 3, seed=1))
    residual, by_first, by_second = terms.linearised_rotation(first, second)
    assert torch.allclose(residual.norm(dim=1), terms.rotation_difference(first, second), rtol=1e-2)
    step = 1e-5 * draw(5, 3, seed=2)
    for jacobian, moved in (
        (by_first, terms.rotation_difference(first @ so3_exp(step), second)),
        (by_second, terms.rotation_difference(first, second @ so3_exp(step))),
    ):
        change = moved - terms.rotation_difference(first, second)
        direction = residual / residual.norm(dim=1, keepdim=True)
        assert torch.allclose(
            change, (direction * (jacobian @ step[..., None])[..., 0]).sum(1), rtol=3e-2, atol=1e-9
        )


def test_adjoint_tells_how_window_points_move():
    rotation, centre = so3_exp(draw(4, 3)), draw(4, 3, seed=1)
    window = so3_exp(draw(4, 3, seed=2))
    scale, translation = draw(4, seed=3).abs() + 0.5, draw(4, 3, seed=4)
    points = draw(4, 3, 6, seed=5)
    step = 1e-6 * draw(4, 7, seed=6)

    def place(step: torch.Tensor) -> torch.Tensor:
        return terms.moved_points(
            points,
            scale * torch.exp(step[:, 3]),
            so3_exp(step[:, :3]) @ window,
            translation + step[:, 4:],
            rotation,
            centre,
        )

    before = place(torch.zeros_like(step))
    change = place(step) - before
    local = (terms.adjoint_of_window(rotation, centre, translation) @ step[..., None])[..., 0]
    expected = (
        torch.linalg.cross(local[:, None, :3].expand(4, 6, 3), before.mT)
        + local[:, None, 3:4] * before.mT
        + local[:, None, 4:]
    )
    assert torch.allclose(change, expected.mT, rtol=1e-4, atol=1e-11)


def test_disparity_residual_and_unit():
    depth, disparity = torch.tensor([[2.0, 4.0]]), torch.tensor([[0.5, 0.25]])
    residual = terms.disparity_residual(depth, disparity, torch.ones(1), torch.zeros(1))
    assert torch.allclose(residual, torch.zeros(1, 2), atol=1e-6)
    assert terms.disparity_unit(torch.tensor([2.0]), None).tolist() == [1.0]
    assert terms.disparity_unit(torch.tensor([2.0]), 3.0).tolist() == [1.5]


def test_camera_distance_of_known_motion():
    rotation = so3_exp(torch.tensor([[0.0, 0.0, torch.pi / 2]], dtype=torch.float64))
    identity = torch.eye(3, dtype=torch.float64)[None]
    distance = terms.camera_distance(
        identity, torch.zeros(1, 3).double(), rotation, torch.tensor([[3.0, 4, 0]]).double()
    )
    assert float(distance) == pytest.approx(2 + 5)  # 2 sqrt(2) sin(45 degrees) and a 3-4-5 triangle


def test_a_trajectory_is_moved_by_its_similarity():
    c2w = torch.eye(4, dtype=torch.float64)[None].clone()
    c2w[0, :3, 3] = torch.tensor([1.0, 0, 0])
    turn = so3_exp(torch.tensor([[0.0, 0.0, torch.pi / 2]], dtype=torch.float64))
    rotation, centre = terms.moved_trajectory(
        c2w, torch.tensor([2.0]).double(), turn, torch.ones(1, 3).double()
    )
    assert torch.allclose(centre, torch.tensor([[1.0, 3.0, 1.0]]).double())
    assert torch.allclose(rotation, turn)
