import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.maps import cameras_to_ray_map
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.training.scores import MAX_DEPTH, camera_scores, depth_scores, spreads_and_errors
from geo4d.types import Prediction


def depth(batch: int = 2) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return 1 + 9 * torch.rand(batch, 3, 12, 16, generator=g)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.3, 2.0), (7.0, -0.5)])
def test_affine_disparity_of_the_truth_is_perfect(scale: float, shift: float) -> None:
    truth = depth()
    relative, close = depth_scores(scale / truth + shift, truth)
    assert relative.abs().max() < 1e-5
    assert (close == 1).all()


@pytest.mark.parametrize("value", [0.0, 1.2])
def test_a_few_wrong_rows_do_not_spoil_the_fit(value: float) -> None:
    truth = depth(1)
    wrong = 1 / truth
    wrong[0, 0, :2] = value  # 2 of 36 rows
    _, close = depth_scores(wrong, truth)
    assert float(close) == pytest.approx(34 / 36, abs=1e-6)


def test_what_is_farther_than_the_limit_is_left_out() -> None:
    truth = depth(1)
    far = truth.clone()
    far[0, 0, 0] = 2 * MAX_DEPTH
    far[0, 0, 1] = torch.inf
    wrong_there = 1 / truth
    wrong_there[0, 0, :2] = 50.0
    relative, close = depth_scores(wrong_there, far)
    assert float(relative) < 1e-5
    assert float(close) == 1


def test_a_constant_guess_scores_as_a_constant() -> None:
    truth = depth(1)
    relative, _ = depth_scores(torch.ones_like(truth), truth)
    best = min(
        float((truth / c - 1).abs().mean()) for c in torch.linspace(1, 10, 400)
    )  # |d / c - 1|: error of 1 / c
    assert float(relative) >= 0.9 * best


def path(turn: float, step: float, frames: int = 6) -> torch.Tensor:
    s = torch.arange(frames).double()
    rotation = so3_exp(s[:, None] * torch.tensor([[0.0, turn, 0.0]]).double())
    return rigid(rotation, s[:, None] * torch.tensor([[step, 0.0, step / 2]]).double())


def rays_of(c2w: torch.Tensor) -> torch.Tensor:
    K = centred_intrinsics(torch.full((len(c2w),), 10.0).double(), (6, 8))
    return cameras_to_ray_map(K, c2w, (6, 8)).permute(0, 3, 1, 2)[None].float()


def test_true_rays_score_zero_in_any_unit() -> None:
    c2w = path(0.05, 0.2)
    other = c2w.clone()
    other[:, :3, 3] *= 3.7
    found = camera_scores(rays_of(other), c2w[None].float(), torch.tensor([4.0]))
    assert float(found["rotation"]) < 0.02
    assert float(found["ate"]) < 0.02


def test_static_guesses_are_scored_beside() -> None:
    c2w = path(0.05, 0.2)
    found = camera_scores(
        rays_of(torch.eye(4).double().repeat(6, 1, 1)), c2w[None].float(), torch.tensor([4.0])
    )
    mean_turn = float(torch.rad2deg(torch.tensor(0.05 * (1 + 2 + 3 + 4 + 5) / 5)))
    assert float(found["rotation_static"]) == pytest.approx(mean_turn, rel=1e-3)
    assert float(found["rotation"]) == pytest.approx(mean_turn, rel=1e-2)
    centres = c2w[:, :3, 3] / 4.0
    spread = float((centres - centres.mean(0)).square().sum(-1).mean().sqrt())
    assert float(found["ate_static"]) == pytest.approx(100 * spread, rel=1e-4)
    assert float(found["ate"]) == pytest.approx(
        100 * spread, rel=1e-4
    )  # a path of no length has no direction to fit


def test_spreads_go_with_the_errors_of_their_pixels() -> None:
    truth = depth(1)[0]
    truth[:, 0, 0] = torch.inf
    disparity = torch.where(torch.isfinite(truth), 0.5 / truth + 0.2, 0.0)
    points = torch.zeros(3, 12, 16, 3)
    points[0, ..., 2] = 2 * truth[0].nan_to_num(posinf=0)
    points[0, 5, 5, 2] += 0.5
    frames = torch.arange(3)
    prediction = Prediction(
        frame_indices=frames,
        times_s=frames.double(),
        window_index=0,
        disparity=disparity,
        disparity_uncertainty=torch.full((3, 12, 16), 0.1),
        point_map=points,
        point_uncertainty=torch.full((3, 12, 16), 0.3),
    )
    found = spreads_and_errors(prediction, truth)
    spread, error = found["disparity"]
    assert len(spread) == len(error) == -(-3 * (12 * 16 - 1) // 7)
    assert error.max() < 1e-4
    spread, error = found["points"]
    assert len(error) == 12 * 16 - 1
    assert float(error.max()) == pytest.approx(0.5, rel=1e-3)
    assert int((error > 1e-3).sum()) == 1


def test_a_window_of_sky_says_nothing() -> None:
    sky = torch.full((2, 4, 4), torch.inf)
    ones = torch.ones(2, 4, 4)
    prediction = Prediction(
        frame_indices=torch.arange(2), times_s=torch.arange(2).double(), window_index=0, disparity=ones,
        disparity_uncertainty=ones, point_map=torch.ones(2, 4, 4, 3), point_uncertainty=ones,
    )  # fmt: skip
    assert spreads_and_errors(prediction, sky) == {}
