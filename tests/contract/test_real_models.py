"""Each function that changes or reads a model, on each architecture of the zoo."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import poise
from poise.methods import BatchNorm, Dropout, DropPath, LayerNorm, MaxNorm, WeightDecay
from poise.surgery._call import call_model, tensors_of
from poise.surgery._edit import eval_outputs
from tests.contract._zoo import ROWS, Entry, is_real, rows
from tests.contract._zoo_all import ZOO
from tests.contract._zoo_snapshot import Snapshot

_OPTIMIZED = (WeightDecay(weight_decay=0.05), MaxNorm(max_norm=2.0))
_BATCH = poise.Recipe(methods=(Dropout(p=0.2), BatchNorm(), DropPath(p=0.1), *_OPTIMIZED))
_LAYER = poise.Recipe(methods=(Dropout(p=0.2), LayerNorm(), DropPath(p=0.1), *_OPTIMIZED))
_FOLD = {torch.float32: 1e-5, torch.float64: 1e-12}
_Norms = nn.modules.batchnorm._BatchNorm

every_model = pytest.mark.parametrize("entry", ZOO, ids=[one.name for one in ZOO])


@every_model
def test_apply_and_undo(entry: Entry) -> None:
    _check_apply(entry, "apply", _BATCH, bound=1e-5)


@every_model
def test_apply_layer_norm_and_undo(entry: Entry) -> None:
    _check_apply(entry, "layer_norm", _LAYER, bound=math.inf)


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_fold(entry: Entry, dtype: torch.dtype) -> None:
    model, example = entry.build(dtype), entry.example(dtype)
    before, snapshot = eval_outputs(model, example), Snapshot.of(model)
    with _refusal(entry, "fold"):
        folded = poise.fold(model, example)
        assert _difference(before, eval_outputs(folded, example)) <= _FOLD[dtype]
        # Other rows than those that it was verified on.
        other = rows(example, 1, 4)
        assert _difference(eval_outputs(model, other), eval_outputs(folded, other)) <= _FOLD[dtype]
        assert not any(isinstance(one, nn.Dropout) for one in folded.modules())
    snapshot.assert_same(model)


@every_model
def test_recalibrate(entry: Entry) -> None:
    model, example = entry.build(torch.float64), entry.example(torch.float64)
    exact = entry.build(torch.float64)
    expected = _statistics_of_all_rows(exact, example)
    flags = [one.training for one in model.modules()]
    with _refusal(entry, "recalibrate"):
        report = poise.recalibrate(model, [rows(example, 0, 4), rows(example, 4, ROWS)])
        assert {one.path for one in report.layers} == set(expected)
        for path, (mean, var) in expected.items():
            norm = model.get_submodule(path)
            torch.testing.assert_close(norm.running_mean, mean, rtol=1e-6, atol=1e-6 * float(var.max().sqrt()))
            torch.testing.assert_close(norm.running_var, var, rtol=1e-6, atol=1e-6 * float(var.max()))
        assert _difference(eval_outputs(exact, example), eval_outputs(model, example)) <= 1e-6
        unreached = {name for name, one in model.named_modules() if isinstance(one, _Norms)} - set(expected)
        assert set(report.left) == unreached
    assert flags == [one.training for one in model.modules()]


def _check_apply(entry: Entry, function: str, recipe: poise.Recipe, *, bound: float) -> None:
    model, example = entry.build(), entry.example()
    before, snapshot = eval_outputs(model, example), Snapshot.of(model)
    with _refusal(entry, function):
        regimen = _apply(recipe, model, example)
        assert _difference(before, eval_outputs(model, example)) <= bound
        regimen.undo()
        snapshot.assert_same(model)
        _assert_equal(before, eval_outputs(model, example))

        regimen = _apply(recipe, model, example)
        assert regimen.diff()
        _check_groups(model, regimen.param_groups(lr=0.01))
        _check_groups(model, poise.decay_groups(model, 0.01))
        _train_a_step(model, regimen, example)
        regimen.undo()
        snapshot.assert_structure(model)
        return
    snapshot.assert_same(model)


def _apply(recipe: poise.Recipe, model: nn.Module, example: Any) -> poise.Regimen:
    with warnings.catch_warnings():
        # Many models have no place for one of the methods, which is what the warning is for.
        warnings.filterwarnings("ignore", "[A-Za-z]+ found no place", poise.PoiseWarning)
        return poise.apply(recipe, model, example=example)


def _check_groups(model: nn.Module, groups: Iterable[dict[str, Any]]) -> None:
    grouped = [id(one) for group in groups for one in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(one) for one in model.parameters() if one.requires_grad}


def _train_a_step(model: nn.Module, regimen: poise.Regimen, example: Any) -> None:
    optimizer = torch.optim.AdamW(regimen.param_groups(lr=0.01))
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        outputs = [one for one in tensors_of(call_model(model, example)) if is_real(one)]
        loss = sum((one.square().mean() for one in outputs), torch.zeros(())) + regimen.penalty()
    loss.backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert gradients and all(bool(one.isfinite().all()) for one in gradients)
    before = [one.detach().clone() for one in model.parameters()]
    regimen.step(optimizer)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert all(bool(one.isfinite().all()) for one in tensors_of(model.state_dict()) if is_real(one))


@torch.no_grad()
def _statistics_of_all_rows(model: nn.Module, example: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """By plain means: each layer gets the statistics of what one eval-mode pass over all rows gives it, and uses them.

    What is called several times gets those of all its calls, by passes enough for nothing to move.
    """
    names = {one: name for name, one in model.named_modules() if isinstance(one, _Norms)}
    given: dict[nn.Module, list[Tensor]] = {}
    several: set[nn.Module] = set()

    def see(norm: nn.Module, args: Any) -> None:
        given.setdefault(norm, []).append(args[0].transpose(0, 1).flatten(1))
        if norm not in several:
            norm.running_mean.copy_(given[norm][0].mean(1))
            norm.running_var.copy_(given[norm][0].var(1, correction=0))

    handles = [norm.register_forward_pre_hook(see) for norm in names]
    eval_outputs(model, example)
    several = {norm for norm, inputs in given.items() if len(inputs) > 1}
    for _ in range(60 if several else 0):
        given.clear()
        eval_outputs(model, example)
        for norm in several:
            pooled = torch.cat(given[norm], 1)
            norm.running_mean.copy_(pooled.mean(1))
            norm.running_var.copy_(pooled.var(1, correction=0))
    for handle in handles:
        handle.remove()
    return {names[norm]: (norm.running_mean.clone(), norm.running_var.clone()) for norm in given}


@contextmanager
def _refusal(entry: Entry, function: str) -> Iterator[None]:
    """What is said to be refused must be, with an error of Poise that says where; all else must work."""
    if function not in entry.refused:
        yield
        return
    with pytest.raises(poise.PoiseError, match=entry.refused[function]) as caught:
        yield
    assert caught.value.repair


def _difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Largest difference relative to the largest magnitude of the same tensor."""
    assert [one.shape for one in before] == [one.shape for one in after]
    pairs = [(old.double(), new.double()) for old, new in zip(before, after, strict=True) if is_real(old)]
    assert pairs
    return max(float((old - new).abs().max() / old.abs().max()) for old, new in pairs)


def _assert_equal(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    assert len(before) == len(after)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
