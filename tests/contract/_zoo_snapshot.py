"""Everything about a model that a change must leave, or put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """Modules, tensors, hooks and plain attributes of a model, and copies of its numbers.

    Args:
        modules: Each path and the object there.
        tensors: Each path of a parameter or buffer and the object there.
        hooks: The hooks of each module.
        attributes: The names of all attributes of each module, and the values of plain ones.
        numbers: The state_dict, copied.
    """

    modules: list[tuple[str, nn.Module]]
    tensors: list[tuple[str, Tensor]]
    hooks: list[tuple[str, str, list[Any]]]
    attributes: list[tuple[str, dict[str, Any]]]
    numbers: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """As the model is now."""
        modules = list(model.named_modules(remove_duplicate=False))
        parameters = list(model.named_parameters(remove_duplicate=False))
        return cls(
            modules,
            [*parameters, *model.named_buffers(remove_duplicate=False)],
            [(path, name, list(getattr(one, name).values())) for path, one in modules for name in _HOOKS],
            [(path, _plain(one)) for path, one in modules],
            {name: value.detach().clone() for name, value in model.state_dict().items()},
        )

    def assert_structure(self, model: nn.Module) -> None:
        """The same objects under the same names in the same order, with the same hooks and settings."""
        now = Snapshot.of(model)
        assert [(path, id(one)) for path, one in now.modules] == [(path, id(one)) for path, one in self.modules]
        assert [(path, id(one)) for path, one in now.tensors] == [(path, id(one)) for path, one in self.tensors]
        assert now.hooks == self.hooks
        for (path, new), (_, old) in zip(now.attributes, self.attributes, strict=True):
            assert new == old, path
        assert list(now.numbers) == list(self.numbers)

    def assert_numbers(self, model: nn.Module) -> None:
        """The same state_dict to the last bit, in the same order."""
        now = model.state_dict()
        assert list(now) == list(self.numbers)
        for name, value in now.items():
            assert value.dtype == self.numbers[name].dtype, name
            assert torch.equal(value, self.numbers[name]), name

    def assert_same(self, model: nn.Module) -> None:
        """Nothing at all is different."""
        self.assert_structure(model)
        self.assert_numbers(model)


def _plain(module: nn.Module) -> dict[str, Any]:
    """Numbers, texts and flags as they are, of everything else that it is there."""
    return {
        name: value if isinstance(value, bool | int | float | str | type(None)) else type(value).__name__
        for name, value in vars(module).items()
    }
