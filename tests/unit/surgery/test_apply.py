"""`apply` as a transaction: all or nothing, exact undo, refusals by name, and the ways in which torch runs a model."""

from __future__ import annotations

import copy
import os
import socket
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import poise
from poise import ConfigError, DataError, PoiseWarning, Recipe, SurgeryError
from poise.functional.schedule import Linear
from poise.methods import (
    EMA,
    SWA,
    BatchNorm,
    Dropout,
    DropPath,
    GaussianNoise,
    LayerNorm,
    MaxNorm,
)
from poise.surgery import _edit

from .test_insert import images, mlp
from .test_sites import Residual

FULL = (BatchNorm(), Dropout(p=0.3), DropPath(p=0.2), GaussianNoise(std=0.1))
MODELS = {"mlp": (mlp, (6, 4)), "images": (images, (4, 3, 8, 8))}


def picture(model):
    """All that a change could leave behind."""
    hooks = {name: (len(one._forward_hooks), len(one._forward_pre_hooks)) for name, one in model.named_modules()}
    tensors = {name: (id(one), one.clone()) for name, one in model.state_dict(keep_vars=True).items()}
    return {name: id(one) for name, one in model.named_modules()}, hooks, tensors, repr(model)


def assert_same(before, after):
    assert before[0] == after[0]
    assert before[1] == after[1]
    assert before[3] == after[3]
    assert list(before[2]) == list(after[2])
    for name, (identity, values) in before[2].items():
        assert after[2][name][0] == identity, name
        assert after[2][name][1].equal(values), name


@pytest.mark.filterwarnings("ignore:DropPath found no place:poise.PoiseWarning")
@pytest.mark.parametrize("name", MODELS)
def test_undo_restores_everything(name):
    make, shape = MODELS[name]
    model, x = make(), torch.randn(shape)
    before, outputs = picture(model), model.eval()(x)
    regimen = poise.apply(Recipe(methods=FULL), model.train(), example=x)
    assert picture(model)[1] != before[1]
    torch.testing.assert_close(model.eval()(x), outputs, rtol=1e-4, atol=1e-5)
    regimen.undo()
    assert_same(before, picture(model.train()))
    assert model.eval()(x).equal(outputs)
    regimen.undo()  # nothing is left to be taken back


@pytest.mark.filterwarnings("ignore:DropPath found no place:poise.PoiseWarning")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("edit", ["Attach", "Assign"])
def test_a_failure_in_the_middle_leaves_the_model_untouched(name, edit, monkeypatch):
    make, shape = MODELS[name]
    model, x = make(), torch.randn(shape)
    before = picture(model)
    right, calls = getattr(_edit, edit).apply, []

    def fail_at_the_second(self, model):
        calls.append(self)
        if len(calls) == 2:
            raise OSError("injected")
        return right(self, model)

    monkeypatch.setattr(getattr(_edit, edit), "apply", fail_at_the_second)
    with pytest.raises(OSError, match="injected"):
        poise.apply(Recipe(methods=(*FULL[1:], BatchNorm(momentum=0.3))), model, example=x)
    assert_same(before, picture(model))


def test_a_change_of_outputs_is_taken_back(monkeypatch):
    model, x = mlp(), torch.randn(6, 4)
    before = picture(model)
    monkeypatch.setattr("poise.nn._dropout.Dropout.forward", lambda self, x: x + 1)
    with pytest.raises(SurgeryError, match="Nothing was changed"):
        poise.apply(Recipe(methods=(Dropout(p=0.3),)), model, example=x)
    monkeypatch.undo()
    assert_same(before, picture(model))


def test_undo_in_the_wrong_order_is_refused():
    model, x = mlp(), torch.randn(6, 4)
    first = poise.apply(Recipe(methods=(Dropout(p=0.3),)), model, example=x)
    model[1].poise_dropout = nn.Identity()
    with pytest.raises(SurgeryError, match="changed since"):
        first.undo()


def test_without_an_example_the_source_is_read():
    model = mlp()
    regimen = poise.apply(Recipe(methods=(BatchNorm(), Dropout(p=0.3))), model)
    assert "-> BatchNorm(8" in regimen.diff()
    assert model(torch.randn(6, 4)).shape == (6, 2)


