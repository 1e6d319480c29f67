"""Things that layouts place: each function adds one object to a growing scene."""

from geo4d.synthetic.objects.indoors import chair, clutter, shelf, table, toy
from geo4d.synthetic.objects.living import animal, person
from geo4d.synthetic.objects.outdoors import car, house, pole, tree

__all__ = ["animal", "car", "chair", "clutter", "house", "person", "pole", "shelf", "table", "toy", "tree"]
