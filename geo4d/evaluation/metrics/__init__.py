"""Depth, point, camera and consistency metrics. Every reference-valid pixel and every reference frame counts.

A pixel without a finite prediction is wrong in ``delta`` and lowers ``coverage``; error means are over covered pixels,
so the two must be read together. ``delta`` and ``coverage`` are fractions of 1, translations in the unit of the
reference, angles in degrees. What cannot be determined is None with a reason, never 0 and never NaN.
"""