REFUSED = {
    "no recipe": (lambda: "dropout", mlp, {}, "`recipe` must be a Recipe"),
    "no model": (Recipe, lambda: 3, {}, "`model` must be"),
    "two norms": (lambda: Recipe(methods=(BatchNorm(), LayerNorm())), mlp, {}, "BatchNorm and LayerNorm normalize"),
    "two averages": (lambda: Recipe(methods=(EMA(), SWA())), mlp, {}, "EMA and SWA average"),
    "no end": (lambda: Recipe(methods=(Dropout(p=Linear(0.0, end=0.3)),)), mlp, {}, "num_steps="),
    "no end for SWA": (lambda: Recipe(methods=(SWA(),)), mlp, {}, "SWA depends on how long"),
    "steps": (Recipe, mlp, {"num_steps": 0}, "`num_steps`"),
    "lazy": (Recipe, lambda: nn.Sequential(nn.LazyLinear(3)), {}, "'0.weight' has no shape"),
    "meta": (Recipe, lambda: nn.Linear(2, 2, device="meta"), {}, "'weight' is on the meta device"),
    "compiled": (Recipe, lambda: torch.compile(mlp(), backend="eager"), {}, "compiled"),
    "wrapped": (Recipe, lambda: nn.DataParallel(mlp()), {}, "DataParallel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name):
    recipe, model, settings, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        poise.apply(recipe(), model(), **settings)


def test_an_example_that_does_not_fit_is_refused():
    model = mlp()
    before = picture(model)
    with pytest.raises(DataError, match="Sequential fails on the example"):
        poise.apply(Recipe(methods=FULL), model, example=torch.zeros(2, 5))
    assert_same(before, picture(model))


def test_a_second_recipe_sets_what_the_first_put_in():
    model, x = mlp(), torch.zeros(2, 4)
    first = poise.apply(Recipe(methods=(Dropout(p=0.3),)), model, example=x)
    second = poise.apply(Recipe(methods=(Dropout(p=0.4),)), model, example=x)
    assert model[1].poise_dropout.p == 0.4
    second.undo()
    assert model[1].poise_dropout.p == 0.3
    first.undo()
    assert repr(model) == repr(mlp())


def test_a_method_without_a_place_is_warned_of():
    with pytest.warns(PoiseWarning, match="DropPath found no place in Sequential: it has no such site"):
        poise.apply(Recipe(methods=(DropPath(),)), mlp(), example=torch.zeros(2, 4))


def test_masks_are_named_by_the_seed():
    def outputs(seed):
        torch.manual_seed(0)
        model = mlp()
        poise.apply(Recipe(methods=(Dropout(p=0.5),)), model, example=torch.zeros(2, 4), seed=seed)
        return model(torch.ones(20, 4))

    assert outputs(1).equal(outputs(1))
    assert not outputs(1).equal(outputs(2))


class Checkpointed(nn.Module):
    """Two parts that are run again in backward; they share their activation and so its dropout."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        relu = nn.Tanh()
        self.one = nn.Sequential(nn.Linear(4, 16), relu, nn.Linear(16, 16), relu)
        self.two = nn.Sequential(nn.Linear(16, 16), relu)
        self.head, self.reentrant = nn.Linear(16, 2), reentrant

    def forward(self, x):
        for part in (self.one, self.two):
            x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_sees_the_same_masks_again(reentrant):
    gradients = []
    for mode in (None, reentrant):
        torch.manual_seed(0)
        model, x = Checkpointed(None).double(), torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
        poise.apply(Recipe(methods=(Dropout(p=0.5),)), model, example=x.detach())
        model.reentrant = mode
        for _ in range(2):  # accumulated: the second pass has masks of its own
            model(x).square().sum().backward()
        gradients.append([one.grad for one in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=1e-12)


def test_compiled_after_apply_is_one_graph_with_the_same_masks():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), *mlp()), torch.randn(8, 4)
    poise.apply(Recipe(methods=(Dropout(p=0.4), GaussianNoise(std=0.2))), model, example=x)
    twin = copy.deepcopy(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        ours, theirs = compiled(x), twin(x)
        torch.testing.assert_close(ours, theirs)
        ours.sum().backward()
        theirs.sum().backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_autocast():
    model, x = mlp(), torch.randn(16, 4)
    regimen = poise.apply(Recipe(methods=(BatchNorm(), Dropout(p=0.3), MaxNorm())), model, example=x)
    optimizer = torch.optim.SGD(regimen.param_groups(lr=0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x).square().mean()
    loss.backward()
    regimen.step(optimizer)
    assert all(one.isfinite().all() for one in model.parameters())


def _rank(rank: int, port: int, results) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, x, y = mlp(), torch.randn(16, 4), torch.randint(2, (16,))
    regimen = poise.apply(Recipe(methods=(Dropout(p=0.5), EMA(decay=0.5), MaxNorm())), model, example=x)
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(regimen.param_groups(lr=0.1))
    outputs = []
    for _ in range(3):
        out = wrapped(x)
        outputs.append(out.detach().clone())
        (nn.functional.cross_entropy(out, y) + regimen.penalty()).backward()
        regimen.step(optimizer)
        optimizer.zero_grad()
    regimen.finish()
    results[rank] = (outputs[0].tolist(), [one.tolist() for one in model.parameters()])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by fork")
def test_ranks_have_masks_of_their_own_and_the_same_weights():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [context.Process(target=_rank, args=(rank, port, results)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0, 0]
        (first, weights), (second, others) = results[0], results[1]
    assert first != second
    assert weights == others


def test_residual_networks_train_with_everything():
    torch.manual_seed(0)
    model = nn.Sequential(Residual(3, 4), Residual(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.randn(32, 3, 6, 6), torch.arange(32) % 2
    x[y == 1] += 0.5
    regimen = poise.apply(Recipe(methods=(*FULL, EMA(decay=0.8))), model, example=x)
    optimizer = torch.optim.AdamW(regimen.param_groups(lr=1e-2))
    for _ in range(30):
        nn.functional.cross_entropy(model(x), y).backward()
        regimen.step(optimizer)
        optimizer.zero_grad()
    regimen.finish([(x, y)])
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.9
