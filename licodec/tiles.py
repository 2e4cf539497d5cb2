"""How a plane of latents is cut into tiles, each with as much around it as its result depends on."""

from __future__ import annotations

from typing import Any, TypeVar

STRIDE = 16
"""Pixels per latent position, in each direction."""

Box = tuple[int, int, int, int]
"""Top, bottom, left, right."""
Plane = TypeVar("Plane", bound=Any)


def positions(height: int, width: int) -> tuple[int, int]:
    """The h and w of the latents of so many pixels."""
    return -(-height // STRIDE), -(-width // STRIDE)


def tiles(h: int, w: int, tile: int, halo: int) -> list[tuple[Box, Box]]:
    """(inner, outer) boxes in latent positions, top, bottom, left, right: inner tiles the plane, and
    outer is what must be seen for it."""
    out = []
    for top in range(0, h, tile):
        for left in range(0, w, tile):
            inner = (top, min(top + tile, h), left, min(left + tile, w))
            out.append((inner, widened(inner, halo, h, w)))
    return out


def widened(box: Box, halo: int, h: int, w: int) -> Box:
    """A box and as much around it, within a plane of h and w positions."""
    top, bottom, left, right = box
    return max(0, top - halo), min(h, bottom + halo), max(0, left - halo), min(w, right + halo)


def cut(tile: Plane, inner: Box, outer: Box, scale: int) -> Plane:
    """The inner part of a tile (…, h, w) that was computed over the outer box."""
    top, left = (inner[0] - outer[0]) * scale, (inner[2] - outer[2]) * scale
    height, width = (inner[1] - inner[0]) * scale, (inner[3] - inner[2]) * scale
    inside: Plane = tile[..., top : top + height, left : left + width]
    return inside
