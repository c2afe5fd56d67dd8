"""The outcome of an ablation in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poise.train import Dataset, Task
from poise.tuning._ablation_blocks import NUM_FOLDS
from poise.tuning._ablation_design import Design
from poise.tuning._ablation_result import Arm, Effect
from poise.tuning._decisions import Verdict


def verdict(effects: Sequence[Effect], margin: float, loss_name: str, num_blocks: int) -> str:
    """What mattered, with numbers; "nothing helped" and "cannot tell" are answers."""
    single = [one for one in effects if one.kind == "ingredient"]
    found: Mapping[Verdict, list[Effect]] = {
        word: [one for one in single if one.verdict == word] for word in ("helps", "hurts", "no effect", "cannot tell")
    }
    parts = []
    if found["helps"]:
        parts.append(f"{_listed(found['helps'], numbers=True)} lower{_s(found['helps'])} the test {loss_name}")
    if found["hurts"]:
        parts.append(f"{_listed(found['hurts'], numbers=True)} raise{_s(found['hurts'])} it")
    if found["no effect"]:
        verb = "has" if len(found["no effect"]) == 1 else "have"
        parts.append(f"{_listed(found['no effect'])} {verb} no effect beyond ±{margin:.4g}")
    if found["cannot tell"]:
        parts.append(f"for {_listed(found['cannot tell'])} {num_blocks} blocks cannot tell")
    if len(found["cannot tell"]) == len(single):
        return (
            f"Cannot tell: after {num_blocks} blocks no interval excludes zero or lies within ±{margin:.4g} "
            f"({_listed(single)}).{_whole(effects, loss_name)}"
        )
    opening = "" if found["helps"] else "Nothing helped: "
    if opening and found["hurts"]:
        parts[0] = parts[0].replace(" it", f" the test {loss_name}", 1)
    return f"{opening}{'; '.join(parts)}.{_whole(effects, loss_name)}"


def _s(effects: Sequence[Effect]) -> str:
    return "s" if len(effects) == 1 else ""


def _listed(effects: Sequence[Effect], *, numbers: bool = False) -> str:
    words = [f"{one.name} ({one.loss.value:+.4f})" if numbers and one.loss else one.name for one in effects]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _whole(effects: Sequence[Effect], loss_name: str) -> str:
    for one in effects:
        if one.kind == "recipe" and one.loss is not None:
            interval = f"{one.loss.value:+.4f} [{one.loss.low:+.4f}, {one.loss.high:+.4f}]"
            return f" The whole recipe against the bare network: {interval} in {loss_name}."
    return ""


def remarks(design: Design, arms: Sequence[Arm], data: Dataset, task: Task, *, cut: int | None) -> tuple[str, ...]:
    """What the reader should know.

    Args:
        design: What was compared.
        arms: What was trained.
        data: All rows.
        task: What was predicted.
        cut: Epochs to which the time limit cut every training, or None.
    """
    notes = list(design.skipped)
    for one in arms:
        if one.num_failed:
            notes.append(
                f"{one.num_failed} of {one.num_blocks} trainings of {one.name!r} ended without a finite loss and do "
                "not count."
            )
    if cut is not None:
        notes.append(f"The time limit cut every training to {cut} epochs; longer ones may show other effects.")
    if task.kind != "regression":
        rare = sum(int((data.target == code).sum()) < NUM_FOLDS for code in range(max(2, task.num_outputs)))
        if rare:
            notes.append(
                f"{rare} class(es) have fewer than {NUM_FOLDS} different rows and are missing from some test parts."
            )
    return tuple(notes)
