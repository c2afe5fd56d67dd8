"""Which positions of a batch count, and to which domain its rows belong, in the one form that is computed with."""

from __future__ import annotations

import torch
from torch import Tensor

from poise._errors import ConfigError, DataError


def mask_of(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """(N, 1, L) bool for x (N, C) or (N, C, ...), from a mask of rows or positions, or from lengths; None for all.

    Raises:
        DataError: If it fits in none of these ways.
    """
    if mask is None:
        return None
    rows, places = len(x), x.shape[2:]
    if mask.dtype == torch.bool and mask.shape == (rows, *places):
        return mask.reshape(rows, 1, places.numel())
    if mask.dtype == torch.bool and mask.shape == (rows,):
        return mask.view(rows, 1, 1).expand(rows, 1, places.numel())
    if _is_whole(mask) and mask.shape == (rows,) and len(places) == 1:
        return torch.arange(places[0], device=x.device) < mask.view(rows, 1, 1)
    raise DataError(
        f"`mask` must be bool ({rows},) or {(rows, *places)}, or integer lengths ({rows},) for x of 3 axes, but got "
        f"{mask.dtype} {tuple(mask.shape)} for x {tuple(x.shape)}."
    )


def labels_of(domain: int | Tensor | None, x: Tensor, num_domains: int) -> Tensor | None:
    """(N,) domains of the rows of x; None where a layer keeps none.

    Raises:
        ConfigError: If there is a domain and the layer keeps none.
        DataError: If there is none, or it is out of range or shape.
    """
    if not num_domains:
        if domain is not None:
            raise ConfigError("`domain` was given to a BatchNorm without domains.", repair="Set num_domains.")
        return None
    if domain is None:
        raise DataError(
            f"`domain` must be in [0, {num_domains}), but none was given.",
            repair="Call layer(x, domain=...), or the network within use_domain(network, ...).",
        )
    labels = domain.to(x.device) if isinstance(domain, Tensor) else torch.full((len(x),), domain, device=x.device)
    if not _is_whole(labels) or labels.shape != x.shape[:1]:
        raise DataError(
            f"`domain` must be an integer or integers ({len(x)},), but got {labels.dtype} {tuple(labels.shape)}."
        )
    is_known = torch.compiler.is_compiling() or bool(((labels >= 0) & (labels < num_domains)).all())
    if not is_known:
        raise DataError(f"`domain` must be in [0, {num_domains}), but got {labels.min()} to {labels.max()}.")
    return labels


def _is_whole(numbers: Tensor) -> bool:
    return numbers.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
