import torch

from geo4d.fusion.start_cameras import fill_missing_cameras


def test_missing_cameras_take_the_nearest():
    c2w = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    c2w[:, 0, 3] = torch.arange(6)
    known = torch.tensor([False, True, False, False, True, False])
    assert fill_missing_cameras(c2w, known)[:, 0, 3].tolist() == [1, 1, 1, 4, 4, 4]
    assert torch.equal(fill_missing_cameras(c2w, torch.zeros(6, dtype=torch.bool))[3], torch.eye(4).double())
