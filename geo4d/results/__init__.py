"""The result of a run on disk: written frame by frame, complete or absent, read back lazily.

A result is a folder with

- ``arrays.zarr``: a zarr v3 group, one chunk per frame;
- ``manifest.json``: what the arrays are, their conventions and units, source and its hash, provenance;
- ``diagnostics.json``: fusion terms, windows dropped and why, timings;
- ``SHA256SUMS``: of every file but the manifest, which holds that of this list and of itself.

A run works in the hidden folder ``.NAME.geo4d-run`` beside ``NAME``, under a lock, and renames the finished result into
place as its last step. It removes nothing but what runs have made, and follows no link.
"""
