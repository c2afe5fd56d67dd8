"""Checkpoints: whole or not at all, and no damage goes unnoticed."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from poise._errors import ResumeError
from poise.train import (
    Epoch,
    State,
    load_state,
    pack_tensors,
    read_checkpoint,
    remove_leftovers,
    save_state,
    to_json,
    write_atomically,
    write_checkpoint,
)


def make_state(step=12):
    tensors = {
        "weights": torch.randn(5, generator=torch.Generator().manual_seed(step)),
        "statistics": torch.empty(0),
        "encoder.center": torch.tensor([1e-300, 0.1], dtype=torch.float64),
    }
    history = [Epoch(1, 0.1, 1 / 3, 0.7, 0.5, 0.25, 0.01), Epoch(2, 0.05, 1e-20, 0.6, 0.5, 0.25, 0.02)]
    plain = {"names": ["a", "b"], "size": 3, "none": None}
    return State(tensors, plain, 1 / 7, 2.5, step, history, best_epoch=2, averaging=True, stopped="early")


def assert_equal(one, other):
    assert one.numbers() == other.numbers()
    assert one.history == other.history
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor, other.tensors[name])


def test_saved_states_come_back_equal(tmp_path):
    save_state(make_state(), tmp_path, "plan-0")
    assert_equal(load_state(tmp_path, "plan-0"), make_state())
    assert load_state(tmp_path, "plan-1") is None


def test_a_new_state_replaces_the_old_and_leaves_others_alone(tmp_path):
    for name, step in (("plan-1", 1), ("plan-10", 2), ("plan-1", 3), ("plan-1", 3)):
        save_state(make_state(step), tmp_path, name)
    assert_equal(load_state(tmp_path, "plan-1"), make_state(3))
    assert_equal(load_state(tmp_path, "plan-10"), make_state(2))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_crash_before_the_last_write_leaves_the_old_state(tmp_path, monkeypatch):
    save_state(make_state(1), tmp_path, "plan")
    real = write_atomically

    def crash(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr("poise.train._checkpoint.write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        save_state(make_state(2), tmp_path, "plan")
    assert_equal(load_state(tmp_path, "plan"), make_state(1))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def crash(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = int(dead.stdout)
    (tmp_path / "inner").mkdir()
    gone = [tmp_path / f"a.json.tmp{pid}", tmp_path / "inner" / f"b.tmp{pid}"]
    kept = [
        tmp_path / f"a.json.tmp{os.getpid()}",
        tmp_path / "notes.tmpl",
        tmp_path / "x.tmp1.json",
        tmp_path / "y.tmp",
    ]
    for path in (*gone, *kept):
        path.write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_flipped_bit_is_found_or_harmless(tmp_path, suffix):
    save_state(make_state(), tmp_path, "plan")
    path = next(tmp_path.glob(f"*{suffix}"))
    whole, caught = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            assert_equal(load_state(tmp_path, "plan"), make_state())
        except ResumeError:
            caught += 1
    assert caught >= 0.98 * len(whole)  # the case of an exponent's "e" does not matter
    assert suffix == ".json" or caught == len(whole)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_truncated_and_missing_files_are_found(tmp_path, suffix):
    save_state(make_state(), tmp_path, "plan")
    path = next(tmp_path.glob(f"*{suffix}"))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ResumeError, match=r"cannot be read: .* \(in .*plan\.json\) Start the run anew"):
            load_state(tmp_path, "plan")
    if suffix == ".safetensors":
        path.unlink()
        with pytest.raises(ResumeError):
            load_state(tmp_path, "plan")


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"tensors": 3}', '{"tensors": "../../etc/passwd"}', "{}"])
def test_foreign_json_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ResumeError):
        load_state(tmp_path, "plan")


def test_json_and_tensors_have_one_form():
    assert to_json({"b": 1, "a": [0.1]}) == to_json({"a": [0.1], "b": 1}) == b'{"a":[0.1],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))
    one, other = {"a": torch.eye(2)[:, 0], "b": torch.ones(1)}, {"b": torch.ones(1), "a": torch.tensor([1.0, 0.0])}
    assert pack_tensors(one) == pack_tensors(other)
    assert replace(make_state()).numbers() == make_state().numbers()


def test_any_tensors_and_numbers(tmp_path):
    write_checkpoint({"a": torch.arange(3)}, {"b": [1, None]}, tmp_path, "one")
    tensors, numbers = read_checkpoint(tmp_path, "one", lambda tensors, numbers: (tensors, numbers))
    assert torch.equal(tensors["a"], torch.arange(3))
    assert numbers == {"b": [1, None]}
    assert read_checkpoint(tmp_path, "other", lambda *_: 1) is None
    with pytest.raises(ResumeError, match="cannot be read"):
        read_checkpoint(tmp_path, "one", lambda _, numbers: numbers["missing"])


def test_tensors_that_a_killed_process_left_beside_newer_ones_are_removed(tmp_path):
    save_state(make_state(), tmp_path, "plan-1")
    save_state(make_state(), tmp_path, "plan-10")
    (tmp_path / "plan-1-0123456789abcdef.safetensors").write_bytes(b"superseded")
    assert_equal(load_state(tmp_path, "plan-1"), make_state())
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert_equal(load_state(tmp_path, "plan-10"), make_state())
