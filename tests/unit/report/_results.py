"""Results as `fit` returns them, made by hand."""

from dataclasses import replace

from poise.estimators import Candidate, ColumnNote, FitResult, Interval
from poise.recipe import KNOWN, to_toml
from poise.train import Epoch


def make_history(num_epochs: int) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            epoch=epoch,
            lr=1e-3,
            train_loss=1 / epoch,
            val_loss=0.5 + 0.01 * (epoch - 4) ** 2,
            train_score=1 - 0.5 / epoch,
            val_score=0.75,
            seconds=0.1 * epoch,
        )
        for epoch in range(1, num_epochs + 1)
    )


def make_candidate(name: str, *, chosen: bool = False, num_epochs: int = 8) -> Candidate:
    shift = 0.001 * len(name)
    return Candidate(
        name=name,
        source="a source",
        chosen=chosen,
        train_loss=0.1234 + shift,
        val_loss=0.5 if num_epochs else None,
        test_loss=Interval(0.4321 + shift, 0.4001, 0.4999),
        train_score=0.9871 - shift,
        val_score=0.81 if num_epochs else None,
        test_score=Interval(0.8765 - shift, 0.8111, 0.9222),
        epochs=num_epochs,
        best_epoch=4 if num_epochs else 0,
        seconds=1.25,
        recipe_toml=to_toml(KNOWN["cocktail"]) if num_epochs else "",
        note="stopped by the time limit" if num_epochs == 3 else "",
        history=make_history(num_epochs),
    )


def make_result() -> FitResult:
    return FitResult(
        source="churn.csv",
        target="churn",
        task="binary",
        score_name="accuracy",
        loss_name="log loss",
        num_train=1200,
        num_val=300,
        num_test=375,
        columns=(ColumnNote("age", "number", "48 different values"), ColumnNote("city", "category", "5 categories")),
        candidates=(
            make_candidate("bare"),
            make_candidate("cocktail", chosen=True, num_epochs=3),
            make_candidate("HistGradientBoosting", num_epochs=0),
        ),
        verdict="Recipe 'cocktail' changed the test log loss from 0.9083 to 0.3844.",
        seconds=12.4,
        run_folder="run",
        warnings=("3 of 375 test rows have the same features as a training row.",),
        environment={"python": "3.11.7", "seed": "0"},
    )


def make_hostile_result(name: str) -> FitResult:
    """The same with `name` wherever a name can come from outside."""
    result = make_result()
    return replace(
        result,
        source=name,
        target=name,
        columns=(ColumnNote(name, "number", name), ColumnNote("city", "category", name)),
        candidates=(replace(result.candidates[0], name=name, chosen=True),),
        warnings=(name,),
        environment={"python": "3.11.7", "seed": name},
    )
