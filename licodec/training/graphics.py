"""Graphics drawn for training: text, flat areas, pure colours, gradients, line art and pixel art.

Photographs teach a codec nothing about screens; a share of the crops is drawn here.
"""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_PURE = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]
_LETTERS = string.ascii_letters + string.digits + "     .,:;-()/"


def drawn(rng: np.random.Generator, size: int, kind: str | None = None) -> NDArray[np.uint8]:
    """One picture (size, size, 3): page, window, shapes, pixel art or gradient, any if `kind` is None."""
    kinds = {
        "page": _page,
        "window": _window,
        "shapes": _shapes,
        "pixel art": _pixel_art,
        "gradient": _gradient,
    }
    return kinds[kind or list(kinds)[rng.integers(len(kinds))]](rng, size)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    if rng.random() < 0.4:
        return _PURE[rng.integers(len(_PURE))]
    r, g, b = rng.integers(0, 256, 3)
    return int(r), int(g), int(b)


def _canvas(rng: np.random.Generator, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    ground = (255, 255, 255) if rng.random() < 0.4 else _color(rng)
    image = Image.new("RGB", (size, size), ground)
    return image, ImageDraw.Draw(image)


def _text(rng: np.random.Generator, length: int) -> str:
    return "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), length))


def _page(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Lines of text of one or more sizes."""
    image, draw = _canvas(rng, size)
    ink = (0, 0, 0) if rng.random() < 0.4 else _color(rng)
    y = int(rng.integers(0, 8))
    while y < size:
        height = float(rng.integers(8, 28))
        font = ImageFont.load_default(height)
        line = _text(rng, int(rng.integers(10, 60)))
        draw.text((int(rng.integers(-20, 20)), y), line, ink, font)
        y += int(height * rng.uniform(1.1, 1.8))
        if rng.random() < 0.15:
            ink = _color(rng)
    return np.asarray(image)


def _window(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Boxes, rules, buttons and captions, as on a screen."""
    image, draw = _canvas(rng, size)
    for _ in range(int(rng.integers(4, 16))):
        left, top = (int(v) for v in rng.integers(-20, size, 2))
        width, height = (int(v) for v in rng.integers(8, size // 2, 2))
        line = None if rng.random() < 0.3 else _color(rng)
        box = (left, top, left + width, top + height)
        if rng.random() < 0.3:
            draw.rounded_rectangle(box, int(rng.integers(2, 12)), _color(rng), line)
        else:
            draw.rectangle(box, _color(rng), line)
        if rng.random() < 0.6:
            font = ImageFont.load_default(float(rng.integers(9, 16)))
            draw.text((left + 4, top + 3), _text(rng, max(1, width // 8)), _color(rng), font)
    return np.asarray(image)


def _shapes(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Line art: polygons, ellipses, curves, smooth or hard at their edges."""
    smooth = 2 if rng.random() < 0.6 else 1
    image, draw = _canvas(rng, size * smooth)
    for _ in range(int(rng.integers(3, 20))):
        points = rng.integers(-20, size * smooth + 20, (int(rng.integers(2, 6)), 2))
        corners = [(int(x), int(y)) for x, y in points]
        width = int(rng.integers(1, 6)) * smooth
        kind = rng.integers(3)
        if kind == 0:
            draw.line(corners, _color(rng), width)
        elif kind == 1 and len(corners) > 2:
            draw.polygon(corners, _color(rng))
        else:
            (x0, x1), (y0, y1) = np.sort(points[:2, 0]), np.sort(points[:2, 1])
            draw.ellipse((int(x0), int(y0), int(x1), int(y1)), _color(rng), _color(rng), width)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX) if smooth > 1 else image)


def _pixel_art(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Few colours in a coarse raster, parts of it mirrored or repeated."""
    scale = int(rng.choice([1, 2, 4, 8]))
    side = size // scale
    palette = np.array([_color(rng) for _ in range(int(rng.integers(2, 9)))], np.uint8)
    cell = int(rng.choice([8, 16, 32]))
    motif = rng.integers(0, len(palette), (cell, cell))
    motif = np.where(rng.random((cell, cell)) < rng.uniform(0.2, 0.9), motif[0, 0], motif)
    field = np.tile(
        np.concatenate([motif, motif[:, ::-1]], 1), (side // cell + 1, side // (2 * cell) + 1)
    )
    art = palette[field[:side, :side]].repeat(scale, 0).repeat(scale, 1)
    out = np.zeros((size, size, 3), np.uint8)
    out[: art.shape[0], : art.shape[1]] = art
    return out


def _gradient(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A smooth ramp between colours with a few flat shapes on it."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
    y, x = np.mgrid[:size, :size] / size - 0.5
    t = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)[..., None] ** bend
    ramp = (1 - t) * np.array(_color(rng)) + t * np.array(_color(rng))
    image = Image.fromarray(np.rint(ramp).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        left, top, width, height = (int(v) for v in rng.integers(0, size, 4))
        draw.rectangle((left, top, left + width // 2, top + height // 2), _color(rng))
    return np.asarray(image)
