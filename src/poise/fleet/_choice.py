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

    return [CompiledEngine(threads), PlainEngine()]


def choose(plan: Plan, engines: Sequence[Engine]) -> Choice:
    """The first engine that can train `plan`.

    Raises:
        ConfigError: If none can.
    """
    passed: list[tuple[str, str]] = []
    for engine in engines:
        reason = engine.why_not(plan)
        if not reason:
            return Choice(engine, tuple(passed))
        passed.append((engine.name, reason))
    told = "; ".join(f"{name} has no {reason}" for name, reason in passed)
    raise ConfigError(f"No engine can train plan {plan.name!r}: {told}.", repair="Allow the plain engine too.")


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
    crew = dict.fromkeys(choose(plan, offered).engine for plan in plans)
    return "; ".join(filter(None, (engine.preparation(plans) for engine in crew)))
