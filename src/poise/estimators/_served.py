"""What predicts, as tensors and plain data: one network, or an ensemble whose members share their encoders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from poise._errors import BundleError
from poise.ensemble import Average
from poise.recipe import from_toml, to_toml
from poise.train import Predictor, State, Task, to_json

_SERVED = ("served", "served_statistics")
Tensors = dict[str, Tensor]


def pack(predictor: Predictor | Average) -> tuple[Tensors, dict[str, Any]]:
    """Tensors, and plain data for JSON, from which `unpack` makes what predicts the same."""
    members = predictor.members if isinstance(predictor, Average) else (predictor,)
    weights = predictor.weights if isinstance(predictor, Average) else (1.0,)
    tensors: Tensors = {}
    encoders: list[dict[str, Any]] = []
    networks = []
    for index, member in enumerate(members):
        if not isinstance(member, Predictor):
            raise BundleError(f"A bundle holds networks, but member {index} is a {type(member).__name__}.")
        tensors |= {f"network{index}.{name}": member.state.tensors[name] for name in _SERVED}
        networks.append(
            {
                "recipe": to_toml(member.recipe),
                "encoder": _keep_encoder(member.state, tensors, encoders),
                "target_mean": member.state.target_mean,
                "target_scale": member.state.target_scale,
            }
        )
    return tensors, {"weights": list(weights), "networks": networks, "encoders": encoders}


def unpack(tensors: Tensors, plain: dict[str, Any], task: Task) -> Predictor | Average:
    """What `pack` packed."""
    networks = [_network(index, one, tensors, plain, task) for index, one in enumerate(plain["networks"])]
    return networks[0] if len(networks) == 1 else Average(networks, plain["weights"])


def _keep_encoder(state: State, tensors: Tensors, encoders: list[dict[str, Any]]) -> int:
    """The number of the encoder of `state` among those kept; it is added if no equal one is there."""
    own, data = state.encoder_state()
    for index, found in enumerate(encoders):
        names = {name for name in tensors if name.startswith(f"encoder{index}.")}
        if (
            to_json(found) == to_json(data)
            and names == {f"encoder{index}.{name}" for name in own}
            and all(_same(tensors[f"encoder{index}.{name}"], tensor) for name, tensor in own.items())
        ):
            return index
    encoders.append(data)
    tensors |= {f"encoder{len(encoders) - 1}.{name}": tensor for name, tensor in own.items()}
    return len(encoders) - 1


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


def _network(index: int, one: dict[str, Any], tensors: Tensors, plain: dict[str, Any], task: Task) -> Predictor:
    mark = f"encoder{one['encoder']}."
    own = {f"encoder.{name[len(mark) :]}": tensor for name, tensor in tensors.items() if name.startswith(mark)}
    own |= {name: tensors[f"network{index}.{name}"] for name in _SERVED}
    state = State(own, plain["encoders"][one["encoder"]], one["target_mean"], one["target_scale"])
    return Predictor(from_toml(one["recipe"]), task, state)
