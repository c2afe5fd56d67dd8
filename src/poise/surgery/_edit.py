"""Changes of a network that can be shown, applied as one, verified and undone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise._errors import ConfigError, SurgeryError
from poise.surgery._graph._call import call_model, tensors_of
from poise.surgery._modes import modes

Undo = Callable[[], None]


@dataclass(frozen=True)
class Edit(ABC):
    """One change, in one place.

    Args:
        where: Path of the module that changes; "" for the network itself.
        why: One clause that says so to a reader.
        shift: Largest change of the network's eval-mode outputs that is meant, relative to their largest magnitude;
            0 for none, infinity for an edit that computes something else on purpose.
    """

    where: str
    why: str
    shift: float

    @abstractmethod
    def apply(self, model: nn.Module) -> Undo:
        """Change `model` in place; all or nothing. What is returned takes it back."""

    @abstractmethod
    def line(self) -> str:
        """What changes, as a reader of a diff wants it."""


@dataclass(frozen=True)
class Replace(Edit):
    """Puts a layer in the place of another one, wherever that is registered."""

    layer: nn.Module

    def apply(self, model: nn.Module) -> Undo:
        old = model.get_submodule(self.where)
        places = [
            (parent, name) for parent in model.modules() for name, child in parent._modules.items() if child is old
        ]
        if not places:
            raise SurgeryError("The network itself cannot be replaced in place.", where=f"module {self.where!r}")
        for parent, name in places:
            parent._modules[name] = self.layer

        def undo() -> None:
            for parent, name in places:
                if parent._modules.get(name) is not self.layer:
                    raise SurgeryError("It was changed since.", where=f"module {self.where!r}", repair=_LATER)
                parent._modules[name] = old

        return undo

    def line(self) -> str:
        return f"becomes {self.layer}"


@dataclass(frozen=True)
class Attach(Edit):
    """Lets a layer follow a module, or precede it: a child of that module, by `name`, which a hook calls.

    Paths and types of all that is there stay as they are, so that state_dicts and the network's own code still fit.
    """

    layer: nn.Module
    name: str
    before: bool = False

    def apply(self, model: nn.Module) -> Undo:
        host = model.get_submodule(self.where)
        if self.name in host._modules or hasattr(host, self.name):
            raise SurgeryError(f"It has a {self.name!r} already.", where=f"module {self.where!r}", repair=_LATER)
        host._modules[self.name] = self.layer
        hook = _Through(self.name)
        handle = host.register_forward_pre_hook(hook.before) if self.before else host.register_forward_hook(hook.after)

        def undo() -> None:
            if host._modules.get(self.name) is not self.layer:
                raise SurgeryError("It was changed since.", where=f"module {self.where!r}", repair=_LATER)
            handle.remove()
            del host._modules[self.name]

        return undo

    def line(self) -> str:
        return f"{'<-' if self.before else '->'} {self.layer}"


@dataclass(frozen=True)
class Assign(Edit):
    """Gives an attribute of a module another value; None for a parameter takes it away."""

    attribute: str
    value: Any

    def apply(self, model: nn.Module) -> Undo:
        host = model.get_submodule(self.where)
        old = getattr(host, self.attribute)
        setattr(host, self.attribute, self.value)

        def undo() -> None:
            setattr(host, self.attribute, old)

        return undo

    def line(self) -> str:
        return f".{self.attribute} = {self.value!r}"


_LATER = "Undo later changes first, in reverse order."


class _Through:
    """Hooks that send a module's output, or its first input, through a child of it; copies with the module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def after(self, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        passed: Tensor = module._modules[self.name](output)  # type: ignore[misc]
        return passed

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (module._modules[self.name](args[0]), *args[1:])  # type: ignore[misc]


