from dataclasses import replace

import pytest
import torch

from geo4d.cameras import solve
from geo4d.cameras.solve import fit_cameras
from geo4d.cameras.start import find_start
from geo4d.cameras.types import CameraSolveConfig
from geo4d.evidence.frames import fit_motion
from geo4d.geometry.poses import rotation_angle, transform
from geo4d.tracks.follow import track_points
from tests.support.tracks import path, rotation_error, simulated_tracks, trajectory_error


@pytest.mark.parametrize("focal", [330.0, 520.0, 800.0])
def test_cameras_and_focal_from_one_unattended_start(focal):
    scene = path(focal=focal)
    motion = fit_cameras(simulated_tracks(scene))
    ate, turn = trajectory_error(motion, scene)
    assert motion.shots[0].kind == "parallax"
    assert float(motion.intrinsics[0, 0, 0]) == pytest.approx(focal, rel=0.05)
    assert ate < 0.01
    assert turn < 0.8
    assert motion.confidence.min() > 0.5


def test_gauge_is_first_camera_and_unit_depth():
    motion = fit_cameras(simulated_tracks(path()))
    torch.testing.assert_close(motion.c2w[0], torch.eye(4).double(), atol=1e-9, rtol=0)
    depth = transform(torch.linalg.inv(motion.c2w[5]), motion.points.double())[:, 2]
    assert float(depth[depth > 0].median()) == pytest.approx(1, rel=0.3)
    assert (motion.depth_range[:, 0] < motion.depth_range[:, 1]).all()


def test_moving_tracks_are_ignored():
    """Two fifths of the tracks move on their own: the cameras are those of the still ones alone."""
    scene = path()
    spoiled = simulated_tracks(scene, num_points=360, moving=0.4)
    found = fit_cameras(spoiled)
    centres, turn = trajectory_error(found, scene)
    alone = fit_cameras(simulated_tracks(scene, num_points=216))
    still, still_turn = trajectory_error(alone, scene)
    assert centres < 0.004  # a path of one unit
    assert centres < 2 * still + 1e-3
    assert turn < still_turn + 0.2
    # the 144 movers get no points
    assert found.shots[0].num_points < alone.shots[0].num_points + 20


def test_pure_rotation_gives_rotations_focal_and_says_so():
    scene = path(travel=0.0, turn=0.6)
    motion = fit_cameras(simulated_tracks(scene))
    turn = rotation_error(motion, scene)
    assert motion.shots[0].kind == "rotation"
    assert "parallax is missing" in motion.shots[0].statement
    assert motion.c2w[:, :3, 3].abs().max() < 1e-9
    assert float(motion.intrinsics[0, 0, 0]) == pytest.approx(520, rel=0.05)
    assert turn < 1.0


def test_static_camera_is_recognised():
    motion = fit_cameras(simulated_tracks(path(travel=0.0, turn=0.0)))
    assert motion.shots[0].kind == "static"
    assert rotation_angle(motion.c2w[:, :3, :3]).max() < 2e-3
    assert not motion.c2w[:, :3, 3].any()


def test_forward_motion_with_known_intrinsics():
    scene = path(travel=0.05, turn=0.02, forward=1.0)
    motion = fit_cameras(simulated_tracks(scene), intrinsics=scene.intrinsics[0])
    ate, turn = trajectory_error(motion, scene)
    assert ate < 0.02
    assert turn < 0.5
    assert torch.equal(motion.intrinsics[3], scene.intrinsics[3].double())


def test_known_intrinsics_per_frame_with_zoom():
    scene = path(focal=450.0, zoom=4 / 3)
    motion = fit_cameras(simulated_tracks(scene, noise=0.05), intrinsics=scene.intrinsics)
    ate, _ = trajectory_error(motion, scene)
    assert ate < 0.01
    assert not motion.shots[0].zoom  # nothing was to be found out


def focal_errors(motion, scene):
    """Log of the focal lengths over the true ones: their middle, and how far one is from it."""
    error = (motion.intrinsics[:, 0, 0] / scene.intrinsics[:, 0, 0].double()).log()
    return float(error.median()), float((error - error.median()).abs().max())


