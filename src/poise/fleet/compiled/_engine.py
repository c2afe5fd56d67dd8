"""The compiled engine: one variant per core, a whole epoch in one call into machine code."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from poise._checks import check_choice
from poise._errors import ConfigError
from poise.fleet._engine import Engine, OnEpoch, goes_on
from poise.fleet._waiting import wait_for_all
from poise.fleet.compiled._epoch import score, train_epoch
from poise.fleet.compiled._training import CompiledTraining, Memory
from poise.fleet.compiled._unsupported import unsupported
from poise.fleet.compiled._warm_up import warm_up
from poise.kernels.cpu._jit import HAS_BFLOAT16, is_compiled
from poise.train import Dataset, Plan, State


class CompiledEngine(Engine):
    """Trains tabular networks on CPU cores, one variant per core, without barriers between them.

    A variant gives the same bits alone, beside any others, and on any number of cores.

    Args:
        threads: Cores to use; None for as many as torch does.
        matmul: "float32", or "bfloat16" for products of half-precision factors, summed in float32: faster on CPUs that
            have them, at the price of the rounding. It takes effect on float32 plans only. None for what torch may
            do: bfloat16 after `torch.set_float32_matmul_precision("medium")`, where the CPU has it.

    Raises:
        ConfigError: If the CPU has no products of bfloat16 factors.
    """

    name = "compiled"
    ends_epochs = True

    def __init__(self, threads: int | None = None, *, matmul: str | None = None) -> None:
        matmul = _allowed_matmul() if matmul is None else matmul
        check_choice("matmul", matmul, ("float32", "bfloat16"))
        if matmul == "bfloat16" and not HAS_BFLOAT16:
            raise ConfigError("This CPU multiplies no bfloat16 numbers (AVX512_BF16). Leave `matmul` at 'float32'.")
        self.threads, self.matmul = threads or torch.get_num_threads(), matmul
        self._memories: list[Memory] = []

    def why_not(self, plan: Plan) -> str:
        return unsupported(plan)

    def preparation(self, plans: Sequence[Plan]) -> str:
        if all(is_compiled(function) for function in (train_epoch, score)):
            return ""
        return "compiling the engine for this machine, once; this takes up to a minute"

    def prepare(self, plans: Sequence[Plan]) -> None:
        for dtype in {plan.dtype for plan in plans} or {torch.float32}:
            warm_up(dtype, self.matmul)

    def parallelism(self) -> int:
        return self.threads

    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epochs: Sequence[int],
        on_epoch: OnEpoch,
    ) -> None:  # fmt: skip
        work = _Queue(plans, states, data, until_epochs, on_epoch, self.matmul)
        threads = min(self.threads, len(plans))
        with ThreadPoolExecutor(max(1, threads), thread_name_prefix="poise") as pool:
            try:
                workers = [pool.submit(self._work, work) for _ in range(threads)]
                wait_for_all(workers)
            finally:  # after an interrupt, or an error in one, the others end their epoch
                work.stopping.set()
        for worker in workers:
            worker.result()

    def _work(self, work: _Queue) -> None:
        # A search comes back for a few epochs again and again: memory that was touched before is faster than new one.
        try:
            memory = self._memories.pop()
        except IndexError:
            memory = Memory()
        try:
            work.run(memory)
        finally:
            self._memories.append(memory)


def _allowed_matmul() -> str:
    """What torch's own switch allows for float32 products."""
    return "bfloat16" if HAS_BFLOAT16 and torch.get_float32_matmul_precision() == "medium" else "float32"


class _Queue:
    """Plans that wait for a core."""

    def __init__(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, until_epochs: Sequence[int],
        on_epoch: OnEpoch, matmul: str,
    ) -> None:  # fmt: skip
        self.matmul = matmul
        self.plans, self.states, self.data, self.on_epoch = plans, states, data, on_epoch
        self.until_epochs = until_epochs
        # Those with most to do first, so that at the end no core waits for another one's long training.
        some = [index for index, state in enumerate(states) if goes_on(state, until_epochs[index])]
        self.waiting = iter(sorted(some, key=self._effort, reverse=True))
        self.lock, self.stopping = threading.Lock(), threading.Event()

    def _effort(self, index: int) -> int:
        """Grows with the time that a plan still takes."""
        state = self.states[index]
        epochs = self.until_epochs[index] - state.epoch
        return epochs * len(self.plans[index].train_rows) * state.tensors["weights"].numel()

    def run(self, memory: Memory) -> None:
        """Train plan after plan until none waits."""
        while not self.stopping.is_set():
            with self.lock:
                index = next(self.waiting, None)
            if index is None:
                return
            self._train(index, memory)

    def _train(self, index: int, memory: Memory) -> None:
        state, until_epoch = self.states[index], self.until_epochs[index]
        plan = self.plans[index]
        half = self.matmul == "bfloat16" and plan.dtype == torch.float32
        training = CompiledTraining(plan, state, self.data, memory, bfloat16=half)
        while goes_on(state, until_epoch) and not self.stopping.is_set():
            training.run_epoch()
            with self.lock:
                wanted = self.on_epoch(index, state)
            if not wanted and not state.stopped:
                state.stopped = "time"
