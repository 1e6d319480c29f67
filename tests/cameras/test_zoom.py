import pytest
import torch

from geo4d.cameras.bundle import BundleConfig, bundle_adjust
from geo4d.cameras.frames import Adjusted
from geo4d.cameras.keyframes import KeyframeView
from geo4d.cameras.observations import Observations
from geo4d.cameras.points import triangulate
from geo4d.cameras.problem import shot_problem
from geo4d.cameras.terms import BundleState
from geo4d.cameras.types import CameraSolveConfig
from geo4d.cameras.zoom import may_zoom
from geo4d.geometry.poses import inverse
from tests.support.tracks import path, simulated_tracks

FRAMES = 8


def looked_at(scene, weight: float = 1.0) -> bool:
    """Whether a quick look at all frames, solved from the true poses with one focal length, finds a zoom possible."""
    tracks = simulated_tracks(scene)
    problem = shot_problem(tracks, 0, FRAMES, None, None, CameraSolveConfig())
    observations = Observations(
        tracks.frame, tracks.track, problem.uv, torch.full((len(tracks.frame),), weight, dtype=torch.float64)
    )
    count = int(tracks.track.max()) + 1
    view = KeyframeView(torch.arange(FRAMES), observations, torch.arange(count))
    settings = BundleConfig(
        num_iterations=15,
        robust_width=2 * problem.pixel_error,
        focal="shared",
        focal_prior=problem.prior,
        prior_strength=problem.config.prior_strength * problem.pixel_error**2,
        tolerance=1e-4,
    )
    grown = start_of(scene, observations, count)
    one = Adjusted(view, bundle_adjust(grown, observations, config=settings))
    return may_zoom(problem, grown, one, settings)


def start_of(scene, observations, count):
    w2c = inverse(scene.c2w)
    log_focal = scene.intrinsics[:, 0, 0].double().log().mean().expand(FRAMES).clone()
    return BundleState(w2c, log_focal, triangulate(w2c, log_focal, observations, count))


@pytest.mark.parametrize("zoom", [1.3, 0.7])
def test_a_zoom_beside_a_path_gains(zoom) -> None:
    assert looked_at(path(FRAMES, zoom=zoom))


def test_without_a_zoom_nothing_gains_and_turning_does_not_do() -> None:
    assert not looked_at(path(FRAMES))


def test_a_change_too_small_to_matter_is_not_looked_into() -> None:
    assert not looked_at(path(FRAMES, zoom=1.02))


def test_a_path_that_a_zoom_from_a_tripod_explains_as_well_is_looked_into() -> None:
    assert looked_at(path(FRAMES, travel=0.0, turn=0.0, zoom=1.3))


def test_nothing_is_said_of_cameras_that_saw_nothing() -> None:
    assert not looked_at(path(FRAMES, zoom=1.3), weight=0.0)
