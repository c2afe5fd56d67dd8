"""Normalization + nonlinearity + dropout on all threads of torch's own pool: twin of `kernels._chain_reference`.

Signatures, shared with `kernels.cuda`; all tensors have a leading axis of V variants, may have any strides and live on
one device; masks are those of `reference.keep_mask`, element e of a variant = row · C + column:

    dropout_forward(x, key, step, p, on) -> y
        x (V, ...); key, step int64 (V,); p float (V,); on bool (V,)
    dropout_backward(g, key, step, p, on) -> dx
        the same map, applied to g
    chain_forward(x, weight, bias, mean, rstd, key, step, p, eps, on, norm, activation) -> (y, mean, rstd)
        x (V, N, C); weight, bias (V, C) or None; mean, rstd (V, C) for a batch norm with given statistics, else None;
        eps float (V,); norm "batch" | "layer" | "none"; activation a name.
        y has x's dtype; mean, rstd (V, C) | (V, N) | (V, 0) in the dtype of computing (float32 for half precision)
    chain_backward(g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, given) -> (dx, dweight, dbias)
        g (V, N, C); mean and rstd as chain_forward returned them; given: whether they were given to it, and so are
        constants; dweight, dbias (V, C) in the dtype of computing, also where weight or bias is None
"""

from __future__ import annotations
