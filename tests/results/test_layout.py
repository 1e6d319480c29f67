import json

import numpy as np
import torch

from geo4d.results.layout import plain


def test_plain_json():
    value = plain({"a": np.float32("nan"), "b": torch.ones(2), 3: (1, True), "c": {"x"}})
    assert json.dumps(value) == '{"a": null, "b": [1.0, 1.0], "3": [1, true], "c": ["x"]}'
