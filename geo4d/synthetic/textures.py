"""Procedural textures from a seed: colour plus one noise channel, with mip levels, made when first asked for.

Only numpy draws here (no font, no image library), and the legacy ``RandomState`` stream is used throughout
``geo4d.synthetic``: numpy guarantees that stream never changes, which a frozen evaluation set needs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TEXTURE_SIZE = 256
NUM_LEVELS = 9
LEVEL_OFFSETS = np.cumsum([0] + [(TEXTURE_SIZE >> level) ** 2 for level in range(NUM_LEVELS)])
CATEGORIES = ("ground", "wall", "cloth", "foliage", "plain", "any")

# Seeds of the two banks. The held-out bank is never shown to training.
TRAIN_SEED = 4_100_000
HELDOUT_SEED = 9_700_000
TRAIN_SIZE = 384
HELDOUT_SIZE = 192


def random_stream(*key: int) -> np.random.RandomState:
    """Random numbers that depend on ``key`` alone, identical on every numpy version."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(key)))


class TextureBank:
    """Textures of one seed, drawn on first use and kept.

    Texture ``i`` is a pure function of ``(seed, i)`` and belongs to the category ``i % len(CATEGORIES)``.

    Attributes:
        texels: ``[size, texels of all levels, 4]`` uint8; colour (linear light) and a noise channel. Rows of
            textures that nobody asked for are zero and cost no memory.
    """

    def __init__(self, seed: int, size: int) -> None:
        if size < len(CATEGORIES):
            raise ValueError(f"expected a bank of at least {len(CATEGORIES)} textures, got {size}")
        self.seed = seed
        self.size = size
        self.texels = np.zeros((size, int(LEVEL_OFFSETS[-1]), 4), np.uint8)
        self._drawn = np.zeros(size, bool)

    def choose(self, rng: np.random.RandomState, category: str, surprise: float = 0.2) -> int:
        """Draw a texture index of ``category``; with probability ``surprise`` of any category at all."""
        if rng.rand() < surprise:
            return int(rng.randint(self.size))
        first = CATEGORIES.index(category)
        count = (self.size - first + len(CATEGORIES) - 1) // len(CATEGORIES)
        return first + len(CATEGORIES) * int(rng.randint(count))

    def ensure(self, indices: np.ndarray) -> None:
        """Draw those of the textures ``indices`` that are still missing."""
        for index in np.unique(indices):
            if not self._drawn[index]:
                self.texels[index] = _with_levels(_draw(self.seed, int(index)))
                self._drawn[index] = True


@lru_cache(maxsize=4)
def texture_bank(name: str) -> TextureBank:
    """The shared bank called ``train`` or ``heldout`` of this process."""
    if name == "train":
        return TextureBank(TRAIN_SEED, TRAIN_SIZE)
    if name == "heldout":
        return TextureBank(HELDOUT_SEED, HELDOUT_SIZE)
    raise ValueError(f"expected the texture bank 'train' or 'heldout', got {name!r}")


_COMMON_HUES = (0.02, 0.06, 0.08, 0.10, 0.12, 0.15, 0.24, 0.30, 0.56, 0.60)  # earth, wood, leaves, blue


