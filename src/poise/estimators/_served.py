"""What predicts, as tensors and plain data: a network, or an ensemble whose networks share their encoders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from poise._errors import BundleError
from poise.ensemble import Average, Boosted, Predicts, Stage
from poise.recipe import from_toml, to_toml
from poise.train import Predictor, Regression, State, Task, to_json

_SERVED = ("served", "served_statistics")
Tensors = dict[str, Tensor]
Plain = dict[str, Any]


def pack(predictor: Predicts) -> tuple[Tensors, Plain]:
    """Tensors, and plain data for JSON, from which `unpack` makes what predicts the same.

    Raises:
        BundleError: If it is of a kind that no bundle holds.
    """
    packing = _Packing()
    root = packing.add(predictor)
    return packing.tensors, {"root": root, "networks": packing.networks, "encoders": packing.encoders}


def unpack(tensors: Tensors, plain: Plain, task: Task) -> Predicts:
    """What `pack` packed."""
    networks = [_network(index, one, tensors, plain["encoders"], task) for index, one in enumerate(plain["networks"])]
    return _rebuilt(plain["root"], networks, task)


class _Packing:
    """Networks and encoders by number; what stands above them refers to these."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self.networks: list[Plain] = []
        self.encoders: list[Plain] = []

    def add(self, predictor: Predicts) -> Plain:
        if isinstance(predictor, Predictor):
            return {"kind": "network", "network": self._add_network(predictor)}
        if isinstance(predictor, Average):
            members = [self.add(member) for member in predictor.members]
            return {"kind": "average", "weights": list(predictor.weights), "members": members}
        if isinstance(predictor, Boosted):
            return {
                "kind": "boosted",
                "base": list(predictor.base),
                "steps": [stage.step for stage in predictor.stages],
                "losses": [[stage.train_loss, stage.val_loss] for stage in predictor.stages],
                "networks": [self._add_network(one) for stage in predictor.stages for one in stage.networks],
                "target_mean": predictor.target_mean,
                "target_scale": predictor.target_scale,
            }
        raise BundleError(f"A bundle holds networks and their averages and sums, but no {type(predictor).__name__}.")

    def _add_network(self, network: Predictor) -> int:
        index = len(self.networks)
        self.tensors |= {f"network{index}.{name}": network.state.tensors[name] for name in _SERVED}
        self.networks.append(
            {
                "recipe": to_toml(network.recipe),
                "task": network.task.kind,
                "encoder": self._add_encoder(network.state),
                "target_mean": network.state.target_mean,
                "target_scale": network.state.target_scale,
            }
        )
        return index

    def _add_encoder(self, state: State) -> int:
        own, data = state.encoder_state()
        for index, found in enumerate(self.encoders):
            mark = f"encoder{index}."
            there = {name.removeprefix(mark): one for name, one in self.tensors.items() if name.startswith(mark)}
            if to_json(found) == to_json(data) and _same(there, own):
                return index
        self.encoders.append(data)
        self.tensors |= {f"encoder{len(self.encoders) - 1}.{name}": tensor for name, tensor in own.items()}
        return len(self.encoders) - 1


def _same(some: Tensors, others: Tensors) -> bool:
    if some.keys() != others.keys():
        return False
    pairs = [(one, others[name]) for name, one in some.items()]
    return all(one.shape == other.shape and bool((one == other).all()) for one, other in pairs)


def _network(index: int, one: Plain, tensors: Tensors, encoders: list[Plain], task: Task) -> Predictor:
    mark = f"encoder{one['encoder']}."
    own = {f"encoder.{name.removeprefix(mark)}": tensor for name, tensor in tensors.items() if name.startswith(mark)}
    own |= {name: tensors[f"network{index}.{name}"] for name in _SERVED}
    state = State(own, encoders[one["encoder"]], one["target_mean"], one["target_scale"])
    # Rounds of boosting are regressions, whatever the whole predicts.
    return Predictor(from_toml(one["recipe"]), task if one["task"] == task.kind else Regression(), state)


def _rebuilt(node: Plain, networks: list[Predictor], task: Task) -> Predicts:
    if node["kind"] == "network":
        return networks[node["network"]]
    if node["kind"] == "average":
        return Average([_rebuilt(one, networks, task) for one in node["members"]], node["weights"])
    if node["kind"] != "boosted":
        raise BundleError(f"Unknown kind {node['kind']!r}.", repair="Update Poise.")
    width, numbers = task.num_outputs, node["networks"]
    rounds = [tuple(networks[one] for one in numbers[at : at + width]) for at in range(0, len(numbers), width)]
    told = zip(rounds, node["steps"], node["losses"], strict=True)
    stages = [Stage(some, step, train_loss, val_loss) for some, step, (train_loss, val_loss) in told]
    return Boosted(task, node["base"], stages, target_mean=node["target_mean"], target_scale=node["target_scale"])
