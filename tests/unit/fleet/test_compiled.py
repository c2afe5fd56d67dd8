"""The compiled engine: a variant has its own bits, whatever happens around it."""

import signal
import sys
import threading
from dataclasses import replace

import pytest
import torch

from poise.fleet import Fleet, PlainEngine
from poise.fleet.compiled import CompiledEngine
from poise.methods import L2, EarlyStopping
from poise.recipe import AdamW, Constant, Network, Recipe
from poise.train import load_state, save_state

from ._tables import make_plan
from ._variants import BUDGET, DATA, END, STEPS, VARIANTS, advance, go_on, make_variant, same, train

WILD = Recipe(methods=(L2(strength=1e38),), optimizer=AdamW(lr=Constant(100.0)), budget=BUDGET, network=Network(8, 1))


@pytest.fixture(scope="module")
def alone():
    """Each variant trained by itself."""
    return [train([plan])[0] for plan in VARIANTS]


# The same bits


@pytest.mark.parametrize("threads", [1, 2])
def test_a_variant_alone_in_a_pair_and_among_64(alone, threads):
    together = train(VARIANTS, threads=threads)
    assert all(map(same, together, alone))
    for first in (0, 7, 30):
        pair = [first, first + 1]
        assert all(map(same, train([VARIANTS[i] for i in pair], threads=threads), [alone[i] for i in pair]))


