import numpy as np

from geo4d.evaluation.trivial import load_template


def test_template_looks_like_ground_below_sky():
    template = load_template()
    assert template.shape == (36, 64)
    rows = template.mean(1)
    assert rows[-1] > 2 * rows[0]
    assert np.isfinite(template).all()
