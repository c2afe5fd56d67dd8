import torch
from skorch import NeuralNetClassifier

from poise import Recipe
from poise.integrations.skorch import RegimenCallback
from poise.methods import Dropout, EarlyStopping

from ._recipe import RECIPE, Spy, network, rows


def net(callback, **settings):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        network(), criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, optimizer__weight_decay=0.0,
        lr=1e-2, batch_size=16, verbose=0, callbacks=[callback], **settings,
    )  # fmt: skip


def test_a_recipe_acts_in_the_loop_of_skorch(monkeypatch):
    x, y = rows()
    spy, callback = Spy(monkeypatch), RegimenCallback(RECIPE, example=rows()[0])
    fitted = net(callback, max_epochs=2, train_split=None).fit(x, y)
    spy.check(callback.regimen, fitted.module_, 8, x)
    assert fitted.predict_proba(x).shape == (64, 2)


def test_a_second_fit_begins_anew_and_a_partial_one_goes_on(monkeypatch):
    x, y = rows()
    callback = RegimenCallback(Recipe(methods=(Dropout(p=0.4),)), example=x)
    model = net(callback, max_epochs=1, train_split=None)
    first = model.fit(x, y).module_
    model.partial_fit(x, y)
    assert model.module_ is first
    assert callback.regimen.num_steps_done == 8
    model.fit(x, y)
    assert callback.regimen.num_steps_done == 4
    assert sum(type(one).__name__ == "Dropout" for one in model.module_.modules()) == 1


def test_the_recipe_stops_the_training():
    x, y = rows()
    recipe = Recipe(methods=(Dropout(p=0.1), EarlyStopping(patience=1)))
    fitted = net(RegimenCallback(recipe, example=x, monitor="epoch"), max_epochs=9).fit(x, y)
    assert len(fitted.history) < 5
