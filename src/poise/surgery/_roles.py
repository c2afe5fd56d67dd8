"""Which role a parameter has, so that decay and penalties reach what they are meant for."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from poise.methods import Role, Weight
from poise.nn import (
    BatchNorm,
    LayerNorm,
    MemberAdapter,
    NormActDropout,
    PeriodicEmbedding,
    RankOneConv2d,
    RankOneLinear,
)

# Private in torch, and the only common base of its batch and instance normalizations of every rank.
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, BatchNorm, LayerNorm, NormActDropout)


def weights_of(network: nn.Module) -> dict[str, Weight]:
    """Every parameter of `network` with its role; a parameter that is shared counts once.

    The role goes by the module that owns the parameter, not by its number of axes: "norm" for scale and shift of a
    normalization, "embedding" for tables and waves, "bias", "scale" for other vectors and for those of members,
    "kernel" for the rest. Of a kernel that is normalized to a length of its own (weight_norm), the length is the
    "kernel" and the direction, whose size has no effect, is a "scale".

    Example:
        >>> from torch import nn
        >>> {name: weight.role for name, weight in weights_of(nn.Linear(2, 3)).items()}
        {'weight': 'kernel', 'bias': 'bias'}
    """
    weights: dict[str, Weight] = {}
    seen: set[int] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                weights[f"{prefix}.{name}".lstrip(".")] = Weight(parameter, _role(module, name, parameter, prefix))
    return weights


def _role(module: nn.Module, name: str, parameter: nn.Parameter, prefix: str) -> Role:
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag | PeriodicEmbedding):
        return "embedding"
    if name.startswith("bias") or (isinstance(module, ParametrizationList) and prefix.endswith(".bias")):
        return "bias"
    if _is_direction(module, name) or _is_member_scale(module, name):
        return "scale"
    return "kernel" if parameter.ndim >= 2 else "scale"


def _is_member_scale(module: nn.Module, name: str) -> bool:
    return isinstance(module, MemberAdapter) or (
        isinstance(module, RankOneLinear | RankOneConv2d) and name in ("in_scale", "out_scale")
    )


def _is_direction(module: nn.Module, name: str) -> bool:
    if isinstance(module, ParametrizationList):
        return name == "original1" and type(module[0]).__name__ == "_WeightNorm"
    return name == "weight_v" and "weight_g" in module._parameters
