"""Batches of tensors, datasets and loaders, in an order that has a name."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from poise import ConfigError, DataError
from poise._random import Key
from poise.fleet.modules import source_of
from poise.fleet.modules._seeded import seeded

from ._models import rows

X, Y = rows(50, 0)


class Pairs(Dataset):
    def __len__(self):
        return len(Y)

    def __getitem__(self, row):
        return X[row], Y[row]


class Endless(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


def epoch(source, number=0, seed=0):
    with seeded(Key(seed).stream("epoch", number)):
        return [(x.clone(), y.clone()) for x, y in source.shuffled(Key(seed).stream("order").at(number), 16)]


SOURCES = {
    "tensors": lambda: source_of((X, Y), "train"),
    "tensor dataset": lambda: source_of(TensorDataset(X, Y), "train"),
    "dataset": lambda: source_of(Pairs(), "train"),
    "loader": lambda: source_of(DataLoader(TensorDataset(X, Y), 16, shuffle=True), "train"),
    "loader with a generator": lambda: source_of(
        DataLoader(TensorDataset(X, Y), 16, shuffle=True, generator=torch.Generator()), "train"
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(name):
    source = SOURCES[name]()
    first, again, other = epoch(source), epoch(source), epoch(source, 1)
    assert len(first) == source.num_batches(16) == 4
    assert all(
        torch.equal(a, b) for pair, same in zip(first, again, strict=True) for a, b in zip(pair, same, strict=True)
    )
    assert not torch.equal(torch.cat([x for x, _ in first]), torch.cat([x for x, _ in other]))
    for made in (first, other):
        found = {(*x.tolist(), int(y)) for xs, ys in made for x, y in zip(xs, ys, strict=True)}
        assert found == {(*x.tolist(), int(y)) for x, y in zip(X, Y, strict=True)}


def test_tensors_and_their_dataset_go_in_the_same_order():
    made = [epoch(SOURCES[name]()) for name in ("tensors", "tensor dataset", "dataset")]
    assert all(torch.equal(made[0][0][0], one[0][0]) for one in made)


@pytest.mark.parametrize("name", ["tensors", "dataset"])
def test_in_order_means_in_order(name):
    batches = list(SOURCES[name]().in_order(20))
    assert [len(y) for _, y in batches] == [20, 20, 10]
    assert torch.equal(torch.cat([x for x, _ in batches]), X)


def test_a_generator_of_the_users_stays_as_it_was():
    generator = torch.Generator().manual_seed(3)
    source = source_of(DataLoader(TensorDataset(X, Y), 16, shuffle=True, generator=generator), "train")
    before = generator.get_state()
    epoch(source)
    assert torch.equal(before, generator.get_state())


def test_a_single_last_row_joins_the_batch_before():
    source = source_of(rows(33, 0), "train")
    assert [len(y) for _, y in epoch(source)] == [16, 17]


def test_x_may_be_several_tensors():
    source = source_of(({"a": X[:, :2], "b": X[:, 2:]}, Y), "train")
    x, y = next(iter(source.in_order(4)))
    assert {name: len(one) for name, one in x.items()} == {"a": 4, "b": 4}
    assert len(y) == 4


def test_digests_tell_rows_apart():
    one, same, other = (source_of(rows(50, seed), "train").digest() for seed in (0, 0, 1))
    assert one == same != other
    assert source_of(Pairs(), "train").digest() == "Pairs of 50 rows"


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (3, ConfigError, "`train` must be a pair of tensors"),
        (X, ConfigError, "but got Tensor"),
        (Endless(), ConfigError, "but got Endless"),
        (DataLoader(Endless(), 4), ConfigError, "does not say how many batches"),
        ((X, Y[:3]), DataError, r"the shapes are \(50, 6\), \(3,\)"),
        ((X, torch.tensor(1)), DataError, "same rows on their first axis"),
        ((X[:0], Y[:0]), DataError, r"Zero rows\. \(in train\)"),
        ((X.clone().fill_(float("nan")), Y), DataError, "not finite"),
        (DataLoader(TensorDataset(X, Y), 64, drop_last=True), DataError, "Zero batches"),
    ],
)
def test_what_cannot_be_used_is_said(data, error, text):
    with pytest.raises(error, match=text):
        source_of(data, "train")


@pytest.mark.parametrize("batch", [X, (X, Y, Y), {"x": X}])
def test_a_batch_must_be_a_pair(batch):
    class Odd(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, row):
            return (
                {"x": X[row]}
                if isinstance(batch, dict)
                else tuple(one[row] for one in batch)
                if isinstance(batch, tuple)
                else X[row]
            )

    with pytest.raises(DataError, match="A batch must be a pair"):
        next(iter(source_of(Odd(), "train").in_order(2)))