@pytest.mark.parametrize("zoom", [1.5, 0.6])
def test_a_lens_that_zooms_beside_a_path_is_found_out(zoom):
    scene = path(focal=500.0, zoom=zoom)
    motion = fit_cameras(simulated_tracks(scene))
    middle, apart = focal_errors(motion, scene)
    ate, turn = trajectory_error(motion, scene)
    assert motion.shots[0].zoom
    assert motion.shots[0].kind == "parallax"
    assert "the lens zooms by a factor of 1." in motion.shots[0].statement
    assert abs(middle) < 0.05
    assert apart < 0.01
    assert ate < 0.02
    assert turn < 1


def test_a_zoom_from_a_tripod_is_no_path_towards_the_scene():
    scene = path(travel=0.0, turn=0.0, zoom=1.5)
    motion = fit_cameras(simulated_tracks(scene))
    assert motion.shots[0].zoom
    assert motion.shots[0].kind == "static"
    assert focal_errors(motion, scene)[1] < 0.005
    assert motion.shots[0].focal_assumed  # by how long it is: nothing tells
    assert float(motion.c2w[:, :3, 3].norm(dim=1).max()) == 0
    assert motion.confidence.min() > 0.5


def test_a_zoom_of_a_camera_that_pans_tells_how_long_the_lens_is():
    scene = path(travel=0.0, turn=0.4, zoom=1.4)
    motion = fit_cameras(simulated_tracks(scene))
    middle, apart = focal_errors(motion, scene)
    assert (motion.shots[0].zoom, motion.shots[0].kind) == (True, "rotation")
    assert abs(middle) < 0.02
    assert apart < 0.005
    assert motion.shots[0].focal_spread < 0.03


@pytest.mark.parametrize("forward", [0.0, 1.0])
def test_a_lens_that_does_not_zoom_stays_as_it_is(forward):
    scene = path(forward=forward)
    motion = fit_cameras(simulated_tracks(scene))
    assert not motion.shots[0].zoom
    assert "zoom" not in motion.shots[0].statement
    assert motion.intrinsics[:, 0, 0].unique().numel() == 1


def test_one_focal_length_where_that_is_asked_for():
    motion = fit_cameras(simulated_tracks(path(zoom=1.5)), config=CameraSolveConfig(zoom=False))
    assert not motion.shots[0].zoom
    assert motion.intrinsics[:, 0, 0].unique().numel() == 1


def test_a_start_that_does_not_explain_the_shot_gives_way_to_another(monkeypatch):
    scene = path()
    tracks = simulated_tracks(scene)

    def wrong_one(*arguments, **settings):
        good = find_start(*arguments, **settings)
        # The window seen the wrong way round: a start that grows into nonsense.
        order = torch.arange(len(good.bundle.state.w2c)).flip(0)
        state = replace(good.bundle.state, w2c=good.bundle.state.w2c[order])
        return replace(good, bundle=replace(good.bundle, state=state))

    monkeypatch.setattr("geo4d.cameras.hypotheses.find_start", wrong_one)
    ate, angle = trajectory_error(fit_cameras(tracks), scene)
    assert ate < 0.01
    assert angle < 0.3


def test_a_long_sequence_is_chained():
    scene = path(num_frames=60, travel=4.0, turn=0.4)
    motion = fit_cameras(simulated_tracks(scene, num_points=700, wide=2.2))
    ate, turn = trajectory_error(motion, scene)
    assert ate < 0.03
    assert turn < 1.0


def test_intrinsics_of_the_wrong_length_are_refused():
    tracks = simulated_tracks(path(num_frames=4))
    with pytest.raises(ValueError, match="intrinsics"):
        fit_cameras(tracks, intrinsics=torch.eye(3).repeat(3, 1, 1))


