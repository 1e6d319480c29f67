import numpy as np
import torch

from geo4d.geometry.cameras import centred_intrinsics
from geo4d.geometry.poses import inverse, rigid, rotation_angle
from geo4d.training.evidence import EvidenceConfig, disturb_cameras, simulate_evidence

EXACT = EvidenceConfig(focal_error=0, rotation_drift=0, position_drift=0, hopeless=0)


def cameras(frames: int = 6):
    angle = torch.linspace(0, 0.3, frames)
    rotation = torch.zeros(frames, 3, 3)
    rotation[:, 0, 0] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 0, 2], rotation[:, 2, 0] = angle.sin(), -angle.sin()
    rotation[:, 1, 1] = 1
    position = torch.stack([torch.linspace(0, 1, frames), torch.zeros(frames), torch.zeros(frames)], -1)
    return centred_intrinsics(torch.full((frames,), 60.0), (64, 80)), rigid(rotation, position)


def test_without_errors_the_cameras_are_the_true_ones() -> None:
    K, c2w = cameras()
    found_K, found, trust = disturb_cameras(K, c2w, EXACT, np.random.default_rng(0))
    torch.testing.assert_close(found_K, K)
    torch.testing.assert_close(found, inverse(c2w[:1]) @ c2w, rtol=1e-4, atol=1e-5)
    assert trust.min() > 0.3


def test_errors_have_about_the_stated_size_and_hopeless_ones_are_trusted_less() -> None:
    K, c2w = cameras()
    truth = inverse(c2w[:1]) @ c2w

    def errors(config: EvidenceConfig):
        rows = []
        for seed in range(60):
            k, pose, trust = disturb_cameras(K, c2w, config, np.random.default_rng(seed))
            angle = rotation_angle(pose[:, :3, :3].mT @ truth[:, :3, :3]).max()
            rows.append((float((k[0, 0, 0] / 60).log()), float(torch.rad2deg(angle)), float(trust[0])))
        return np.array(rows)

    usual = errors(EvidenceConfig(hopeless=0))
    assert 0.08 < usual[:, 0].std() < 0.16
    assert np.median(usual[:, 1]) < 3
    wrong = errors(EvidenceConfig(hopeless=1))
    assert np.median(wrong[:, 1]) > 2 * np.median(usual[:, 1])
    assert wrong[:, 2].mean() < usual[:, 2].mean() - 0.3


def test_the_sweep_finds_the_wall_where_it_is_sure_and_says_nothing_without_parallax() -> None:
    """A textured wall that the camera passes: depth is known in closed form, up to scale."""
    frames, size, depth = 6, (64, 80), 3.0
    K = centred_intrinsics(torch.full((frames,), 60.0), size)
    shift = torch.arange(frames) * 0.15
    c2w = torch.eye(4).repeat(frames, 1, 1)
    c2w[:, 0, 3] = shift
    texture = torch.rand((1, 1, 40, 200), generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(texture, (64, 800), mode="bicubic")[0, 0].clamp(0, 1)
    columns = [(torch.arange(80) + 300 + float(s) * 60 / depth).round().long() for s in shift]
    rgb = (
        torch.stack([texture[:, column] for column in columns])[..., None].expand(-1, -1, -1, 3).contiguous()
    )
    truth = torch.full((frames, *size), depth)
    found = simulate_evidence(rgb, truth, K, c2w, EXACT, np.random.default_rng(0))
    sure = found.confidence > 0.3
    assert sure.float().mean() > 0.3
    ratio = found.disparity[sure] / found.disparity[sure].median()
    assert ((ratio > 0.8) & (ratio < 1.25)).float().mean() > 0.9
    still = simulate_evidence(
        rgb[:1].expand(6, -1, -1, -1), truth, K, torch.eye(4).repeat(6, 1, 1), EXACT, np.random.default_rng(0)
    )
    assert still.confidence.max() < 0.05


def test_one_frame_has_no_evidence() -> None:
    K, c2w = cameras(1)
    found = simulate_evidence(
        torch.rand(1, 64, 80, 3), torch.ones(1, 64, 80), K, c2w, EXACT, np.random.default_rng(0)
    )
    assert found.confidence.max() == 0
