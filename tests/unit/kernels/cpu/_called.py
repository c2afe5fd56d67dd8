"""Parts of machine code, called from Python."""

import numba

from poise.kernels.cpu._linking import WHOLE


def called(part):
    """What Python calls to have `part` called with the same arguments."""

    @numba.njit(error_model="numpy", pipeline_class=WHOLE)
    def call(*arguments):
        return part(*arguments)

    return call
