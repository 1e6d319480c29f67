"""Numbers of the unit shapes that scenes are made of. y points down, so the tip of the cone is at y = -1."""

SPHERE, BOX, CYLINDER, CONE, TERRAIN = 0, 1, 2, 3, 4
