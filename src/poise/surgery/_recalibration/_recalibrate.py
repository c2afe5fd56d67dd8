"""Exact population statistics for batch normalization."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise._checks import check_type
from poise._errors import PoiseWarning
from poise.surgery._freeze import is_frozen
from poise.surgery._graph._call import Call, call_model
from poise.surgery._modes import modes
from poise.surgery._recalibration._feed import Feed, Mask, Seen, check_batches, is_single
from poise.surgery._recalibration._inner import eager, inner_model
from poise.surgery._recalibration._meter import Meter, label
from poise.surgery._recalibration._ranks import Ranks
from poise.surgery._recalibration._recalibration import LayerShift, Recalibration
from poise.surgery._recalibration._statistics import (
    BATCH_NORMS,
    BatchNormLayer,
    Reached,
    batch_norms,
    statistics_of,
    store,
)


@torch.no_grad()
def recalibrate(
    model: nn.Module, batches: Iterable[Any], *, call: Call | None = None, mask: Mask | None = None,
    sequential: bool = True, synchronize: bool = True,
) -> Recalibration:  # fmt: skip
    """Set every batch normalization to the mean and the population variance of its input over all rows.

        mean = Σ n_b · mean_b / n,    var = Σ n_b · (var_b + (mean_b - mean)²) / n

    over batches b of n_b values and n in all, in float64, so that a short last batch counts as what it is. The model
    runs in eval mode, with dropout off, as it will predict. Autocast around it holds; hooks, modes, parameters and
    torch's random state stay as they are. Statistics that were NaN are mended.

    Layer by layer (`sequential`), each layer is measured behind layers that have their final statistics: the result
    equals one pass of all rows at once. This takes a pass for the order and a partial pass for each layer. Otherwise
    one pass does all layers: behind layers that normalize each batch by its own statistics, as in training. That is
    the same for a single batch and close to it for large ones; it is the way for loaders that can be read only once,
    and for many layers. A layer that is called several times in a batch pools all calls; as it may feed itself,
    layer by layer goes on from the first such layer until nothing moves, 50 times at most.

    In a torch.distributed group every rank calls this with rows of its own, as many as it has; all get the same
    statistics, those of all rows.

    Args:
        model: Any torch model. Of one that is compiled, or wrapped for several devices, the model inside runs.
        batches: Over all rows, such as a list or a loader; a loader that draws anew at random each time, other than by
            torch's global generator, is better read once.
        call: Runs the model on a batch; None gives a dict by name, a list or tuple by position, as many entries as
            `forward` requires, and anything else as the only argument, on the model's device.
        mask: Which positions count, for padded batches: a function that makes a boolean tensor of a batch, or its key
            in the batch. Its axes are those of a layer's input without channels, or the first of them.
        sequential: Whether to go layer by layer.
        synchronize: Whether ranks pool their rows.

    Shape:
        What a layer is given: (N, C) or (N, C, ...). The mask: (N, ...).

    Returns:
        How far the old statistics of each layer were off, and which layers were left: frozen or never reached.

    Raises:
        ConfigError: If the model is scripted, lazy and not yet run, or on the meta device, or `batches` is one batch.
        DataError: If there is no batch, the model does not take one, `mask` does not fit, values are not finite, a
            layer has one value for each channel, or several passes are needed and cannot be had. The model is as it
            was then.

    Warns:
        PoiseWarning: If layers that feed themselves did not settle.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1))
        >>> rows = torch.tensor([[0.0], [2.0], [4.0]])
        >>> print(recalibrate(model, [rows[:2], rows[2:]]))
        layer  values  mean off by, std  old / new variance  largest factor
        1           3             1.225                0.38            2.67
        >>> model[1].running_mean.item(), round(model[1].running_var.item(), 4)
        (2.0, 2.6667)

    Reference: Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021 (precise BN). Li et al., "Understanding the
    disharmony between dropout and batch normalization by variance shift", CVPR 2019.
    """
    model = inner_model(model)
    check_type("sequential", sequential, bool)
    ranks = Ranks.of(synchronize=synchronize)
    in_turn = sequential and (ranks.number > 1 or not is_single(batches))
    check_batches(batches, passes=in_turn)
    layers, left = _layers(model)
    if not layers:
        return Recalibration((), left)
    feed = Feed(model, batches, call or call_model, mask, layers)
    with eager(model), modes(model, training=False), _kept_on_failure(list(layers)) as old:
        found = (_in_turn if in_turn else _at_once)(feed, ranks)
        if sequential and not in_turn and any(meter.calls > 1 for meter in found.values()):
            found = _in_turn(feed, ranks)
    shifts = tuple(
        LayerShift.between(label(meter.name, domain), meter.calls, moments, *old[layer, domain], eps=layer.eps)
        for layer, meter in found.items()
        for domain, moments in meter.totals.items()
    )
    left |= {name: "was never reached" for layer, name in layers.items() if layer not in found}
    return Recalibration(shifts, left)


_MOST_SWEEPS = 50
_LEAST_MOVE = 1e-9
_Meters = dict[BatchNormLayer, Meter]
_Statistics = dict[tuple[BatchNormLayer, int | None], tuple[Tensor, Tensor]]


def _at_once(feed: Feed, ranks: Ranks) -> _Meters:
    def measure() -> dict[str, Meter]:
        meters: _Meters = {}

        def see(layer: BatchNormLayer, seen: Seen) -> None:
            for domain, moments in meters.setdefault(layer, Meter(seen.name)).add(seen).items():
                # A single value has no variance: the batch before it normalizes it.
                if moments.count > 1:
                    store(layer, moments, domain)

        feed.run(list(feed.names), see)
        return {meter.name: meter.portable() for meter in meters.values()}

    pooled: dict[str, Meter] = {}
    for found in ranks.together(measure):
        for name, meter in found.items():
            pooled[name] = pooled[name].pooled(meter) if name in pooled else meter
    layer_of = {name: layer for layer, name in feed.names.items()}
    meters = {layer_of[name]: meter for name, meter in pooled.items()}
    for layer, meter in meters.items():
        meter.settle(layer)
    return meters


def _in_turn(feed: Feed, ranks: Ranks) -> _Meters:
    visits: dict[str, tuple[int, int]] = {}
    for found in ranks.together(lambda: _visits(feed)):
        for name, (place, calls) in found.items():
            place_before, calls_before = visits.get(name, (0, 0))
            visits[name] = (max(place, place_before), max(calls, calls_before))
    layer_of = {name: layer for layer, name in feed.names.items()}
    order = [(layer_of[name], visits[name][1]) for name in sorted(visits, key=lambda one: visits[one])]
    meters: _Meters = {}
    for layer, calls in order:
        meters[layer] = _settled(feed, layer, ranks, once=calls == 1)
    # What is called several times may be fed by itself, or by what comes after its first call.
    first = next((place for place, (_, calls) in enumerate(order) if calls > 1), len(order))
    for _ in range(_MOST_SWEEPS if order[first:] else 0):
        moved = False
        for layer, calls in order[first:]:
            before = [buffer.clone() for buffer in statistics_of(layer)]
            meters[layer] = _settled(feed, layer, ranks, once=calls == 1)
            moved |= _is_moved(before, statistics_of(layer))
        if not moved:
            break
    else:
        _warn_of_moving([meters[layer].name for layer, _ in order[first:]])
    return meters


def _warn_of_moving(names: Sequence[str]) -> None:
    if names:
        warnings.warn(
            f"Statistics of {', '.join(names)} still moved after {_MOST_SWEEPS} sweeps: a layer that is called several "
            "times feeds itself. They are close to what they would become, and not exact.",
            PoiseWarning, stacklevel=4,
        )  # fmt: skip


def _settled(feed: Feed, layer: BatchNormLayer, ranks: Ranks, *, once: bool) -> Meter:
    """Measure a layer on all ranks, and store what was found."""
    parts = ranks.together(lambda: _measure(feed, layer, once=once))
    meter = parts[0]
    for part in parts[1:]:
        meter = meter.pooled(part)
    meter.settle(layer)
    return meter


def _is_moved(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether mean or variance changed by more than rounding, in units of the standard deviation and variance."""
    (old_mean, old_var), (mean, var) = before, after
    bound = max(_LEAST_MOVE, 8 * torch.finfo(mean.dtype).eps)
    return bool(((mean - old_mean).abs() > bound * var.sqrt()).any() or ((var - old_var).abs() > bound * var).any())


