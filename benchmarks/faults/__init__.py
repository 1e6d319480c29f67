"""Tests R1 to R24 of ``benchmarks/reliability.py``: each is one function that returns an ``Outcome``."""
