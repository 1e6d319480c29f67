import numpy as np
import pytest
import torch

from geo4d.synthetic.render import iter_frames, render_clip
from geo4d.synthetic.scene import SCENE_KINDS
from tests.support.rendered import SIZE, pixel_centres, project, scene_of, world_points


def angle_between(a, b):
    cosine = (torch.einsum("ij,ij->", a[:3, :3].double(), b[:3, :3].double()) - 1) / 2
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


def test_static_cameras_stand_still():
    for kind in SCENE_KINDS:
        scene = scene_of(kind, "static", seed=8)
        assert np.array_equal(scene.c2w, np.broadcast_to(scene.c2w[:1], scene.c2w.shape))
    clip = render_clip(scene_of("object_on_ground", "static"), SIZE, with_flow=True)
    still = ~clip.dynamic[:-1]
    assert clip.flow[still].abs().max() < 1e-3
    assert clip.flow[clip.dynamic[:-1]].abs().max() > 0.1


def test_pans_turn_without_moving():
    angles = []
    for seed in range(12):
        scene = scene_of("street", "pan", seed=seed, num_frames=12)
        assert np.ptp(scene.c2w[:, :3, 3], axis=0).max() == 0.0
        c2w = torch.from_numpy(scene.c2w)
        angles.append(angle_between(c2w[0], c2w[-1]))
    assert 1.0 < min(angles) < 30.0
    assert 45.0 < max(angles) < 100.0


@pytest.mark.parametrize("camera", ["handheld", "dolly", "orbit", "driving"])
def test_moving_cameras_move_smoothly(camera):
    kind = "street" if camera == "driving" else "object_on_ground"
    ways = []
    for seed in range(6):
        scene = scene_of(kind, camera, seed=seed, num_frames=16)
        steps = np.linalg.norm(np.diff(scene.c2w[:, :3, 3], axis=0), axis=-1)
        ways.append(steps.sum())
        assert steps.max() < 6.0 * np.median(steps) + 0.05
        rotation = scene.c2w[:, :3, :3]
        assert np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() < 1e-12
        assert np.abs(np.linalg.det(rotation) - 1.0).max() < 1e-12
    assert np.median(ways) > 0.1


def test_zoom_changes_the_focal_length_only_when_asked():
    plain = scene_of("street", "static", zoom=False, num_frames=8)
    assert np.ptp(plain.focal) == 0.0
    zoomed = scene_of("street", "static", zoom=True, num_frames=8)
    ratio = zoomed.focal[-1] / zoomed.focal[0]
    assert max(ratio, 1.0 / ratio) > 1.15
    clip = render_clip(zoomed, SIZE, with_flow=True)
    torch.testing.assert_close(clip.intrinsics[:, 0, 0], torch.from_numpy(zoomed.focal * SIZE[1]).float())
    u, v = pixel_centres()
    target, _ = project(world_points(clip, 0), clip, 1)
    static = ~clip.dynamic[0]
    expected = (target - torch.stack([u, v], -1))[static]
    torch.testing.assert_close(clip.flow[0][static].double(), expected, rtol=1e-4, atol=2e-3)


def test_long_clips_stay_in_their_scene():
    for kind, camera in (("street", "driving"), ("object_on_ground", "dolly"), ("room", "handheld")):
        scene = scene_of(kind, camera, seed=2, num_frames=900)
        assert np.abs(scene.c2w[:, :3, 3] - scene.c2w[0, :3, 3]).max() < 60.0
        share = [
            float((f.object_id > 0).float().mean()) for f in iter_frames(scene, (12, 20), range(0, 900, 90))
        ]
        assert np.mean(share) > 0.3
