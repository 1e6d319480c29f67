"""One scene solved from windows of a wall that is known exactly."""

import json

import torch

from geo4d.fusion.alignment import DISAGREES, AlignConfig
from geo4d.fusion.register import register_windows
from geo4d.fusion.samples import take_samples
from geo4d.fusion.scene import SceneSolution, solve_scene
from geo4d.fusion.start import Scene
from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import inverse, rotation_angle, transform_cameras


def scene_of(wall, config: AlignConfig, **known) -> Scene:
    """All windows as one scene; those that the config gives as bad hardly count."""
    samples = take_samples(
        wall.predictions,
        num_frames=wall.num_frames,
        size=wall.size,
        num_samples=config.num_samples,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
    )
    count = len(wall.predictions)
    registration = register_windows(samples)
    bad = torch.zeros(count, dtype=torch.bool)
    bad[list(config.force_bad_windows or ())] = True
    return Scene(
        samples=samples,
        window_numbers=torch.arange(10, 10 + count),
        world=registration.world,
        agreement=registration.agreement,
        bad=bad,
        empty=torch.zeros(count, dtype=torch.bool),
        **known,
    )


def solve(wall, config: AlignConfig | None = None, **known) -> tuple[SceneSolution, list[str]]:
    told: list[str] = []
    config = config or AlignConfig.corrected()
    return solve_scene(scene_of(wall, config, **known), config, lambda stage, _: told.append(stage)), told


def camera_errors(wall, c2w: torch.Tensor) -> tuple[float, float]:
    """Largest error of a centre, share of the path, after one similarity; largest turn between frames, radians."""
    found = transform_cameras(fit_similarity(c2w[:, :3, 3], wall.c2w[:, :3, 3]), c2w)
    path = (wall.c2w[:, :3, 3] - wall.c2w[0, :3, 3]).norm(dim=1).max()
    turns = (inverse(c2w[:1]) @ c2w)[:, :3, :3].mT @ (inverse(wall.c2w[:1]) @ wall.c2w)[:, :3, :3]
    return float((found - wall.c2w)[:, :3, 3].norm(dim=1).max() / path), float(rotation_angle(turns).max())


def test_exact_windows_give_the_cameras_and_the_focal_length_of_the_wall(make_wall) -> None:
    wall = make_wall(noise=1e-4)
    solution, told = solve(wall)
    variables = solution.variables
    c2w = torch.eye(4, dtype=torch.float64).repeat(wall.num_frames, 1, 1)
    c2w[:, :3, :3], c2w[:, :3, 3] = variables.rotation, variables.centre
    centre, turn = camera_errors(wall, c2w)
    assert centre < 0.005
    assert turn < 0.002
    focal = wall.intrinsics[:, 0, 0].double()
    torch.testing.assert_close(variables.log_focal.exp(), focal, rtol=0.005, atol=0)
    assert solution.reliable.all()
    assert solution.window_weight.tolist() == [1.0] * 3
    assert told == [
        "starting cameras",
        "aligning points",
        "aligning disparity and trajectories",
        "aligning all terms",
    ]


def test_disparities_of_every_window_meet_the_walls(make_wall) -> None:
    """scale * D + shift is 1 / depth, in the unit of the world; the windows' own ranges are undone."""
    wall = make_wall(noise=1e-4)
    solution, _ = solve(wall)
    variables = solution.variables
    true_path = (wall.c2w[-1, :3, 3] - wall.c2w[0, :3, 3]).norm()
    unit = (
        variables.centre[-1] - variables.centre[0]
    ).norm() / true_path  # of the world, in units of the wall
    for k, prediction in enumerate(wall.predictions):
        found = variables.disparity_scale[k] * prediction.disparity.double() + variables.disparity_shift[k]
        wanted = 1 / (unit * wall.depth[prediction.frame_indices])
        assert float((found / wanted - 1).abs().median()) < 0.01


def test_known_cameras_stay_and_give_the_unit(make_wall) -> None:
    wall = make_wall(noise=1e-4)
    solution, _ = solve(wall, known_c2w=wall.c2w, known_intrinsics=wall.intrinsics.double())
    torch.testing.assert_close(solution.variables.centre, wall.c2w[:, :3, 3])
    torch.testing.assert_close(solution.variables.rotation, wall.c2w[:, :3, :3])
    prediction, variables = wall.predictions[1], solution.variables
    frames = prediction.frame_indices
    normal = prediction.point_map.double()
    points = (
        variables.window_scale[1] * (normal @ variables.window_rotation[1].T)
        + variables.window_translation[1]
    )
    depth = (points - wall.c2w[frames, None, None, :3, 3]) @ wall.c2w[frames][:, None, :3, :3]
    assert float((depth[..., 2] / wall.depth[frames] - 1).abs().median()) < 0.005


def test_a_bad_window_hardly_counts_and_is_named_by_its_number(make_wall) -> None:
    wall = make_wall(num_frames=20, noise=1e-4, bad=(3,))
    solution, _ = solve(wall, AlignConfig(force_bad_windows=(3,)))
    assert solution.window_weight.tolist()[:3] == [1.0] * 3
    assert solution.window_weight[3] < 0.1
    assert solution.disparity_weight[3] == 0
    assert {"window": 13, "what": "points", "why": DISAGREES} in solution.diagnostics["dropped"]
    alone = torch.arange(20) >= 16  # only the bad window sees them
    assert torch.equal(solution.reliable, ~alone)
    residual = solution.diagnostics["window_residual"]
    assert residual[3] > 20 * max(residual[:3])


def test_what_is_told_goes_into_json(make_wall) -> None:
    solution, _ = solve(make_wall(num_frames=12))
    told = json.loads(json.dumps(solution.diagnostics, allow_nan=False))
    assert told["windows"] == [10, 11]
    assert told["dropped"] == []
    assert told["solve"]["all"]["cost_end"] <= told["solve"]["all"]["cost_start"]
