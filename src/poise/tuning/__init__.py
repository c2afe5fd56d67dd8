"""Search: what may vary, which recipes to try, who goes on, and what mattered."""

from poise.tuning._ablate import ablate
from poise.tuning._ablation_design import DESIGNS
from poise.tuning._ablation_result import AblationProgress, AblationResult, Effect, Estimate
from poise.tuning._arena import Arena
from poise.tuning._domains import Domain, Float, Int, OneOf
from poise.tuning._effort import QUALITIES, Effort, Quality
from poise.tuning._halving import HalvingOptions, Race
from poise.tuning._module_arena import ModuleArena
from poise.tuning._propose import Proposal, Proposer
from poise.tuning._run_folder import RunFolder, environment
from poise.tuning._search import search
from poise.tuning._search_result import SearchResult
from poise.tuning._space import Space
from poise.tuning._study import StudyFile, as_optuna, from_optuna
from poise.tuning._table import (
    LabeledTable,
    check_target,
    feature_schema,
    merge_equal_rows,
    read_labeled,
    source_name,
    with_numbers,
)
from poise.tuning._table_arena import Fold, TableArena, make_folds
from poise.tuning._table_search import OnTrials, TableSearch, TableSearchOptions, TrainedTrial, search_table
from poise.tuning._table_space import PORTFOLIO, TABLE_SPACE
from poise.tuning._trial import Trial

__all__ = [
    "DESIGNS",
    "PORTFOLIO",
    "QUALITIES",
    "TABLE_SPACE",
    "AblationProgress",
    "AblationResult",
    "Arena",
    "Domain",
    "Effect",
    "Effort",
    "Estimate",
    "Float",
    "Fold",
    "HalvingOptions",
    "Int",
    "LabeledTable",
    "ModuleArena",
    "OnTrials",
    "OneOf",
    "Proposal",
    "Proposer",
    "Quality",
    "Race",
    "RunFolder",
    "SearchResult",
    "Space",
    "StudyFile",
    "TableArena",
    "TableSearch",
    "TableSearchOptions",
    "TrainedTrial",
    "Trial",
    "ablate",
    "as_optuna",
    "check_target",
    "environment",
    "feature_schema",
    "from_optuna",
    "make_folds",
    "merge_equal_rows",
    "read_labeled",
    "search",
    "search_table",
    "source_name",
    "with_numbers",
]
