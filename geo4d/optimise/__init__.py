"""Least squares on systems with a band: knows how to minimise, not what."""
