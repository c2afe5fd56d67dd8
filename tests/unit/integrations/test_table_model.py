import numpy as np
import polars as pl
import pytest
import torch

from poise import Average
from poise.data import check_columns
from poise.data._buckets import Buckets
from poise.integrations._calendar import MISSING
from poise.integrations._table_model import TableModel
from poise.integrations._table_network import Dates, Vocabulary
from poise.train import Binary, Regression

from .test_export_ensemble import TWO, fold_networks
from .test_table_graph import other_rows, table


def by_parts(model, data):
    """What the parts say, joined in torch."""
    seen = check_columns(model.schema, data)
    given = []
    for kind in ("number", "boolean", "date", "category"):
        cells = [seen.get_column(one.name).alias("") for one in model.schema.of(kind)]
        if not cells:
            continue
        if kind == "category":
            columns = [codes(one, known) for one, known in zip(cells, model.vocabularies, strict=True)]
        elif kind == "date":
            columns = [torch.from_numpy(one.to_physical().fill_null(MISSING).to_numpy().copy()) for one in cells]
        else:
            columns = [torch.from_numpy(one.cast(pl.Float64).fill_null(np.nan).to_numpy().copy()) for one in cells]
        stacked = torch.stack(columns, dim=1)
        given += Dates()(stacked) if kind == "date" else [stacked]
    encoded = [one(*given) for one in model.encodings]
    made = [one(*encoded[place]) for one, place in zip(model.networks, model.places, strict=True)]
    return made[0] if model.head is None else model.head(*made)


def codes(cells, known):
    code_of = {name: index for index, name in enumerate(known.names, start=1)}
    return torch.tensor([known.missing if one is None else code_of.get(one, 0) for one in cells.to_list()])


@pytest.mark.parametrize("task", [Binary(), Regression()])
def test_the_parts_together_predict_as_the_ensemble(task):
    data = table()
    y = data["label"].to_numpy() * 1e3 + 1e6 if task.kind == "regression" else data["label"].to_numpy() > 0.5
    members = fold_networks(data, y, task, TWO)
    average, rows = Average(members, [0.3, 0.2, 0.1, 0.1, 0.1, 0.2]), other_rows(data)
    model = TableModel(average)
    assert len(model.encodings) == len(model.networks) == 6
    scale = model.scale if task.kind == "regression" else 1.0
    found, expected = by_parts(model, rows), average.predict(rows)
    assert found.dtype == (torch.float64 if task.kind == "regression" else torch.float32)
    assert (found - expected).abs().max() <= 1e-5 * scale


def test_equal_encoders_encode_once_and_a_single_network_needs_no_rule():
    data = table()
    members = fold_networks(data, data["label"].to_numpy() > 0.5, Binary(), [TWO[0], TWO[0]])
    model = TableModel(Average(members))
    assert len(model.encodings) == 3
    assert model.places == (0, 1, 2, 0, 1, 2)
    assert TableModel(members[0]).head is None
    assert TableModel(Average(members, [0, 0, 1, 0, 0, 0])).head is None


def test_a_vocabulary_holds_what_any_encoder_saw_and_gives_each_its_own_buckets():
    class Seen:
        def __init__(self, *buckets):
            self.buckets = buckets

    one, other = Buckets(("b", "c"), ("z",), has_missing=True), Buckets(("a", "b"), (), has_missing=False)
    known = Vocabulary.of([Seen(one), Seen(other)], 0)
    assert known.names == ("a", "b", "c", "z")
    assert known.buckets_of(one).tolist() == [0, 0, 2, 3, 1, 4]
    assert known.buckets_of(other).tolist() == [0, 2, 3, 0, 0, 0]
