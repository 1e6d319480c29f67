"""Depth networks of transformers with random weights, small, as folders of the hub."""

import json
from pathlib import Path

import torch

BACKBONE = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
    "reshape_hidden_states": False,
    "apply_layernorm": True,
}
NECK = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LIKE_DEPTH_ANYTHING = {
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": 56, "width": 56},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "resample": 3,
    **IMAGENET,
}


def depth_anything(kind: str = "relative"):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config=BACKBONE,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
        **NECK,
    )
    return DepthAnythingForDepthEstimation(config), LIKE_DEPTH_ANYTHING


def dpt():
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
    )  # fmt: skip
    settings = {
        "image_processor_type": "DPTFeatureExtractor",
        "size": 64,
        "resample": 2,
        "keep_aspect_ratio": False,
    }
    return DPTForDepthEstimation(config), {
        **settings,
        "ensure_multiple_of": 1,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }


def zoedepth():
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    config = ZoeDepthConfig(
        backbone_config={
            "model_type": "beit", "image_size": 64, "num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 32,
            "num_attention_heads": 2, "use_relative_position_bias": True, "reshape_hidden_states": False,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, bottleneck_features=8, num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8, num_relative_features=8,
    )  # fmt: skip
    settings = {
        "image_processor_type": "ZoeDepthImageProcessor",
        "size": {"height": 64, "width": 96},
        "resample": 2,
    }
    return ZoeDepthForDepthEstimation(config), {
        **settings, "keep_aspect_ratio": True, "ensure_multiple_of": 32, "do_pad": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip


def depth_pro():
    from transformers import DepthProConfig, DepthProForDepthEstimation

    part = {
        "model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 4,
        "image_size": 16, "mlp_ratio": 2, "use_swiglu_ffn": False,
    }  # fmt: skip
    config = DepthProConfig(
        patch_size=16, fusion_hidden_size=16, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[8, 8, 8], merge_padding_value=1, use_fov_model=True, num_fov_head_layers=2,
        image_model_config=dict(part), patch_model_config=dict(part), fov_model_config=dict(part),
    )  # fmt: skip
    settings = {
        "image_processor_type": "DepthProImageProcessorFast",
        "size": {"height": 64, "width": 64},
        "resample": 2,
    }
    return DepthProForDepthEstimation(config), {**settings, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


NETWORKS = {
    "depth_anything": depth_anything,
    "depth_anything_metric": lambda: depth_anything("metric"),
    "dpt": dpt,
    "zoedepth": zoedepth,
    "depth_pro": depth_pro,
}


def save_network(name: str, folder: Path, card: str | None = None) -> Path:
    """A folder as the hub has it."""
    torch.manual_seed(0)
    network, settings = NETWORKS[name]()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder
