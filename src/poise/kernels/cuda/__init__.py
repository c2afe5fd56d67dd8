"""Normalization + nonlinearity + dropout in Triton: the twin of `kernels.cpu` for GPUs, with the same signatures.

`kernels.cpu._chain` says what goes in and out. It needs Triton and is imported only where torch is built for CUDA. Its
numbers are tested in Triton's interpreter, and on GPUs where there are any; docs/gpu.md has its speed.

Sums are made in blocks that depend on the shape of a variant alone and are combined in order, without atomics: the
same call gives the same bits, and a variant the same bits alone or beside others.
"""

from poise.kernels.cuda._chain import chain_backward, chain_forward
from poise.kernels.cuda._dropout import dropout_backward, dropout_forward
from poise.kernels.cuda._jit import COMPUTED

DTYPES = frozenset(COMPUTED)
__all__ = ["DTYPES", "chain_backward", "chain_forward", "dropout_backward", "dropout_forward"]
