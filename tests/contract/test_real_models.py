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
from poise.surgery._edit import eval_outputs
from poise.surgery._graph._call import call_model, tensors_of
from tests.contract._zoo import ROWS, Entry, accelerate_at_any_size, is_real, rows
from tests.contract._zoo_all import ZOO
from tests.contract._zoo_snapshot import Snapshot

_OPTIMIZED = (WeightDecay(weight_decay=0.05), MaxNorm(max_norm=2.0))
_BATCH = poise.Recipe(methods=(Dropout(p=0.2), BatchNorm(), DropPath(p=0.1), *_OPTIMIZED))
_LAYER = poise.Recipe(methods=(Dropout(p=0.2), LayerNorm(), DropPath(p=0.1), *_OPTIMIZED))
_FOLD = {torch.float32: 1e-5, torch.float64: 1e-12}
_Norms = nn.modules.batchnorm._BatchNorm

every_model = pytest.mark.parametrize("entry", ZOO, ids=[one.name for one in ZOO])


@every_model
def test_outputs_depend_on_the_rows(entry: Entry) -> None:
    first = next(one for one in eval_outputs(entry.build(), entry.example()) if is_real(one))
    assert float(first.std(0).max()) > 1e-3 * float(first.abs().max())  # a hundred times what folding may change


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
        call_model(model, example)  # with gradients, as right after a training
        model.load_state_dict(snapshot.numbers)
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


@every_model
def test_accelerate_and_undo(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate_at_any_size(monkeypatch)
    model, example = entry.build(), entry.example()
    before, snapshot = eval_outputs(model, example), Snapshot.of(model)
    with _refusal(entry, "accelerate"):
        call_model(model, example)  # with gradients, as right after a training
        model.load_state_dict(snapshot.numbers)
        edits = poise.accelerate(model, example=example)
        snapshot.assert_numbers(model)
        assert _difference(before, eval_outputs(model, example)) <= 1e-5
        _check_groups(model, poise.decay_groups(model, 0.01))
        _loss_with_gradients(model, example)
        learned = {name: value.clone() for name, value in model.state_dict().items()}
        edits.undo()
        snapshot.assert_structure(model)
        assert all(torch.equal(value, learned[name]) for name, value in model.state_dict().items())
        model.load_state_dict(snapshot.numbers)
        _assert_equal(before, eval_outputs(model, example))
        return
    snapshot.assert_same(model)


@every_model
def test_freeze_and_undo(entry: Entry) -> None:
    model, example = entry.build(), entry.example()
    before, snapshot = eval_outputs(model, example), Snapshot.of(model)
    flags = [one.requires_grad for one in model.parameters()]
    with _refusal(entry, "freeze"):
        with poise.freeze(model, "") as frozen:
            assert not any(one.requires_grad for one in model.parameters())
            norms = {name for name, one in model.named_modules() if isinstance(one, nn.modules.batchnorm._NormBase)}
            assert {name for name in norms if model.get_submodule(name).running_mean is not None} == set(
                frozen.statistics
            )
            call_model(model.train(), example)
            held = {*dict(model.named_parameters()), *(f"{one}.running_mean" for one in frozen.statistics)}
            held |= {f"{one}.{name}" for one in frozen.statistics for name in ("running_var", "num_batches_tracked")}
            now = model.state_dict()
            assert all(torch.equal(now[name], snapshot.numbers[name]) for name in held & set(now))
            model.load_state_dict(snapshot.numbers)
            # torch may choose another kernel where no gradient is asked for: rounding, and no more.
            assert _difference(before, eval_outputs(model, example)) <= 1e-6
        assert flags == [one.requires_grad for one in model.parameters()]
    snapshot.assert_same(model)
    _assert_equal(before, eval_outputs(model, example))


@every_model
def test_convert_batch_norm_and_back(entry: Entry) -> None:
    model, example = entry.build(torch.float64), entry.example(torch.float64)
    before, snapshot = eval_outputs(model, example), Snapshot.of(model)
    if not any(isinstance(one, _Norms) for one in model.modules()):
        with pytest.raises(poise.ConfigError, match="batch normalization"):
            poise.convert_batch_norm(model)
        snapshot.assert_same(model)
        return
    edits = poise.convert_batch_norm(model, example=example)
    assert not any(isinstance(one, _Norms) for one in model.modules())
    snapshot.assert_numbers(model)
    assert _difference(before, eval_outputs(model, example)) <= 1e-12
    edits.undo()
    snapshot.assert_same(model)

    poise.convert_batch_norm(model)
    trained = entry.build(torch.float64)
    for one in (model, trained):
        _loss_with_gradients(one, example)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-9)
    kinds = {name: type(one) for name, one in trained.named_modules() if isinstance(one, _Norms)}
    kept = {edit.where for edit in poise.restore_batch_norm(model, example).edits if "not reach" in edit.why}
    for name, kind in kinds.items():
        assert name in kept or type(model.get_submodule(name)) is kind, name
    assert len(kept) < len(kinds)
    assert list(model.state_dict()) == list(trained.state_dict())
    assert _difference(eval_outputs(trained, example), eval_outputs(model, example)) <= 1e-9


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
    _loss_with_gradients(model, example)
    before = [one.detach().clone() for one in model.parameters()]
    regimen.step(optimizer)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert all(bool(one.isfinite().all()) for one in tensors_of(model.state_dict()) if is_real(one))


def _loss_with_gradients(model: nn.Module, example: Any) -> None:
    """A pass in training mode and its gradients, which must be finite."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        outputs = [one for one in tensors_of(call_model(model.train(), example)) if is_real(one)]
    loss = torch.stack([one.square().mean() for one in outputs]).sum()
    loss.backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert gradients
    assert all(bool(one.isfinite().all()) for one in gradients)


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
