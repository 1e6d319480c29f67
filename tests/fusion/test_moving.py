import torch

from geo4d.fusion.moving import flow_probability, free_space_probability, rigid_flow, seen_through
from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import rigid, so3_exp


def two_cameras() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    intrinsics = centred_intrinsics(torch.tensor(40.0), (30, 40))
    other = rigid(so3_exp(torch.zeros(3)), torch.tensor([0.2, 0.0, 0.0]))
    return intrinsics, torch.eye(4), other


def test_rigid_flow_of_a_sideways_step():
    intrinsics, first, second = two_cameras()
    flow, z = rigid_flow(torch.full((30, 40), 4.0), intrinsics, first, intrinsics, second)
    assert torch.allclose(flow[..., 0], torch.full((30, 40), -40 * 0.2 / 4), atol=1e-4)
    assert torch.allclose(flow[..., 1], torch.zeros(30, 40), atol=1e-4)
    assert torch.allclose(z, torch.full((30, 40), 4.0))


def test_a_static_wall_is_not_seen_through_and_a_vanished_box_is():
    intrinsics, first, second = two_cameras()
    wall = torch.full((30, 40), 4.0)
    with_box = wall.clone()
    with_box[10:20, 10:20] = 2.0
    flow, z = rigid_flow(with_box, intrinsics, first, intrinsics, second)
    through = free_space_probability([seen_through(with_box, flow, z, wall)])
    assert (through[10:20, 10:20] > 0.5).all()
    assert (through[:9] < 0.5).all()
    # The same box still there: hidden pixels are no evidence.
    moved = wall.clone()
    moved[10:20, 6:16] = 2.0
    through = free_space_probability([seen_through(with_box, flow, z, moved)])
    assert (through < 0.5).all()


def test_sky_is_no_farther_than_the_farthest_thing():
    intrinsics, camera, _ = two_cameras()
    hill = torch.linspace(2, 50, 30)[:, None].expand(30, 40).flip(0).clone()  # the far end on top
    flow, z = rigid_flow(hill, intrinsics, camera, intrinsics, camera)
    sky_above = hill.clone()
    sky_above[:6] = torch.inf  # once taken for sky
    assert (free_space_probability([seen_through(hill, flow, z, sky_above)]) < 0.5).all()
    bird = hill.clone()
    bird[1:4, 10:14] = 5.0
    flow, z = rigid_flow(bird, intrinsics, camera, intrinsics, camera)
    moving = free_space_probability([seen_through(bird, flow, z, sky_above)])
    assert (moving[1:4, 10:14] > 0.5).all()
    nothing = seen_through(hill, flow, z, torch.full((30, 40), torch.inf))
    assert torch.isnan(nothing).all()


def test_unknown_depth_says_nothing():
    intrinsics, first, second = two_cameras()
    depth = torch.full((30, 40), torch.nan)
    flow, z = rigid_flow(depth, intrinsics, first, intrinsics, second)
    assert (free_space_probability([seen_through(depth, flow, z, torch.full((30, 40), 4.0))]) == 0).all()


def test_flow_against_rigid_flow():
    rigid_part = torch.zeros(10, 12, 2)
    observed = 0.1 * torch.randn(10, 12, 2, generator=torch.Generator().manual_seed(0))
    observed[2:5, 2:5, 0] += 4
    observed[0, 0] = torch.nan
    probability = flow_probability(observed, rigid_part)
    assert (probability[2:5, 2:5] > 0.9).all()
    assert float(probability[6:].max()) < 0.5
    assert float(probability[0, 0]) == 0
