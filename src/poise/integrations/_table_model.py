"""The parts of a network or an ensemble of tables, as torch modules of operators that ONNX has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise._errors import ExportError
from poise.data import Encoder
from poise.ensemble import Average, Boosted, Predicts
from poise.ensemble._members import encoder_digest
from poise.integrations._table_network import TableEncoding, TableNetwork, Vocabulary
from poise.train import Predictor, State


class TableModel:
    """Encodings, networks that read them, and what is made of the networks' predictions.

    Args:
        predictor: Is left as it is.

    Raises:
        ExportError: If a member is no kind that is known here.
    """

    def __init__(self, predictor: Predicts) -> None:
        members: list[Predictor] = []
        rule = _rule(predictor, members)
        self.head = None if isinstance(rule, _Single) else Head(rule, is_regression=predictor.task.kind == "regression")
        digests = [encoder_digest(one.encoder) for one in members]
        found = dict(zip(reversed(digests), (one.encoder for one in reversed(members)), strict=True))
        self.encoders: tuple[Encoder, ...] = tuple(found[digest] for digest in dict.fromkeys(digests))
        self.schema = self.encoders[0].schema
        columns = range(len(self.schema.of("category")))
        self.vocabularies = tuple(Vocabulary.of(self.encoders, index) for index in columns)
        self.encodings = tuple(TableEncoding(one, self.vocabularies).eval() for one in self.encoders)
        self.places = tuple(list(dict.fromkeys(digests)).index(digest) for digest in digests)
        self.networks = tuple(
            TableNetwork(one, self.encodings[place].makes).eval()
            for one, place in zip(members, self.places, strict=True)
        )
        self.mean, self.scale = _scaling(predictor)


class Head(nn.Module):
    """What an ensemble makes of the predictions of its networks.

    Args:
        rule: Of the whole ensemble.
        is_regression: Whether values are predicted.
    """

    def __init__(self, rule: nn.Module, *, is_regression: bool) -> None:
        super().__init__()
        self.rule, self.is_regression = rule, is_regression
        self.eval()

    def forward(self, *predictions: Tensor) -> Tensor:
        """Class probabilities (B, C) in float32, or values (B,) in float64, of those of all networks."""
        made: Tensor = self.rule(predictions)
        return made if self.is_regression else made.float()


class _Single(nn.Module):
    """The prediction of one network."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, predictions: Sequence[Tensor]) -> Tensor:
        return predictions[self.index]


class _Mean(nn.Module):
    """`Average`, in float64."""

    weights: Tensor

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))

    def forward(self, predictions: Sequence[Tensor]) -> Tensor:
        made = torch.stack([member(predictions).double() for member in self.members], dim=-1)
        return made @ self.weights


class _Sum(nn.Module):
    """`Boosted`, in float64."""

    base: Tensor
    steps: Tensor
    scaling: Tensor

    def __init__(self, boosted: Boosted, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.task = boosted.task
        self.members = nn.ModuleList(members)
        self.register_buffer("base", torch.tensor(boosted.base, dtype=torch.float64))
        steps = torch.tensor([stage.step for stage in boosted.stages], dtype=torch.float64)
        self.register_buffer("steps", steps.repeat_interleave(len(boosted.base)))
        self.register_buffer("scaling", torch.tensor(_scaling(boosted), dtype=torch.float64))

    def forward(self, predictions: Sequence[Tensor]) -> Tensor:
        added = torch.stack([member(predictions) for member in self.members], dim=1) * self.steps
        rounds = added.reshape(-1, len(self.members) // len(self.base), len(self.base))
        made = self.task.predict(self.base + rounds.sum(dim=1))
        return made * self.scaling[1] + self.scaling[0] if self.task.kind == "regression" else made


def _rule(predictor: Predicts, members: list[Predictor]) -> nn.Module:
    """What is made of the predictions of `members`, to which the networks of `predictor` are added."""
    if isinstance(predictor, Predictor):
        members.append(predictor)
        return _Single(len(members) - 1)
    if isinstance(predictor, Average):
        used = [pair for pair in zip(predictor.members, predictor.weights, strict=True) if pair[1] > 0]
        if len(used) == 1:
            return _rule(used[0][0], members)
        return _Mean([_rule(member, members) for member, _ in used], [weight for _, weight in used])
    if isinstance(predictor, Boosted):
        return _Sum(predictor, [_rule(one, members) for stage in predictor.stages for one in stage.networks])
    raise ExportError(
        f"A {type(predictor).__name__} cannot be written as ONNX, only networks, averages and sums of them.",
        repair="Teach one network what it predicts, with `poise.distill`, and export that.",
    )


def _scaling(predictor: Predicts) -> tuple[float, float]:
    """What a regression's target was scaled by, (mean, scale); of an ensemble's first member."""
    if isinstance(predictor, Average):
        return _scaling(predictor.members[0])
    of = predictor.state if isinstance(predictor, Predictor) else predictor
    return (of.target_mean, of.target_scale) if isinstance(of, State | Boosted) else (0.0, 1.0)
