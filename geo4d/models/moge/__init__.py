"""MoGe-1: camera-frame point map, mask and focal of a single picture."""
