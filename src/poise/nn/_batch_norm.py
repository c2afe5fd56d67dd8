"""Batch normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from poise._errors import ConfigError
from poise.functional import moments as _moments
from poise.functional.moments import Moments
from poise.functional.normalize import batch_factors, by_position, normalize_parts
from poise.nn._batch_norm_settings import check_settings
from poise.nn._positions import labels_of, mask_of
from poise.nn._ranks import has_ranks, sum_over_ranks
from poise.nn._repeated import is_repeated

# What a domain begins with where a state_dict knows of none.
_ORIGINS = (
    ("domain_mean", "running_mean"), ("domain_var", "running_var"), ("domain_batches_tracked", "num_batches_tracked")
)  # fmt: skip
Domain = int | Tensor | None


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, mean and var over the values of each channel in the batch.

    In training the batch's mean and biased variance normalize, and the running statistics move:
    running ← (1 - momentum) · running + momentum · batch, with the unbiased variance, as in torch. In eval mode the
    running statistics normalize. A channel of a single value has no variance: in training it is normalized like in eval
    mode and moves nothing. With `weight` = the batch's standard deviation and `bias` = its mean it leaves that batch as
    it is. A forward pass that gradient checkpointing repeats within backward moves nothing.

    Which setting is for which case, and what each of them does exactly: docs/batch_norm.md.

    Args:
        num_features: C, ≥ 1.
        eps: Added to the variance, > 0.
        momentum: Weight of the new batch, in [0, 1]; None for the average over all batches.
        affine: Whether weight and bias exist.
        ghost_size: Rows of a ghost batch, 0 for none. A batch of N rows is dealt into max(1, N // ghost_size) ghosts
            whose sizes differ by at most one, each with statistics of its own. Goes with no setting below but `guard`,
            `debias` and `unbiased`.
        accumulate: Micro-batches of an optimizer step, ≥ 1, whose moments are merged by the law of total variance in
            float64 and move the running statistics once; 0 to do so whenever `flush` is called. Each micro-batch is
            normalized by its own moments.
        num_domains: K ≥ 0: domains with running statistics each, which share weight and bias. They are the buffers
            domain_mean, domain_var (K, C) and domain_batches_tracked (K,), and move instead of running_mean and
            running_var.
        guard: Whether a batch with a mean or variance that is not finite leaves the running statistics as they are, and
            counts in `num_skipped`.
        debias: Whether the running statistics are the weighted average of the batches alone, without the zeros and ones
            that they begin with, as in Adam: the t-th batch has the weight momentum / (1 - (1 - momentum)^t), t is
            `num_batches_tracked`.
        unbiased: Whether the variance kept is the unbiased one, as in torch; else that which training normalizes by.
        renorm: (r_max ≥ 1, d_max ≥ 0) of batch renormalization, y = ((x - mean) / σ · r + d) · weight + bias with
            r = σ / σ_running in [1 / r_max, r_max], d = (mean - mean_running) / σ_running in [-d_max, d_max], without
            gradient; None for none. May be set anew between steps.
        synchronized: Whether statistics are over all ranks of `torch.distributed`, exact for batches of unequal sizes.

    Shape:
        (N, C) or (N, C, ...) in, the same out. weight, bias, running_mean, running_var: (C,), by torch's names.

    Raises:
        ConfigError: If a setting is out of range or does not go with another one, or x does not have C channels.
        DataError: If mask or domain do not fit x.

    Example:
        >>> import torch
        >>> BatchNorm(1, affine=False, eps=1e-12)(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.,  1.])

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015. Hoffer et al., "Train longer, generalize better",
    NeurIPS 2017 (ghost batches). Ioffe, "Batch renormalization", NeurIPS 2017. Li et al., "Revisiting batch
    normalization for practical domain adaptation", ICLR workshop 2017. Chang et al., "Domain-specific batch
    normalization", CVPR 2019. Kingma and Ba, "Adam", ICLR 2015 (the correction of an average that begins at zero).
    """

    _version = 2  # of torch's batch norm: its older state_dicts count no batches
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    num_skipped: Tensor | None
    domain_mean: Tensor
    domain_var: Tensor
    domain_batches_tracked: Tensor

    def __init__(
        self, num_features: int, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        ghost_size: int = 0, accumulate: int = 1, num_domains: int = 0, guard: bool = False, debias: bool = False,
        unbiased: bool = True, renorm: tuple[float, float] | None = None, synchronized: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum, self.ghost_size = num_features, eps, momentum, ghost_size
        self.accumulate, self.num_domains, self.guard, self.debias = accumulate, num_domains, guard, debias
        self.unbiased, self.renorm, self.synchronized = unbiased, renorm, synchronized
        check_settings(
            num_features, eps, momentum, ghost_size, accumulate=accumulate, num_domains=num_domains,
            renorm=renorm, flags={"affine": affine, "guard": guard, "debias": debias, "unbiased": unbiased,
                                  "synchronized": synchronized},
        )  # fmt: skip
        self.frozen = False
        self.domain: Domain = None
        self.substitute: Callable[[BatchNorm, Tensor], Tensor] | None = None
        self._pending: Moments | None = None
        self._num_pending = 0
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("num_skipped", torch.tensor(0) if guard else None, persistent=False)
        if num_domains:
            self.register_buffer("domain_mean", torch.zeros(num_domains, num_features))
            self.register_buffer("domain_var", torch.ones(num_domains, num_features))
            self.register_buffer("domain_batches_tracked", torch.zeros(num_domains, dtype=torch.int64))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, domain: Domain = None) -> Tensor:
        """The normalized batch.

        Args:
            x: (N, C) or (N, C, ...).
            mask: Which positions count, (N,) or (N, ...) bool, or the lengths of sequences (N, C, L) as integers (N,).
                Other positions are in no statistics and come out as zeros.
            domain: In [0, K), one for all rows or (N,); None for `self.domain`.
        """
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ConfigError(f"x must be (N, {self.num_features}, ...), but got shape {tuple(x.shape)}.")
        trains = self.training and not self.frozen
        if mask is not None or domain is not None or self.num_domains or (trains and self._needs_sums()):
            return self._by_sums(x, mask, domain, trains)
        if not trains:
            return self._normalize(x, self.running_mean, self.running_var, training=False)
        if self.substitute is not None:
            return self.substitute(self, x)
        return self._by_batch(x)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen layer stays in eval mode."""
        return super().train(mode and not self.frozen)

    @torch.no_grad()
    def begin_domains(self) -> None:
        """Let every domain have the statistics that are kept without domains."""
        for name, source in _ORIGINS if self.num_domains else ():
            self.get_buffer(name).copy_(self.get_buffer(source))

    @torch.no_grad()
    def flush(self) -> None:
        """Let the micro-batches since the last update move the running statistics now; nothing if there are none."""
        pending, self._pending, self._num_pending = self._pending, None, 0
        if pending is not None:
            self.move_by(pending)

    def extra_repr(self) -> str:
        """As torch prints it, with the settings that torch does not have."""
        extra = {
            "affine": (self.weight is not None, True), "ghost_size": (self.ghost_size, 0),
            "accumulate": (self.accumulate, 1), "num_domains": (self.num_domains, 0), "guard": (self.guard, False),
            "debias": (self.debias, False), "unbiased": (self.unbiased, True), "renorm": (self.renorm, None),
            "synchronized": (self.synchronized, False), "frozen": (self.frozen, False),
        }  # fmt: skip
        changed = "".join(f", {name}={value}" for name, (value, default) in extra.items() if value != default)
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{changed}"

    def _by_batch(self, x: Tensor) -> Tensor:
        """By statistics that the kernel of torch computes."""
        count = x.numel() // self.num_features
        if count < 2:
            if self.accumulate != 1:
                self._track(_moments.moments_of(by_position(x)))
            # Copies, as backward reads them, and another batch may move the running statistics until then.
            return self._normalize(x, self.running_mean.clone(), self.running_var.clone(), training=False)
        if self.ghost_size:
            return self._by_ghosts(x)
        if self._is_plain():
            return self._as_torch(x)
        y, mean, var = self._parts(x, 1)
        number = torch.full((1, 1), count, dtype=torch.float64, device=x.device)
        self._track(Moments(number, mean, var * ((count - 1) / count)))
        return y

    def _needs_sums(self) -> bool:
        return self.renorm is not None or (self.synchronized and has_ranks())

    def _is_plain(self) -> bool:
        """Whether the running statistics move as torch's do."""
        changed = self.guard or self.debias or not self.unbiased or self.momentum is None
        return not changed and self.accumulate == 1

    def _normalize(self, x: Tensor, mean: Tensor, var: Tensor, *, training: bool) -> Tensor:
        return nn.functional.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum or 0.0, self.eps)

    def _as_torch(self, x: Tensor) -> Tensor:
        if is_repeated():
            # As many tensors as before, or checkpointing would refuse.
            return self._normalize(x, self.running_mean.clone(), self.running_var.clone(), training=True)
        self.num_batches_tracked += 1
        return self._normalize(x, self.running_mean, self.running_var, training=True)

    def _parts(self, x: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return normalize_parts(x, self.weight, self.bias, eps=self.eps, number=number, like=self.running_mean)

    def _by_ghosts(self, x: Tensor) -> Tensor:
        positions = x.numel() // (len(x) * self.num_features)
        dealt = _moments.ghost_sizes(len(x), self.ghost_size, fewest=2 if positions == 1 else 1)
        parts = torch.split(x, [number * size for number, size in dealt])
        found = [self._parts(part, number) for part, (number, _) in zip(parts, dealt, strict=True)]
        outputs, means, variances = zip(*found, strict=True)
        if not self.unbiased:
            counts = [size * positions for _, size in dealt]
            variances = tuple(var * ((n - 1) / n) for var, n in zip(variances, counts, strict=True))
        if not is_repeated():
            mean, var = (torch.cat(ones).mean(0, keepdim=True) for ones in (means, variances))
            self._store(mean, var, torch.ones_like(mean[:, 0], dtype=torch.bool))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _by_sums(self, x: Tensor, mask: Tensor | None, domain: Domain, trains: bool) -> Tensor:
        if self.ghost_size:
            raise ConfigError("A BatchNorm with `ghost_size` takes no mask.", repair="Leave one of them out.")
        labels = labels_of(self.domain if domain is None else domain, x, self.num_domains)
        valid = mask_of(mask, x)
        values = by_position(x) if valid is None else torch.where(valid, by_position(x), 0)
        mean, var = (one.to(values.dtype) for one in self._statistics()[:2])
        if trains:
            total = sum_over_ranks if self.synchronized else _moments.own_total
            moments = _moments.moments_of(values, mask=valid, labels=labels, num_groups=len(mean), total=total)
            parts = batch_factors(moments, mean, var, eps=self.eps, renorm=self.renorm)
            self._track(moments)
        else:
            parts = mean, (var + self.eps).rsqrt(), torch.zeros_like(mean)
        mean, factor, offset = (_moments.rows_of(part, labels) for part in parts)
        y = (values - mean) * factor + offset
        y = y if self.weight is None else y * self.weight.view(1, -1, 1)
        y = y if self.bias is None else y + self.bias.view(1, -1, 1)
        y = y if valid is None else torch.where(valid, y, 0)
        return y.reshape(x.shape).to(x.dtype)

    @torch.no_grad()
    def _track(self, moments: Moments) -> None:
        """Let a batch move the running statistics, at once or together with others."""
        if is_repeated():
            return
        if self.accumulate == 1:
            self.move_by(moments)
            return
        moments = Moments(*(part.detach() for part in moments))
        self._pending = moments if self._pending is None else _moments.merge(self._pending, moments)
        self._num_pending += 1
        if self._num_pending == self.accumulate:
            self.flush()

    @torch.no_grad()
    def move_by(self, moments: Moments) -> None:
        """Move the running statistics by a batch.

        Args:
            moments: (G, C) of each domain, or (1, C).
        """
        var = _moments.kept_variance(moments, unbiased=self.unbiased)
        self._store(moments.mean, var, moments.number.squeeze(1) > 1)

    def _store(self, mean: Tensor, var: Tensor, moves: Tensor) -> None:
        """Move the running statistics of each group, where `moves` (G,), by mean and var (G, C)."""
        kept_mean, kept_var, tracked = self._statistics()
        if self.num_skipped is not None:
            is_finite = (mean.isfinite() & var.isfinite()).all(1)
            self.num_skipped += (moves & ~is_finite).sum()
            moves = moves & is_finite
        tracked += moves
        weight = _moments.weight_of_new(tracked.unsqueeze(1), self.momentum, debias=self.debias)
        for kept, new in ((kept_mean, mean), (kept_var, var)):
            # Not `lerp_`, for which `torch.vmap` has no rule.
            own = weight.to(kept.dtype) if isinstance(weight, Tensor) else weight
            moved = torch.lerp(kept, new.to(kept.dtype), own)
            kept.copy_(torch.where(moves.unsqueeze(1), moved, kept))

    def _statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Running mean and variance (G, C) and the number of batches (G,) of each domain, or of the only one."""
        if self.num_domains:
            return self.domain_mean, self.domain_var, self.domain_batches_tracked
        return self.running_mean.unsqueeze(0), self.running_var.unsqueeze(0), self.num_batches_tracked.unsqueeze(0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
                              *rest: Any) -> None:  # fmt: skip
        if local_metadata.get("version") is None:
            state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        for name, source in _ORIGINS if self.num_domains else ():
            if f"{prefix}{source}" in state_dict:
                pooled = state_dict[f"{prefix}{source}"]
                state_dict.setdefault(f"{prefix}{name}", pooled.expand(self.num_domains, *pooled.shape))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
