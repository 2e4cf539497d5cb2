import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import licodec
from licodec.codec import verify_latents

GOLDEN = Path(__file__).resolve().parent / "golden"
OK = sorted((GOLDEN / "ok").glob("*.lic"))
MUST_FAIL = sorted((GOLDEN / "must-fail").glob("*.lic"))
LATENTS = json.loads((GOLDEN / "ok" / "latents_crc32.json").read_text())
CAUSES = json.loads((GOLDEN / "must-fail" / "causes.json").read_text())


def test_there_are_golden_files():
    assert {path.stem for path in OK} == set(LATENTS)
    assert {path.stem for path in MUST_FAIL} == set(CAUSES)
    assert len(OK) >= 23 and len(MUST_FAIL) >= 35


@pytest.mark.parametrize("path", OK, ids=lambda p: p.stem)
def test_decodes_to_the_same_latents_and_pixels(path):
    data = path.read_bytes()
    assert verify_latents(data) == LATENTS[path.stem]
    decoded = licodec.decode(data, precision="float32")
    with Image.open(path.with_suffix(".png")) as expected:
        assert decoded.mode == expected.mode
        difference = np.asarray(decoded).astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("path", MUST_FAIL, ids=lambda p: p.stem)
def test_is_refused(path):
    with pytest.raises(licodec.LicodecError) as caught:
        licodec.decode(path.read_bytes())
    assert "\n" not in str(caught.value)
    assert type(caught.value).__name__ == CAUSES[path.stem]


def test_every_file_stands_in_the_readme():
    text = (GOLDEN / "README.md").read_text("utf-8")
    names = [path.stem for path in MUST_FAIL] + [path.stem.rsplit("-", 1)[0] for path in OK]
    assert not [name for name in names if f"| `{name}` |" not in text]


HYPERPRIOR = sorted((GOLDEN / "hyperprior").glob("*.lic"))


def test_there_is_one_of_each_hyperprior_and_of_adaptive_z_and_scale_shifts():
    assert len(HYPERPRIOR) >= 6


@pytest.mark.parametrize("path", HYPERPRIOR, ids=lambda p: p.stem)
def test_hyperprior_decodes_to_the_same_latents_and_pixels(path):
    crc = json.loads((path.parent / "latents_crc32.json").read_text())[path.stem]
    data, weights = path.read_bytes(), path.with_suffix(".safetensors")
    assert verify_latents(data, weights=weights) == crc
    decoded = licodec.decode(data, weights=weights, precision="float32")
    with Image.open(path.with_suffix(".png")) as expected:
        difference = np.asarray(decoded).astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 1


EVERYDAY = sorted((GOLDEN / "everyday").glob("*.lic"))


@pytest.mark.parametrize("path", EVERYDAY, ids=lambda p: p.stem)
def test_everyday_decodes_to_the_same_pixels(path):
    assert len(EVERYDAY) >= 6
    (weights,) = path.parent.glob("*.safetensors")
    decoded = licodec.decode(path.read_bytes(), weights=weights)
    with Image.open(path.with_suffix(".png")) as expected:
        assert decoded.mode == expected.mode
        assert np.array_equal(np.asarray(decoded), np.asarray(expected))