def is_observed(module: nn.Module) -> bool:
    """Whether hooks other than those of `Attach` see or change what a module takes or returns."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return any(not isinstance(getattr(hook, "__self__", None), _Through) for hook in hooks)


class Edits:
    """Edits that were applied to a model, in order.

    Args:
        model: That was changed.
        edits: What was done.
        undos: What takes each back.
    """

    def __init__(self, model: nn.Module, edits: Sequence[Edit], undos: Sequence[Undo]) -> None:
        self.model, self.edits, self._undos = model, tuple(edits), list(undos)

    def diff(self) -> str:
        """A line for each edit: where, what and why."""
        width = max((len(edit.where) for edit in self.edits), default=0)
        return "\n".join(f"{edit.where or '(network)':{width}}  {edit.line()}    {edit.why}" for edit in self.edits)

    def undo(self) -> None:
        """Restore the structure of the model; weights keep what they have learned.

        Raises:
            SurgeryError: If something else has changed the same places since; then nothing more is taken back.
        """
        while self._undos:
            self._undos[-1]()
            self._undos.pop()


def apply_edits(model: nn.Module, edits: Sequence[Edit], *, example: Any = None) -> Edits:
    """Apply all `edits` to `model`, or none of them.

    Where there is an example, eval-mode outputs are compared with those before: they may differ by the `shift` that the
    edits state. If they differ by more, or an edit or the model fails, everything is taken back and the error goes on.

    Args:
        model: Changed in place.
        edits: In order.
        example: A batch, as for `call_model`.

    Raises:
        SurgeryError: If outputs changed more than was meant.
    """
    before = None if example is None else eval_outputs(model, example)
    done = Edits(model, edits, [])
    try:
        for edit in edits:
            done._undos.append(edit.apply(model))
        if before is not None:
            check_outputs(before, eval_outputs(model, example), sum(edit.shift for edit in edits))
    except BaseException:
        done.undo()
        raise
    return done


@torch.no_grad()
def eval_outputs(model: nn.Module, example: Any) -> list[Tensor]:
    """The tensors that `model` makes of `example` in eval mode; modes and random state stay as they were."""
    # Torch's fast path for transformers rounds differently, and is left where a module has a hook.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with modes(model, training=False), torch.random.fork_rng(devices=[]):
            return tensors_of(call_model(model, example))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def check_outputs(before: Sequence[Tensor], after: Sequence[Tensor], shift: float) -> None:
    """Raise unless outputs agree to `shift` of their largest magnitude.

    Args:
        before: Outputs of the model as it was.
        after: Of the changed one.
        shift: 0 asks for equality, infinity for shapes only.

    Raises:
        SurgeryError: If they do not.
    """
    if [one.shape for one in before] != [one.shape for one in after]:
        raise SurgeryError("The change alters the shapes of what the network returns. Nothing was changed.")
    for old, new in zip(before, after, strict=True):
        if not old.is_floating_point() or old.numel() == 0 or shift == float("inf"):
            continue
        difference = float((new.double() - old.double()).abs().nan_to_num().max())
        bound = shift * float(old.abs().nan_to_num().max())
        if difference > bound or bool((old.isnan() != new.isnan()).any()):
            raise SurgeryError(
                f"Outputs in eval mode would change by {difference:.3g}, and the change should keep them. "
                "Nothing was changed.",
                repair="This is an error of Poise, or the network draws random numbers in eval mode.",
            )


def check_editable(model: nn.Module) -> None:
    """Raise unless `model` is a module whose parts can be changed.

    Args:
        model: Any.

    Raises:
        ConfigError: If it is none, is compiled or scripted, or wrapped for several processes.
    """
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ConfigError(f"`model` must be a torch.nn.Module, but got {kind}.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(
                "A scripted module cannot be changed.", where=f"module {name!r}", repair="Give the one it was made of."
            )
    if type(model).__module__.startswith("torch._dynamo"):
        raise ConfigError("A compiled model cannot be changed.", repair="Change the model, then torch.compile it.")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ConfigError(f"A model in {kind} cannot be changed.", repair="Change the model, then wrap it.")
