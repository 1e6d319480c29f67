"""Layouts of scenes by kind: each places things in a builder and says where the camera starts."""

from geo4d.synthetic.layouts.flying import flying
from geo4d.synthetic.layouts.object_on_ground import object_on_ground
from geo4d.synthetic.layouts.room import room
from geo4d.synthetic.layouts.street import street
from geo4d.synthetic.layouts.terrain import terrain

LAYOUTS = {
    "object_on_ground": object_on_ground,
    "street": street,
    "room": room,
    "terrain": terrain,
    "flying": flying,
}