@pytest.mark.parametrize(
    "kind",
    [
        "black",
        "fog",
        "sky",
        "one",
        "noise",
        "duplicates",
        "two",
        "all moving",
        "quarter turns",
    ],
)
def test_hopeless_input_gets_a_statement(kind, make_room):
    room = make_room(num_frames=2, size=(48, 64))
    g = torch.Generator().manual_seed(0)
    fade = torch.linspace(0.5, 0.9, 48)[None, :, None, None].expand(5, 48, 64, 3)
    # ten tiles that slide over each other in directions of their own: nothing is still
    tiles = torch.rand(40, 9, 12, 3, generator=g).repeat_interleave(4, 1).repeat_interleave(4, 2)
    sliding = torch.zeros(6, 48, 64, 3)
    steps = torch.randint(-4, 5, (40, 2), generator=g).tolist()
    places = (torch.rand(40, 2, generator=g) * torch.tensor([48, 64])).long().tolist()
    for t in range(6):
        for tile, (dy, dx), (y, x) in zip(tiles, steps, places, strict=True):
            rows, columns = (torch.arange(36) + y + t * dy) % 48, (torch.arange(48) + x + t * dx) % 64
            sliding[t, rows[:12, None], columns[:16]] = tile[:12, :16]
    turns = [make_room(num_frames=1, size=(48, 64)).rgb[0]]
    turns += [torch.rand(48, 64, 3, generator=g).round() * 0.3 + 0.1 * k for k in range(1, 4)]
    frames = {
        "fog": 0.6 + 0.004 * torch.rand(5, 48, 64, 3, generator=g),
        "sky": fade,
        "all moving": sliding,
        "quarter turns": torch.stack(turns),  # no picture shows anything of the one before
        "black": torch.zeros(5, 48, 64, 3),
        "one": room.rgb[:1],
        "noise": torch.rand(5, 48, 64, 3, generator=torch.Generator().manual_seed(0)),
        "duplicates": room.rgb[:1].repeat(6, 1, 1, 1),
        "two": room.rgb,
    }[kind]
    motion = fit_motion(frames)
    assert motion.c2w.shape == (len(frames), 4, 4)
    assert torch.isfinite(motion.c2w).all()
    assert torch.isfinite(motion.intrinsics).all()
    assert all(shot.statement for shot in motion.shots)
    if kind in ("black", "fog", "sky", "one", "noise", "quarter turns"):
        assert motion.confidence.max() < 0.3
        assert all(shot.kind == "unknown" for shot in motion.shots)
    if kind == "quarter turns":
        assert len(motion.shots) == 4
    if kind == "all moving":
        assert motion.confidence.mean() < 0.5
    if kind == "duplicates":
        assert motion.shots[0].kind == "static"


def test_cuts_make_shots_with_worlds_of_their_own(make_room):
    a = make_room(num_frames=7, size=(96, 128), focal=110.0, travel=0.5)
    b = make_room(num_frames=6, size=(96, 128), focal=110.0, travel=-0.5, turn=-0.4, forward=0.5)
    turned = b.rgb.flip(1)
    motion = fit_motion([*a.rgb, *turned])
    assert [(s.start, s.stop) for s in motion.shots] == [(0, 7), (7, 13)]
    torch.testing.assert_close(motion.c2w[7], torch.eye(4).double(), atol=1e-9, rtol=0)


def test_tracks_of_a_rendered_room_give_its_cameras(make_room):
    scene = make_room(num_frames=10, size=(144, 192), focal=150.0, travel=0.8, turn=0.2)
    motion = fit_cameras(track_points(scene.rgb))
    ate, turn = trajectory_error(motion, scene)
    assert motion.shots[0].kind == "parallax"
    assert ate < 0.02
    assert turn < 1.5


@pytest.mark.parametrize(
    ("turns", "times", "taken"), [(True, 1.6, True), (True, 4.0, False), (False, 4.0, True)]
)
def test_a_turning_zoom_takes_the_place_of_a_path_only_if_it_explains_the_whole_shot(
    monkeypatch, turns, times, taken
):
    """One that replaces a path by zooming must not err by several times as much; ``error`` is over all tracks."""
    plain = solve._solve

    def made_up(problem):
        found = plain(problem)
        motion = found.solution.motion
        if problem.focal_mode == "shared":
            return replace(found, may_zoom=True)
        motion = replace(motion, error=times * motion.error)
        solution = replace(found.solution, motion=motion)
        return replace(found, solution=solution, zoom_gain=100.0, turns=turns)

    monkeypatch.setattr(solve, "_solve", made_up)
    monkeypatch.setattr(solve, "better", lambda first, *others: first)
    assert fit_cameras(simulated_tracks(path(num_frames=8))).shots[0].zoom is taken
