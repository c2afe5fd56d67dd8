"""Exact statistics whatever the batches, the model and the call; the model as it was where that cannot be."""

import contextlib
import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from poise import ConfigError, DataError, PoiseWarning
from poise.nn import BatchNorm, NormActDropout
from poise.surgery import freeze, recalibrate, recalibrate_outputs
from poise.surgery._recalibration import _recalibrate

KINDS = [BatchNorm, nn.BatchNorm1d, nn.SyncBatchNorm]


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_network(kind):
    torch.manual_seed(0)
    layers = [
        nn.Linear(4, 8),
        kind(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        kind(8),
        nn.Tanh(),
        nn.Linear(8, 2),
    ]
    return nn.Sequential(*layers).double().train()


def statistics(network):
    return {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}


def assert_same(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def of_one_forward(network, rows, call=None):
    """The statistics of a single forward pass over all rows, each layer normalized by its own batch."""
    network = copy.deepcopy(network).eval()
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | BatchNorm):
            layer.training, layer.momentum = True, 1.0
    counts = {}
    layers = {layer: name for name, layer in network.named_modules() if layer in set(network.modules())}
    for layer in network.modules():
        if getattr(layer, "running_mean", None) is not None:
            layer.register_forward_pre_hook(
                lambda layer, args: counts.__setitem__(layers[layer], args[0].numel() // args[0].shape[1])
            )
    with torch.no_grad():
        network(rows) if call is None else call(network, rows)
    found = statistics(network)
    for name, count in counts.items():
        found[f"{name}.running_var"] *= (count - 1) / count  # torch keeps the unbiased one
    return found


class TestExact:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [16, 7, 52])
    def test_batches_equal_one_forward_over_all_rows(self, kind, size):
        rows = randn(53, 4) * 3 + 100
        network = make_network(kind)
        expected = of_one_forward(make_network(nn.BatchNorm1d), rows)
        report = recalibrate(network, rows.split(size))
        assert_same(statistics(network), expected)
        assert [(one.path, one.count, one.calls) for one in report.layers] == [("1", 53, 1), ("5", 53, 1)]

    def test_one_batch_equals_several_and_at_once_equals_layer_by_layer_for_it(self):
        rows = randn(53, 4) * 3 + 100
        one, other, parts = (make_network(BatchNorm) for _ in range(3))
        recalibrate(one, [rows])
        recalibrate(other, [rows], sequential=False)
        recalibrate(parts, rows.split(16))
        assert_same(statistics(one), statistics(other), 0)
        assert_same(statistics(one), statistics(parts))

    def test_at_once_pools_what_layers_are_given_behind_batch_statistics(self):
        rows = randn(48, 4)
        network = make_network(nn.BatchNorm1d)
        recalibrate(network, iter(rows.split(16)), sequential=False)
        firsts, seconds = [], []
        for part in rows.split(16):
            first = network[0](part)
            normal = (first - first.mean(0)) / (first.var(0, correction=0) + network[1].eps).sqrt()
            firsts.append(first)
            seconds.append(network[4](normal.relu()))
        for layer, parts in ((network[1], firsts), (network[5], seconds)):
            assert_same(layer.running_mean, torch.cat(parts).mean(0))
            assert_same(layer.running_var, torch.cat(parts).var(0, correction=0))

    @pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), BatchNorm(3), NormActDropout(3, p=0.5)])
    def test_convolutions_count_every_position(self, layer):
        network = nn.Sequential(nn.Conv2d(1, 3, 2), layer).double()
        images = randn(7, 1, 5, 5)
        recalibrate(network, [images[:5], images[5:]])
        maps = network[0](images)
        assert_same(layer.running_mean, maps.mean((0, 2, 3)))
        assert_same(layer.running_var, maps.var((0, 2, 3), correction=0))

    def test_volumes(self):
        network = nn.Sequential(nn.BatchNorm3d(2)).double()
        volumes = randn(5, 2, 3, 4, 2)
        recalibrate(network, volumes.split(2))
        assert_same(network[0].running_var, volumes.var((0, 2, 3, 4), correction=0))

    def test_subclasses_count(self):
        class Special(nn.BatchNorm1d):
            def forward(self, x):
                return super().forward(x).relu()

        network = nn.Sequential(nn.Linear(4, 3), Special(3), nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
        rows = randn(20, 4)
        expected = of_one_forward(network, rows)
        recalibrate(network, rows.split(6))
        assert_same(statistics(network), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_lower_precision_is_pooled_in_float64(self, dtype):
        rows = (randn(4096, 2) * 0.5 + 1000).to(dtype)
        network = nn.Sequential(nn.BatchNorm1d(2).to(dtype))
        recalibrate(network, rows.split(100))
        assert_same(network[0].running_mean, rows.double().mean(0).to(dtype), 0)
        assert_same(network[0].running_var, rows.double().var(0, correction=0).to(dtype), 0)


class TestAgainstCore:
    def test_core_measures_behind_dropout(self):
        rows = randn(4000, 4)
        ours, core = (nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)).double() for _ in range(2))
        recalibrate(ours, rows.split(100))
        torch.manual_seed(0)
        update_bn(rows.split(100), core)
        truth = rows.var(0, correction=0)
        assert_same(ours[1].running_var, truth)
        # Dropped and scaled by 2, a variable of mean zero has twice its variance.
        assert ((core[1].running_var / truth - 2).abs() < 0.2).all()

    def test_core_counts_a_short_last_batch_as_a_full_one(self):
        rows = torch.cat([torch.zeros(100, 1), torch.full((2, 1), 51.0)]).double()
        rows[::2] += 1e-3
        ours, core = (nn.Sequential(nn.BatchNorm1d(1)).double() for _ in range(2))
        recalibrate(ours, rows.split(100))
        update_bn(rows.split(100), core)
        assert_same(ours[0].running_mean, rows.mean(0))
        assert core[0].running_mean.item() == pytest.approx(25.5, abs=0.01)
        assert rows.mean().item() == pytest.approx(1.0, abs=0.01)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.first = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.second, self.norm = nn.Linear(4, 2), nn.BatchNorm1d(2)

    def tower(self, x):
        return self.norm(self.second(self.first(self.linear(x)).relu()))

    def forward(self, one, other):
        return (self.tower(one) - self.tower(other)).norm(dim=1)


