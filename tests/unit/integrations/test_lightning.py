import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from poise import ConfigError, Recipe
from poise.integrations.lightning import RegimenCallback
from poise.methods import Dropout, EarlyStopping, Mixup

from ._recipe import RECIPE, Spy, network, rows

warnings.simplefilter("ignore")
from lightning.pytorch import LightningModule, Trainer  # noqa: E402


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", self.current_epoch + 1.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0)


def train(callback, model, **settings):
    x, y = rows()
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], **settings,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own remarks
        trainer.fit(model, loader, loader)
    return trainer


def test_a_recipe_acts_in_the_loop_of_lightning(monkeypatch):
    spy, model = Spy(monkeypatch), Classifier()
    callback = RegimenCallback(RECIPE, example=rows()[0], module="net")
    train(callback, model, max_epochs=2)
    spy.check(callback.regimen, model.net, 8, rows()[0])


def test_a_step_over_two_batches_is_one_step(monkeypatch):
    spy, model = Spy(monkeypatch), Classifier()
    callback = RegimenCallback(RECIPE, example=rows()[0], module="net")
    train(callback, model, max_epochs=2, accumulate_grad_batches=2)
    spy.check(callback.regimen, model.net, 4, rows()[0])


def test_the_recipe_stops_the_training():
    recipe = Recipe(methods=(Dropout(p=0.1), EarlyStopping(patience=2)))
    trainer = train(RegimenCallback(recipe, example=rows()[0], module="net"), Classifier(), max_epochs=9)
    assert trainer.current_epoch < 5


def test_what_changes_batches_is_refused_by_name():
    with pytest.raises(ConfigError, match="Mixup would change batches"):
        RegimenCallback(Recipe(methods=(Mixup(),)))


def test_before_the_training_there_is_no_regimen():
    with pytest.raises(ConfigError, match="before the training"):
        _ = RegimenCallback(RECIPE).regimen
