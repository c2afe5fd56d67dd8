"""What only a process of its own can show: what it imports, how it ends, what it does with its streams."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "poise"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ENDLESS = "[budget]\nmax_epochs = 1000000\n"
HEAVY = ("torch", "numpy", "polars", "sklearn", "scipy", "matplotlib", "jinja2")
PROBE = f"""
import sys
from poise.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print("loaded", [name for name in {HEAVY} if name in sys.modules], "code", code, file=sys.stderr)
"""
LIGHT = [
    (("--help",), 0),
    (("--version",), 0),
    (("fit", "--help"), 0),
    (("predict", "--help"), 0),
    (("fit",), 2),
    (("predict", "run"), 2),
    (("fit", "a.csv", "--time", "0"), 2),
    (("fti", "a.csv"), 2),
]


@pytest.mark.parametrize(("words", "code"), LIGHT, ids=[" ".join(words) for words, _ in LIGHT])
def test_help_and_usage_errors_load_nothing_heavy(words, code):
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=False)
    assert f"loaded [] code {code}" in done.stderr


@pytest.fixture
def endless(tmp_path, table):
    """A command whose training takes as long as it may, and fills its time."""
    (tmp_path / "endless.toml").write_text(ENDLESS)
    return ["fit", table.name, "--target", "churn", "--recipe", "endless.toml", "--time", "2", "--out", "a run"]


def start(words, folder):
    return subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def interrupt(process, sent):
    """Interrupt a fit in its second network; what it says after that, once it has ended."""
    for line in process.stderr:
        if re.match(r"custom .*epoch 2 ", line):
            break
    process.send_signal(sent)
    sent_at = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent_at < 2
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_fit_ends_at_once_and_tells_how_to_continue(endless, tmp_path, sent):
    err = interrupt(start(endless, tmp_path), sent)
    assert not list(tmp_path.rglob("*.tmp*"))
    words = shlex.split(re.search("Continue with: (.*)", err)[1])
    assert set(words) == {"poise", *endless, "--seed", "0", "--quality", "default", "--resume"}
    if sent == signal.SIGTERM:
        return
    resumed = start(words[1:], tmp_path)
    out, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0
    assert "* " in out
    assert not list(tmp_path.rglob("*.tmp*"))


def test_a_reader_that_leaves_early_is_no_error_worth_a_traceback(fitted):
    run, _ = fitted
    with start(["predict", str(run), str(run.parent / "churn.csv")], run.parent) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "Exception ignored" not in err
