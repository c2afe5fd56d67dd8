"""Normalizations folded into the layers beside them."""
