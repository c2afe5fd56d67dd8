"""A recipe: what is done to a network so that it generalizes, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

from poise._checks import Interval, check_choice, check_integer, check_real, check_type
from poise._errors import ConfigError
from poise.functional.schedule import Cosine, Schedule, Strength
from poise.methods._bases import Method
from poise.nn import ACTIVATIONS, Structure

M = TypeVar("M", bound=Method)
_STEPS = 2000
_EPOCHS = (40, 200)
_POSITIVE = Interval(0, low_open=True)


@dataclass(frozen=True)
class AdamW:
    """Adam of Kingma and Ba; decay is a method of its own (`WeightDecay`), decoupled as in Loshchilov and Hutter.

    Args:
        lr: Learning rate, > 0, or a schedule.
        beta1: Decay of the gradient's average, in [0, 1).
        beta2: Decay of the squared gradient's average, in [0, 1).
        eps: Added to the root of the squared gradient's average, > 0.
        bias_lr: Factor on the learning rate of biases, ≥ 0.

    Example:
        >>> AdamW(lr=Cosine(2e-3), beta2=0.95).lr.at(0.5)
        0.001
    """

    lr: Strength = field(default_factory=lambda: Cosine(1e-3))
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    bias_lr: float = 1.0

    def __post_init__(self) -> None:
        for value in self.lr.values if isinstance(self.lr, Schedule) else (self.lr,):
            check_real("lr", value, Interval(0, 100))
        for name in ("beta1", "beta2"):
            check_real(name, getattr(self, name), Interval(0, 1, high_open=True))
        check_real("eps", self.eps, _POSITIVE)
        check_real("bias_lr", self.bias_lr, Interval(0))


@dataclass(frozen=True)
class Budget:
    """How long to train.

    Args:
        max_epochs: Upper bound of passes over the training rows, ≥ 1; schedules span it. None suits the table: as many
            as make 2,000 steps, but at least 40 and at most 200.
        batch_size: Rows of a batch, ≥ 1. The last batch of an epoch is never a single row: it joins its neighbor.

    Example:
        >>> Budget().epochs_for(3200), Budget(max_epochs=10).epochs_for(3200)
        (80, 10)
    """

    max_epochs: int | None = None
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.max_epochs is not None:
            check_integer("max_epochs", self.max_epochs, Interval(1))
        check_integer("batch_size", self.batch_size, Interval(1))

    def epochs_for(self, num_rows: int) -> int:
        """`max_epochs`, or what suits `num_rows` training rows."""
        if self.max_epochs is not None:
            return self.max_epochs
        fewest, most = _EPOCHS
        return max(fewest, min(most, _STEPS * self.batch_size // max(1, num_rows)))


@dataclass(frozen=True)
class Network:
    """The tabular network that a recipe is meant for. A user's own torch model takes its place where there is one.

    Args:
        width: Features of a hidden layer, ≥ 1.
        depth: Number of hidden layers or residual blocks, ≥ 1.
        activation: Name of the nonlinearity.
        residual: Whether blocks add to a stream, x + f(norm(x)), instead of replacing it.
        numeric: "robust" (median and quartiles, smooth clip) or "quantile" (normal scores).
        num_bins: Bins of the piecewise-linear encoding of numbers; 0 for none.
        embedding_dim: Largest size of a category's embedding, ≥ 1.
        num_frequencies: Learned waves of each number, which the network reads beside it; 0 for none.
        frequency_scale: Standard deviation of the first frequencies, in periods per scaled number, ≥ 0.
        periodic_dim: What the waves of a number become, ≥ 1.
        parametric: Whether units learn how much they bend.
        input_scale: Whether inputs have learned scales.
        num_members: Networks that share all but their view of the inputs and their outputs; their average predicts.
        init: "kaiming" (as torch's linear layers) or "data" (units of variance 1 that bend among the training rows).

    Example:
        >>> Network(width=128, depth=2).structure.width
        128
    """

    width: int = 256
    depth: int = 3
    activation: str = "relu"
    residual: bool = False
    numeric: str = "robust"
    num_bins: int = 0
    embedding_dim: int = 8
    num_frequencies: int = 0
    frequency_scale: float = 0.5
    periodic_dim: int = 3
    parametric: bool = False
    input_scale: bool = False
    num_members: int = 1
    init: str = "kaiming"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "embedding_dim", "periodic_dim", "num_members"):
            check_integer(name, getattr(self, name), Interval(1))
        for name in ("num_bins", "num_frequencies"):
            check_integer(name, getattr(self, name), Interval(0))
        check_real("frequency_scale", self.frequency_scale, Interval(0))
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("numeric", self.numeric, ("robust", "quantile"))
        check_choice("init", self.init, ("kaiming", "data"))
        for name in ("residual", "parametric", "input_scale"):
            check_type(name, getattr(self, name), bool)

    @property
    def structure(self) -> Structure:
        """The hidden part."""
        return Structure(
            self.width, self.depth, self.activation, self.residual, self.parametric, self.input_scale, self.num_members
        )


@dataclass(frozen=True)
class Recipe:
    """What makes a network generalize: methods, optimizer, budget, and the tabular network they are meant for.

    Args:
        methods: Each at most once; network layers at the same spot follow in this order.
        optimizer: Of which the learning rate may be a schedule.
        budget: How long to train.
        network: Ignored where the model is the user's own.

    Raises:
        ConfigError: If a field has the wrong type or a method appears twice.

    Example:
        >>> from poise.methods import Dropout, WeightDecay
        >>> recipe = Recipe(methods=(Dropout(p=0.3), WeightDecay(weight_decay=0.02)))
        >>> recipe.get(Dropout).p
        0.3
    """

    methods: tuple[Method, ...] = ()
    optimizer: AdamW = field(default_factory=AdamW)
    budget: Budget = field(default_factory=Budget)
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        check_type("methods", self.methods, tuple)
        for method in self.methods:
            check_type("methods", method, Method)
        names = [type(method).__name__ for method in self.methods]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"`methods` must hold each method at most once, but {twice} appears twice.")
        for one, kind in zip(fields(self)[1:], (AdamW, Budget, Network), strict=True):
            check_type(one.name, getattr(self, one.name), kind)

    def get(self, kind: type[M]) -> M | None:
        """The method of type `kind`, or None."""
        return next((method for method in self.methods if isinstance(method, kind)), None)

    def of(self, base: type[M]) -> tuple[M, ...]:
        """The methods that act at one place, for example `recipe.of(NetworkMethod)`."""
        return tuple(method for method in self.methods if isinstance(method, base))
