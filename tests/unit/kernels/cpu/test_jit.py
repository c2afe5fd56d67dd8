"""Machine code is compiled once and kept; without a place to keep it there is one warning, and it works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import poise
from poise.kernels.cpu import _jit, streams
from poise.kernels.cpu._linking import WHOLE

PACKAGE = Path(poise.__file__).parent
IMPORT_ALL = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    import poise.fleet.compiled
    from poise import PoiseWarning
    from poise.kernels.cpu import streams
    print(poise.__file__)
    print(streams.words(5, 7, 3).tolist())
    for one in caught:
        print("WARNED", issubclass(one.category, PoiseWarning), one.message)
"""


def run(code, **environment):
    names = {"PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def locked(tmp_path):
    """A copy of the package beside which nothing can be kept, and a path below which nothing can be made."""
    copy = tmp_path / "site" / "poise"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("")  # a file where a folder is wanted stops everyone, the superuser too
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    return copy, nowhere / "below"


def test_without_a_cache_folder_it_works_and_warns_once(locked):
    copy, nowhere = locked
    places = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere / "cache", "NUMBA_CACHE_DIR": nowhere / "numba"}
    path, words, *warned = run(IMPORT_ALL, PYTHONPATH=str(copy.parent), **{k: str(v) for k, v in places.items()})
    assert Path(path).parent == copy
    assert words == str(streams.words(5, 7, 3).tolist())
    assert len(warned) == 1, warned
    assert warned[0].startswith("WARNED True No folder can be written")
    assert "NUMBA_CACHE_DIR" in warned[0]


def test_with_a_cache_folder_it_does_not_warn(locked, tmp_path):
    copy, nowhere = locked
    cache = tmp_path / "cache"
    found = run(IMPORT_ALL, PYTHONPATH=str(copy.parent), HOME=str(nowhere), NUMBA_CACHE_DIR=str(cache))
    assert found[1:] == [str(streams.words(5, 7, 3).tolist())]
    assert list(cache.rglob("*_words*.nbc"))
    assert not list(copy.rglob("*.nbc"))


MODULES = {
    "low.py": "from poise.kernels.cpu._jit import inner\n@inner\ndef low(x):\n    return x + 1\n",
    "high.py": "from low import low\n"
    "from poise.kernels.cpu._jit import entry\n@entry\ndef high(x):\n    return low(x)\n",
}
CALL = """
from high import high
from poise.kernels.cpu._jit import is_compiled
print(is_compiled(high), high(1), is_compiled(high), sum(high.stats.cache_hits.values()))
"""


def test_a_changed_callee_is_compiled_anew_and_an_unchanged_one_is_not(tmp_path):
    modules, cache = tmp_path / "modules", tmp_path / "cache"
    modules.mkdir()
    for name, text in MODULES.items():
        (modules / name).write_text(text)
    paths = {"PYTHONPATH": os.pathsep.join((str(modules), str(PACKAGE.parent))), "NUMBA_CACHE_DIR": str(cache)}
    assert run(CALL, **paths) == ["False 2 True 0"]
    assert run(CALL, **paths) == ["True 2 True 1"]
    assert len(list((cache / "poise").iterdir())) == 1
    (modules / "low.py").write_text(MODULES["low.py"].replace("x + 1", "x + 2"))
    assert run(CALL, **paths) == ["False 3 True 0"]
    assert len(list((cache / "poise").iterdir())) == 2


def test_a_whole_keeps_its_parts_to_itself():
    """Otherwise, which copy of a function runs would depend on what was compiled or loaded before."""

    @_jit.inner
    def total(x):
        found = 0.0
        for value in x:
            found += value * value
        return found

    def ratio(x, y):
        return total(x) / total(y)

    whole = numba.njit(ratio, pipeline_class=WHOLE)
    assert whole(np.ones(4), np.ones(2)) == 2.0
    (compiled,) = whole.overloads.values()
    functions = [one for one in compiled.library._final_module.functions if not one.is_declaration]
    assert all("ratio" in one.name for one in functions if one.linkage.name not in ("internal", "private"))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Copies of the kernels and of the engine, in place of the real ones."""
    kernels, engine = tmp_path / "kernels" / "cpu", tmp_path / "fleet" / "compiled"
    shutil.copytree(PACKAGE / "kernels" / "cpu", kernels)
    shutil.copy(PACKAGE / "kernels" / "reference.py", kernels.parent)
    shutil.copytree(PACKAGE / "fleet" / "compiled", engine)
    monkeypatch.setattr(_jit, "_HERE", kernels)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return kernels, engine


def test_every_file_of_kernels_and_caller_counts_for_the_cache_folder(folders):
    kernels, engine = folders
    folder_of = _jit._cache_folder.__wrapped__  # without what it remembers
    seen = {folder_of(engine)}
    assert folder_of(engine) in seen
    for path in sorted((*kernels.parent.glob("*.py"), *kernels.glob("*.py"), *engine.glob("*.py"))):
        path.write_text(path.read_text(encoding="utf-8") + "\n# one more line\n", encoding="utf-8")
        found = folder_of(engine)
        assert found not in seen, path.name
        seen.add(found)
    (engine / "README.md").write_text("Words do not count.")
    assert folder_of(engine) in seen


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="where caches lie is the system's custom")
def test_where_the_cache_folder_lies(monkeypatch, tmp_path):
    folder_of = _jit._cache_folder.__wrapped__
    for name, value in (("NUMBA_CACHE_DIR", "one"), ("XDG_CACHE_HOME", "two"), ("HOME", "three")):
        for other in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, str(tmp_path / value))
        root = tmp_path / value / (".cache" if name == "HOME" else "")
        assert folder_of(_jit._HERE).parent == root / "poise"


def test_numbas_own_setting_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(_jit.config, "CACHE_DIR", "somewhere")

    @_jit.entry
    def nothing():
        return 0

    assert _jit.config.CACHE_DIR == "somewhere"
    assert "somewhere" not in str(nothing._cache.cache_path)