def test_the_variants_differ_so_that_equal_bits_mean_something(alone):
    assert not same(alone[3], train([replace(VARIANTS[3], seed=99)])[0])
    assert len({tuple(state.tensors["weights"][:4].tolist()) for state in alone}) == len(alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_order_of_variants_does_not_matter(alone, threads):
    """Buffers are used again, larger than needed and full of what others left."""
    order = [63, 2, 40, 17, 5, 0, 33, 12]
    found = train([VARIANTS[i] for i in order], threads=threads)
    assert all(map(same, found, [alone[i] for i in order]))


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbors_that_stop_or_fail_disturb_nobody(alone, threads):
    wild = [make_plan(WILD, DATA, seed=index) for index in range(3)]
    recipe = VARIANTS[4].recipe
    early = replace(VARIANTS[4], recipe=replace(recipe, methods=(*recipe.methods, EarlyStopping(patience=1))))
    plans = [wild[0], VARIANTS[0], wild[1], early, VARIANTS[1], VARIANTS[2], wild[2], VARIANTS[3]]
    good, ended = {1: 0, 4: 1, 7: 3}, 5

    def on_epoch(index, state):
        return index != ended or state.epoch < 2

    states = train(plans, threads=threads, on_epoch=on_epoch)
    for position, index in good.items():
        assert same(states[position], alone[index])
    assert (states[ended].stopped, states[ended].epoch) == ("time", 2)
    assert same(states[3], train([early])[0])
    for position in (0, 2, 6):
        assert states[position].stopped == "non-finite"
        assert states[position].best_epoch == len(states[position].history) == 0
        assert not torch.isfinite(states[position].tensors["weights"]).all()
        assert torch.isfinite(states[position].tensors["served"]).all()


def test_a_variant_that_failed_is_not_trained_again():
    plans = [make_plan(WILD, DATA)]
    states = train(plans)
    step = states[0].step
    assert advance(plans, states)[0].step == step


@pytest.mark.parametrize("threads", [1, 2])
def test_resumed_from_saved_states(alone, threads, tmp_path):
    plans = VARIANTS[:8]
    for index, state in enumerate(train(plans, threads=threads, until_epoch=2)):
        assert state.epoch == 2
        save_state(state, tmp_path, f"plan-{index}")
    loaded = [load_state(tmp_path, f"plan-{index}") for index in range(len(plans))]
    assert all(map(same, advance(plans, loaded, threads=threads), alone))


def test_rungs_add_up_to_one_run(alone):
    plans = VARIANTS[:6]
    fleet = Fleet(plans, DATA, engines=[CompiledEngine(2)])
    for until in (1, 1, 3, 4, END):
        states = fleet.advance(until)
        assert {state.epoch for state in states} == {min(until, BUDGET.max_epochs)}
    assert all(map(same, states, alone))
    assert [state.stopped for state in states] == ["budget"] * len(plans)


def test_a_state_goes_on_on_the_other_engine():
    plan = make_variant(3, dtype=torch.float64)
    engines = (PlainEngine(), CompiledEngine(1))
    expected = train([plan])[0]
    for first, second in (engines, engines[::-1]):
        states = first.start([plan], DATA)
        first.advance([plan], states, DATA, until_epochs=[2], on_epoch=go_on)
        second.advance([plan], states, DATA, until_epochs=[END], on_epoch=go_on)
        for name in ("weights", "exp_avg", "average", "served", "statistics"):
            torch.testing.assert_close(states[0].tensors[name], expected.tensors[name], rtol=1e-9, atol=1e-11)


# Interruptions


class Stop(Exception):
    pass


def check_epoch_ends(states):
    """Nothing is half done: steps and history belong together."""
    for state in states:
        assert state.step == STEPS * state.epoch


def test_what_takes_longest_begins_first():
    plans = [plan.with_max_epochs(epochs) for plan, epochs in zip(VARIANTS[:3], (2, 9, 4), strict=True)]
    states, begun = CompiledEngine().start(plans, DATA), []
    until = [plan.max_epochs for plan in plans]
    CompiledEngine(1).advance(
        plans, states, DATA, until_epochs=until, on_epoch=lambda index, _: begun.append(index) or True
    )
    sizes = [state.tensors["weights"].numel() * epochs for state, epochs in zip(states, until, strict=True)]
    assert list(dict.fromkeys(begun)) == sorted(range(3), key=lambda index: -sizes[index])


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("plan", "epoch"), [(0, 1), (1, 3), (3, 4)])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_between_epochs_leaves_states_that_go_on(alone, error, plan, epoch, threads):
    plans = VARIANTS[:4]
    states = CompiledEngine().start(plans, DATA)

    def fail(index, state):
        if (index, state.epoch) == (plan, epoch):
            raise error
        return True

    with pytest.raises(error):
        advance(plans, states, threads=threads, on_epoch=fail)
    assert states[plan].epoch == epoch
    check_epoch_ends(states)
    if threads == 1:
        assert {state.epoch for index, state in enumerate(states) if index != plan} <= {0, 5}
    assert all(map(same, advance(plans, states, threads=threads), alone))


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to one thread there")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_in_the_main_thread_leaves_states_that_go_on(alone, threads):
    """Workers may be in machine code when it comes; they end their epoch, and none is left behind."""
    plans, callers = VARIANTS[:4], []
    states = CompiledEngine().start(plans, DATA)
    noticed = threading.Event()

    def interrupt(*_):
        callers.append(threading.current_thread())
        if len(callers) == 1:
            noticed.wait(0.2)  # until the main thread waits for its workers
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            noticed.wait(0.2)  # until it knows
        return True

    with pytest.raises(KeyboardInterrupt):
        advance(plans, states, threads=threads, on_epoch=interrupt)
    assert threading.main_thread() not in callers
    assert not any(thread.is_alive() for thread in callers)
    check_epoch_ends(states)
    assert sum(state.epoch for state in states) <= threads
    assert all(map(same, advance(plans, states, threads=threads), alone))


def test_on_epoch_is_called_for_every_epoch_and_one_call_at_a_time():
    plans, inside, calls = VARIANTS[:6], [], []

    def on_epoch(index, state):
        inside.append(index)
        assert len(inside) == 1
        calls.append((index, state.epoch))
        inside.pop()
        return True

    train(plans, threads=2, on_epoch=on_epoch)
    assert sorted(calls) == [(i, epoch) for i in range(6) for epoch in range(1, BUDGET.max_epochs + 1)]


def test_nothing_to_do():
    assert train([]) == []
    states = train(VARIANTS[:1])
    before = states[0].tensors["weights"].clone()
    assert torch.equal(advance(VARIANTS[:1], states)[0].tensors["weights"], before)
