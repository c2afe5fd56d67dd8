"""Parameter groups by role, with a table of what decays by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from poise._checks import Interval, check_choice, check_integer, check_real, check_type
from poise._errors import ConfigError
from poise.methods import ROLES, Role, Weight
from poise.surgery._graph._graph import Graph
from poise.surgery._graph._kinds import is_batch_norm, takes_norm
from poise.surgery._graph._trace import graph_of
from poise.surgery._roles import weights_of


@dataclass(frozen=True)
class ScaleInvariant:
    """A kernel whose size has no effect, since a batch normalization divides by it.

    Args:
        name: Of the parameter.
        square_norm: ||w||².
        effective_lr: lr / ||w||², the learning rate of its direction, by which alone the function changes.
    """

    name: str
    square_norm: float
    effective_lr: float


class DecayGroups:
    """Parameter groups, as torch's optimizers take them; printed, a table of what decays by how much.

    Args:
        groups: For torch, each with its "role".
        num_steps: Optimizer steps of the training; None if not known.
        invariant: Kernels whose size has no effect.

    Example:
        >>> groups = decay_groups(nn.Linear(2, 3), 0.1, weight_decay=0.5, num_steps=20)
        >>> [(group["role"], group["weight_decay"]) for group in groups]
        [('kernel', 0.5), ('bias', 0.0)]
        >>> round(groups.shrink("kernel"), 4)
        0.3679
    """

    def __init__(self, groups: list[dict[str, Any]], num_steps: int | None, invariant: list[ScaleInvariant]) -> None:
        self.groups, self.num_steps, self.invariant = groups, num_steps, invariant

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def shrink(self, role: str) -> float | None:
        """exp(-Σ lr · weight_decay) over all steps: what decay alone leaves of the weights of `role`; None if unknown.

        Args:
            role: One of them; of several groups, that which decays most counts.
        """
        if self.num_steps is None:
            return None
        rates = [group["lr"] * group["weight_decay"] for group in self.groups if group["role"] == role]
        return math.exp(-self.num_steps * max(rates, default=0.0))

    def __str__(self) -> str:
        lines = [f"{'role':10} {'tensors':>7} {'numbers':>10} {'lr':>9} {'weight_decay':>12} {'shrink':>9}"]
        for group in self.groups:
            numbers = sum(one.numel() for one in group["params"])
            lr, decay = float(group["lr"]), float(group["weight_decay"])
            left = "?" if self.num_steps is None else f"{math.exp(-self.num_steps * lr * decay):.4g}"
            role = group["role"] or "(others)"
            lines.append(f"{role:10} {len(group['params']):7} {numbers:10} {lr:9.3g} {decay:12.3g} {left:>9}")
        if self.num_steps is None:
            lines.append("shrink: exp(-Σ lr · weight_decay); give num_steps=.")
        for one in self.invariant:
            lines.append(f"{one.name}: only its direction counts, effective lr {one.effective_lr:.3g} = lr / ||w||²")
        return "\n".join(lines)


def decay_groups(
    model: nn.Module, optimizer_or_lr: Optimizer | float, *, weight_decay: float = 0.01,
    roles: tuple[str, ...] = ("kernel",), num_steps: int | None = None, example: Any = None,
) -> DecayGroups:  # fmt: skip
    """Groups in which kernels decay, and norms, biases and embeddings do not; every trainable parameter is in one.

    `torch.optim.AdamW(model.parameters())` decays all of them. An optimizer that is given gets the new groups itself:
    settings and state of every parameter stay, parameters that it lacked join with its defaults. Make schedulers after
    that.

    Args:
        model: Any torch model.
        optimizer_or_lr: An optimizer, or the learning rate ≥ 0 of one that is to be made of the result.
        weight_decay: Of the roles that decay, ≥ 0.
        roles: Which parameters decay: "kernel", "bias", "norm", "embedding", "scale".
        num_steps: Optimizer steps of the training, ≥ 1, for the total shrink at this learning rate.
        example: A batch, as for `poise.recalibrate`, to find the kernels that only a batch normalization sees.

    Raises:
        ConfigError: If a setting is out of range, or nothing is trainable.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> groups = decay_groups(model, 1e-3, weight_decay=0.1, num_steps=10_000)
        >>> print(groups)
        role       tensors    numbers        lr weight_decay    shrink
        kernel           2         48     0.001          0.1    0.3679
        bias             2         10     0.001            0         1
        norm             2         16     0.001            0         1
        >>> import torch
        >>> optimizer = torch.optim.AdamW(groups)

    Reference: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019. van Laarhoven, "L2
    regularization versus batch and weight normalization", 2017 (effective learning rate).
    """
    check_real("weight_decay", weight_decay, Interval(0))
    check_type("roles", roles, tuple)
    for role in roles:
        check_choice("roles", role, ROLES)
    if num_steps is not None:
        check_integer("num_steps", num_steps, Interval(1))
    weights = {name: one for name, one in weights_of(model).items() if one.tensor.requires_grad}
    if not weights:
        raise ConfigError("The model has no parameter that is trained.", repair="Unfreeze what is to be trained.")
    decays: dict[Role, float] = {role: weight_decay if role in roles else 0.0 for role in ROLES}
    if isinstance(optimizer_or_lr, Optimizer):
        groups = _rebound(optimizer_or_lr, weights, decays)
    else:
        check_real("optimizer_or_lr", optimizer_or_lr, Interval(0))
        groups = _by_role(weights, decays, {"lr": optimizer_or_lr})
    invariant = [] if example is None else _invariant(graph_of(model, example), weights, groups)
    return DecayGroups(groups, num_steps, invariant)


def _by_role(weights: dict[str, Weight], decays: dict[Role, float], settings: dict[str, Any]) -> list[dict[str, Any]]:
    groups = []
    for role, decay in decays.items():
        params = [one.tensor for one in weights.values() if one.role == role]
        if params:
            groups.append({**settings, "params": params, "weight_decay": decay, "role": role})
    return groups


def _rebound(optimizer: Optimizer, weights: dict[str, Weight], decays: dict[Role, float]) -> list[dict[str, Any]]:
    """Split every group of `optimizer` by role, in place, and add what it lacks."""
    of_id = {id(one.tensor): name for name, one in weights.items()}
    missing = dict(weights)
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        group.pop("param_names", None)  # as many as before the split
        own = {of_id[id(one)]: weights[of_id[id(one)]] for one in group["params"] if id(one) in of_id}
        groups.extend(_by_role(own, decays, group))
        others = [one for one in group["params"] if id(one) not in of_id]
        if others:  # of another model, or frozen
            groups.append({**group, "params": others, "role": ""})
        for name in own:
            missing.pop(name, None)
    optimizer.param_groups[:] = groups
    for group in _by_role(missing, decays, {}):
        optimizer.add_param_group(group)
    return list(optimizer.param_groups)


def _invariant(graph: Graph, weights: dict[str, Weight], groups: list[dict[str, Any]]) -> list[ScaleInvariant]:
    rates = {id(one): float(group["lr"]) for group in groups for one in group["params"]}
    found = []
    for name, weight in weights.items():
        path = name.removesuffix(".weight") if name != "weight" else ""
        calls = [node for node in graph if node.module is not None and node.name == path and takes_norm(node)]
        consumers = [graph.sole_consumer(node) for node in calls]
        if name.endswith("weight") and calls and all(one is not None and is_batch_norm(one) for one in consumers):
            square = float(weight.tensor.detach().double().square().sum())
            found.append(ScaleInvariant(name, square, rates[id(weight.tensor)] / square if square else math.inf))
    return found
