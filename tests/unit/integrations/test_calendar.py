import numpy as np
import polars as pl
import torch

from poise.data._dates import cycles_of, numbers_of
from poise.integrations._calendar import MISSING, date_parts

_DAY = 86_400_000_000


def test_parts_are_those_of_the_table_for_every_kind_of_year():
    every_day = np.arange(-150_000, 150_000, 7, dtype=np.int64)  # years 1559 to 2380, all weekdays and leap years
    edges = np.array([-719_162, -1, 0, 1, 58, 59, 60, 11_016, 47_540, 2_900_000], dtype=np.int64)
    clock = np.random.default_rng(0).integers(0, _DAY, len(every_day) + len(edges))
    time = np.concatenate((every_day, edges)) * _DAY + clock
    time[::5] -= time[::5] % _DAY
    dates = pl.Series(time).cast(pl.Datetime("us"))
    parts = date_parts(torch.from_numpy(time).unsqueeze(1))
    numbers = numbers_of(dates)
    assert parts.numbers[:, 0].numpy().tolist() == numbers.tolist()
    cycles = cycles_of(dates, clock=True)
    assert np.abs(parts.cycles[:, 0].numpy() - cycles).max() < 1e-14


def test_a_missing_date_is_missing():
    parts = date_parts(torch.tensor([[MISSING, 0]]))
    assert parts.numbers.isnan().tolist() == [[[True, True], [False, False]]]
    assert parts.cycles[0, 0].tolist() == [0.0] * 8
