"""What the operations of a graph are for: kernels, normalizations, activations, dropout."""

from __future__ import annotations

from torch import nn

from poise.nn import AlphaDropout, BatchNorm, Dropout, LayerNorm, Linear, NormActDropout
from poise.surgery._graph._graph import Node

# Private in torch, and the only common bases of these layers of every rank.
CONVOLUTION = nn.modules.conv._ConvNd
TORCH_BATCH_NORM = nn.modules.batchnorm._BatchNorm
TORCH_DROPOUT = nn.modules.dropout._DropoutNd

_LINEAR = (nn.Linear, Linear)
# Layers that return several tensors, so that nothing can follow them as a layer.
SEVERAL_OUTPUTS = (nn.RNNBase, nn.MultiheadAttention)
_OTHER_KERNELS = (nn.Bilinear, nn.Embedding, nn.EmbeddingBag, *SEVERAL_OUTPUTS)
_KERNEL_OPS = {
    *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention", "embedding"),
    "multi_head_attention_forward",
}  # fmt: skip
_LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, LayerNorm)
_NORM_OPS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"}
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Softplus, nn.Tanh, nn.Hardtanh, nn.Softsign,
)  # fmt: skip
_ACTIVATION_OPS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("softplus", "tanh", "hardtanh", "softsign"),
}  # fmt: skip
_DROPOUT_OPS = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
}  # fmt: skip


def is_kernel(node: Node) -> bool:
    """Whether it mixes features: a linear, convolutional, recurrent, attention or embedding layer."""
    if node.module is not None:
        return isinstance(node.module, (*_LINEAR, CONVOLUTION, *_OTHER_KERNELS))
    return node.op in _KERNEL_OPS


def is_linear(node: Node) -> bool:
    """Whether it is a linear layer on the last axis."""
    return isinstance(node.module, _LINEAR)


def takes_norm(node: Node) -> bool:
    """Whether it is a kernel that a normalization may follow."""
    if node.module is not None:
        return isinstance(node.module, (*_LINEAR, CONVOLUTION))
    return node.op in ("linear", "addmm") and bool(node.parameters)


def is_norm(node: Node) -> bool:
    """Whether it normalizes."""
    layers = (nn.modules.batchnorm._NormBase, NormActDropout, BatchNorm, *_LAYER_NORMS)
    return isinstance(node.module, layers) or node.op in _NORM_OPS


def is_batch_norm(node: Node) -> bool:
    """Whether it normalizes by statistics of the batch in training."""
    if isinstance(node.module, NormActDropout):
        return node.module.norm == "batch"
    return isinstance(node.module, TORCH_BATCH_NORM | BatchNorm) or node.op == "batch_norm"


def is_activation(node: Node) -> bool:
    """Whether it is a nonlinearity of single elements; recurrent layers end in one."""
    return isinstance(node.module, (*_ACTIVATIONS, nn.RNNBase)) or node.op in _ACTIVATION_OPS


def is_dropout(node: Node) -> bool:
    """Whether it drops single elements or whole channels."""
    return isinstance(node.module, TORCH_DROPOUT | Dropout | AlphaDropout) or node.op in _DROPOUT_OPS


def has_features_last(node: Node) -> bool | None:
    """Whether the features of what it returns lie on the last axis, as far as its kind tells."""
    if isinstance(node.module, (*_LINEAR, *_OTHER_KERNELS, nn.LayerNorm, nn.RMSNorm, LayerNorm)):
        return True
    if node.op in ("linear", "addmm", "embedding", "layer_norm", "rms_norm"):
        return True
    convolutional = (CONVOLUTION, TORCH_BATCH_NORM, nn.GroupNorm)
    if isinstance(node.module, convolutional) or node.op.startswith("conv") or node.op in ("batch_norm", "group_norm"):
        return False
    return None
