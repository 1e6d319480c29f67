"""MoGe-1 and MoGe-2: camera-frame point map, mask and focal of a single picture, the second in metres."""
