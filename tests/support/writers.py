"""Files of formats that the package only reads, written as their authors do."""

from pathlib import Path

import numpy as np

SINTEL_TAG = 202021.25


def save_cam(path: str | Path, intrinsics: np.ndarray, c2w: np.ndarray) -> None:
    """Write a Sintel .cam file."""
    w2c = np.linalg.inv(np.asarray(c2w, np.float64))[:3]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(
        np.float32(SINTEL_TAG).tobytes()
        + np.asarray(intrinsics, "<f8").tobytes()
        + w2c.astype("<f8").tobytes()
    )


def save_pfm(path: str | Path, image: np.ndarray) -> None:
    """Write [H, W] or [H, W, 3] as little-endian PFM (rows bottom-up in the file, as the format wants)."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"expected [H, W] or [H, W, 3], got {list(image.shape)}")
    kind = "Pf" if image.ndim == 2 else "PF"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as file:
        file.write(f"{kind}\n{image.shape[1]} {image.shape[0]}\n-1\n".encode())
        file.write(np.ascontiguousarray(image[::-1], "<f4").tobytes())


def save_dpt(path: str | Path, depth: np.ndarray) -> None:
    """Write [H, W] as Sintel .dpt."""
    _save_tagged(path, depth[..., None], channels=1)


def _save_tagged(path: str | Path, values: np.ndarray, channels: int) -> None:
    if values.ndim != 3 or values.shape[2] != channels:
        raise ValueError(f"expected [H, W, {channels}], got {list(values.shape)}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as file:
        file.write(np.float32(SINTEL_TAG).tobytes())
        file.write(np.array([values.shape[1], values.shape[0]], "<i4").tobytes())
        file.write(np.ascontiguousarray(values, "<f4").tobytes())