def random_colors(rng: np.random.RandomState, count: int) -> np.ndarray:
    """``[count, 3]`` colours that go together: one hue with a spread, one saturation, one brightness."""
    base = _COMMON_HUES[rng.randint(len(_COMMON_HUES))] if rng.rand() < 0.65 else rng.rand()
    hue = base + rng.normal(0.0, 0.05, count) * (0.3, 1.0, 5.0)[rng.randint(3)]
    saturation = np.clip(rng.beta(1.2, 3.0) + rng.normal(0.0, 0.08, count), 0.0, 1.0)
    value = np.clip(rng.uniform(0.12, 1.0) + rng.normal(0.0, 0.2, count), 0.03, 1.0)
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Hue (turns), saturation and value in [0, 1] to ``[..., 3]`` colours in [0, 1]."""
    sector = (np.asarray(hue)[..., None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    dip = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    return np.asarray(value)[..., None] * (1.0 - np.asarray(saturation)[..., None] * dip)


def _noise(rng: np.random.RandomState, roughness: float, stretch: float = 1.0) -> np.ndarray:
    """Periodic 1/f^roughness noise of mean 0 and deviation 1; ``stretch`` > 1 draws it out along rows."""
    size = TEXTURE_SIZE
    rows = np.fft.fftfreq(size)[:, None] / stretch
    columns = np.fft.rfftfreq(size)[None] * stretch
    frequency = np.sqrt(rows**2 + columns**2)
    frequency[0, 0] = 1.0
    spectrum = (
        rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    ) / frequency**roughness
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def _ramp(rng: np.random.RandomState, field: np.ndarray, colors: np.ndarray | None = None) -> np.ndarray:
    """Grey field to colours along a random ramp."""
    palette = random_colors(rng, int(rng.randint(2, 5))) if colors is None else colors
    stops = np.sort(rng.uniform(-1.6, 1.6, len(palette)))
    return np.stack([np.interp(field, stops, palette[:, c]) for c in range(3)], -1)


def _cells(rng: np.random.RandomState, columns: int, rows: int, shift: float) -> tuple[np.ndarray, ...]:
    """Brick pattern: index of the cell of every texel and its position inside the cell in [0, 1)."""
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    row = np.floor(y * rows)
    across = (x * columns + shift * (row % 2)) % columns
    cell = (row * columns + np.floor(across)).astype(np.int64)
    return cell, across % 1.0, (y * rows) % 1.0


def _mortar(u: np.ndarray, v: np.ndarray, width_u: float, width_v: float) -> np.ndarray:
    return (u < width_u) | (v < width_v)


def _bricks(rng: np.random.RandomState) -> np.ndarray:
    columns, rows = int(2 ** rng.randint(1, 5)), int(2 * rng.randint(1, 9))
    cell, u, v = _cells(rng, columns, rows, 0.5 * rng.randint(2))
    thickness = rng.uniform(0.02, 0.14)
    tint = rng.normal(0.0, rng.uniform(0.02, 0.22), (columns * rows, 1))[cell]
    brick, joint = random_colors(rng, 2)
    shade = 1.0 + 0.2 * _noise(rng, 1.2)[..., None] * rng.rand()
    joints = _mortar(u, v, thickness, thickness * rows / columns * rng.uniform(0.5, 1.0))
    return np.where(joints[..., None], joint * rng.uniform(0.5, 1.1), np.clip(brick + tint, 0.0, 1.0) * shade)


def _facade(rng: np.random.RandomState) -> np.ndarray:
    columns, rows = int(rng.randint(2, 8)), int(rng.randint(2, 8))
    cell, u, v = _cells(rng, columns, rows, 0.0)
    half_u, half_v = rng.uniform(0.18, 0.42, 2)
    wall, glass, frame = (
        random_colors(rng, 1)[0],
        random_colors(rng, 1)[0] * rng.uniform(0.1, 0.7),
        rng.rand(),
    )
    panes = np.clip(glass + rng.normal(0.0, 0.1, (columns * rows, 1)), 0.02, 1.0)[cell]
    inside = (np.abs(u - 0.5) < half_u) & (np.abs(v - 0.5) < half_v)
    border = (np.abs(u - 0.5) < half_u + 0.04) & (np.abs(v - 0.5) < half_v + 0.04) & ~inside
    bars = inside & ((np.abs(u - 0.5) < 0.02) | (np.abs(v - 0.5) < 0.02)) & (rng.rand() < 0.6)
    image = wall * (1.0 + rng.uniform(0.0, 0.15) * _noise(rng, 1.5)[..., None])
    image = np.where(inside[..., None], panes * (1.2 - 0.4 * v[..., None]), image)
    return np.where((border | bars)[..., None], np.clip(wall * 0.5 + 0.5 * frame, 0.0, 1.0), image)


def _planks(rng: np.random.RandomState) -> np.ndarray:
    columns, rows = int(rng.randint(1, 3)), int(rng.randint(4, 17))
    cell, u, v = _cells(rng, columns, rows, 0.5)
    grain = _noise(rng, rng.uniform(1.0, 1.6), stretch=rng.uniform(4.0, 12.0))
    tint = rng.normal(0.0, rng.uniform(0.05, 0.4), columns * rows)[cell]
    wood = _ramp(rng, 0.6 * grain + 2.0 * tint, np.sort(random_colors(rng, 3), axis=0))
    return np.where(_mortar(u, v, 0.012, 0.06)[..., None], wood * 0.35, wood)


def _stripes(rng: np.random.RandomState) -> np.ndarray:
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / TEXTURE_SIZE
    across, along = rng.randint(0, 13), rng.randint(0, 13)
    if rng.rand() < 0.7:
        across, along = (across + 1, 0) if rng.rand() < 0.5 else (0, along + 1)
    bend = _noise(rng, 2.0) * rng.uniform(0.0, 1.0) * (rng.rand() < 0.5)
    wave = np.sin(2.0 * np.pi * (across * x + along * y) + bend)
    sharp = rng.uniform(1.0, 6.0)
    return _ramp(rng, 1.4 * np.clip(wave * sharp, -1.0, 1.0))


def _checks(rng: np.random.RandomState) -> np.ndarray:
    columns, rows = (int(2 * k) for k in rng.randint(1, 9, 2))
    cell, _, _ = _cells(rng, columns, rows, 0.0)
    dark = ((cell % columns) + cell // columns) % 2
    if rng.rand() < 0.4:  # tartan: two crossing sets of bands
        dark = (cell % columns) % 2 + (cell // columns) % 2
        return random_colors(rng, 3)[dark]
    return random_colors(rng, 2)[dark] * (1.0 + 0.1 * _noise(rng, 1.2)[..., None])


def _stones(rng: np.random.RandomState) -> np.ndarray:
    """Cobbles, gravel, leaves or pebbles: the two nearest of jittered seeds (periodic)."""
    count = int(rng.randint(4, 25))
    seeds = (np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1)) + rng.uniform(
        0.1, 0.9, (count, count, 2)
    )
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] * (count / TEXTURE_SIZE)
    home_y, home_x = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    nearest = np.full(x.shape, 9.0)
    second = np.full(x.shape, 9.0)
    owner = np.zeros(x.shape, np.int64)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row, column = home_y + dy, home_x + dx
            wrapped = (row % count) * count + column % count
            site = seeds.reshape(-1, 2)[wrapped]
            shift_y, shift_x = row - row % count, column - column % count
            distance = np.hypot(y - site[..., 0] - shift_y, x - site[..., 1] - shift_x)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            owner = np.where(closer, wrapped, owner)
            nearest = np.minimum(nearest, distance)
    gap = second - nearest
    palette = random_colors(rng, 6)[rng.randint(0, 6, count * count)] * rng.uniform(
        0.7, 1.2, (count * count, 1)
    )
    stone = palette[owner] * (1.15 - rng.uniform(0.1, 0.6) * nearest[..., None])
    return np.where((gap < rng.uniform(0.03, 0.16))[..., None], random_colors(rng, 1)[0] * 0.4, stone)


def _leaves(rng: np.random.RandomState) -> np.ndarray:
    """Dead leaves: overlapping ellipses and slabs of many sizes."""
    size = TEXTURE_SIZE
    base = random_colors(rng, 8)
    image = np.tile(base[0], (size, size, 1))
    for _ in range(rng.randint(60, 220)):
        radius = min(4.0 / (rng.rand() ** 0.7 + 0.05), 60.0)
        flat, angle = rng.uniform(0.25, 1.0), rng.uniform(0.0, np.pi)
        reach = int(radius) + 2
        centre_y, centre_x = rng.randint(0, size, 2)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        a = x * np.cos(angle) + y * np.sin(angle)
        c = (y * np.cos(angle) - x * np.sin(angle)) / flat
        color = np.clip(base[rng.randint(8)] + rng.normal(0.0, 0.08, 3), 0.0, 1.0)
        inside = (
            np.maximum(np.abs(a), np.abs(c)) < 0.8 * radius if rng.rand() < 0.4 else a**2 + c**2 < radius**2
        )
        rows, columns = (centre_y + y[inside]) % size, (centre_x + x[inside]) % size
        image[rows, columns] = color
    return image


def _signs(rng: np.random.RandomState) -> np.ndarray:
    """Rows of letter-like 5 x 4 dot patterns: posters, labels, book backs."""
    size = TEXTURE_SIZE
    paper, ink, accent = random_colors(rng, 3)
    image = np.tile(paper, (size, size, 1))
    y = int(rng.randint(0, 24))
    while y < size - 12:
        dot = int(rng.randint(1, 7))
        x = int(rng.randint(0, 40))
        color = ink if rng.rand() < 0.7 else accent
        while x < size - 5 * dot and y + 5 * dot < size:
            if rng.rand() < 0.85:
                glyph = np.kron(rng.rand(5, 4) < 0.55, np.ones((dot, dot), bool))
                image[y : y + 5 * dot, x : x + 4 * dot][glyph] = color
            x += 5 * dot
        y += 5 * dot + int(rng.randint(4, 30))
    return image


def _fibres(rng: np.random.RandomState) -> np.ndarray:
    """Grass, fur, carpet: fine noise drawn out along rows, over a coarse one."""
    fine = _noise(rng, rng.uniform(0.2, 0.8), stretch=rng.uniform(1.0, 4.0))
    coarse = _noise(rng, rng.uniform(1.2, 2.0))
    return _ramp(rng, fine * rng.uniform(0.4, 1.0) + coarse * rng.uniform(0.2, 0.8))


def _clouds(rng: np.random.RandomState) -> np.ndarray:
    return _ramp(rng, _noise(rng, rng.uniform(0.7, 2.0), stretch=np.exp(rng.normal(0.0, 0.4))))


def _plain(rng: np.random.RandomState) -> np.ndarray:
    return random_colors(rng, 1)[0] * (1.0 + rng.uniform(0.0, 0.12) * _noise(rng, 1.6)[..., None])


_NATURAL_GREEN = np.array([[0.10, 0.16, 0.05], [0.22, 0.30, 0.10], [0.36, 0.40, 0.18], [0.50, 0.46, 0.25]])


def _greenery(rng: np.random.RandomState) -> np.ndarray:
    tint = np.clip(1.0 + rng.normal(0.0, 0.18, 3), 0.5, 1.6)
    fine = _noise(rng, rng.uniform(0.3, 0.9))
    coarse = _noise(rng, rng.uniform(1.0, 1.8))
    return _ramp(rng, 0.7 * fine + 0.7 * coarse, _NATURAL_GREEN * tint * rng.uniform(0.7, 1.5))


_RECIPES = {
    "ground": (_fibres, _stones, _bricks, _planks, _clouds, _greenery, _plain, _checks),
    "wall": (_bricks, _facade, _facade, _clouds, _plain, _planks, _stones, _fibres),
    "cloth": (_stripes, _checks, _plain, _plain, _clouds, _fibres, _leaves, _signs),
    "foliage": (_greenery, _greenery, _leaves, _fibres),
    "plain": (_plain, _plain, _clouds, _planks),
    "any": (_leaves, _signs, _clouds, _stones, _stripes, _checks, _fibres, _bricks, _facade, _planks),
}


def _draw(seed: int, index: int) -> np.ndarray:
    """``[256, 256, 4]`` float image of texture ``index``."""
    rng = random_stream(seed, index)
    recipes = _RECIPES[CATEGORIES[index % len(CATEGORIES)]]
    image = recipes[rng.randint(len(recipes))](rng)
    if rng.rand() < 0.4:  # stains and worn places
        image = image * (1.0 + rng.uniform(0.08, 0.3) * _noise(rng, 1.5)[..., None])
    image = image + rng.choice([0.0, 0.02, 0.05]) * _noise(rng, rng.uniform(0.2, 0.8))[..., None]
    height = 0.5 + _noise(rng, rng.uniform(0.9, 1.7)) / 6.0
    return np.concatenate([np.clip(image, 0.01, 1.0), np.clip(height, 0.0, 1.0)[..., None]], -1)


def _with_levels(image: np.ndarray) -> np.ndarray:
    """Flat list of texels of all mip levels, finest first, uint8."""
    levels = [image.reshape(-1, 4)]
    while image.shape[0] > 1:
        half = image.shape[0] // 2
        image = image.reshape(half, 2, half, 2, 4).mean((1, 3))
        levels.append(image.reshape(-1, 4))
    return np.round(np.concatenate(levels) * 255.0).astype(np.uint8)
