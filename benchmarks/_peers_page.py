"""The page of `benchmarks.peers`, from what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks import _peers_run as runs
from benchmarks import _peers_statistics as statistics
from benchmarks._peers_run import OURS, RIVALS, Record
from benchmarks.quality import _markdown, _wrapped
from poise._random import Key

TREES = ("LGBM-TD", "CatBoost-TD", "XGB-TD", "HistGB")
REALMLP, REALMLP_LOG_LOSS, TABM = "RealMLP-TD", "RealMLP-TD log loss", "TabM-D"
BEST_TREE, BEST_REALMLP = "the best tree of each table", "the better RealMLP-TD of each table"
_RANKED = (OURS, REALMLP, "CatBoost-TD", "LGBM-TD", "XGB-TD", "HistGB")
_ON_SPLIT_0 = (REALMLP_LOG_LOSS, "TabM-D")
_NONE = "–"
# Machine, R² on the test rows, seconds.
_TABPACK = (("NVIDIA A100", 0.9830307, 48.2), ("MacBook", 0.9831993, 391.5))


@dataclass(frozen=True, eq=False)
class Results:
    """All records by system, table and split.

    Raises:
        ValueError: If two systems were measured on different rows.
    """

    records: Mapping[tuple[str, str, int], Record]

    def __post_init__(self) -> None:
        rows: dict[tuple[str, int], str] = {}
        for record in self.records.values():
            key = (record.set, record.split)
            if rows.setdefault(key, record.rows) != record.rows:
                raise ValueError(f"{key} was measured on different rows: delete its older lines in {runs.RESULTS}.")

    def record(self, system: str, name: str, split: int) -> Record | None:
        """That fit, if it was measured and worked; without classes there is one RealMLP only."""
        found = self.records.get((system, name, split))
        if found is None and system == REALMLP_LOG_LOSS:
            found = self.records.get((REALMLP, name, split))
            found = found if found is not None and found.task == "regression" else None
        return found if found is not None and found.loss is not None else None

    def tables(self) -> list[str]:
        """Those with any result, in the order of the list of tables."""
        measured = {name for _, name, _ in self.records}
        return [name for name in runs.SETS if name in measured]

    def splits(self, name: str) -> list[int]:
        """Of a table."""
        return sorted({split for _, one, split in self.records if one == name})

    def losses(self, system: str, name: str) -> dict[int, float]:
        """By split; for a best-of, of the member that has the lowest mean loss on the splits that all of them have."""
        members = {BEST_TREE: TREES, BEST_REALMLP: (REALMLP, REALMLP_LOG_LOSS)}.get(system)
        if members is None:
            found = {split: self.record(system, name, split) for split in self.splits(name)}
            return {split: one.loss for split, one in found.items() if one is not None and one.loss is not None}
        of_members = [self.losses(member, name) for member in members]
        common = set.intersection(*(set(one) for one in of_members))
        if not common:
            return {}
        best = min(of_members, key=lambda one: fmean(one[split] for split in common))
        return {split: best[split] for split in sorted(common)}

    def common(self, systems: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """Losses of all these systems on the tables and splits that each of them has, by system and table."""
        found: dict[str, dict[str, list[float]]] = {system: {} for system in systems}
        for name in self.tables():
            losses = {system: self.losses(system, name) for system in systems}
            shared = sorted(set.intersection(*(set(one) for one in losses.values())))
            for system in systems if shared else ():
                found[system][name] = [losses[system][split] for split in shared]
        return found

    def seconds(self, system: str, name: str) -> float | None:
        """Mean seconds of a fit, of those that count."""
        found = [self.record(system, name, split) for split in self.splits(name)]
        counted = [one.fit_seconds for one in found if one is not None and one.quiet and one.fit_seconds is not None]
        return fmean(counted) if counted else None


def page(results: Results, parts: Iterable[list[str]]) -> str:
    """The whole page; `parts` are sections that other files write."""
    sections = [
        _intro(results),
        _losses(results),
        _ranks(results),
        _duels(results),
        _seconds(results),
        _differences(results),
        *parts,
        _diamonds(results),
        _every_loss(results),
        _where(results),
    ]
    return "\n".join(line for section in sections if section for line in [*section, ""])


def _intro(results: Results) -> list[str]:
    missing = [name for name in runs.SETS if name not in results.tables()]
    text = (
        "`python -m benchmarks.peers` wrote this page from `benchmarks/results/peers`, where every fit is one line. "
        "All systems learn from the same four fifths of a table and are judged by the same fifth; each of the up to "
        "three splits is a seed of its own, and what a system needs for validation it takes from its own four fifths. "
        f"Of flights {runs.MOST_ROWS:,} rows are taken. Losses are log loss in nats, or root mean squared error "
        "in units of the test target's standard deviation. Lower is better."
    )
    rivals = (
        "The rivals run with their tuned defaults as pytabkit wraps them (-TD, -D), or with scikit-learn's "
        "(HistGB). Those of pytabkit stop by log loss, except RealMLP-TD, which is left as it comes; "
        "RealMLP-TD log loss has no label smoothing besides, as its authors advise. They refuse gaps among "
        "numbers, so they get the median and a column that marks the gap. TabM-D, which takes minutes a fit, is on "
        "tables of fewer than 3,500 rows, split 0, only."
    )
    lines = ["# Poise and its peers, as measured", "", _wrapped(text), "", _wrapped(rivals)]
    return lines + (["", _wrapped(f"Not measured yet: {', '.join(missing)}.")] if missing else [])


def _losses(results: Results) -> list[str]:
    main = (OURS, *(rival for rival in RIVALS if rival not in _ON_SPLIT_0))
    words = (
        f"Means over the splits that all systems of a row have; last those of {OURS} over all its splits. The others, "
        "which were measured on split 0:"
    )
    return [
        "## Losses", "", *_loss_table(results, results.tables(), main), "", _wrapped(words), "",
        *_loss_table(
            results, [name for name in results.tables() if any(results.losses(one, name) for one in _ON_SPLIT_0)],
            (OURS, *_ON_SPLIT_0),
        ),
    ]  # fmt: skip


def _loss_table(results: Results, tables: Sequence[str], systems: Sequence[str]) -> list[str]:
    rows = [["table", "splits", *systems, f"{OURS}, all splits"]]
    for name in tables:
        measured = {system: losses for system in systems if (losses := results.losses(system, name))}
        shared = set.intersection(*(set(losses) for losses in measured.values()))
        shown = {one: fmean(losses[split] for split in shared) for one, losses in measured.items() if shared}
        best = min(shown.values(), default=None)
        cells = [_NONE if one not in shown else _bold(f"{shown[one]:.4f}", shown[one] == best) for one in systems]
        own = list(measured.get(OURS, {}).values())
        rows.append([name, str(len(shared)), *cells, f"{fmean(own):.4f} ({len(own)})" if own else _NONE])
    return _markdown(rows)


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def _ranks(results: Results) -> list[str]:
    with_log_loss = tuple(REALMLP_LOG_LOSS if system == REALMLP else system for system in _RANKED)
    first = _rank_table(results, _RANKED)
    second = _rank_table(results, with_log_loss)
    return ["## Ranks", "", *first, "", *second] if first and second else []


def _rank_table(results: Results, wanted: Sequence[str]) -> list[str]:
    systems = [system for system in wanted if any(results.losses(system, name) for name in results.tables())]
    common = results.common(systems)
    tables = list(common[systems[0]]) if systems else []
    if not tables:
        return []
    ranks = statistics.mean_ranks(common, Key(0).stream("ranks"), against=systems[0])
    rows = [["system", "mean rank", "95 % interval", f"minus that of {systems[0]}"]]
    for system, rank in sorted(ranks.items(), key=lambda item: item[1].mean.value):
        name = f"{system} (RealMLP-TD for regression)" if system == REALMLP_LOG_LOSS else system
        behind = _NONE if system == systems[0] else _signed(rank.behind)
        rows.append([name, f"{rank.mean.value:.2f}", f"{rank.mean.low:.2f} to {rank.mean.high:.2f}", behind])
    fits = sum(len(losses) for losses in common[systems[0]].values())
    words = (
        f"Rank of the test loss among these {len(systems)} systems, mean over splits, then over the {len(tables)} "
        f"tables ({fits} splits) that all of them have. Intervals draw tables, and splits within each, with "
        "replacement, 4,000 times."
    )
    return [_wrapped(words), "", *_markdown(rows)]


def _signed(estimate: statistics.Estimate) -> str:
    return f"{estimate.value:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f})"


def _duels(results: Results) -> list[str]:
    rows = [["against", "tables", "poise has the lower loss on", "ratio of losses", "higher loss on"]]
    for rival in (BEST_REALMLP, BEST_TREE, *RIVALS):
        common = results.common((OURS, rival))
        fought = statistics.duel(common[OURS], common[rival], Key(0).stream("duel"))
        if fought is None:
            continue
        wins, ratio = fought.wins, fought.ratio
        rows.append(
            [
                rival,
                str(fought.tables),
                f"{wins.value:.0%} ({wins.low:.0%} to {wins.high:.0%})",
                f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                ", ".join(fought.lost) or _NONE,
            ]
        )
    if len(rows) == 1:
        return []
    words = (
        "On the splits that both have. The ratio is poise's loss over the rival's, as a geometric mean. Intervals, in "
        "parentheses, as above; of the share of tables by drawing tables only. The best of each table is chosen by its "
        "test losses, which favors it."
    )
    return ["## One against one", "", _wrapped(words), "", *_markdown(rows)]


def _seconds(results: Results) -> list[str]:
    systems = (OURS, *RIVALS)
    rows = [["table", *systems]]
    for name in results.tables():
        seconds = [results.seconds(system, name) for system in systems]
        if any(one is not None for one in seconds):
            rows.append([name, *(_NONE if one is None else f"{one:.1f}" for one in seconds)])
    if len(rows) == 1:
        words = "No fit has been measured on a quiet machine yet, so no seconds are quoted."
        return ["## Seconds of a fit", "", words]
    both = [(results.seconds(OURS, name), results.seconds(REALMLP, name)) for name in results.tables()]
    pairs = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    share = f"{sum(ours <= theirs for ours, theirs in pairs)} of {len(pairs)}" if pairs else "none yet"
    words = (
        f"Two threads; means over the splits that were measured while other processes kept less than {runs.QUIET} of a "
        "core busy, which is noted with every fit. Tables on which poise takes no longer than one fit of RealMLP-TD: "
        f"{share}."
    )
    return ["## Seconds of a fit", "", _wrapped(words), "", *_markdown(rows), "", *_memory(results)]


def _memory(results: Results) -> list[str]:
    rows = [["system", "most memory of a fit, MiB", "table"]]
    for system in (OURS, *RIVALS):
        fits = [one for one in results.records.values() if one.system == system and one.peak_mib is not None]
        if fits:
            most = max(fits, key=lambda one: one.peak_mib or 0.0)
            rows.append([system, f"{most.peak_mib:,.0f}", most.set])
    return _markdown(rows)


def _differences(results: Results) -> list[str]:
    rows = [["table", f"minus {BEST_REALMLP}", f"minus {BEST_TREE}"]]
    for name in results.tables():
        cells = []
        for rival in (BEST_REALMLP, BEST_TREE):
            ours, theirs = results.losses(OURS, name), results.losses(rival, name)
            shared = sorted(set(ours) & set(theirs))
            estimate = statistics.paired([ours[split] - theirs[split] for split in shared]) if shared else None
            cells.append(_NONE if estimate is None else _plus_minus(estimate))
        if any(cell != _NONE for cell in cells):
            rows.append([name, *cells])
    if len(rows) == 1:
        return []
    words = (
        "Poise's loss minus the rival's, mean over splits with a 95 % interval that allows for splits sharing rows "
        "(Nadeau and Bengio, 2003). Three splits make it wide; one split makes none."
    )
    return ["## Differences, table by table", "", _wrapped(words), "", *_markdown(rows)]


def _plus_minus(estimate: statistics.Estimate) -> str:
    half = estimate.high - estimate.value
    return f"{estimate.value:+.4f}" + (f" ± {half:.4f}" if math.isfinite(half) else "")


def _diamonds(results: Results) -> list[str]:
    rows = [["system", "RMSE over standard deviation", "R²", "seconds", "on"]]
    for name, score, seconds in _TABPACK:
        rows.append(
            [f"TabPack†, as published, {name}", f"{math.sqrt(1 - score):.4f}", f"{score:.4f}", f"{seconds:.0f}", name]
        )
    for system in (OURS, *RIVALS):
        found = [results.record(system, "diamonds", split) for split in results.splits("diamonds")]
        fits = [one for one in found if one is not None and one.system == system and one.loss is not None]
        if not fits:
            continue
        seconds = results.seconds(system, "diamonds")
        where = f"{fits[0].processor}, {fits[0].cores} cores"
        loss, score = fmean(one.loss or 0.0 for one in fits), fmean(one.score or 0.0 for one in fits)
        rows.append([system, f"{loss:.4f}", f"{score:.4f}", _NONE if seconds is None else f"{seconds:.0f}", where])
    words = (
        "TabPack's numbers are those that its authors keep in their repository (yandex-research/tabpack, "
        "`experiments/tabpack-cosine` and `tabpack-cosine-macbook`, `diamond/main/report.json`): the test score of the "
        "ensemble that was chosen online in the main run, seed 0, and the seconds until it was complete. They give an "
        "RMSE of 0.1300 and 0.1294 for a target with a standard deviation of 0.998 on their test rows; that is the "
        "price, standardized, for with its logarithm even HistGB comes to an R² of 0.992. Their split is another one, "
        "of the same size (64 % train, 16 % validation, 20 % test), so only R² and what follows from it compare."
    )
    return ["## Diamonds beside TabPack", "", _wrapped(words), "", *_markdown(rows)]


def _every_loss(results: Results) -> list[str]:
    systems = (OURS, *RIVALS)
    rows = [["table", "split", *systems]]
    for name in results.tables():
        for split in results.splits(name):
            found = [results.records.get((system, name, split)) for system in systems]
            rows.append([name, str(split), *(_loss_and_score(one) for one in found)])
    words = "Each cell is loss / accuracy, or loss / R²; a fit that failed is named by its error."
    return ["## Every loss", "", words, "", *_markdown(rows)]


def _loss_and_score(record: Record | None) -> str:
    if record is None:
        return _NONE
    return record.error if record.loss is None else f"{record.loss:.4f} / {record.score:.3f}"


def _where(results: Results) -> list[str]:
    machines = sorted({f"{one.processor}, {one.cores} cores" for one in results.records.values()})
    versions: dict[str, set[str]] = {}
    for one in results.records.values():
        for package, version in one.versions.items():
            versions.setdefault(package, set()).add(version)
    listed = ", ".join(f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()))
    origin = (
        "The origin of wa_churn is unclear, and chess is easy. The tables are described in `benchmarks/datasets.py`."
    )
    return ["## Where", "", _wrapped(f"{'; '.join(machines)}. {listed}."), "", origin]
