"""Predictions with their spread over dropout masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_choice, check_integer
from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.ensemble._chain import chain_of
from poise.ensemble._flag_probe import drawing_by_flag
from poise.ensemble._mc_dropout import check_samplable, mc_dropout
from poise.ensemble._prediction import Gathered, Kind, MCPrediction
from poise.ensemble._prefix import Prefix
from poise.ensemble._sources import cuda_devices, flag_readers, is_source
from poise.ensemble._subnetworks import SubNetworks
from poise.surgery._graph._call import call_model, tensors_of
from poise.surgery._modes import modes

_NUMBERS = 1 << 24  # outputs that are kept at a time


@torch.no_grad()
def predict_mc(
    model: nn.Module, x: Any, *, samples: int = 50, seed: int = 0, kind: Kind = "regression", class_dim: int = -1,
    mask: Literal["auto", "shared", "rows"] = "auto", output: Callable[[Any], Tensor] | None = None,
) -> MCPrediction:  # fmt: skip
    """Mean and spread of predictions over dropout masks: mean = Σ_s ŷ_s / S, variance = Σ_s (ŷ_s - mean)² / (S - 1).

    ŷ_s is the output of pass s of S under `mc_dropout`, or its class probabilities. What comes before the first random
    number runs once. Where the rest is a chain of linear layers, dropout and functions of single features, all rows of
    a pass share a mask with mask="auto": a pass is then a network of the kept units alone, at (1 - p)² of the cost. The
    law of each row's prediction is the same as with a mask for each row; only the rows of one pass depend on each
    other, so a mean over rows is less sure than independent masks would make it. There p is rounded to a multiple of
    2^-16.
    Where the chain is one dropout and one linear layer, and `kind` is "regression", mean and variance are computed in
    closed form without any pass. Random state, modes, buffers and Poise's layers are left as they were.

    Args:
        model: On any device, in any mode.
        x: A batch: a tensor, or what the model is called with, as a dict by name or a tuple by position.
        samples: S, ≥ 2.
        seed: Names the masks, in [0, 2^63).
        kind: "regression" for outputs as they are; "classification" for logits, of which the softmax over `class_dim`
            is averaged, or the sigmoid where that axis has size 1.
        class_dim: Axis of the classes in the output.
        mask: "auto"; "shared" to insist on one mask a pass for all rows; "rows" for masks as the model itself draws
            them, without shortcut but for the part before the first draw.
        output: Picks the tensor out of what the model returns; needed where that holds several.

    Raises:
        ConfigError: If a setting is out of range; if nothing in the model draws; if mask="shared" and the model is no
            such chain; if the model is compiled, scripted, wrapped, on the meta device or not yet initialized.
        DataError: If predictions are not finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 2))
        >>> found = predict_mc(model, torch.ones(5, 3), kind="classification", samples=20)
        >>> found.mean.shape, found.mutual_information.shape, found.mask
        (torch.Size([5, 2]), torch.Size([5]), 'shared')
        >>> predict_mc(model, torch.ones(5, 3)).mask
        'exact'

    Reference: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """
    _check(model, samples, seed, kind, mask)
    chain = None
    if isinstance(x, Tensor) and mask != "rows" and output is None:
        chain = _chain(model, x, seed)
    if mask == "shared" and chain is None:
        raise ConfigError(
            "mask='shared' needs a chain of linear layers and dropout from the first draw on, and "
            f"{type(model).__name__} is none.",
            repair="Give mask='auto'.",
        )
    found = None
    if chain is not None and kind == "regression" and mask == "auto":
        found = _exact(chain)
    if found is None:
        found = _sampled(model, x, chain, samples, seed, Gathered(kind, class_dim), output)
    if not bool(found.mean.isfinite().all()):
        raise DataError(
            "Predictions are not finite.", repair="Look for NaN or infinity in the batch and in the model's weights."
        )
    return found


def _check(model: nn.Module, samples: int, seed: int, kind: str, mask: str) -> None:
    check_integer("samples", samples, Interval(2))
    check_integer("seed", seed, Interval(0, 2**63, high_open=True))
    check_choice("kind", kind, ("regression", "classification"))
    check_choice("mask", mask, ("auto", "shared", "rows"))
    check_samplable(model)
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(one) or one.device.type == "meta":
            raise ConfigError(
                "It holds no numbers yet.",
                where=f"parameter {name!r}",
                repair="Load weights, or move the model off the meta device with `to_empty` and initialize it.",
            )


def _chain(model: nn.Module, x: Tensor, seed: int) -> SubNetworks | None:
    first = next(model.parameters(), x)
    x = x.to(first.device)
    with modes(model, training=False):
        readers = flag_readers(model)
        # What draws by a module's own flag leaves no trace in the recorded run.
        if readers and drawing_by_flag(model, readers, lambda: model(x[:1])):
            return None
        chain = chain_of(model, x)
        return None if chain is None else SubNetworks(chain, x, Key(seed).stream("mc_dropout"))


def _exact(chain: SubNetworks) -> MCPrediction | None:
    found = chain.exact()
    return None if found is None else MCPrediction(*found, torch.zeros_like(found[1]), None, None, 0, "exact")


def _sampled(
    model: nn.Module, x: Any, chain: SubNetworks | None, samples: int, seed: int, gathered: Gathered,
    output: Callable[[Any], Tensor] | None,
) -> MCPrediction:  # fmt: skip
    if chain is None:
        for part in _in_parts(_passes(model, x, samples, seed, output)):
            gathered.add(part)
        return gathered.prediction("rows")
    done = 0
    while done < samples:
        more = min(samples, done + max(2, _NUMBERS // max(1, chain.num_outputs)))
        gathered.add(chain.outputs(done, more))
        done = more
    return gathered.prediction("shared")


def _passes(
    model: nn.Module, x: Any, samples: int, seed: int, output: Callable[[Any], Tensor] | None
) -> Iterator[Tensor]:
    prefix = Prefix([module for module in model.modules() if is_source(module)])
    with _seeded(model, seed), mc_dropout(model):
        # Under `mc_dropout` the first call may be several, if flags have to be tried.
        first = 1 if flag_readers(model) else 0
        for _ in range(first):
            yield _only(call_model(model, x), output)
        for _ in range(samples - first):
            with prefix.one_pass():
                made = call_model(model, x)
            yield _only(made, output)


def _in_parts(passes: Iterator[Tensor]) -> Iterator[Tensor]:
    part: list[Tensor] = []
    for one in passes:
        part.append(one)
        if len(part) * one.numel() >= _NUMBERS:
            yield torch.stack(part)
            part = []
    if part:
        yield torch.stack(part)


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """torch's random state of the model's devices from `seed`; afterwards it is what it was."""
    devices = cuda_devices(model)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _only(made: Any, output: Callable[[Any], Tensor] | None) -> Tensor:
    found = tensors_of(made if output is None else output(made))
    if len(found) != 1 or not found[0].is_floating_point():
        kinds = ", ".join(f"{one.dtype} {tuple(one.shape)}" for one in found) or "no tensor"
        raise ConfigError(
            f"A prediction must be one tensor of floating-point numbers, but the model returns {kinds}.",
            repair="Give output=lambda made: ... that picks it, such as made.logits.",
        )
    return found[0].detach().clone()
