import torch

from geo4d.cameras.pose import pose_frames
from geo4d.cameras.with_depth import sample_log_depth
from geo4d.tracks.follow import track_points
from tests.support.posed import rigid_error


def test_scales_per_frame_are_found(room):
    factor = torch.exp(0.3 * torch.randn(9, generator=torch.Generator().manual_seed(0)))
    motion = pose_frames(
        room.rgb, room.depth / factor[:, None, None], room.intrinsics[0], per_frame_scale=True
    )
    ratio = motion.depth_scale / factor
    assert float(ratio.log().std()) < 0.02
    scaled = motion.c2w.clone()
    scaled[:, :3, 3] /= ratio.median()
    assert rigid_error(scaled, room.c2w) < 0.02


def test_noisy_depth_still_gives_the_path(room):
    noise = torch.exp(0.1 * torch.randn(room.depth.shape, generator=torch.Generator().manual_seed(0)))
    motion = pose_frames(room.rgb, room.depth * noise, room.intrinsics[0])
    assert rigid_error(motion.c2w, room.c2w) < 0.05


def test_depth_edges_are_not_trusted(room):
    tracks = track_points(room.rgb[:3])
    depth = room.depth[:3].clone()
    depth[:, :, 80:] *= 2
    known = torch.isfinite(sample_log_depth(tracks, depth))
    at_edge = (tracks.xy[:, 0] - 80).abs() < 0.5
    away = (tracks.xy[:, 0] - 80).abs() > 3
    assert not known[at_edge].any()
    assert known[away].double().mean() > 0.9


def test_no_depth_at_all_gives_a_statement(room):
    motion = pose_frames(room.rgb, torch.full_like(room.depth, torch.nan), room.intrinsics[0])
    assert motion.shots[0].kind == "unknown"
    assert motion.confidence.max() == 0
