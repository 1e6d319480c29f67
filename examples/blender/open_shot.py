"""Opens a USD export in Blender (5.0) as a shot to work on: what the importer leaves out, this sets.

    geo4d export out --format usd -o shot.usdc --up z
    blender --python examples/blender/open_shot.py -- shot.usdc

Frame rate, frame range, size and pixel aspect of the picture, the camera of the scene, and the plate as a sequence
behind it. It runs in Blender's own Python and needs nothing of geo4d.
"""

import math
import sys
from pathlib import Path

import bpy


def open_shot(path: Path) -> None:
    """Import the file into the open scene."""
    before = set(bpy.data.objects)
    bpy.ops.wm.usd_import(filepath=str(path), import_guide=False, set_frame_range=True)
    (camera,) = [thing for thing in set(bpy.data.objects) - before if thing.type == "CAMERA"]
    scene = bpy.context.scene
    scene.camera = camera
    fps = float(camera.data["fps"])
    scene.render.fps = math.ceil(fps - 1e-3)
    scene.render.fps_base = scene.render.fps / fps
    plate = path.parent / str(camera.data["plate"])
    if plate.is_file():
        show_plate(scene, camera, plate)
    else:
        print(
            f"no plate, and the size of renders is as it was: {plate} is no file (that of a .usdz lies inside)"
        )


def show_plate(scene: bpy.types.Scene, camera: bpy.types.Object, first: Path) -> None:
    """The pictures behind what the camera sees, each at its frame; renders get their size and shape."""
    image = bpy.data.images.load(str(first))
    width, height = image.size
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    aspect = camera.data.sensor_width / camera.data.sensor_height * height / width
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = max(1.0, aspect), max(1.0, 1 / aspect)
    image.source = "SEQUENCE"
    behind = camera.data.background_images.new()
    behind.image = image
    behind.frame_method = "STRETCH"
    behind.alpha = 1.0
    user = behind.image_user
    user.frame_start = scene.frame_start
    user.frame_duration = scene.frame_end - scene.frame_start + 1
    user.frame_offset = scene.frame_start - 1  # the files are numbered as the frames are
    camera.data.show_background_images = True


if __name__ == "__main__" and "--" in sys.argv:
    open_shot(Path(sys.argv[sys.argv.index("--") + 1]).resolve())
