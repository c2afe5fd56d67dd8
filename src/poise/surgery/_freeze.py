"""Parameters and batch statistics that stay as they are."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, get_args

from torch import nn

from poise._errors import ConfigError
from poise.methods import Role
from poise.nn import BatchNorm, NormActDropout
from poise.surgery._edit import Edit, Edits, Undo, apply_edits, check_editable
from poise.surgery._roles import weights_of

What = str | type[nn.Module] | nn.Module
# Private in torch, and the only common base of what keeps running statistics there.
_BASE = nn.modules.batchnorm._NormBase
_NEAR = 3


class Frozen:
    """What `freeze` has frozen. As a context manager, it thaws at the end.

    Args:
        edits: That were applied.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> with freeze(model, "1") as frozen:
        ...     print(frozen.parameters, frozen.statistics)
        ('1.weight', '1.bias') ('1',)
    """

    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    @property
    def parameters(self) -> tuple[str, ...]:
        """Paths of the frozen parameters."""
        return tuple(path for edit in self._edits.edits if isinstance(edit, _Hold) for path in edit.paths)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Paths of the layers whose running statistics are frozen."""
        return tuple(edit.where for edit in self._edits.edits if isinstance(edit, _Still))

    def undo(self) -> None:
        """Thaw what was frozen: flags are as they were, and gradients begin anew."""
        self._edits.undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()

    def __str__(self) -> str:
        return self._edits.diff()


def freeze(model: nn.Module, what: What | Sequence[What]) -> Frozen:
    """Freeze parameters and batch statistics of `model`, so that they stay frozen through `model.train()`.

    Parameters get `requires_grad` False and lose their gradient, so that no optimizer moves them. Normalizations with
    running statistics behave as in eval mode whatever mode is set: `requires_grad` does not reach their statistics.
    Dropout and all else in a frozen part follow the modes as ever. A parameter that is shared is frozen everywhere.

    Args:
        model: Changed in place.
        what: What to freeze, or several of it: the path of a module or parameter ("encoder.layer1"); a pattern of paths
            ("encoder.*", "*.bias"); a module of the model; a type of modules; or a role, "kernel", "bias", "norm",
            "embedding" or "scale", where no path has that name; "norm" takes the statistics with it. With a module goes
            all that is in it. "" is the whole model.

    Returns:
        What was frozen; `str` lists it, `undo()` or leaving a `with` block thaws it.

    Raises:
        ConfigError: If something fits nothing in the model; near names are listed, and nothing was changed.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> print(freeze(model, ["0", "norm"]))
        0  holds weight, bias    asked for by '0'
        1  holds weight, bias    asked for by 'norm'
        1  keeps its statistics: eval mode    asked for by 'norm'
        >>> _ = model.train()(torch.randn(8, 2))
        >>> model[1].running_mean
        tensor([0., 0., 0.])

    Reference: the statistics that fine-tuning moves unseen are those of pytorch/pytorch#86590.
    """
    check_editable(model)
    chosen = [what] if isinstance(what, str | nn.Module | type) else list(what)
    if not chosen:
        raise ConfigError("`what` must name something to freeze, but it is empty.")
    edits: list[Edit] = []
    seen: set[tuple[str, str]] = set()
    for one in chosen:
        found = _found(model, one)
        if not found:
            raise ConfigError(f"`what` must fit something in the model, but {_shown(one)} does not.{_near(model, one)}")
        edits.extend(_edits(model, [place for place in found if place not in seen], f"asked for by {_shown(one)}"))
        seen.update(found)
    return Frozen(apply_edits(model, edits))


@dataclass(frozen=True)
class _Hold(Edit):
    """Takes parameters of a module out of training."""

    names: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(f"{self.where}.{name}".lstrip(".") for name in self.names)

    def apply(self, model: nn.Module) -> Undo:
        parameters = [model.get_parameter(path) for path in self.paths]
        before = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(False)
            # An optimizer moves what has a gradient, whether it requires one or not.
            parameter.grad = None

        def undo() -> None:
            for parameter, flag in zip(parameters, before, strict=True):
                parameter.requires_grad_(flag)

        return undo

    def line(self) -> str:
        return f"holds {', '.join(self.names)}"


