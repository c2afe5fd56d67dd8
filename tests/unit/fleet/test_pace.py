"""How many plans fit into memory, how fast they go, and how many epochs fit into a time."""

from dataclasses import replace

import pytest

from poise import TrainingError
from poise.fleet import Engine, Fleet, within_time
from poise.fleet._pace import Stopwatch
from poise.fleet.compiled import CompiledEngine
from poise.recipe import Budget, Network
from poise.train import Epoch

from ._variants import DATA, VARIANTS, make_variant, plan_with


def test_too_many_plans_for_the_memory_name_how_many_fit(monkeypatch):
    plans = [make_variant(0, seed=seed) for seed in range(10)]
    state = CompiledEngine().start(plans[:1], DATA)[0]
    size = sum(tensor.nbytes for tensor in state.tensors.values())
    monkeypatch.setattr("poise.fleet._memory.available_bytes", lambda: int(3.5 * size / 0.9))
    with pytest.raises(TrainingError, match=r"10 plans of .* MiB each do not fit into memory; 4 do") as caught:
        Fleet(plans, DATA)
    assert "at most 4 plans" in str(caught.value)
    assert len(Fleet(plans[:4], DATA).states) == 4
    monkeypatch.setattr("poise.fleet._memory.available_bytes", lambda: None)  # a system that does not say
    assert len(Fleet(plans, DATA).states) == 10


def test_a_network_that_is_too_large_for_the_memory_names_how_many_columns_fit(monkeypatch):
    plan = make_variant(0)
    num_columns = len(DATA.schema.features)
    monkeypatch.setattr("poise.fleet._memory._SMALL", 0)
    monkeypatch.setattr("poise.fleet._memory.available_bytes", lambda: 1000)
    monkeypatch.setattr("poise.fleet._start._start", None)  # nothing is allocated before
    with pytest.raises(TrainingError, match=rf"for {num_columns} columns needs about .* GiB to train") as caught:
        Fleet([plan], DATA)
    assert "Choose at most" in str(caught.value)


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def test_the_pace_counts_shares_of_plans_and_weighs_work(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("poise.fleet._pace.time", clock)
    small, large = (sized(width) for width in (4, 40))
    plans = [small, small, large]
    states = CompiledEngine().start(plans, DATA)
    train_epochs(states[0], 1)
    watch = Stopwatch(plans, states)
    assert watch.read().seconds_left == float("inf")
    clock.now += 10.0
    train_epochs(states[0], 3)
    train_epochs(states[2], 1)
    states[0].stopped = "early"  # after four of ten epochs; the rest is not work any longer
    pace = watch.read()
    assert (pace.finished, pace.num_plans) == (1, 3)
    assert pace.plans_per_second == pytest.approx((0.9 + 0.1) / 10)
    sizes = [state.tensors["weights"].numel() for state in states]
    done, left = 0.9 * sizes[0] + 0.1 * sizes[2], sizes[1] + 0.9 * sizes[2]
    assert pace.seconds_left == pytest.approx(10 * left / done)


def sized(width):
    plan = plan_with()
    return replace(plan, recipe=replace(plan.recipe, network=Network(width, 2), budget=Budget(10, 16)))


def train_epochs(state, number):
    for _ in range(number):
        state.history.append(Epoch(state.epoch + 1, 0.1, 1.0, 1.0, 0.5, 0.5, 1.0))


class Crew(Engine):
    """Trains two plans at a time, a tenth of a second an epoch."""

    name = "crew"

    def __init__(self, cores):
        self.cores = cores

    def why_not(self, plan):
        return ""

    def parallelism(self):
        return self.cores

    def advance(self, plans, states, data, *, until_epochs, on_epoch):
        epoch = states[0].epoch + 1
        states[0].history.append(Epoch(epoch, 0.1, 1.0, 1.0, 0.5, 0.5, 0.1 * epoch))


def test_plans_share_the_time_of_all_cores():
    plans = [plan.with_max_epochs(1000) for plan in VARIANTS[:4]]
    for cores, expected in ((1, 100), (2, 200), (4, 400), (8, 400)):
        fitted = within_time(plans, DATA, 40.0, engines=[Crew(cores)])
        epochs = [plan.max_epochs for plan in fitted]
        assert epochs == pytest.approx([expected] * 4, rel=0.05), cores
    odd = within_time(plans[:3], DATA, 40.0, engines=[Crew(2)])  # one core has two plans, and no plan has two cores
    assert [plan.max_epochs for plan in odd] == pytest.approx([200] * 3, rel=0.05)
