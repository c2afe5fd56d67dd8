"""Writes docs/real_models.md: `python -m tests.contract._zoo_table > docs/real_models.md`."""

from __future__ import annotations

import sys
import warnings
from collections import Counter

import torch

import poise
from poise.methods import BatchNorm, Dropout, DropPath
from poise.surgery._edit import Assign, Attach, Edit, eval_outputs
from tests.contract._zoo import Entry, rows
from tests.contract._zoo_all import ZOO

_RECIPE = poise.Recipe(methods=(Dropout(p=0.2), BatchNorm(), DropPath(p=0.1)))
_TOP = """# Real models

What Poise does to {number} architectures, as measured. `tests/contract/test_real_models.py` holds each of them to the
same promises: a recipe that is inserted and undone leaves the same modules, hooks and state_dict to the last bit;
folding changes outputs by at most 1e-5 in float32 and 1e-12 in float64, relative to the largest; `recalibrate` over
batches gives the statistics of one pass over all rows; parameter groups hold every parameter once; `accelerate`,
`freeze` and `convert_batch_norm` keep the state_dict and can be undone.
`tests/contract/test_injected_failures.py` lets edits and passes fail in the middle, after which the model is as before.

The models are tiny, without trained weights, with random statistics and affine parameters. Those from transformers
{version} are built from their configuration.

- *inserted*: by `poise.apply` of `Dropout(p=0.2), BatchNorm(), DropPath(p=0.1)`; "set" counts layers of the model's own
  that get the strength of a method, and biases that a new normalization makes superfluous.
- *skipped*: the reason that `regimen.diff()` names for most places where something was not inserted.
- *folds*: batch normalizations that `poise.fold` takes into kernels, of all, and the reason for most of the others.
- *fold error*: the largest difference of outputs, relative to the largest output, on other rows than those that it was
  verified on, in float32 and float64.

| architecture | inserted | skipped | folds | fold error |
|---|---|---|---|---|"""


def _row(entry: Entry) -> str:
    edits, notes = _applied(entry)
    steps = poise.fold_plan(entry.build(), entry.example()).steps
    norms = [step for step in steps if "BatchNorm" in step.layer or "batch_norm" in step.layer]
    left = Counter(step.why for step in norms if step.outcome == "left")
    folded = f"{sum(step.outcome == 'folded' for step in norms)} of {len(norms)}" if norms else "none to fold"
    error = f"{_error(entry, torch.float32):.0e}, {_error(entry, torch.float64):.0e}"
    return f"| {entry.name} | {edits} | {notes} | {folded}{_most(left)} | {error} |"


def _applied(entry: Entry) -> tuple[str, str]:
    model = entry.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", poise.PoiseWarning)  # methods without a place are what the table shows
        regimen = poise.apply(_RECIPE, model, example=entry.example())
    counts = Counter(_name(edit) for edit in regimen._edits.edits)
    skipped = Counter(note.text.split(" (and ")[0] for note in regimen.notes if note.text.startswith("skipped"))
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "nothing", _most(skipped, "")


def _name(edit: Edit) -> str:
    if isinstance(edit, Assign):
        return "set"
    return type(edit.layer).__name__ if isinstance(edit, Attach) else type(edit).__name__.lower()


def _most(reasons: Counter[str], before: str = "; ") -> str:
    return before + reasons.most_common(1)[0][0].removeprefix("skipped ").replace("|", "/") if reasons else ""


def _error(entry: Entry, dtype: torch.dtype) -> float:
    model, example = entry.build(dtype), entry.example(dtype)
    folded, other = poise.fold(model, example), rows(example, 1, 4)
    pairs = zip(eval_outputs(model, other), eval_outputs(folded, other), strict=True)
    return max(float((old - new).abs().max() / old.abs().max()) for old, new in pairs if old.is_floating_point())


def main() -> None:
    """Print the page."""
    import transformers

    torch.set_num_threads(1)
    print(_TOP.format(number=len(ZOO), version=transformers.__version__))
    for entry in ZOO:
        print(_row(entry), flush=True)


if __name__ == "__main__":
    sys.exit(main())
