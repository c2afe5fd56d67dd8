import warnings

import pytest
import torch

from poise import Recipe
from poise.integrations.transformers import RegimenCallback
from poise.methods import EMA, Dropout, EarlyStopping, MaxNorm, WeightDecay

from ._recipe import MAX_NORM, RECIPE, Spy, network, rows

warnings.simplefilter("ignore")
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments  # noqa: E402


class Classifier(torch.nn.Module):
    """As Trainer wants it: keyword arguments in, the loss first in what comes out."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(callback, model, data, folder, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own remarks
        arguments = TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=16, report_to=[], save_strategy="no", use_cpu=True,
            disable_tqdm=True, learning_rate=1e-2, logging_strategy="no", **settings,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, callbacks=[callback])
        trainer.train()
    return trainer


def table():
    x, y = rows()
    return [{"x": one, "labels": label} for one, label in zip(x, y, strict=True)]


def test_a_recipe_acts_in_the_loop_of_transformers(monkeypatch, tmp_path):
    spy, model = Spy(monkeypatch), Classifier()
    callback = RegimenCallback(RECIPE, example=rows()[0], module="net", call=lambda part, batch: part(batch["x"]))
    train(callback, model, table(), tmp_path, num_train_epochs=2)
    spy.check(callback.regimen, model.net, 8, rows()[0])


@pytest.mark.slow
def test_bert_with_dropout_projection_and_average(monkeypatch, tmp_path):
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    model, spy = BertForSequenceClassification(config), Spy(monkeypatch)
    ids = torch.randint(0, 50, (32, 6), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": one, "labels": one[0] % 2} for one in ids]
    recipe = Recipe(methods=(Dropout(p=0.3), WeightDecay(weight_decay=0.1), MaxNorm(max_norm=MAX_NORM), EMA(decay=0.5)))
    callback = RegimenCallback(recipe, example={"input_ids": ids[:2]})
    train(callback, model, data, tmp_path, num_train_epochs=2)
    assert spy.calls == ["before_step", "after_step"] * 4 + ["finish"]
    assert "Dropout" in callback.regimen.diff()
    assert 0.3 in [
        one.p for one in model.modules() if isinstance(one, torch.nn.Dropout) or type(one).__name__ == "Dropout"
    ]
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert spy.last[name].norm(dim=1).max() <= MAX_NORM + 1e-5
    assert not torch.equal(model.state_dict()[name], spy.last[name])


def test_the_recipe_stops_the_training(tmp_path):
    recipe = Recipe(methods=(Dropout(p=0.1), EarlyStopping(patience=2)))
    callback = RegimenCallback(recipe, example=rows()[0], module="net", monitor="epoch")
    trainer = train(callback, Classifier(), table(), tmp_path, num_train_epochs=9, eval_strategy="epoch")
    assert trainer.state.epoch < 5
