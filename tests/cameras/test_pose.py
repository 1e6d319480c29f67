from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d.cameras.pose import fit_trajectory_scale, pose_frames, pose_reconstruction
from geo4d.cameras.with_depth import sample_log_depth
from geo4d.tracks.follow import track_points
from geo4d.types import Reconstruction
from tests.support.posed import rigid_error


def reconstruction_of(scene, **changes):
    T = len(scene.c2w)
    fields = {
        "depth": scene.depth.numpy(),
        "confidence": np.ones(scene.depth.shape, np.float32),
        "intrinsics": scene.intrinsics.numpy(),
        "times_s": np.arange(T) / 10,
        "source_frames": np.arange(T),
        "rgb": scene.rgb.numpy(),
    }
    return Reconstruction(**{**fields, **changes})


def test_poses_have_the_unit_of_the_depth(room):
    motion = pose_frames(room.rgb, room.depth, room.intrinsics[0])
    assert rigid_error(motion.c2w, room.c2w) < 0.01
    assert motion.confidence.min() > 0.5
    assert torch.equal(motion.depth_scale, torch.ones(9))


def test_depth_of_another_size_and_with_holes(room):
    depth = room.depth[:, ::2, ::2].clone()
    depth[:, :20] = torch.nan
    motion = pose_frames(room.rgb, depth, room.intrinsics[0])
    assert rigid_error(motion.c2w, room.c2w) < 0.02


def test_worlds_end_at_scene_changes(room):
    motion = pose_frames(room.rgb, room.depth, room.intrinsics[0], scene=[0] * 5 + [1] * 4)
    assert [(s.start, s.stop) for s in motion.shots] == [(0, 5), (5, 9)]
    torch.testing.assert_close(motion.c2w[5], torch.eye(4).double(), atol=1e-9, rtol=0)


def test_a_reconstruction_is_posed(room):
    posed = pose_reconstruction(reconstruction_of(room))
    assert rigid_error(torch.from_numpy(posed.c2w), room.c2w) < 0.01
    assert posed.reliable.all()
    assert posed.scene.tolist() == [0] * 9
    assert np.asarray(posed.intrinsics)[0, 0, 0] == pytest.approx(130, rel=0.02)
    assert "parallax" in posed.diagnostics["pose"]["shots"][0]["statement"]
    points = posed.points("world")[3]
    assert points.shape == (120, 160, 3)


def test_given_intrinsics_stay(room):
    K = room.intrinsics[0].double()
    posed = pose_reconstruction(reconstruction_of(room), intrinsics=K)
    torch.testing.assert_close(torch.from_numpy(posed.intrinsics), K.expand(9, 3, 3))


def test_a_known_trajectory_is_only_scaled(room):
    trajectory = room.c2w.clone()
    trajectory[:, :3, 3] /= 7
    posed = pose_reconstruction(reconstruction_of(room), trajectory=trajectory, trajectory_unit="unknown")
    assert posed.scale_kind == "scale"
    assert posed.diagnostics["pose"]["trajectory_scale"] == pytest.approx(7, rel=0.03)
    np.testing.assert_allclose(posed.c2w[:, :3, :3], room.c2w[:, :3, :3].numpy())
    tracks = track_points(room.rgb)
    log_depth, still = sample_log_depth(tracks, room.depth), torch.eye(4).double().repeat(9, 1, 1)
    with pytest.raises(ValueError, match="scale cannot be found"):
        fit_trajectory_scale(tracks, log_depth, room.intrinsics, still)


def test_tracks_that_slide_to_one_side_do_not_pull_the_scale(room):
    tracks = track_points(room.rgb)
    log_depth = sample_log_depth(tracks, room.depth)

    def found(tracks):
        return fit_trajectory_scale(tracks, log_depth, room.intrinsics, room.c2w)

    assert found(tracks) == pytest.approx(1, abs=0.002)
    # Two fifths of the tracks follow edges of what is nearer: with every frame 2 pixels further.
    xy = tracks.xy.clone()
    sliding = tracks.track % 5 < 2
    start = torch.full((int(tracks.track.max()) + 1,), 99)
    start.scatter_reduce_(0, tracks.track, tracks.frame, "amin")
    age = (tracks.frame - start[tracks.track])[sliding]
    xy[sliding, 0] -= 2 * torch.sign(room.c2w[-1, 0, 3] - room.c2w[0, 0, 3]).float() * age
    assert found(replace(tracks, xy=xy)) == pytest.approx(1, abs=0.002)


def test_a_trajectory_in_metres_scales_the_depth_of_each_scene(room):
    trajectory = room.c2w.clone()
    trajectory[:, :3, 3] *= 7
    trajectory[5:, :3, 3] *= 2
    before = replace(reconstruction_of(room), scene=np.array([3] * 5 + [8] * 4))
    posed = pose_reconstruction(before, trajectory=trajectory)
    assert posed.scale_kind == "metric"
    torch.testing.assert_close(torch.from_numpy(posed.c2w), trajectory)
    assert posed.diagnostics["pose"]["metres_per_unit"] == pytest.approx([7, 14], rel=0.05)
    for t, factor in ((2, 7), (7, 14)):
        ratio = np.asarray(posed.depth[t]) / np.asarray(before.depth[t])
        assert np.nanmedian(ratio) == pytest.approx(factor, rel=0.05)


def test_what_is_missing_is_said(room):
    with pytest.raises(ValueError, match="colour"):
        pose_reconstruction(reconstruction_of(room, rgb=None))
    with pytest.raises(ValueError, match="trajectory of 9"):
        pose_reconstruction(reconstruction_of(room), trajectory=room.c2w[:3])
    with pytest.raises(ValueError, match="depth maps"):
        pose_frames(room.rgb, room.depth[:4], room.intrinsics[0])
