"""Folding of architectures of transformers, made from their configuration, with statistics as after a training."""

import pytest
import torch
from torch import nn

from poise.surgery import fold, fold_plan
from poise.surgery._edit import eval_outputs

transformers = pytest.importorskip("transformers")

RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
MODELS = {
    "resnet": lambda t: t.ResNetModel(t.ResNetConfig(**RESNET, layer_type="bottleneck")),
    "resnet basic": lambda t: t.ResNetForImageClassification(t.ResNetConfig(**RESNET, layer_type="basic")),
    "regnet": lambda t: t.RegNetModel(t.RegNetConfig(**RESNET, groups_width=4)),
    "convnext": lambda t: t.ConvNextModel(
        t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, drop_path_rate=0.1)
    ),
    "mobilenet v2": lambda t: t.MobileNetV2Model(t.MobileNetV2Config(depth_multiplier=0.25, min_depth=4)),
    "efficientnet": lambda t: t.EfficientNetModel(
        t.EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320)
    ),
    "segformer": lambda t: t.SegformerModel(
        t.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], sr_ratios=[2, 1], num_attention_heads=[1, 2],
            patch_sizes=[3, 3], strides=[2, 2], mlp_ratios=[2, 2],
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MODELS)
def test_every_batch_norm_goes(name, dtype):
    torch.manual_seed(0)
    model = MODELS[name](transformers).to(dtype)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
    made = fold(model, torch.randn(2, 3, 32, 32, dtype=dtype))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in made.modules())
    assert not any("Drop" in type(module).__name__ for module in made.modules())
    fresh = torch.randn(3, 3, 32, 32, dtype=dtype)
    for old, new in zip(eval_outputs(model, fresh), eval_outputs(made, fresh), strict=True):
        bound = 1e-12 if dtype is torch.float64 else 1e-5
        assert float((old - new).abs().max()) <= bound * float(old.abs().max())
    plan = fold_plan(model, torch.randn(2, 3, 32, 32, dtype=dtype))
    assert sum(step.outcome == "folded" for step in plan.steps) == len(norms)
    assert plan.left == ()