def _visits(feed: Feed) -> dict[str, tuple[int, int]]:
    """Of each layer that is reached, its latest place in the order of a batch and its most calls in one."""
    visits: dict[str, tuple[int, int]] = {}
    now: tuple[int, dict[str, int]] = (-1, {})

    def see(_: BatchNormLayer, seen: Seen) -> None:
        nonlocal now
        if now[0] != seen.batch:
            now = (seen.batch, {})
        calls = now[1]
        calls[seen.name] = calls.get(seen.name, 0) + 1
        place, most = visits.get(seen.name, (0, 0))
        visits[seen.name] = (max(place, list(calls).index(seen.name)), max(most, calls[seen.name]))

    feed.run(list(feed.names), see)
    return visits


def _measure(feed: Feed, layer: BatchNormLayer, *, once: bool) -> Meter:
    meter = Meter(feed.names[layer])

    def see(_: BatchNormLayer, seen: Seen) -> None:
        meter.add(seen)
        if once:
            raise Reached

    feed.run([layer], see)
    return meter.portable()


def _layers(model: nn.Module) -> tuple[dict[BatchNormLayer, str], dict[str, str]]:
    """Paths of the layers to measure, and of the others with the reason."""
    measured, left = batch_norms(model), {}
    names = {module: name for name, module in model.named_modules()}
    for layer, name in names.items():
        if not isinstance(layer, BATCH_NORMS):
            continue
        if is_frozen(layer):
            left[name] = "is frozen"
        elif layer not in measured:
            left[name] = "keeps no running statistics"
    return {layer: names[layer] for layer in measured if names[layer] not in left}, left


@contextmanager
def _kept_on_failure(layers: Sequence[BatchNormLayer]) -> Iterator[_Statistics]:
    """Statistics as they are, by layer and domain, which are restored if it fails."""
    old: _Statistics = {}
    for layer in layers:
        mean, var = (buffer.clone() for buffer in statistics_of(layer))
        old[layer, None] = mean, var
        if mean.ndim == 2:
            old |= {(layer, domain): (mean[domain], var[domain]) for domain in range(len(mean))}
    try:
        yield old
    except BaseException:
        for layer in layers:
            for buffer, value in zip(statistics_of(layer), old[layer, None], strict=True):
                buffer.copy_(value)
        raise
