"""Poise finds out why a neural network overfits or trains slowly, doses its regularization, and proves that it helped.

Names are imported on first use, so that `import poise` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise import methods, nn
    from poise._errors import (
        BundleError,
        ColumnsError,
        ConfigError,
        DataError,
        ExportError,
        PoiseError,
        PoiseWarning,
        ReadError,
        ResumeError,
        SurgeryError,
        TrainingError,
    )
    from poise.data import infer_schema, read_table
    from poise.ensemble import (
        Average,
        Bagging,
        Boosted,
        Boosting,
        ConformalIntervals,
        ConformalSets,
        DeepEnsemble,
        FoldEnsemble,
        Isotonic,
        MCPrediction,
        SnapshotEnsemble,
        Temperature,
        distill,
        diversity,
        greedy_weights,
        mc_dropout,
        predict_mc,
    )
    from poise.estimators import (
        FitResult,
        MemberNote,
        PoiseClassifier,
        PoiseRegressor,
        Progress,
        SearchNote,
        cross_validate,
        fit,
        load,
        predict_table,
        self_test,
    )
    from poise.functional.calibration import brier, ece, nll
    from poise.integrations import export
    from poise.recipe import (
        AdamW,
        Budget,
        Constant,
        Cosine,
        CosineCycles,
        CosLog,
        EarlyOnly,
        FlatCosine,
        LateOnly,
        Linear,
        Network,
        Recipe,
        check_recipe,
        from_toml,
        known,
        to_toml,
    )
    from poise.report import write_ablation_page, write_page
    from poise.surgery import (
        DecayGroups,
        FoldPlan,
        FoldStep,
        Frozen,
        LayerShift,
        Recalibration,
        Regimen,
        accelerate,
        apply,
        convert_batch_norm,
        decay_groups,
        fold,
        fold_plan,
        freeze,
        modes,
        recalibrate,
        restore_batch_norm,
    )
    from poise.tuning import (
        AblationProgress,
        AblationResult,
        Float,
        Int,
        OneOf,
        SearchResult,
        Space,
        ablate,
        check_target,
        search,
    )

__version__ = "0.1.0"

# Space-separated, so that the list stays short.
_NAMES = {
    "poise._errors": (
        "BundleError ColumnsError ConfigError DataError ExportError PoiseError PoiseWarning ReadError ResumeError "
        "SurgeryError TrainingError"
    ),
    "poise.data": "infer_schema read_table",
    "poise.ensemble": (
        "Average Bagging Boosted Boosting ConformalIntervals ConformalSets DeepEnsemble FoldEnsemble Isotonic "
        "MCPrediction SnapshotEnsemble Temperature distill diversity greedy_weights mc_dropout predict_mc"
    ),
    "poise.estimators": (
        "FitResult MemberNote PoiseClassifier PoiseRegressor Progress SearchNote cross_validate fit load "
        "predict_table self_test"
    ),
    "poise.functional.calibration": "brier ece nll",
    "poise.integrations": "export",
    "poise.recipe": (
        "AdamW Budget Constant CosLog Cosine CosineCycles EarlyOnly FlatCosine LateOnly Linear Network Recipe "
        "check_recipe from_toml known to_toml"
    ),
    "poise.report": "write_ablation_page write_page",
    "poise.surgery": (
        "DecayGroups FoldPlan FoldStep Frozen LayerShift Recalibration Regimen accelerate apply convert_batch_norm "
        "decay_groups fold fold_plan freeze modes recalibrate restore_batch_norm"
    ),
    "poise.tuning": ("AblationProgress AblationResult Float Int OneOf SearchResult Space ablate check_target search"),
}
_HOMES = {home: tuple(names.split()) for home, names in _NAMES.items()}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("methods", "nn")

__all__ = [
    "AblationProgress",
    "AblationResult",
    "AdamW",
    "Average",
    "Bagging",
    "Boosted",
    "Boosting",
    "Budget",
    "BundleError",
    "ColumnsError",
    "ConfigError",
    "ConformalIntervals",
    "ConformalSets",
    "Constant",
    "CosLog",
    "Cosine",
    "CosineCycles",
    "DataError",
    "DecayGroups",
    "DeepEnsemble",
    "EarlyOnly",
    "ExportError",
    "FitResult",
    "FlatCosine",
    "Float",
    "FoldEnsemble",
    "FoldPlan",
    "FoldStep",
    "Frozen",
    "Int",
    "Isotonic",
    "LateOnly",
    "LayerShift",
    "Linear",
    "MCPrediction",
    "MemberNote",
    "Network",
    "OneOf",
    "PoiseClassifier",
    "PoiseError",
    "PoiseRegressor",
    "PoiseWarning",
    "Progress",
    "ReadError",
    "Recalibration",
    "Recipe",
    "Regimen",
    "ResumeError",
    "SearchNote",
    "SearchResult",
    "SnapshotEnsemble",
    "Space",
    "SurgeryError",
    "Temperature",
    "TrainingError",
    "__version__",
    "ablate",
    "accelerate",
    "apply",
    "brier",
    "check_recipe",
    "check_target",
    "convert_batch_norm",
    "cross_validate",
    "decay_groups",
    "distill",
    "diversity",
    "ece",
    "export",
    "fit",
    "fold",
    "fold_plan",
    "freeze",
    "from_toml",
    "greedy_weights",
    "infer_schema",
    "known",
    "load",
    "mc_dropout",
    "methods",
    "modes",
    "nll",
    "nn",
    "predict_mc",
    "predict_table",
    "read_table",
    "recalibrate",
    "restore_batch_norm",
    "search",
    "self_test",
    "to_toml",
    "write_ablation_page",
    "write_page",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _PACKAGES:
        return import_module(f"poise.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
