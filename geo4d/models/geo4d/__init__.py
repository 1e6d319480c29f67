"""The Geo4D family: a video diffusion network that predicts points, rays and disparity of 16 frames at
once.
"""