@dataclass(frozen=True)
class _Still(Edit):
    """Keeps a normalization in eval mode."""

    kind: type[nn.Module]

    def apply(self, model: nn.Module) -> Undo:
        layer = model.get_submodule(self.where)
        mode = layer.training
        if isinstance(layer, BatchNorm):
            before, layer.frozen = layer.frozen, True
            layer.eval()

            def undo() -> None:
                layer.frozen = before
                layer.train(mode)

            return undo
        layer.eval()
        handle = layer.register_forward_pre_hook(_to_eval)

        def undo_hook() -> None:
            handle.remove()
            layer.train(mode)

        return undo_hook

    def line(self) -> str:
        also = ", without its dropout" if issubclass(self.kind, NormActDropout) else ""
        return f"keeps its statistics: eval mode{also}"


def is_frozen(layer: nn.Module) -> bool:
    """Whether a normalization keeps its statistics whatever mode is set."""
    return _to_eval in layer._forward_pre_hooks.values() or (isinstance(layer, BatchNorm) and layer.frozen)


def _to_eval(layer: nn.Module, _: Any) -> None:
    if layer.training:
        layer.eval()


def _found(model: nn.Module, what: What) -> list[tuple[str, str]]:
    """(path of a module, name of its parameter, or "" for its statistics) of all that `what` names."""
    if isinstance(what, nn.Module | type):
        paths = [path for path, one in model.named_modules() if one is what or _is_of(one, what)]
        return [place for path in paths for place in _within(model, path)]
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if what in modules:
        return _within(model, what)
    if what in parameters:
        return [_split(what)]
    matched = [place for path in modules if path and fnmatch.fnmatchcase(path, what) for place in _within(model, path)]
    matched += [_split(path) for path in parameters if fnmatch.fnmatchcase(path, what)]
    if not matched and what in get_args(Role):
        matched = [_split(path) for path, weight in weights_of(model).items() if weight.role == what]
        matched += [(path, "") for path, one in model.named_modules() if what == "norm" and _has_statistics(one)]
    return matched


def _within(model: nn.Module, path: str) -> list[tuple[str, str]]:
    module = model.get_submodule(path)
    places = [_split(f"{path}.{name}".lstrip(".")) for name, _ in module.named_parameters()]
    inner = ((f"{path}.{name}".strip("."), one) for name, one in module.named_modules())
    return places + [(name, "") for name, one in inner if _has_statistics(one)]


def _is_of(module: nn.Module, what: nn.Module | type[nn.Module]) -> bool:
    return isinstance(what, type) and isinstance(module, what)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BASE | BatchNorm | NormActDropout) and module.running_mean is not None


def _split(path: str) -> tuple[str, str]:
    module, _, name = path.rpartition(".")
    return module, name


def _edits(model: nn.Module, places: Sequence[tuple[str, str]], why: str) -> list[Edit]:
    names: dict[str, list[str]] = {}
    for path, name in dict.fromkeys(places):
        names.setdefault(path, []).append(name)
    edits: list[Edit] = []
    for path, found in names.items():
        held = tuple(name for name in found if name)
        edits.extend([_Hold(path, why, 0.0, held)] if held else [])
        edits.extend([_Still(path, why, 0.0, type(model.get_submodule(path)))] if "" in found else [])
    return edits


def _shown(what: What) -> str:
    if isinstance(what, nn.Module):
        return f"that {type(what).__name__}"
    return what.__name__ if isinstance(what, type) else repr(what)


def _near(model: nn.Module, what: What) -> str:
    if isinstance(what, str):
        paths = [name for name, _ in [*model.named_modules(), *model.named_parameters()] if name]
        names = difflib.get_close_matches(what, [*paths, *get_args(Role)], _NEAR, cutoff=0.4) or paths[:_NEAR]
        return f" Near: {', '.join(map(repr, names))}."
    if isinstance(what, type):
        kinds = sorted({type(one).__name__ for one in model.modules()})
        return f" It has: {', '.join(kinds)}."
    return " Give a module that is in the model."
