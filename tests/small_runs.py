"""Training runs of small hyperpriors, a few steps each."""

from licodec.architectures import BY_COMPRESSAI
from licodec.training import config as configs

ARCHES = [a.name for a in BY_COMPRESSAI.values()]
N, M = 8, 12


def latents(arch):
    return N if arch == "attention" else M


def settings(folder, out, arch, lambdas=(0.013,), regularizer=None, **changes):
    start = "fresh" if arch == "attention" else "klt"
    raw = {
        "data": {"path": str(folder), "holdout": 2, "patch": 64, "batch": 2},
        "model": {"arch": arch, "N": N, "M": latents(arch), "lambdas": list(lambdas)},
        "train": {
            "steps": 3, "warmup": 1, "precision": "float32", "device": "cpu", "out": str(out),
            "init": start, "lr": 1e-3, **changes,
        },
    }  # fmt: skip
    if regularizer is not None:
        raw["regularizer"] = regularizer
    return configs.from_dict(raw)
