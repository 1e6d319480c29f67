"""What several tests share."""

from geo4d.geometry.fit import fit_similarity
from geo4d.geometry.poses import transform


def rigid_error(c2w, truth):
    centres, true_centres = c2w[:, :3, 3].double(), truth[:, :3, 3]
    aligned = transform(fit_similarity(centres, true_centres, with_scale=False), centres)
    return float((aligned - true_centres).square().sum(1).mean().sqrt())
