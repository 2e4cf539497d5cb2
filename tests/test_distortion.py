"""Squared errors and PSNR of decoded pixels."""

import math

import numpy as np
import pytest

from licodec.distortion import in_db, psnr_db, squared_error
from licodec.io.image import Picture

COLOR = np.random.default_rng(0).integers(0, 200, (9, 7, 3)).astype(np.uint8)


def test_an_error_of_one_level_everywhere():
    assert squared_error(Picture("RGB", COLOR), COLOR + np.uint8(1)) == (9 * 7 * 3, 9 * 7 * 3)
    assert psnr_db(Picture("RGB", COLOR), COLOR + np.uint8(1)) == pytest.approx(48.13, abs=0.01)


def test_no_error_is_infinitely_good():
    assert psnr_db(Picture("RGB", COLOR), COLOR) == math.inf == in_db(0, 0)


def test_what_alpha_hides_does_not_count():
    alpha = np.full(COLOR.shape[:2], 255, np.uint8)
    alpha[:, 3:] = 0
    decoded = COLOR.copy()
    decoded[:, 3:] += 50
    assert squared_error(Picture("RGBA", COLOR, alpha), decoded) == (0, 9 * 3 * 3)
    decoded[4, 2, 0] += 5
    assert squared_error(Picture("RGBA", COLOR, alpha), decoded) == (25, 9 * 3 * 3)


def test_a_part_is_held_against_its_place():
    picture = Picture("RGB", COLOR)
    assert squared_error(picture, COLOR[2:5, 3:6], 2, 3) == (0, 3 * 3 * 3)
    assert squared_error(picture, COLOR[2:5, 3:6], 3, 3)[0] > 0


def test_large_errors_do_not_overflow():
    bright = np.full((40, 3000, 3), 255, np.uint8)
    total, samples = squared_error(Picture("RGB", bright), np.zeros_like(bright))
    assert total == 255**2 * samples == 255**2 * 40 * 3000 * 3
