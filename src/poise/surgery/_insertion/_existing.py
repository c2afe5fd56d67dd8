"""What is in a network already: it gets the strength that a method has, and nothing is stacked on it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from poise.methods import NetworkMethod, Site
from poise.nn import AlphaDropout, BatchNorm, ChannelDropout, Dropout, DropPath
from poise.surgery._edit import Assign, Replace
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import TORCH_BATCH_NORM, is_batch_norm, is_dropout
from poise.surgery._insertion._sites import Spot, chain_of, layout_of
from poise.surgery._insertion._work import Placed, Work, why_no_layer

_PLAIN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, Dropout, ChannelDropout)
_ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout, AlphaDropout)
# Every library has a class of its own for stochastic depth, without a common base; the names agree.
_PATH_NAMES = ("DropPath", "StochasticDepth")


def dropout_edits(method: NetworkMethod, graph: Graph, work: Work) -> None:
    """Give the dropouts of the network, and those inside recurrent and attention layers, the strength of `method`."""
    probe = method.layer(Site("hidden", 1))
    family = _PLAIN if isinstance(probe, Dropout) else _ALPHA if isinstance(probe, AlphaDropout) else ()
    done: set[nn.Module] = set()
    for node in graph if family else ():
        if node.module is None and is_dropout(node):
            work.note(method, node.name, f"`{node.op}` is called in forward with a p of its own")
        elif node.module is not None and node.module not in done:
            done.add(node.module)
            _configure(method, node, family, work)


def _configure(method: NetworkMethod, node: Node, family: tuple[type, ...], work: Work) -> None:
    site, module = work.seen(Site("hidden", 1, layout=layout_of(node)), node), node.module  # type: ignore[arg-type]
    attribute = "p" if isinstance(module, family) else _inner_dropout(module) if family is _PLAIN else ""
    if module is None or not attribute:
        return
    if method.layer(site) is None:
        work.note(method, node.name, f"{why_no_layer(method, site)}; its p stays {getattr(module, attribute)}")
        return
    work.configure(method, site, node.name, module, attribute)


def _inner_dropout(module: nn.Module | None) -> str:
    """The attribute by which a layer drops inside, if it does or can without a change of what it is for."""
    between = isinstance(module, nn.RNNBase) and module.num_layers > 1
    attention = isinstance(module, nn.MultiheadAttention) and module.dropout > 0
    return "dropout" if between or attention else ""


def is_functional_dropout(node: Node | None) -> bool:
    """Whether a dropout is called in a forward method, where nothing can set it."""
    return node is not None and node.module is None


def norm_edits(method: NetworkMethod, spots: Iterable[Spot], work: Work) -> None:
    """Set the normalizations that are there to what `method` says of training; their function in eval mode stays."""
    done: set[nn.Module] = set()
    for spot in spots:
        if spot.present is None or spot.present.module in done:
            continue
        layer = method.layer(spot.site)
        if layer is None and why_no_layer(method, spot.site) is None:
            return  # no normalization
        module, where = spot.present.module, spot.present.name
        if module is None:
            work.note(method, where, f"`{spot.present.op}` is called in forward")
            continue
        done.add(module)
        if isinstance(layer, BatchNorm) and is_batch_norm(spot.present):
            _configure_batch_norm(method, layer, module, where, work)
        elif layer is not None and not isinstance(layer, BatchNorm) and not is_batch_norm(spot.present):
            work.keep(method, where, f"{type(module).__name__} is there")
        else:
            work.note(method, where, f"{type(module).__name__} normalizes there")


def _configure_batch_norm(method: NetworkMethod, wanted: BatchNorm, module: nn.Module, where: str, work: Work) -> None:
    why = "BatchNorm: converted, not stacked on what is there; eps and weights stay"
    if wanted.ghost_size and isinstance(module, nn.SyncBatchNorm | nn.modules.lazy.LazyModuleMixin):
        work.note(method, where, f"{type(module).__name__} has no ghost batches")
        return
    work.found.add(type(method))
    if wanted.ghost_size and isinstance(module, TORCH_BATCH_NORM):
        work.edits.append(Replace(where, why, 0.0, _with_ghosts(module, wanted)))
        return
    settings = {"momentum": wanted.momentum}
    if isinstance(module, BatchNorm):
        settings["ghost_size"] = wanted.ghost_size
    changed = {name: value for name, value in settings.items() if getattr(module, name) != value}
    for name, value in changed.items():
        work.edits.append(Assign(where, "BatchNorm: set, not stacked on what is there; eps stays", 0.0, name, value))
    if not changed:
        work.keep(method, where, f"{type(module).__name__} is there")


def _with_ghosts(module: nn.modules.batchnorm._BatchNorm, wanted: BatchNorm) -> BatchNorm:
    """A layer with the very parameters and statistics of `module`."""
    layer = BatchNorm(
        module.num_features, eps=module.eps, momentum=wanted.momentum, affine=module.affine,
        ghost_size=wanted.ghost_size,
    )  # fmt: skip
    layer._parameters.update(module._parameters)
    if module.track_running_stats:
        layer._buffers.update(module._buffers)
    return layer.train(module.training)


def path_edits(method: NetworkMethod, spots: Iterable[Spot], model: nn.Module, work: Work) -> set[Node]:
    """Put layers of `method` in the place of the stochastic depth that is there; the ends of branches that have one."""
    done: set[Node] = set()
    for spot in spots:
        layer = method.layer(spot.site)
        where = next((name for name in _modules_at(spot.node) if _drops_paths(model.get_submodule(name))), None)
        if layer is None or not isinstance(layer, DropPath) or where is None:
            continue
        done.add(spot.node)
        old = model.get_submodule(where)
        if isinstance(old, DropPath):
            work.configure(method, spot.site, where, old, "p")
            continue
        why = f"{type(method).__name__}: in place of what drops this branch; linear in depth"
        layer.train(old.training)
        work.edits.append(Replace(where, why, 0.0, layer))
        work.placed.append(Placed(method, spot.site, where, layer))
        work.found.add(type(method))
    return done


def _modules_at(node: Node) -> list[str]:
    chain = chain_of(node)
    layers = [one.name for one in chain if one.module is not None]
    return [name for name in (*layers, *(name for one in chain for name in one.returned_by)) if name]


def _drops_paths(module: nn.Module) -> bool:
    return type(module).__name__.endswith(_PATH_NAMES)
