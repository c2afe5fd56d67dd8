"""Poise beside the best published systems for tables: losses, seconds, memory, on the same rows and cores.

    python -m benchmarks.peers --setup                                  # the rivals' own environment, once
    python -m benchmarks.peers --systems CatBoost-TD --splits 0         # measures what is missing
    python -m benchmarks.peers --systems poise --splits 0 1 2
    python -m benchmarks.peers --only hpo --sets german                 # RealMLP's search, then poise's to its loss
    python -m benchmarks.peers --only halving                           # halving beside the full search
    python -m benchmarks.peers --only cost                              # rows, configurations, memory
    python -m benchmarks.peers --page --out docs/peers.md               # from what is stored

Everything measured is a line of a file below `benchmarks/results/peers` and is not measured again; with `--quiet` it
is, unless its seconds count, which they do if it had two threads and other processes hardly worked meanwhile. A fit
that failed for another reason than its time limit is tried again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import _peers_cost, _peers_halving, _peers_hpo, _peers_setup
from benchmarks import _peers_run as runs
from benchmarks._peers_page import Results, page
from benchmarks.datasets import SETS

PARTS = ("fits", "hpo", "halving", "cost")


def measure_fits(options: argparse.Namespace, sets: list[str]) -> None:
    """Fit what is asked for and not stored yet; tables first, so that a table's rivals meet the same machine."""
    done = runs.stored()
    for split in options.splits:
        for name in sets:
            wanted = [system for system in options.systems if runs.is_wanted(system, name, split)]
            given = None
            for system in wanted:
                old = done.get((system, name, split))
                if old is not None and old.is_final and (old.quiet or not options.quiet):
                    continue
                given = given or runs.problem(name, split)
                record = runs.fit(system, given, split, threads=options.threads, limit=options.limit)
                runs.store(record)
                print(_told(record), file=sys.stderr, flush=True)


def _told(record: runs.Record) -> str:
    where = f"{record.set} split {record.split}, {record.system}:"
    if record.loss is None:
        return f"{where} {record.error}"
    return f"{where} {record.loss:.4f} in {record.fit_seconds:.1f} s{'' if record.quiet else ', not quiet'}"


def measure(part: str, options: argparse.Namespace) -> None:
    """One part, on the tables asked for that it has."""
    asked = options.sets
    if part == "fits":
        measure_fits(options, asked or list(SETS))
    elif part == "hpo":
        names = [name for name in _peers_hpo.SETS if asked is None or name in asked]
        _peers_hpo.measure(names, options.threads, quiet=options.quiet)
        _peers_hpo.measure_ours(names, options.threads)
    elif part == "halving":
        names = [name for name in _peers_halving.SETS if asked is None or name in asked]
        _peers_halving.measure(names, options.seeds)
    else:
        _peers_cost.measure(_peers_cost.settings(), options.threads, quiet=options.quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="make the rivals' environment")
    parser.add_argument("--only", choices=PARTS, default="fits", help="what to measure; fits need --systems")
    parser.add_argument("--systems", nargs="+", default=[], choices=runs.SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--sets", nargs="+", choices=SETS, metavar="SET")
    parser.add_argument("--splits", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(_peers_halving.SEEDS)), help="of halving")
    parser.add_argument("--threads", type=int, default=runs.THREADS)
    parser.add_argument("--limit", type=float, help="seconds after which a fit is stopped and stored as failed")
    parser.add_argument("--quiet", action="store_true", help="measure again where the seconds do not count")
    parser.add_argument("--page", action="store_true", help="write the page from what is stored")
    parser.add_argument("--out", type=Path, help="where to; stdout if left out")
    options = parser.parse_args()
    if options.setup:
        print("made" if _peers_setup.set_up() else "as it should be", file=sys.stderr)
    measure(options.only, options)
    if options.page:
        text = page(Results(runs.stored()), [_peers_hpo.section(), _peers_halving.section(), _peers_cost.section()])
        if options.out:
            options.out.write_text(text, encoding="utf-8")
        else:
            print(text)


if __name__ == "__main__":
    main()
