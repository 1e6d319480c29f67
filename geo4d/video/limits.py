"""How much a source may ask for."""

MAX_PIXELS = 2**26
"""Largest picture that is decoded (8192 x 8192); a larger declared size is refused before anything is allocated."""

MAX_FRAMES = 2_000_000
"""Longest sequence that is accepted: 18 hours at 30 frames per second."""
