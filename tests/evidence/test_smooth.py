import torch

from geo4d.evidence.cost import SweepConfig
from geo4d.evidence.smooth import semi_global


def test_semi_global_matches_a_plain_scan():
    config = SweepConfig()
    cost = torch.rand(1, 5, 4, 6)
    grey = torch.rand(1, 4, 6)

    def path(cost, grey, dy, dx):  # cost [D,H,W]
        planes, height, width = cost.shape
        out = cost.clone()
        rows = range(height) if dy >= 0 else range(height - 1, -1, -1)
        columns = range(width) if dx >= 0 else range(width - 1, -1, -1)
        for y in rows:
            for x in columns:
                y0, x0 = y - dy, x - dx
                if not (0 <= y0 < height and 0 <= x0 < width):
                    continue
                before = out[:, y0, x0]
                edge = 1 + 2 * float((grey[y, x] - grey[y0, x0]).abs()) / config.edge_scale
                jump = max(config.smooth_large / edge, 1.5 * config.smooth_small)
                for d in range(planes):
                    options = [before[d], before.min() + jump]
                    options += [before[k] + config.smooth_small for k in (d - 1, d + 1) if 0 <= k < planes]
                    out[d, y, x] = cost[d, y, x] + min(options) - before.min()
        return out

    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    expected = sum(path(cost[0], grey[0], dy, dx) for dy, dx in steps) / 8
    torch.testing.assert_close(semi_global(cost, grey, config)[0], expected)
