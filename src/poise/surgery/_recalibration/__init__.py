"""Exact population statistics for batch normalization."""
