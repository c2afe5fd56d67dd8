"""Image models of transformers."""

from __future__ import annotations

from typing import Any

from tests.contract._zoo import Entry, images, transformer

_VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16,
    "patch_size": 4, "num_labels": 3, "hidden_dropout_prob": 0.1,
}  # fmt: skip
_STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1], "num_labels": 3}


def _entry(name: str, kind: str, config: str, size: int, settings: dict[str, Any]) -> Entry:
    return Entry(name, transformer(kind, settings, config=config), images(size))


VISION = (
    _entry("resnet", "ResNetForImageClassification", "ResNetConfig", 32,
           _STAGES | {"embedding_size": 8, "layer_type": "basic"}),
    _entry("resnet-bottleneck", "ResNetForImageClassification", "ResNetConfig", 32,
           _STAGES | {"embedding_size": 8, "layer_type": "bottleneck"}),
    _entry("regnet", "RegNetForImageClassification", "RegNetConfig", 32,
           _STAGES | {"embedding_size": 8, "groups_width": 4}),
    _entry("convnext", "ConvNextForImageClassification", "ConvNextConfig", 32, _STAGES | {"drop_path_rate": 0.2}),
    _entry("convnext-v2", "ConvNextV2ForImageClassification", "ConvNextV2Config", 32, _STAGES),
    _entry("mobilenet-v1", "MobileNetV1ForImageClassification", "MobileNetV1Config", 32,
           {"depth_multiplier": 0.25, "min_depth": 4, "num_labels": 3}),
    _entry("mobilenet-v2", "MobileNetV2ForImageClassification", "MobileNetV2Config", 32,
           {"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4, "num_labels": 3}),
    _entry("efficientnet", "EfficientNetForImageClassification", "EfficientNetConfig", 32,
           {"width_coefficient": 0.2, "depth_coefficient": 0.3, "hidden_dim": 256, "num_labels": 3, "image_size": 32,
            "depth_divisor": 4}),
    _entry("vit", "ViTForImageClassification", "ViTConfig", 16, _VIT),
    _entry("deit", "DeiTForImageClassification", "DeiTConfig", 16, _VIT),
    _entry("beit", "BeitForImageClassification", "BeitConfig", 16, _VIT | {"drop_path_rate": 0.2}),
    _entry("dinov2", "Dinov2ForImageClassification", "Dinov2Config", 16, _VIT | {"drop_path_rate": 0.2}),
    _entry("swin", "SwinForImageClassification", "SwinConfig", 32,
           {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "patch_size": 4,
            "num_labels": 3, "drop_path_rate": 0.2}),
    _entry("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", 32,
           {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 8, "num_labels": 3}),
    _entry("poolformer", "PoolFormerForImageClassification", "PoolFormerConfig", 32,
           {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_labels": 3, "drop_path_rate": 0.2}),
    _entry("mobilevit", "MobileViTForImageClassification", "MobileViTConfig", 32,
           {"hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 8, 8, 12, 16, 16, 24], "num_attention_heads": 2,
            "image_size": 32, "num_labels": 3, "hidden_dropout_prob": 0.1}),
    _entry("levit", "LevitForImageClassification", "LevitConfig", 64,
           {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
            "key_dim": [4, 4, 4], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2], "num_labels": 3}),
    _entry("cvt", "CvtForImageClassification", "CvtConfig", 32,
           {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3], "num_labels": 3,
            "drop_rate": [0.0, 0.0, 0.1], "drop_path_rate": [0.0, 0.0, 0.1]}),
    _entry("bit", "BitForImageClassification", "BitConfig", 32,
           {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_groups": 2, "num_labels": 3}),
    _entry("swiftformer", "SwiftFormerForImageClassification", "SwiftFormerConfig", 32,
           {"image_size": 32, "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_labels": 3}),
    _entry("hgnet-v2", "HGNetV2ForImageClassification", "HGNetV2Config", 32,
           {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8], "stage_mid_channels": [4, 8], "stage_out_channels": [8, 16],
            "stage_num_blocks": [1, 1], "stage_downsample": [False, True], "stage_light_block": [False, True],
            "stage_kernel_size": [3, 3], "stage_numb_of_layers": [2, 2], "num_labels": 3}),
)  # fmt: skip
