import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.evidence.mask_finders import MaskFinder, Sam2Finder, refine_masks, region_boxes


class Grower:
    name = "grower"
    licence = "test licence"

    def __call__(self, frames, rough):
        return rough | rough.roll(1, 2)


def test_masks_are_refined_window_by_window():
    rough = torch.zeros(5, 6, 6, dtype=torch.bool)
    rough[:, 2, 2] = True
    assert isinstance(Grower(), MaskFinder)
    refined = torch.stack(list(refine_masks(torch.zeros(5, 6, 6, 3), rough, Grower(), window=2)))
    assert refined.shape == rough.shape
    assert refined[:, 2, 3].all()


def test_regions_become_boxes_largest_first():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[2:5, 3:9] = True
    mask[10:18, 12:25] = True
    mask[0, 29] = True
    assert region_boxes(mask, 4, 0.005) == [(12, 10, 25, 18), (3, 2, 9, 5)]
    assert region_boxes(mask, 1, 0.005) == [(12, 10, 25, 18)]


@pytest.mark.slow
def test_missing_weights_are_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="SAM 2"):
        Sam2Finder(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="SAM 2"):
        Sam2Finder(tmp_path)


@pytest.mark.slow
def test_sam2_follows_boxes_with_the_given_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16])
    config = transformers.Sam2VideoConfig(vision_config=vision, memory_attention_num_layers=1)
    transformers.Sam2VideoModel(config).save_pretrained(tmp_path)
    finder = Sam2Finder(tmp_path)
    rough = torch.zeros(2, 48, 64, dtype=torch.bool)
    assert not finder(torch.rand(2, 48, 64, 3), rough).any()
    rough[1, 10:30, 20:40] = True
    found = finder(torch.rand(2, 48, 64, 3), rough)
    assert found.shape == rough.shape
    assert found.dtype == torch.bool
