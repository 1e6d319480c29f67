"""Opens exported files in Blender (as a Python module, ``bpy``) and compares what it sees with ``shots.json``.

    python tests/blender/check_in_blender.py FOLDER

Runs in an environment that has ``bpy`` and nothing of geo4d; exits with 1 unless everything agrees.
"""

import importlib.util
import json
import sys
from pathlib import Path

import bpy
import numpy as np

PIXELS = 0.01
EXAMPLE = Path(__file__).parents[2] / "examples" / "blender" / "open_shot.py"


def load(path: Path, fps: float) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = round(fps)  # neither importer sets it
    if path.suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path))
    else:
        bpy.ops.wm.usd_import(filepath=str(path), import_guide=True, set_frame_range=True)


def the_camera():
    (camera,) = [thing for thing in bpy.context.scene.objects if thing.type == "CAMERA"]
    return camera


def seen(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels from the upper left at the current frame, with the pixel aspect of the scene."""
    height, width = size
    render = bpy.context.scene.render
    graph = bpy.context.evaluated_depsgraph_get()
    camera = the_camera().evaluated_get(graph)
    scales = {"scale_x": render.pixel_aspect_x, "scale_y": render.pixel_aspect_y}
    lens = np.array(camera.calc_matrix_camera(graph, x=width, y=height, **scales))
    view = np.linalg.inv(np.array(camera.matrix_world))
    clip = np.c_[points, np.ones(len(points))] @ (lens @ view).T
    ndc = clip[:, :2] / clip[:, 3:]
    return np.stack([(ndc[:, 0] + 1) / 2 * width, (1 - ndc[:, 1]) / 2 * height], axis=1)


def points_now(row: int, *, glb: bool) -> np.ndarray:
    """World points [N, 3] of a frame, evaluated at the current frame."""
    graph = bpy.context.evaluated_depsgraph_get()
    name = f"frame_{row:06d}" if glb else "Points"
    thing = bpy.context.scene.objects[name].evaluated_get(graph)
    positions = thing.data.vertices if glb else thing.data.points
    flat = np.empty(3 * len(positions), np.float32)
    positions.foreach_get("co", flat)
    world = np.array(thing.matrix_world)
    return flat.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]


def check(folder: Path, shot: dict) -> list[str]:
    """What does not agree."""
    path, size, glb = folder / shot["file"], tuple(shot["size"]), shot["file"].endswith(".glb")
    load(path, shot["fps"])
    scene, faults = bpy.context.scene, []
    scene.render.resolution_x, scene.render.resolution_y = size[1], size[0]
    scene.render.pixel_aspect_x = shot["pixel_aspect"]
    expected, worst = np.array(shot["pixels"]), 0.0
    for row in range(shot["num_frames"]):
        scene.frame_set(shot["first_frame"] + row)
        pixels = seen(points_now(row, glb=glb), size)
        if pixels.shape != expected.shape:
            faults.append(f"frame {row}: {len(pixels)} points for {len(expected)} pixels")
            continue
        worst = max(worst, float(np.abs(pixels - expected).max()))
        if glb:
            shown = [
                scene.objects[f"frame_{other:06d}"].scale[0] > 0.5 for other in range(shot["num_frames"])
            ]
            if shown != [other == row for other in range(shot["num_frames"])]:
                faults.append(f"frame {row} is not the only one that is shown: {shown}")
    if not worst < PIXELS:
        faults.append(f"points are {worst:.4f} px off")
    camera = the_camera()
    if not glb:  # glTF gives an angle, which Blender turns into a lens for a film of its own
        longer = max(camera.data.sensor_width, camera.data.sensor_height)
        if abs(camera.data.lens * 36 / longer / shot["lens_mm"] - 1) > 1e-4:
            faults.append(f"lens {camera.data.lens} on {longer} mm, expected {shot['lens_mm']} on 36")
        first, last = shot["first_frame"], shot["first_frame"] + shot["num_frames"] - 1
        if (scene.frame_start, scene.frame_end) != (first, last):
            faults.append(f"frames {scene.frame_start} to {scene.frame_end}, expected {first} to {last}")
        if abs(camera.data["fps"] - shot["fps"]) > 1e-3:
            faults.append(f"fps {camera.data['fps']}, expected {shot['fps']}")
        plates = [image for image in bpy.data.images if image.name.startswith("frame_")]
        if len(plates) != 1 or tuple(plates[0].size) != (size[1], size[0]):
            faults.append(f"plate: {[(image.name, tuple(image.size)) for image in plates]}")
        if not str(camera.data.get("plate", "")).endswith(f"frame_{first:04d}.png"):
            faults.append(f"the camera names the plate {camera.data.get('plate')!r}")
    if not 0 < camera.data.clip_start < shot["least_depth"]:
        faults.append(f"clip start {camera.data.clip_start}, nearest depth {shot['least_depth']}")
    print(f"{shot['file']:<28} points within {worst:.5f} px; {'; '.join(faults) or 'agrees'}")
    return faults


def check_example(folder: Path, shot: dict) -> list[str]:
    """What does not agree when ``examples/blender/open_shot.py`` opens the file: nothing is set here."""
    spec = importlib.util.spec_from_file_location("open_shot", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    example.open_shot(folder / shot["file"])
    scene, camera, faults = bpy.context.scene, the_camera(), []
    render, first = scene.render, shot["first_frame"]
    last = first + shot["num_frames"] - 1
    if scene.camera != camera or (scene.frame_start, scene.frame_end) != (first, last):
        faults.append(f"camera {scene.camera}, frames {scene.frame_start} to {scene.frame_end}")
    if abs(render.fps / render.fps_base - shot["fps"]) > 1e-3:
        faults.append(f"fps {render.fps} / {render.fps_base}, expected {shot['fps']}")
    if shot["file"].endswith(".usdz"):  # the plate lies inside
        return faults
    if [render.resolution_y, render.resolution_x] != shot["size"]:
        faults.append(f"size {render.resolution_x}x{render.resolution_y}")
    (plate,) = camera.data.background_images
    worst = 0.0
    for row in range(shot["num_frames"]):
        scene.frame_set(first + row)
        shown = Path(plate.image.filepath_from_user(image_user=plate.image_user))
        if shown.name != f"frame_{first + row:04d}.png" or not shown.is_file():
            faults.append(f"frame {first + row} has the plate {shown}")
        pixels = seen(points_now(row, glb=False), tuple(shot["size"]))
        worst = max(worst, float(np.abs(pixels - np.array(shot["pixels"])).max()))
    if not worst < PIXELS:
        faults.append(f"points are {worst:.4f} px off with the pixel aspect of the scene")
    return faults


def main(folder: Path) -> int:
    print(f"Blender {bpy.app.version_string}")
    shots = json.loads((folder / "shots.json").read_text(encoding="utf-8"))
    wrong = [shot["file"] for shot in shots if check(folder, shot)]
    for shot in shots:
        if shot["file"].endswith(".glb"):
            continue
        if faults := check_example(folder, shot):
            wrong.append(shot["file"])
            print(f"{shot['file']}, opened by the example: {'; '.join(faults)}")
    print(f"{len(shots) - len(set(wrong))} of {len(shots)} files agree")
    return 1 if wrong or not shots else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
