"""Cameras from tracks, and from tracks with depth: sees tensors, never a predictor."""
