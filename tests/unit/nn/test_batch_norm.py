"""BatchNorm: each awkward case against a plain computation in float64, and torch's layer where it has the case."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from poise._errors import ConfigError, DataError
from poise.nn import BatchNorm, use_domain

TORCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = [(7, 3), (5, 3, 4), (4, 3, 5, 2), (3, 3, 2, 3, 2)]


def randn(*shape, seed=0):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1


def channels_first(x):
    return x.transpose(0, 1).flatten(1)


def normalized(x, eps=1e-5):
    """Of (N, C, ...), by the definition."""
    values = channels_first(x)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = values.mean(1).view(shape), values.var(1, correction=0).view(shape)
    return (x - mean) / torch.sqrt(var + eps)


def same(one, other):
    assert set(one) == set(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"guard": True}, {"momentum": None}, {"momentum": None, "guard": True}])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_torchs_layer(shape, settings):
    theirs = TORCH[len(shape)](3, momentum=settings.get("momentum", 0.1)).double()
    ours = BatchNorm(3, **settings).double()
    ours.load_state_dict(theirs.state_dict())
    for seed in range(3):
        x, y = (randn(*shape, seed=seed).requires_grad_() for _ in range(2))
        out, expected = ours(x), theirs(y)
        out.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-12)
    same(ours.state_dict(), theirs.state_dict())
    ours.eval()
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_state_dicts_fit_both_ways(shape):
    theirs, ours = TORCH[len(shape)](3), BatchNorm(3, guard=True, debias=True)
    theirs(torch.randn(shape))
    ours.load_state_dict(theirs.state_dict())
    same(ours.state_dict(), theirs.state_dict())
    ours(torch.randn(shape))
    theirs.load_state_dict(ours.state_dict())
    same(ours.state_dict(), theirs.state_dict())


def test_an_old_state_dict_without_a_count_loads_as_in_torch():
    state = dict(nn.BatchNorm1d(3).state_dict())
    del state["num_batches_tracked"]
    BatchNorm(3).load_state_dict(state)


@pytest.mark.parametrize("shape", [(13, 3), (12, 3), (7, 3, 4), (6, 3, 2, 5)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_ghosts_are_batches_of_their_own(shape, unbiased):
    """Contiguous parts whose sizes differ by at most one; statistics are their plain average."""
    x = randn(*shape)
    layer = BatchNorm(3, ghost_size=3, momentum=1.0, unbiased=unbiased).double()
    parts = x.tensor_split(shape[0] // 3)
    torch.testing.assert_close(layer(x), torch.cat([normalized(part) for part in parts]), rtol=1e-12, atol=1e-12)
    values = [channels_first(part) for part in parts]
    torch.testing.assert_close(layer.running_mean, torch.stack([one.mean(1) for one in values]).mean(0))
    expected = torch.stack([one.var(1, correction=int(unbiased)) for one in values]).mean(0)
    torch.testing.assert_close(layer.running_var, expected)


@pytest.mark.parametrize("rows", [12, 13])
def test_ghosts_take_one_kernel_for_each_size(rows, monkeypatch):
    calls, kernel = [], nn.functional.batch_norm
    monkeypatch.setattr(nn.functional, "batch_norm", lambda x, *rest: calls.append(x.shape) or kernel(x, *rest))
    BatchNorm(3, ghost_size=3)(torch.randn(rows, 3))
    assert calls == ([(3, 12)] if rows == 12 else [(4, 3), (3, 9)])


def test_a_plain_batch_takes_one_kernel_and_nothing_else():
    with torch.profiler.profile() as profile:
        layer = BatchNorm(3)
        x = torch.randn(8, 3)
        with torch.profiler.record_function("forward"):
            layer(x)
    top = [one for one in profile.events() if one.cpu_parent is not None and one.cpu_parent.name == "forward"]
    assert [one.name for one in top] == ["aten::add_", "aten::batch_norm"]


def test_images_of_one_row_have_a_variance_and_ghosts_of_one_image_do():
    x = randn(3, 2, 4, 4)
    torch.testing.assert_close(BatchNorm(2).double()(x[:1]), normalized(x[:1]))
    ghosts = BatchNorm(2, ghost_size=1).double()(x)
    torch.testing.assert_close(ghosts, torch.cat([normalized(one) for one in x.split(1)]))


@pytest.mark.parametrize(
    "settings", [{}, {"guard": True}, {"ghost_size": 2}, {"renorm": (3.0, 5.0)}, {"accumulate": 2}]
)
@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_values_are_normalized_as_in_eval_and_move_nothing(settings, rows):
    layer = BatchNorm(3, **settings).double()
    for _ in range(2):
        layer(randn(6, 3))
    before = copy.deepcopy(layer.state_dict())
    x = randn(rows, 3, seed=1)
    out = layer(x)
    same(layer.state_dict(), before)
    torch.testing.assert_close(out, layer.eval()(x))


def test_a_single_row_between_two_batches_keeps_its_gradient():
    layer = BatchNorm(3, guard=True).double()
    x = randn(1, 3).requires_grad_()
    out = layer(x)
    layer(randn(6, 3))
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / (1 + 1e-5) ** 0.5))


@pytest.mark.parametrize("unbiased", [True, False])
def test_micro_batches_move_the_statistics_once_as_the_whole_batch_does(unbiased):
    x = randn(11, 3, 4)
    whole = BatchNorm(3, momentum=0.25, unbiased=unbiased).double()
    parts = BatchNorm(3, momentum=0.25, unbiased=unbiased, accumulate=3).double()
    whole(x)
    for part in x.split([6, 4, 1]):
        assert parts.num_batches_tracked == 0
        torch.testing.assert_close(parts(part), normalized(part))
    same(parts.state_dict(), whole.state_dict())


def test_flush_ends_a_step():
    x = randn(9, 3)
    whole, parts = BatchNorm(3).double(), BatchNorm(3, accumulate=0).double()
    for _ in range(2):
        whole(x)
        for part in x.split(2):
            parts(part)
        parts.flush()
        parts.flush()
    same(parts.state_dict(), whole.state_dict())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"guard": True}, {"ghost_size": 2}, {"accumulate": 2}, {"renorm": (1.5, 1.0)}]
)
def test_gradient_checkpointing_counts_a_batch_once(settings, reentrant):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 3), BatchNorm(3, **settings), nn.Tanh()).double()
    twin = copy.deepcopy(plain)
    for seed in range(4):
        x = randn(6, 4, seed=seed).requires_grad_()
        plain(x).square().sum().backward()
        checkpoint(twin, x, use_reentrant=reentrant).square().sum().backward()
    same(dict(twin.state_dict()), dict(plain.state_dict()))
    # Renormalization reads statistics that have moved when the pass is repeated.
    if "renorm" not in settings:
        for one, other in zip(plain.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("shape", [(6, 3, 5), (4, 3, 2, 5)])
def test_masked_positions_do_not_exist(shape):
    x = randn(*shape)
    mask = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(1)) < 0.6
    layer = BatchNorm(3, momentum=1.0).double()
    flat = x.transpose(1, -1)[mask.transpose(1, -1) if x.ndim > 3 else mask]
    dirty = torch.where(mask.unsqueeze(1), x, float("nan")).requires_grad_()
    out = layer(dirty, mask=mask)
    moved = out.transpose(1, -1)[mask.transpose(1, -1) if x.ndim > 3 else mask]
    torch.testing.assert_close(moved, normalized(flat))
    assert bool((out.masked_select(~mask.unsqueeze(1)) == 0).all())
    torch.testing.assert_close(layer.running_mean, flat.mean(0))
    torch.testing.assert_close(layer.running_var, flat.var(0))
    out.sin().sum().backward()
    assert bool(torch.isfinite(dirty.grad).all())
    assert bool((layer.eval()(dirty, mask=mask).masked_select(~mask.unsqueeze(1)) == 0).all())


def test_lengths_are_masks_and_rows_can_be_masked():
    x, lengths = randn(4, 3, 5), torch.tensor([5, 2, 0, 3])
    mask = torch.arange(5) < lengths[:, None]
    assert torch.equal(BatchNorm(3).double()(x, mask=lengths), BatchNorm(3).double()(x, mask=mask))
    rows = torch.tensor([True, False, True, True])
    torch.testing.assert_close(BatchNorm(3).double()(x, mask=rows)[rows], normalized(x[rows]))
    everything = BatchNorm(3).double()(x, mask=torch.ones(4, 5, dtype=torch.bool))
    torch.testing.assert_close(everything, normalized(x))


@pytest.mark.parametrize("kept", [0, 1])
def test_a_mask_that_leaves_fewer_than_two_values_moves_nothing(kept):
    layer = BatchNorm(3, guard=True).double()
    mask = torch.arange(4) < kept
    x = randn(4, 3)
    torch.testing.assert_close(layer(x, mask=mask)[mask], layer.eval()(x)[mask])
    same(layer.state_dict(), BatchNorm(3).double().state_dict())
    assert layer.num_skipped == 0


@pytest.mark.parametrize(
    "mask", [torch.ones(3, dtype=torch.bool), torch.ones(4, 2), torch.ones(4, 5, dtype=torch.int64)]
)
def test_masks_that_do_not_fit(mask):
    with pytest.raises(DataError, match="`mask` must be bool"):
        BatchNorm(3)(torch.randn(4, 3, 5), mask=mask)


def test_domains_have_statistics_of_their_own():
    x, labels = randn(9, 3, 2), torch.tensor([0, 2, 2, 0, 0, 2, 0, 2, 2])
    layer = BatchNorm(3, num_domains=3, momentum=0.5).double()
    out = layer(x, domain=labels)
    for domain in (0, 2):
        rows = labels == domain
        alone = BatchNorm(3, momentum=0.5).double()
        torch.testing.assert_close(out[rows], alone(x[rows]))
        torch.testing.assert_close(layer.domain_mean[domain], alone.running_mean)
        torch.testing.assert_close(layer.domain_var[domain], alone.running_var)
        torch.testing.assert_close(layer.eval()(x[rows], domain=domain), alone.eval()(x[rows]))
        layer.train()
    assert layer.domain_batches_tracked.tolist() == [1, 0, 1]
    assert torch.equal(layer.domain_var[1], torch.ones(3).double())
    assert layer.num_batches_tracked == 0


def test_domains_begin_with_the_statistics_of_torchs_layer():
    theirs = nn.BatchNorm1d(3)
    theirs(torch.randn(8, 3))
    layer = BatchNorm(3, num_domains=2)
    layer.load_state_dict(theirs.state_dict())
    assert torch.equal(layer.domain_mean, theirs.running_mean.expand(2, 3))
    twin = BatchNorm(3, num_domains=2)
    layer(torch.randn(8, 3), domain=1)
    twin.load_state_dict(layer.state_dict())
    same(twin.state_dict(), layer.state_dict())


def test_a_domain_for_a_whole_network():
    network = nn.Sequential(nn.Linear(3, 4), BatchNorm(4, num_domains=2), BatchNorm(4))
    with use_domain(network, 1):
        network(torch.randn(8, 3))
    assert network[1].domain_batches_tracked.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"`domain` must be in \[0, 2\), but none was given"):
        network(torch.randn(8, 3))


@pytest.mark.parametrize("domain", [2, -1, torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1]), torch.zeros(4), 0.5])
def test_domains_that_do_not_exist(domain):
    with pytest.raises(DataError, match="`domain` must be"):
        BatchNorm(3, num_domains=2)(torch.randn(4, 3), domain=domain)
    with pytest.raises(ConfigError, match="without domains"):
        BatchNorm(3)(torch.randn(4, 3), domain=domain)


@pytest.mark.parametrize(
    "settings", [{}, {"ghost_size": 4}, {"renorm": (2.0, 1.0)}, {"accumulate": 2}, {"debias": True}]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e200])
def test_a_batch_that_is_not_finite_moves_nothing(settings, bad):
    layer, twin = (BatchNorm(3, guard=True, **settings).double() for _ in range(2))
    good, poison = [randn(8, 3, seed=seed) for seed in range(4)], randn(8, 3)
    poison[2, 1] = bad
    for x in good[:2]:
        layer(x), twin(x)
    for x in (poison, poison):
        layer(x)
    for x in good[2:]:
        layer(x), twin(x)
    same(layer.state_dict(), twin.state_dict())
    assert layer.num_skipped == (1 if "accumulate" in settings else 2)
    assert "num_skipped" not in layer.state_dict()


def test_a_debiased_average_is_adams():
    layer, batches = BatchNorm(3, momentum=0.1, debias=True).double(), [randn(6, 3, seed=seed) for seed in range(5)]
    mean, var = torch.zeros(3).double(), torch.zeros(3).double()
    for number, x in enumerate(batches, 1):
        layer(x)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
        torch.testing.assert_close(layer.running_mean, mean / (1 - 0.9**number), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_var, var / (1 - 0.9**number), rtol=1e-12, atol=1e-12)


def test_population_variance_on_request():
    x = randn(4, 3)
    layer = BatchNorm(3, momentum=1.0, unbiased=False).double()
    out = layer(x)
    torch.testing.assert_close(layer.running_var, x.var(0, correction=0))
    torch.testing.assert_close(layer.eval()(x), out)


@pytest.mark.parametrize(("r_max", "d_max"), [(1.0, 0.0), (1.2, 0.3), (100.0, 100.0)])
def test_renormalization(r_max, d_max):
    layer = BatchNorm(3, renorm=(r_max, d_max), momentum=0.3).double()
    layer.weight.data, layer.bias.data = randn(3, seed=8), randn(3, seed=9)
    layer(randn(6, 3, seed=1))
    mean, var = layer.running_mean.clone(), layer.running_var.clone()
    x = randn(6, 3, seed=2).requires_grad_()
    out = layer(x)
    std, kept = torch.sqrt(x.var(0, correction=0) + 1e-5), torch.sqrt(var + 1e-5)
    r = (std / kept).detach().clamp(1 / r_max, r_max)
    d = ((x.mean(0) - mean) / kept).detach().clamp(-d_max, d_max)
    expected = ((x - x.mean(0)) / std * r + d) * layer.weight + layer.bias
    torch.testing.assert_close(out, expected)
    (grad,) = torch.autograd.grad(out.sin().sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sin().sum(), x)[0])
    if r_max == 100:
        torch.testing.assert_close(out, (x - mean) / kept * layer.weight + layer.bias)
    torch.testing.assert_close(layer.running_mean, 0.7 * mean + 0.3 * x.detach().mean(0))


def test_a_frozen_layer_stays_in_eval_mode():
    layer, x = BatchNorm(3).double(), randn(6, 3)
    layer(x)
    before, network = copy.deepcopy(layer.state_dict()), nn.Sequential(layer, nn.Dropout())
    layer.frozen = True
    out = network.train()[0](x)
    assert not layer.training
    assert network[1].training
    layer.training = True
    torch.testing.assert_close(layer(x), out)
    same(layer.state_dict(), before)
    layer.frozen = False
    network.train()
    torch.testing.assert_close(layer(x), normalized(x))


SETTINGS = [
    {}, {"guard": True}, {"ghost_size": 3}, {"ghost_size": 4}, {"renorm": (1.1, 0.2)}, {"num_domains": 2},
    {"debias": True, "unbiased": False},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
def test_first_and_second_gradients(settings):
    domain = torch.tensor([0, 1, 1, 0, 1, 0, 0]) if "num_domains" in settings else None

    def call(x, weight, bias):
        # A new layer each time, as renormalization reads what moves.
        layer = BatchNorm(3, **settings).double()
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,), {"domain": domain})

    inputs = [randn(7, 3).requires_grad_(), randn(3, seed=1).requires_grad_(), randn(3, seed=2).requires_grad_()]
    if "renorm" not in settings:  # r and d are constants to autograd and not to differences
        assert torch.autograd.gradcheck(call, inputs)
        assert torch.autograd.gradgradcheck(call, inputs)


def test_gradients_of_a_masked_batch():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])

    def call(x):
        return BatchNorm(2).double()(x, mask=mask)

    x = randn(3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(call, [x])
    assert torch.autograd.gradgradcheck(call, [x])


@pytest.mark.parametrize("settings", SETTINGS)
def test_copies_are_apart(settings):
    layer = BatchNorm(3, **settings)
    layer.domain = 0 if "num_domains" in settings else None
    twin = copy.deepcopy(layer)
    before = copy.deepcopy(layer.state_dict())
    twin(torch.randn(7, 3))
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(settings, dtype):
    domain = 1 if "num_domains" in settings else None
    x = torch.randn(64, 3, 5, generator=torch.Generator().manual_seed(0))
    exact, mixed, half = (BatchNorm(3, **settings) for _ in range(3))
    expected = exact(x.to(dtype).float(), domain=domain)
    for layer in (mixed, half.to(dtype)):
        out = layer(x.to(dtype), domain=domain)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(mixed.running_var, exact.running_var)
    torch.testing.assert_close(half.running_var.float(), exact.running_var, rtol=2e-2, atol=2e-2)


def test_autocast():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm(4, guard=True), nn.ReLU(), nn.Conv2d(4, 2, 3))
    x = torch.randn(4, 3, 8, 8)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x)
    assert out.dtype == torch.bfloat16
    assert network[1].running_mean.dtype == torch.float32
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("settings", [{}, {"guard": True}, {"renorm": (3.0, 5.0)}])
def test_channels_last_stays(settings):
    x = torch.randn(4, 6, 5, 5).to(memory_format=torch.channels_last)
    out = BatchNorm(6, **settings)(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, BatchNorm(6, **settings)(x.contiguous()))


@pytest.mark.parametrize("settings", [{}, {"guard": True, "debias": True}, {"ghost_size": 3}, {"renorm": (3.0, 5.0)}])
def test_variants_side_by_side(settings):
    layers = [BatchNorm(3, **settings).double() for _ in range(4)]
    x = randn(4, 7, 3)
    parameters, buffers = torch.func.stack_module_state(layers)
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    template = copy.deepcopy(layers[0])

    def call(parameters, buffers, x):
        state = {**parameters, **buffers}
        return torch.func.functional_call(template, state, (x,)), {name: state[name] for name in buffers}

    out, moved = torch.vmap(call)(parameters, buffers, x)
    for index, layer in enumerate(layers):
        torch.testing.assert_close(out[index], layer(x[index]))
        for name, buffer in layer.named_buffers():
            torch.testing.assert_close(moved[name][index], buffer)


def test_masks_side_by_side():
    x, mask = randn(4, 7, 3), torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    layer = BatchNorm(3).double()
    state = {name: buffer.repeat(4, *[1] * buffer.ndim) for name, buffer in layer.named_buffers()}

    def call(state, x, mask):
        return torch.func.functional_call(layer, state, (x,), {"mask": mask})

    out = torch.vmap(call)(state, x, mask)
    for index in range(4):
        torch.testing.assert_close(out[index], BatchNorm(3).double()(x[index], mask=mask[index]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({}, {}), ({"guard": True, "debias": True}, {}), ({"ghost_size": 3}, {}), ({"renorm": (3.0, 5.0)}, {}),
        ({"accumulate": 2}, {}), ({"num_domains": 2}, {"domain": torch.tensor([0, 1, 0, 1, 0, 1, 0])}),
        ({}, {"mask": torch.arange(7) < 5}),
    ],
)  # fmt: skip
def test_compiles_as_one_graph(settings, arguments):
    torch.compiler.reset()
    layer = BatchNorm(3, **settings)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        x, y = (randn(7, 3, seed=seed).float().requires_grad_() for _ in range(2))
        out, expected = compiled(x, **arguments), layer(y, **arguments)
        torch.testing.assert_close(out, expected)
        out.sin().sum().backward()
        expected.sin().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    for one, other in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": -1}, "`accumulate` must be"), ({"num_domains": 1.5}, "`num_domains` must be"),
        ({"guard": 1}, "`guard` must be"), ({"renorm": 3.0}, "`renorm` must be"),
        ({"renorm": (3.0,)}, "`renorm` must be"), ({"renorm": (0.5, 1.0)}, r"`renorm\[0\]` must be"),
        ({"renorm": (1.5, -1.0)}, r"`renorm\[1\]` must be"), ({"debias": True, "momentum": 0.0}, "`debias` needs"),
        ({"ghost_size": 2, "accumulate": 2}, "`ghost_size` does not go with `accumulate`"),
        ({"ghost_size": 2, "synchronized": True}, "`ghost_size` does not go with `synchronized`"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        BatchNorm(3, **settings)


@pytest.mark.parametrize("shape", [(3,), (4, 2), ()])
def test_shapes_that_cannot_be(shape):
    with pytest.raises(ConfigError, match=r"x must be \(N, 3, ...\)"):
        BatchNorm(3)(torch.zeros(shape))
    with pytest.raises(ConfigError, match="takes no mask"):
        BatchNorm(3, ghost_size=2)(torch.zeros(4, 3), mask=torch.ones(4, dtype=torch.bool))


def test_prints_what_differs_from_torch():
    layer = BatchNorm(4, guard=True, renorm=(3.0, 5.0))
    assert repr(layer) == "BatchNorm(4, eps=1e-05, momentum=0.1, guard=True, renorm=(3.0, 5.0))"
