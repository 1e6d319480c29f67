"""Do subjects stand out, and are depth edges where they are? The bundled network from pictures alone, before any fusion.

    python benchmarks/subjects.py --clips FOLDER --masks deeplab_mobilenetv2_voc.tflite [--teacher tcmonodepth_small.pt]
        [--weights FILE] [--edges 16] [--output benchmarks/results/NAME.json]

**Subject minus ring**: mean log disparity inside the DeepLab mask of the picture (eroded by 2 pixels) minus that of the
ring 3 to 10 pixels outside it, over the standard deviation of log disparity, at 320 pixels of width; mean over every
fourth of the first 16 frames in which the mask covers at least 0.5 %. It shares no code with training: the masks are
another network's (``ai-edge-litert`` runs it), and no depth is needed.

**Edges** of rendered held-out sequences (``geo4d.synthetic.heldout``): places where the depth of neighbours differs by
more than 10 %, thinned to one pixel; F1 of a one-to-one match within 2 pixels at 320 of width.

Two baselines stand beside it: a ramp over the rows, and ``--teacher`` TCMonoDepth-small, a public network of 186,063
parameters (loaded from the file's tensors; see ``peer.py``).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree

from geo4d.models.tiny.pipeline import load
from geo4d.types import Window
from geo4d.video.io import Video

CLIPS = (
    "vipe/dog-example.mp4", "monst3r/lady-running.mp4", "sam2/01_dog.mp4", "geo4d/drift-straight.mp4",
    "geo4d/drift-turn.mp4", "cotracker/cat.mp4", "video-depth-anything/Tokyo-Walk_rgb.mp4",
    "geometrycrafter/video2.mp4", "geometrycrafter/video4.mp4",
)  # fmt: skip
WIDTH = 320
NUM_FRAMES = 16
LEAST_MASK = 0.005
STEP = 1.1
REACH = 2.0

Network = Callable[[np.ndarray], np.ndarray]
"""Pictures [T H W 3] uint8 -> log disparity [T h w]."""


def ours(weights: Path | None) -> Network:
    """The bundled model on one window, without evidence."""
    predictor = load(weights=weights)

    def run(pictures: np.ndarray) -> np.ndarray:
        size = predictor.size_for(pictures.shape[1:3])
        small = np.stack([cv2.resize(p, size[::-1], interpolation=cv2.INTER_AREA) for p in pictures])
        count = len(small)
        window = Window(
            torch.from_numpy(small).float() / 255, torch.arange(count), torch.arange(count) / 24.0, 0, 24.0
        )
        disparity = predictor.predict(window, seed=0).disparity
        assert disparity is not None
        return disparity.clamp(min=0.01).log().numpy()

    return run


def ramp(pictures: np.ndarray) -> np.ndarray:
    """No network: the lower in the picture, the nearer."""
    rows = np.linspace(0.1, 1.0, pictures.shape[1])[None, :, None]
    return np.log(np.broadcast_to(rows, pictures.shape[:3]))


def mask_finder(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Picture -> mask of anything that is one of the 20 classes."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(path), num_threads=1)
    network.allocate_tensors()
    entry, out = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

    def find(picture: np.ndarray) -> np.ndarray:
        square = cv2.resize(picture, (513, 513), interpolation=cv2.INTER_AREA)
        network.set_tensor(entry, square[None])
        network.invoke()
        classes = network.get_tensor(out)[0].astype(np.uint8)
        return cv2.resize(classes, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0

    return find


def contrast(log_disparity: np.ndarray, mask: np.ndarray) -> float:
    """Subject minus ring of one frame; NaN where either has no pixel."""
    inside = cv2.erode(mask.astype(np.uint8), _disc(2)) > 0
    ring = (cv2.dilate(mask.astype(np.uint8), _disc(10)) > 0) & ~(
        cv2.dilate(mask.astype(np.uint8), _disc(3)) > 0
    )
    if not inside.any() or not ring.any():
        return float("nan")
    return float((log_disparity[inside].mean() - log_disparity[ring].mean()) / log_disparity.std())


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def subject_table(networks: dict[str, Network], folder: Path, masks: Path) -> dict[str, dict[str, float]]:
    """Clip -> network -> contrast."""
    find, table = mask_finder(masks), {}
    for name in CLIPS:
        video = Video(folder / name)
        frames = video.read(range(min(NUM_FRAMES, video.num_frames)))
        pictures = (frames.numpy() * 255).round().astype(np.uint8)
        height = round(WIDTH * pictures.shape[1] / pictures.shape[2])
        shown = range(0, len(pictures), 4)
        small = {t: cv2.resize(pictures[t], (WIDTH, height), interpolation=cv2.INTER_AREA) for t in shown}
        found = {t: find(small[t]) for t in shown}
        used = [t for t in shown if found[t].mean() > LEAST_MASK]
        row = {"frames": len(used)}
        for label, network in networks.items():
            answer = network(pictures)
            values = [contrast(cv2.resize(answer[t], (WIDTH, height)), found[t]) for t in used]
            row[label] = round(float(np.nanmean(values)), 3) if used else float("nan")
        table[name] = row
        print(name, row, flush=True)
    return table


def edges(depth: np.ndarray) -> np.ndarray:
    """Points (row, column) between neighbours whose depths differ by more than ten percent, thinned along the step."""
    log = np.log(np.clip(np.where(np.isfinite(depth), depth, 1e4), 1e-6, 1e4))
    points = []
    for axis in (0, 1):
        step = np.abs(np.diff(log, axis=axis))
        padded = np.pad(step, [(1, 1) if a == axis else (0, 0) for a in (0, 1)])
        before, after = (np.take(padded, range(s, s + step.shape[axis]), axis=axis) for s in (0, 2))
        rows, columns = np.nonzero((step > np.log(STEP)) & (step >= before) & (step > after))
        points.append(np.stack([rows + (0.5 if axis == 0 else 0), columns + (0.5 if axis == 1 else 0)], 1))
    return np.concatenate(points)


def edge_f1(found: np.ndarray, truth: np.ndarray) -> float:
    """F1 of a one-to-one match within ``REACH`` pixels."""
    if not len(found) or not len(truth):
        return float(len(found) == len(truth))
    pairs = cKDTree(found).sparse_distance_matrix(cKDTree(truth), REACH, output_type="coo_matrix")
    matched = _matching(pairs.row, pairs.col, pairs.data, (len(found), len(truth)))
    return 2 * matched / (len(found) + len(truth))


def _matching(rows: np.ndarray, columns: np.ndarray, distances: np.ndarray, size: tuple[int, int]) -> int:
    """Pairs of a greedy one-to-one match, nearest first."""
    taken = np.zeros(size[0], bool), np.zeros(size[1], bool)
    count = 0
    for place in np.argsort(distances, kind="stable"):
        row, column = rows[place], columns[place]
        if not taken[0][row] and not taken[1][column]:
            taken[0][row] = taken[1][column] = True
            count += 1
    return count


def edge_table(networks: dict[str, Network], count: int) -> dict[str, float]:
    """Mean F1 over frame 0 and 8 of held-out sequences."""
    from geo4d.synthetic.heldout import iter_heldout

    rows: dict[str, list[float]] = {label: [] for label in networks}
    for clip in iter_heldout(numbers=list(range(0, 64, max(1, 64 // count)))):
        pictures = clip.rgb[:NUM_FRAMES].numpy()
        height = round(WIDTH * pictures.shape[1] / pictures.shape[2])
        for label, network in networks.items():
            answer = network(pictures)
            for t in (0, 8):
                truth = cv2.resize(clip.depth[t].numpy(), (WIDTH, height), interpolation=cv2.INTER_NEAREST)
                size = (WIDTH, height)
                rows[label].append(edge_f1(edges(np.exp(-cv2.resize(answer[t], size))), edges(truth)))
    return {label: round(float(np.mean(values)), 3) for label, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, help="folder of the clips; without it only edges are measured")
    parser.add_argument("--masks", type=Path, help="DeepLab file of the masks")
    parser.add_argument("--teacher", type=Path, help="TCMonoDepth-small, as a public network beside ours")
    parser.add_argument("--weights", type=Path, help="weights in place of the bundled ones")
    parser.add_argument("--edges", type=int, default=16, help="held-out sequences; 0 for none")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    networks: dict[str, Network] = {"ours": ours(options.weights), "ramp": ramp}
    if options.teacher:
        from peer import tcmonodepth

        networks["TCMonoDepth-small"] = tcmonodepth(options.teacher)
    result: dict[str, object] = {}
    if options.clips:
        result["subject_minus_ring"] = subject_table(networks, options.clips, options.masks)
    if options.edges:
        result["edge_f1"] = edge_table(networks, options.edges)
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