class TestCalls:
    def test_a_layer_that_is_called_twice_pools_both(self):
        torch.manual_seed(0)
        network = Siamese().double()
        one, other = randn(20, 3), randn(20, 3, seed=2) + 1
        report = recalibrate(network, list(zip(one.split(6), other.split(6), strict=True)))
        hidden = network.linear(torch.cat([one, other]))
        assert_same(network.first.running_mean, hidden.mean(0))
        assert_same(network.first.running_var, hidden.var(0, correction=0))
        last = network.second(network.first.eval()(hidden).relu())
        assert_same(network.norm.running_var, last.var(0, correction=0))
        assert [(one.path, one.count, one.calls) for one in report.layers] == [("first", 40, 2), ("norm", 40, 2)]

    def test_towers_of_several_layers_are_the_same_from_one_batch_and_from_several(self):
        torch.manual_seed(0)
        network = Siamese().double()
        one, other = randn(20, 3), randn(20, 3, seed=2) + 1
        recalibrate(network, list(zip(one.split(6), other.split(6), strict=True)))
        expected = [buffer.clone() for buffer in network.buffers()]
        recalibrate(network, [(one, other)])
        for buffer, value in zip(network.buffers(), expected, strict=True):
            assert_same(buffer, value)

    @pytest.mark.parametrize("size", [6, 20])
    def test_a_layer_that_feeds_itself_gets_what_it_is_given_when_it_predicts(self, size):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3)).double()
        x = randn(20, 3)
        recalibrate(nn.Sequential(block, block), x.split(size))
        given = torch.cat([block[0](x), block[0](block.eval()(x))])
        assert (block[1].running_mean - given.mean(0)).abs().max() < 1e-8
        assert (block[1].running_var - given.var(0, correction=0)).abs().max() < 1e-8

    def test_what_has_not_settled_is_said(self, monkeypatch):
        monkeypatch.setattr(_recalibrate, "_MOST_SWEEPS", 1)
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3)).double()
        with pytest.warns(PoiseWarning, match=r"0\.1 still moved after 1 sweeps"):
            recalibrate(nn.Sequential(block, block), randn(20, 3).split(6))

    @pytest.mark.parametrize("form", ["dict", "extra", "list", "call"])
    def test_batches_of_any_form(self, form):
        torch.manual_seed(0)
        network = Siamese().double()
        pairs = [(randn(7, 3, seed=seed), randn(7, 3, seed=seed + 9)) for seed in range(3)]
        expected = copy.deepcopy(network)
        recalibrate(expected, pairs)
        if form == "dict":
            recalibrate(network, [{"other": b, "labels": None, "one": a} for a, b in pairs])
        elif form == "extra":
            recalibrate(network, [(a, b, torch.zeros(7)) for a, b in pairs])
        elif form == "list":
            recalibrate(network, [[a, b] for a, b in pairs])
        else:
            recalibrate(network, pairs, call=lambda model, pair: model(other=pair[1], one=pair[0]))
        assert_same(statistics(network), statistics(expected), 0)

    def test_loader_that_shuffles_gives_the_truth_and_leaves_the_random_state(self):
        rows = randn(50, 4)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(rows, torch.zeros(50)), batch_size=8, shuffle=True
        )
        network = make_network(nn.BatchNorm1d)
        expected = of_one_forward(network, rows)
        before = torch.get_rng_state()
        recalibrate(network, loader)
        assert torch.equal(torch.get_rng_state(), before)
        assert_same(statistics(network), expected)

    def test_layers_of_a_branch_that_only_later_batches_take_come_in_order(self):
        class Branch(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c = nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)

            def forward(self, x):
                x = self.a(x)
                return self.c(self.b(x) if len(x) > 3 else x)

        network, rows = Branch().double(), randn(9, 2)
        report = recalibrate(network, [rows[:3], rows[3:]])
        assert [one.path for one in report.layers] == ["a", "b", "c"]
        x = network.eval().a(rows)
        assert_same(network.c.running_mean, torch.cat([x[:3], network.b(x[3:])]).mean(0))

    def test_autocast_around_it_holds(self):
        rows = randn(64, 4, dtype=torch.float32)
        network = make_network(nn.BatchNorm1d).float()
        seen = []
        network[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            recalibrate(network, rows.split(20))
            maps = network[0](rows)
        assert set(seen) == {torch.bfloat16}
        assert_same(network[1].running_mean.double(), maps.double().mean(0), 1e-6)

    @pytest.mark.parametrize("wrapper", ["compile", "in_place", "inside"])
    def test_compiled_parts_run_as_they_are_written(self, wrapper):
        network = make_network(nn.BatchNorm1d)
        rows = randn(30, 4)
        expected = of_one_forward(network, rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dynamo's own
            if wrapper == "compile":
                model = torch.compile(network, backend="eager")
            elif wrapper == "in_place":
                network.compile(backend="eager")
                model = network
            else:
                model = nn.Sequential(torch.compile(network, backend="eager"))
            model.eval()(rows)  # compiled before any hook is there
            recalibrate(model, rows.split(8))
        assert_same(statistics(network), expected)

    def test_parallel_wrapper(self):
        network = make_network(nn.BatchNorm1d)
        rows = randn(30, 4)
        expected = of_one_forward(network, rows)
        recalibrate(nn.DataParallel(network), rows.split(8))
        assert_same(statistics(network), expected)


class TestMask:
    def padded(self):
        lengths = torch.tensor([5, 3, 1, 4, 2])
        mask = torch.arange(5) < lengths[:, None]
        x = randn(5, 3, 5).masked_fill(~mask[:, None], 77.0)
        valid = torch.cat([x[row, :, :length] for row, length in enumerate(lengths)], dim=1)
        return x, mask, valid

    @pytest.mark.parametrize("sequential", [True, False])
    @pytest.mark.parametrize("form", ["function", "key"])
    def test_padded_positions_do_not_count(self, form, sequential):
        x, mask, valid = self.padded()
        network = nn.Sequential(nn.BatchNorm1d(3)).double()
        batches = [{"input": x[rows], "valid": mask[rows].long()} for rows in (slice(0, 2), slice(2, 5))]
        where = "valid" if form == "key" else (lambda batch: batch["valid"])
        report = recalibrate(network, batches, mask=where, sequential=sequential)
        assert report.layers[0].count == 15
        assert_same(network[0].running_mean, valid.mean(1))
        assert_same(network[0].running_var, valid.var(1, correction=0))

    def test_rows_flattened_and_pooled_positions(self):
        x, mask, valid = self.padded()

        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.flat, self.pooled = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

            def forward(self, x):
                self.flat(x.transpose(1, 2).flatten(0, 1))
                return self.pooled(x[:, :, 0])

        network = Tokens().double()
        mask = mask.clone()
        mask[4] = False  # a row of padding alone
        report = recalibrate(network, [(x[:3], mask[:3]), (x[3:], mask[3:])], mask=1)
        assert [one.count for one in report.layers] == [13, 4]
        assert_same(network.flat.running_mean, valid[:, :13].mean(1))
        assert_same(network.pooled.running_mean, x[:4, :, 0].mean(0))

    def test_rows_of_images(self):
        network, images = nn.Sequential(nn.BatchNorm2d(2)).double(), randn(6, 2, 3, 3)
        keep = torch.tensor([True, True, False, True, False, True])
        recalibrate(network, list(zip(images.split(4), keep.split(4), strict=True)), mask=1)
        assert_same(network[0].running_mean, images[keep].mean((0, 2, 3)))

    def test_masks_that_do_not_fit(self):
        network, x = nn.Sequential(nn.Conv1d(2, 2, 2, stride=2), nn.BatchNorm1d(2)).double(), randn(4, 2, 6)
        with pytest.raises(DataError, match=r"mask \(4, 6\) does not fit an input \(4, 2, 3\).*layer '1', batch 0"):
            recalibrate(network, [(x, torch.ones(4, 6))], mask=1)
        with pytest.raises(DataError, match="`mask` finds nothing: IndexError"):
            recalibrate(network, [(x,)], mask=1)
        with pytest.raises(DataError, match="must give a tensor"):
            recalibrate(network, [(x, 3)], mask=1)
        with pytest.raises(DataError, match="no value for each channel"):
            recalibrate(nn.Sequential(nn.BatchNorm1d(2)).double(), [(x, torch.zeros(4))], mask=1)


class Domains(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.out = BatchNorm(3, num_domains=3), nn.BatchNorm1d(3)

    def forward(self, x, domain, mask=None):
        return self.out(self.norm(x, mask=mask, domain=domain))


class TestOwnLayer:
    @pytest.mark.parametrize("sequential", [True, False])
    def test_each_domain_gets_its_own(self, sequential):
        network, rows = Domains().double(), randn(24, 3)
        domain = torch.arange(24) % 2 * 2
        rows[domain == 2] += 10
        batches = list(zip(rows.split(10), domain.split(10), strict=True))
        call = lambda model, batch: model(batch[0], batch[1])  # noqa: E731
        report = recalibrate(network, batches, call=call, sequential=sequential)
        for number in (0, 2):
            assert_same(network.norm.domain_mean[number], rows[domain == number].mean(0))
            assert_same(network.norm.domain_var[number], rows[domain == number].var(0, correction=0))
        assert_same(network.norm.domain_mean[1], torch.zeros(3).double(), 0)
        assert_same(network.norm.running_mean, torch.zeros(3).double(), 0)
        assert [one.path for one in report.layers] == ["norm[domain 0]", "norm[domain 2]", "out"]
        if sequential:
            assert_same(network.out.running_mean, network.norm.eval()(rows, domain=domain).mean(0))

    def test_a_mask_that_the_layer_is_given(self):
        network = Domains().double()
        network.norm = BatchNorm(3).double()
        x, mask = randn(6, 3, 4), torch.arange(4) < torch.tensor([4, 3, 2, 1, 1, 4])[:, None]
        call = lambda model, batch: model.norm(batch[0], mask=batch[1])  # noqa: E731
        recalibrate(network, list(zip(x.split(4), mask.split(4), strict=True)), call=call)
        assert_same(network.norm.running_mean, x.transpose(0, 1)[:, mask].mean(1))
        both = mask & (torch.arange(6) != 5)[:, None]
        rows = [(*part, keep) for *part, keep in zip(x.split(4), mask.split(4), both[:, 0].split(4), strict=True)]
        recalibrate(network, rows, call=call, mask=2)
        assert_same(network.norm.running_mean, x.transpose(0, 1)[:, both].mean(1))

    def test_a_failure_restores_every_domain(self):
        network = Domains().double()
        domain = torch.tensor([0, 0, 1])
        call = lambda model, batch: model(batch, domain)  # noqa: E731
        with pytest.raises(DataError, match=r"one value for each channel.*layer 'norm\[domain 1\]'"):
            recalibrate(network, [randn(3, 3)], call=call)
        assert_same(network.norm.domain_mean, torch.zeros(3, 3).double(), 0)


class TestKept:
    @pytest.mark.parametrize("sequential", [True, False])
    def test_modes_parameters_hooks_and_flags(self, sequential):
        network = make_network(nn.BatchNorm1d)
        network[3].eval()
        network[0].weight.requires_grad_(False)
        seen = []
        handle = network[1].register_forward_hook(lambda *_: seen.append(1))
        before = [parameter.clone() for parameter in network.parameters()]
        recalibrate(network, [randn(9, 4)] * 2, sequential=sequential)
        assert [module.training for module in network] == [True, True, True, False, True, True, True, True]
        assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
        assert [parameter.requires_grad for parameter in network.parameters()][:2] == [False, True]
        assert not any(module._forward_pre_hooks for module in network.modules())
        assert seen
        assert handle.id in network[1]._forward_hooks

    def test_a_hook_of_the_user_that_changes_the_input_comes_first(self):
        network = nn.Sequential(nn.BatchNorm1d(2)).double()
        network[0].register_forward_pre_hook(lambda _, args: (args[0] + 5,))
        rows = randn(10, 2)
        recalibrate(network, rows.split(4))
        assert_same(network[0].running_mean, rows.mean(0) + 5)

    def test_layers_without_statistics_or_not_reached(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.spare = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
                self.without = nn.BatchNorm1d(2, track_running_stats=False)
                self.instance = nn.InstanceNorm1d(2, track_running_stats=True)

            def forward(self, x):
                return self.instance(self.without(self.used(x)))

        network = Model().double()
        before = statistics(network)
        report = recalibrate(network, randn(12, 2, 4).split(5))
        assert [one.path for one in report.layers] == ["used"]
        assert report.left == {"spare": "was never reached", "without": "keeps no running statistics"}
        assert "spare stays as it is: was never reached." in str(report)
        for name in ("spare", "instance"):
            assert torch.equal(before[f"{name}.running_mean"], statistics(network)[f"{name}.running_mean"])

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_frozen_layer_stays(self, kind):
        network = make_network(kind)
        frozen = freeze(network, "1")
        before = statistics(network)
        report = recalibrate(network, randn(30, 4).split(8))
        assert report.left == {"1": "is frozen"}
        assert torch.equal(network[1].running_mean, before["1.running_mean"])
        assert not torch.equal(network[5].running_mean, before["5.running_mean"])
        frozen.undo()
        assert recalibrate(network, randn(30, 4).split(8)).left == {}

    def test_nothing_to_do(self):
        report = recalibrate(nn.Linear(2, 2), [])
        assert report.layers == ()
        assert str(report) == "There is no batch normalization."


class TestReport:
    def test_how_far_off(self):
        network = nn.Sequential(nn.BatchNorm1d(2, eps=1e-12)).double()
        rows = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double()
        report = recalibrate(network, [rows])
        (layer,) = report.layers
        assert layer.count == 2
        assert layer.mean_distance == pytest.approx(2.0)  # means 2, 2; deviations 1, 2
        assert layer.var_ratio == pytest.approx(0.5)  # old 1, 1; new 1, 4
        assert layer.var_factor == pytest.approx(4.0)
        (again,) = recalibrate(network, [rows]).layers
        assert (again.mean_distance, again.var_ratio, again.var_factor) == pytest.approx((0, 1, 1))

    def test_nan_statistics_are_mended(self):
        network = make_network(nn.BatchNorm1d)
        rows = randn(30, 4)
        expected = of_one_forward(network, rows)
        network[1].running_var.fill_(float("nan"))
        network[5].running_mean.fill_(float("inf"))
        report = recalibrate(network, rows.split(8))
        assert_same(statistics(network), expected)
        assert "nan" in str(report)


class Refusing(nn.Module):
    """Fails at a later batch, behind a normalization."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        x = self.norm(x)
        if len(x) == 1:
            raise KeyError("row")
        return x


class TestBadInput:
    @contextlib.contextmanager
    def unchanged(self, network):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        flags = [module.training for module in network.modules()]
        yield
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
        assert [module.training for module in network.modules()] == flags
        assert not any(module._forward_pre_hooks for module in network.modules())

    @pytest.mark.parametrize("sequential", [True, False])
    @pytest.mark.parametrize(
        ("batches", "message"),
        [
            ([], "The loader yields no batch"),
            ([randn(8, 4), randn(8, 3)], r"Sequential does not take it: RuntimeError.*batch 1, a tensor \(8, 3\)"),
            ([{"rows": randn(8, 4)}] * 2, "requires .'input'., but the batch has .'rows'."),
            ([[]] * 2, "requires 1 arguments, but the batch has 0 entries"),
            (["text"] * 2, "does not take it.*batch 0, a str"),
            ([randn(1, 4)], "one value for each channel.*layer '1'"),
            ([randn(8, 4), torch.full((2, 4), float("nan")).double()], "NaN or infinite values.*layer '1', batch 1"),
            ([randn(8, 4), torch.full((2, 4), float("inf")).double()], "NaN or infinite values.*layer '1', batch 1"),
        ],
    )
    def test_data(self, batches, message, sequential):
        network = make_network(nn.BatchNorm1d)
        with self.unchanged(network), pytest.raises(DataError, match=message):
            recalibrate(network, batches, sequential=sequential)

    @pytest.mark.parametrize("sequential", [True, False])
    def test_nan_of_a_later_layer_undoes_the_earlier_ones(self, sequential):
        network = make_network(nn.BatchNorm1d)
        network[4].weight.data[0, 0] = float("nan")
        with self.unchanged_but_nan(network), pytest.raises(DataError, match="layer '5', batch 0"):
            recalibrate(network, randn(20, 4).split(8), sequential=sequential)

    @contextlib.contextmanager
    def unchanged_but_nan(self, network):
        before = statistics(network)
        yield
        assert_same(statistics(network), before, 0)

    @pytest.mark.parametrize("sequential", [True, False])
    def test_a_model_that_fails_in_the_middle(self, sequential):
        network = Refusing()
        with self.unchanged(network), pytest.raises(DataError, match=r"KeyError: 'row'.*batch 1"):
            recalibrate(network, [torch.randn(5, 2), torch.randn(1, 2)], sequential=sequential)

    def test_an_interrupt_restores_too(self):
        network = make_network(nn.BatchNorm1d)

        def call(model, batch):
            model(batch)
            raise KeyboardInterrupt

        with self.unchanged(network), pytest.raises(KeyboardInterrupt):
            recalibrate(network, [randn(8, 4)] * 2, call=call, sequential=False)

    def test_what_can_be_read_once(self):
        network = make_network(nn.BatchNorm1d)
        with self.unchanged(network), pytest.raises(DataError, match=r"read only once.*generator.*sequential=False"):
            recalibrate(network, (part for part in randn(20, 4).split(8)))

    def test_what_is_empty_when_read_again(self):
        class Once:
            def __init__(self, parts):
                self.parts = iter(parts)

            def __iter__(self):
                return self.parts

        network = make_network(nn.BatchNorm1d)
        with self.unchanged(network), pytest.raises(DataError, match=r"yields no batch.*every pass"):
            recalibrate(network, Once(randn(20, 4).split(8)))

    @pytest.mark.parametrize("batches", [randn(8, 4), {"x": 1}, "rows", None, 3])
    def test_what_is_not_batches(self, batches):
        with pytest.raises(ConfigError, match="`batches` must be batches over all rows"):
            recalibrate(make_network(nn.BatchNorm1d), batches)

    def test_models_that_cannot_be_run(self):
        with pytest.raises(ConfigError, match=r"must be a torch.nn.Module"):
            recalibrate("model", [])
        with pytest.raises(ConfigError, match=r"has not seen a batch yet.*module '0'"):
            recalibrate(nn.Sequential(nn.LazyBatchNorm1d()), [randn(4, 2)])
        with pytest.raises(ConfigError, match="meta"):
            recalibrate(nn.Sequential(nn.BatchNorm1d(2, device="meta")), [randn(4, 2)])
        with pytest.raises(ConfigError, match="sequential"):
            recalibrate(nn.BatchNorm1d(2), [], sequential="yes")

    def test_statistics_beyond_the_range_of_the_layer(self):
        network = nn.Sequential(nn.BatchNorm1d(1)).half()
        with self.unchanged(network), pytest.raises(DataError, match=r"beyond the range of torch\.float16"):
            recalibrate(network, [torch.tensor([[-60000.0], [60000.0]]).half()])


class TestOutputs:
    @pytest.mark.parametrize("kind", [BatchNorm, nn.BatchNorm1d])
    def test_engines_get_the_outputs_and_the_same_statistics(self, kind):
        rows = randn(53, 4) * 3 + 100
        whole, parts, public = make_network(kind), make_network(kind), make_network(kind)
        outputs = recalibrate_outputs(whole, [rows])
        assert recalibrate_outputs(parts, rows.split(16)) is None
        recalibrate(public, [rows])
        assert_same(statistics(whole), statistics(public), 0)
        assert_same(statistics(whole), statistics(parts))
        assert_same(outputs, public.eval()(rows), 0)

        x = rows
        for layer in whole:
            if isinstance(layer, kind):
                x = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + layer.eps)
            elif not isinstance(layer, nn.Dropout):
                x = layer(x)
        torch.testing.assert_close(outputs, x, rtol=1e-9, atol=1e-9)
