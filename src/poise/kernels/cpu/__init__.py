"""Hot loops in machine code for the CPU, by Numba. Each has a plain twin in `kernels.reference` or `nn`.

Everything works on flat arrays and offsets, takes no lock and draws no memory in a loop, so that one core can train one
network without meeting another.
"""
