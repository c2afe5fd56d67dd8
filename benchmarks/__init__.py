"""Measurements; never imported by the package or its tests."""
