"""Which engine trains which plan, and why not a faster one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from poise._errors import ConfigError
from poise.fleet._engine import Engine
from poise.fleet._plain import PlainEngine
from poise.train import Plan


@dataclass(frozen=True)
class Choice:
    """The engine of a plan.

    Args:
        engine: Who trains it.
        passed: Faster engines that cannot, each with what it cannot do.
    """

    engine: Engine
    passed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}, which has no {reason}" for name, reason in self.passed)
        return self.engine.name + (f" ({reasons})" if reasons else "")


def default_engines(threads: int | None = None) -> list[Engine]:
    """All engines for the CPU, fastest first, on `threads` cores; None for as many as torch uses."""
    from poise.fleet.compiled import CompiledEngine
    from poise.fleet.stacked import StackedEngine

    return [CompiledEngine(threads), StackedEngine(), PlainEngine()]


def choose(plans: Sequence[Plan], engines: Sequence[Engine]) -> list[Choice]:
    """The first engine that can train each plan, and has enough plans to be worth it.

    Raises:
        ConfigError: If none can.
    """
    passed: list[list[tuple[str, str]]] = [[] for _ in plans]
    chosen: dict[int, Engine] = {}
    for engine in engines:
        wanted = []
        for index, plan in enumerate(plans):
            if index not in chosen:
                reason = engine.why_not(plan)
                passed[index] += [(engine.name, reason)] if reason else []
                wanted += [] if reason else [index]
        if len(wanted) >= engine.least_plans:
            chosen |= dict.fromkeys(wanted, engine)
        else:
            for index in wanted:
                passed[index].append((engine.name, f"use for fewer than {engine.least_plans} plans"))
    for index, plan in enumerate(plans):
        if index not in chosen:
            told = "; ".join(f"{name} has no {reason}" for name, reason in passed[index])
            raise ConfigError(f"No engine can train plan {plan.name!r}: {told}.", repair="Allow the plain engine too.")
    return [Choice(chosen[index], tuple(passed[index])) for index in range(len(plans))]


def explain(plans: Sequence[Plan], choices: Sequence[Choice]) -> str:
    """One line for each kind of choice, with the number and the names of its plans."""
    lines = []
    for text, count in Counter(map(str, choices)).items():
        names = [plan.name for plan, choice in zip(plans, choices, strict=True) if str(choice) == text]
        shown = ", ".join(dict.fromkeys(names[:5])) + (", ..." if len(names) > 5 else "")
        lines.append(f"{count} plan{'s' if count > 1 else ''} ({shown}): {text}")
    return "\n".join(lines)


def preparation(plans: Sequence[Plan], engines: Sequence[Engine] | None = None) -> str:
    """What takes long before `plans` can be trained for the first time on this machine; "" if nothing does."""
    offered = default_engines() if engines is None else engines
    crew = dict.fromkeys(choice.engine for choice in choose(plans, offered))
    return "; ".join(filter(None, (engine.preparation(plans) for engine in crew)))
