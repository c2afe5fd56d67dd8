"""Whatever fails in the middle of a change, the model is as it was before."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

import poise
from poise.methods import BatchNorm, Dropout, DropPath, LayerNorm
from poise.surgery._edit import Edit, eval_outputs
from tests.contract._zoo import ROWS, Entry, accelerate_at_any_size, rows
from tests.contract._zoo_all import ZOO
from tests.contract._zoo_snapshot import Snapshot

# A few of each family, with much to change.
_NAMES = (
    *("mlp-norm", "wide-resnet", "unet", "parametrized", "two-names", "torch-encoder-pre", "resnet", "segformer"),
    *("bert", "gpt2", "t5", "wav2vec2-conformer"),
)
_ENTRIES = tuple(one for one in ZOO if one.name in _NAMES)
_BATCH = poise.Recipe(methods=(Dropout(p=0.2), BatchNorm(), DropPath(p=0.1)))
_LAYER = poise.Recipe(methods=(Dropout(p=0.2), LayerNorm(), DropPath(p=0.1)))

Change = Callable[[nn.Module, Any], object]
_CHANGES: dict[str, Change] = {
    "apply": lambda model, example: poise.apply(_BATCH, model, example=example),
    "apply-layer-norm": lambda model, example: poise.apply(_LAYER, model, example=example),
    "accelerate": lambda model, example: poise.accelerate(model, example=example),
    "convert": lambda model, example: poise.convert_batch_norm(model, example=example),
    "freeze": lambda model, _: poise.freeze(model, ""),
    "fold": poise.fold,
    "recalibrate": lambda model, example: poise.recalibrate(model, [rows(example, 0, 4), rows(example, 4, ROWS)]),
}

some_models = pytest.mark.parametrize("entry", _ENTRIES, ids=[one.name for one in _ENTRIES])


class Injected(Exception):
    """What no code of Poise, torch or transformers raises."""


class Fuse:
    """Counts calls, and fails at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, counted."""

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.at == self.count:
                raise Injected
            return function(*args, **kwargs)

        return counted


def test_the_models_are_there() -> None:
    assert len(_ENTRIES) == len(_NAMES)


@some_models
@pytest.mark.parametrize("change", ["apply", "apply-layer-norm", "accelerate", "convert", "freeze"])
def test_an_edit_that_fails(entry: Entry, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(one, "apply") for one in _subclasses(Edit) if "apply" in vars(one)]
    number = _check(entry, _CHANGES[change], places, monkeypatch)
    assert number or not _changes(change, entry.build())


@some_models
@pytest.mark.parametrize("change", ["apply", "apply-layer-norm", "accelerate", "convert", "fold", "recalibrate"])
def test_a_pass_that_fails(entry: Entry, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(entry.build())
    number = _check(entry, _CHANGES[change], [(kind, "forward")], monkeypatch)
    assert number or not _changes(change, entry.build())


def _check(entry: Entry, change: Change, places: list[tuple[type, str]], monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the first, second, middle and last call of `places` fail, of the number that is returned."""
    accelerate_at_any_size(monkeypatch)
    whole = Fuse(None)
    _run(change, entry.build(), entry.example(), places, whole, monkeypatch)
    number = whole.count
    model, example = entry.build(), entry.example()
    eval_outputs(model, example)  # transformers puts hooks of its own into a model that runs for the first time
    snapshot = Snapshot.of(model)
    for at in sorted({1, 2, (number + 1) // 2, number} & set(range(1, number + 1))):
        fuse = Fuse(at)
        try:
            made = _run(change, model, example, places, fuse, monkeypatch)
        except (Injected, poise.PoiseError) as error:
            assert isinstance(error, Injected) or isinstance(error.__cause__, Injected)
        else:
            # The comparison in float64, on a copy: what fails in it is compared in the model's own precision.
            assert change is _CHANGES["accelerate"] and fuse.count > at
            made.undo()
        snapshot.assert_same(model)
    return number


def _changes(change: str, model: nn.Module) -> bool:
    kinds = {
        "accelerate": (nn.Dropout,),
        "convert": (nn.modules.batchnorm._BatchNorm,),
        "recalibrate": (nn.modules.batchnorm._BatchNorm,),
    }
    return change not in kinds or any(isinstance(one, kinds[change]) for one in model.modules())


def _run(
    change: Change, model: nn.Module, example: Any, places: list[tuple[type, str]], fuse: Fuse,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:  # fmt: skip
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[A-Za-z]+ found no place", poise.PoiseWarning)
        for kind, name in places:
            patch.setattr(kind, name, fuse.wrap(getattr(kind, name)))
        try:
            return change(model, example)
        except poise.ConfigError:  # no batch normalization to convert
            if fuse.at is not None:
                raise
            return None


def _subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)
