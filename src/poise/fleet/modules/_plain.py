"""One model at a time, by an ordinary loop. It is the truth that stacks are held against."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from poise._errors import ConfigError, TrainingError
from poise.fleet.modules._built import Built, build
from poise.fleet.modules._job import ROWS_OF_A_SCORE, Job
from poise.fleet.modules._objective import outputs_of, reads_outputs
from poise.fleet.modules._record import mean_of, record_epoch
from poise.fleet.modules._seeded import seeded
from poise.fleet.modules._state import ModuleState
from poise.fleet.modules._statistics import Pool, moments_of, moving_norms
from poise.functional.schedule import value_at
from poise.recipe import Recipe
from poise.surgery import modes
from poise.surgery._graph._call import call_model
from poise.surgery._recalibration._statistics import statistics_of

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class PlainLoop:
    """A training in progress: a live model, laid over a state.

    Args:
        job: What is trained on what.
        recipe: How.
        state: Where it stands; changed after each epoch.
    """

    name = "plain"

    def __init__(self, job: Job, recipe: Recipe, state: ModuleState) -> None:
        self.job, self.recipe, self.state = job, recipe, state
        self.built: Built = build(job, recipe)
        self.model, self.regimen = self.built.model, self.built.regimen
        config = recipe.optimizer
        groups = self.regimen.param_groups(lr=1.0)
        self.optimizer = Adam(groups, betas=(config.beta1, config.beta2), eps=config.eps)
        self.factors = [group["lr"] for group in self.optimizer.param_groups]
        self.reads_outputs = reads_outputs(recipe)
        self.norms = moving_norms(self.model)
        if state.epoch:
            self._restore()

    def _restore(self) -> None:
        self.built.load(self.state.tensors)
        self.built.load_counters(self.state.counters, self.state.tensors)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and f"exp_avg/{name}" in self.state.tensors:
                kept = {one: self.state.tensors[f"{one}/{name}"].clone() for one in _MOMENTS}
                moved = {one: kept[one].to(parameter.device) for one in _MOMENTS[:2]}
                self.optimizer.state[parameter] = moved | {"step": kept["step"]}

    def run_epoch(self) -> None:
        """Train one epoch, score it, and write it down in the state.

        Raises:
            TrainingError: If the model or the loss fails.
        """
        started = time.perf_counter()
        with seeded(self.job.key.stream("epoch", self.state.epoch)), telling_of_failure("a training"):
            order = self.job.key.stream("order").at(self.state.epoch)
            for x, y in self.job.train.shuffled(order, self.recipe.budget.batch_size):
                self._step(x, y)
        with seeded(self.job.key.stream("score")), self._weights_that_predict(), telling_of_failure("a score"):
            parts, rows = self._losses()
            record_epoch(
                self.state, self.built, parts, mean_of(parts, rows), max_epochs=self.job.max_epochs,
                tensors=self._trained, serving=self.built.tensors, counters=self.built.counters(), engine=self.name,
                seconds=time.perf_counter() - started,
            )  # fmt: skip

    def _step(self, x: object, y: Tensor) -> None:
        x, targets = self.regimen.batch(x, y)
        progress = self.regimen.num_steps_done / (self.built.num_steps * self.job.max_epochs)
        lr = value_at(self.recipe.optimizer.lr, min(1.0, progress))
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = lr * factor
        outputs, targets = outputs_of(self.model, (x, y if targets is None else targets))
        loss = self.job.loss(outputs, targets)
        loss = loss + (self.regimen.penalty(outputs, targets) if self.reads_outputs else self.regimen.penalty())
        torch.autograd.backward(loss)
        self.regimen.step(self.optimizer)
        self.optimizer.zero_grad()

    # Scores, in eval mode, of the weights that predict

    @contextmanager
    def _weights_that_predict(self) -> Iterator[None]:
        """The average, if one has begun, in place of the weights, and batch statistics that fit; then as before."""
        self._trained = self.built.tensors() | self._moments()
        averages = [one["tensors"] for one in self.regimen.state_dict()["averages"] if one["has_begun"]]
        try:
            with modes(self.model, training=False), torch.no_grad():
                parameters = dict(self.model.named_parameters())
                for name, average in averages[0].items() if averages else ():
                    parameters[name].copy_(average)
                self._settle()
                yield
        finally:
            self.built.load(self._trained)

    def _moments(self) -> dict[str, Tensor]:
        """What optimizer and average keep."""
        found = {}
        for name, parameter in self.model.named_parameters():
            for one in _MOMENTS:
                if one in self.optimizer.state.get(parameter, {}):
                    found[f"{one}/{name}"] = self.optimizer.state[parameter][one].detach().to("cpu", copy=True)
        for average in self.regimen.state_dict()["averages"]:
            found |= {f"average/{name}": one.to("cpu") for name, one in average["tensors"].items()}
        return found

    def _settle(self) -> None:
        if not self.norms:
            return
        pool, counts = Pool(), dict[str, int]()
        for x, _ in self.job.train.in_order(ROWS_OF_A_SCORE):
            pool.add(moments_of(self.norms, partial(call_model, self.model, x), counts), counts)
        for name, mean, var in pool.items():
            for buffer, value in zip(statistics_of(self.norms[name]), (mean, var), strict=True):
                buffer.copy_(value)

    def _losses(self) -> tuple[list[float], list[int]]:
        parts, rows = [], []
        for x, y in self.job.val.in_order(ROWS_OF_A_SCORE):
            parts.append(float(self.job.loss(*outputs_of(self.model, (x, y)))))
            rows.append(len(y))
        return parts, rows


@contextmanager
def telling_of_failure(what: str) -> Iterator[None]:
    """Within it, whatever a user's own code raises becomes a TrainingError."""
    try:
        yield
    except (ConfigError, TrainingError):
        raise
    except Exception as error:  # whatever the model's, the loss's or the data's own code raises
        raise TrainingError(
            f"The model, its loss or its data failed in {what}: {type(error).__name__}: {error}",
            repair="Try one batch by hand: loss(factory()(x), y).",
        ) from error
