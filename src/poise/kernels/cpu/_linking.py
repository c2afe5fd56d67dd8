"""How Numba's functions become one piece of machine code.

Numba turns every function into machine code of its own, also those that only others call, and lets pieces that are
loaded into one process share functions of the same name. What a function computes then depends, in the last bit, on
what was compiled or loaded before it. Here functions that others call are parts without machine code, and a whole that
Python calls keeps its own copies of its parts to itself: it computes the same whether it was just compiled or comes
from a cache, and is compiled in less time.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.typed_passes import AnnotateTypes


class _PartLibrary(JITCodeLibrary):
    def _optimize_final_module(self) -> None:
        """Left to the whole: otherwise a part is optimized again in everything that it is part of."""

    def _finalize_final_module(self) -> None:
        whole = self._final_module
        # The engine gets the global variables alone; functions that are elsewhere, too, are not made.
        self._final_module = whole.clone()
        for function in self._final_module.functions:
            if not function.is_declaration:
                function.linkage = "available_externally"
        super()._finalize_final_module()
        self._final_module = whole


class _WholeLibrary(JITCodeLibrary):
    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        super()._optimize_final_module()


def _compiler(kind: type[JITCodeLibrary]) -> Any:
    """Numba's pipeline of compiling, with a library of this kind."""

    @register_pass(mutates_CFG=False, analysis_only=True)
    class MakeLibrary(LoweringPass):
        _name = f"make_{kind.__name__}"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            state.library = kind(state.targetctx.codegen(), state.func_id.func_qualname)
            state.library.enable_object_caching()
            return False

    class Compiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
            passes.add_pass_after(MakeLibrary, AnnotateTypes)
            passes.finalize()
            return [passes]

    return Compiler


PART, WHOLE = _compiler(_PartLibrary), _compiler(_WholeLibrary)
