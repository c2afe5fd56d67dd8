"""Faster kernels in the place of chains of layers."""
