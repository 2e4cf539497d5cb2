import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import licodec
from licodec.entropy.pdf_transform import SIDE_LENGTH
from licodec.entropy.tables import BINS
from licodec.errors import UsageError
from licodec.progress import watching
from licodec.training import config as configs
from licodec.training import loop
from licodec.training.checkpoint import load_checkpoint
from licodec.training.codecs.factorized import (
    AdaptiveNetwork,
    FactorizedNetwork,
    between,
    round_ste,
)
from licodec.training.convert.export import export
from licodec.training.data import Images
from licodec.training.fit import classes
from licodec.training.fit.back_projection import STRENGTHS, back_projected, strengths
from licodec.training.fit.histogram import KERNELS
from licodec.training.loop import Run, train
from licodec.training.stages.stage import make_stage, uses_bf16
from licodec.training.start.klt import karhunen_loeve


def settings(folder, out, classes=4, **changes):
    raw = {
        "data": {"path": str(folder), "holdout": 2, "patch": 64, "batch": 4},
        "model": {
            "N": 8, "M": 16, "lambdas": [0.005, 0.05],
            "width": 16, "z_channels": 4, "groups": 4, "kernel_size": 5,
            "classes": classes,
        },
        "train": {
            "steps": 6, "warmup": 1, "precision": "float32", "device": "cpu", "out": str(out), **changes,
        },
    }  # fmt: skip
    return configs.from_dict(raw)


def small_model(classes):
    sizes = {"width": 16, "z_channels": 4, "groups": 4, "kernel_size": 5}
    return configs.Model(N=8, M=16, lambdas=(0.01, 0.1), classes=classes, **sizes)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Classes are fitted in few steps, on few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_STEPS", 30)
        patch.setattr(classes, "_IMAGES", 60)
        yield


@pytest.fixture(scope="module")
def trained(quick, folder, tmp_path_factory):
    """Checkpoints of the two stages, 30 and 20 steps."""
    out = tmp_path_factory.mktemp("runs")
    a = train(settings(folder, out / "a", steps=30, lr=1e-3))
    changes = dict(steps=20, stage="distributions", init=str(a), lr=2e-3, bottleneck_lr=1e-2)
    return a, train(settings(folder, out / "b", **changes))


def test_loss_falls(folder, tmp_path):
    rows = []
    train(settings(folder, tmp_path, steps=60, lr=1e-4, bottleneck_lr=2e-2), report=rows.append)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    start = settings(folder, tmp_path / "zero", steps=1, lr=1e-9, bottleneck_lr=1e-9, ema=0.0)
    train(start, report=rows.append)
    first = [json.loads(s) for s in (tmp_path / "zero/history.jsonl").read_text().splitlines()]
    assert history[-1]["val_objective"] < 0.97 * first[-1]["val_objective"]
    assert rows


def test_every_phase_of_training_is_heard(trained, folder, tmp_path):
    heard = []
    with watching(lambda phase, share: heard.append(phase)):
        train(settings(folder, tmp_path / "a", steps=1))
        changes = dict(steps=1, stage="distributions", init=str(trained[0]))
        train(settings(folder, tmp_path / "b", **changes))
    assert list(dict.fromkeys(heard)) == [
        "reading images", "validating", "analysing images", "fitting classes", "parting classes",
        "counting latents",
    ]  # fmt: skip


def test_minutes_count_what_is_done_beside_the_steps(folder, tmp_path):
    cpu = torch.device("cpu")
    stage = make_stage(settings(folder, tmp_path), Images(folder, 2, 64, cpu), cpu)
    run = Run(settings(folder, tmp_path, steps=0, minutes=2.0), stage)
    run.seconds = 30.0
    assert run.progress() == 0.25
    run.aside = 60.0
    assert run.progress() == 0.5
    run.aside = 600.0  # one step is taken all the same, and ends it
    assert run.progress() > 1
    run.seconds = 0.0
    assert run.progress() == 0


def test_resume_goes_on(folder, tmp_path):
    train(settings(folder, tmp_path, steps=3))
    with pytest.raises(UsageError, match="resume"):
        train(settings(folder, tmp_path, steps=5))
    train(settings(folder, tmp_path, steps=5), resume=True)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 5
    assert len(state["history"]) == 2


def test_a_resumed_run_is_the_run_uninterrupted(folder, tmp_path):
    """And the weights kept on the way are those of a run that ended there."""
    shared = {"cooldown": 0.0, "warmup": 1}
    whole = train(settings(folder, tmp_path / "whole", steps=4, keep_every=2, **shared))
    parts = train(settings(folder, tmp_path / "parts", steps=2, **shared))
    kept = load_checkpoint(whole.parent / "step-0000002.pt")
    assert kept["step"] == 2 and (whole.parent / "step-0000004.pt").exists()
    assert _same(kept["ema"], load_checkpoint(parts)["ema"])
    assert [row["step"] for row in load_checkpoint(whole)["history"]] == [2, 4]
    train(settings(folder, tmp_path / "parts", steps=4, **shared), resume=True)
    assert not _same(kept["ema"], load_checkpoint(parts)["ema"])
    assert _same(load_checkpoint(whole)["ema"], load_checkpoint(parts)["ema"])
    export(whole.parent / "step-0000002.pt", tmp_path, "kept")


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_one_lambda_is_a_fixed_rate(folder, tmp_path):
    config = settings(folder, tmp_path, steps=2)
    config.model.lambdas = (0.01,)
    assert load_checkpoint(train(config))["step"] == 2


def test_trained_weights_encode_and_decode(trained, folder, tmp_path, monkeypatch):
    with Image.open(sorted(folder.iterdir())[0]) as image:
        image.load()
    for checkpoint, model in zip(trained, ("factorized", "adaptive"), strict=True):
        path = export(checkpoint, tmp_path, "tiny")
        assert path.with_suffix(".json").exists()
        data = licodec.encode(image, quality=100, model=str(path))
        monkeypatch.setenv("LICODEC_WEIGHTS", str(path.parent))
        assert licodec.info(data)["model"] == model
        os.environ["LICODEC_WEIGHTS"] = str(tmp_path)
        try:
            out = licodec.decode(data)
        finally:
            del os.environ["LICODEC_WEIGHTS"]
        error = np.asarray(out, float) - np.asarray(image, float)
        assert 10 * np.log10(255**2 / (error**2).mean()) > 18


def test_gains_of_other_rates_lie_between_the_known_ones(trained, folder, tmp_path):
    """Beyond them they go with √λ; the bottlenecks are fitted to all."""
    known = load_checkpoint(trained[0])
    config = settings(
        folder, tmp_path / "run", steps=1, lr=1e-9, bottleneck_lr=1e-9, init=str(trained[0])
    )
    low, high = known["config"]["model"]["lambdas"]
    config.model.lambdas = (low, (low * high) ** 0.5, high, 4 * high)
    config.data.batch = 4
    started = load_checkpoint(train(config))
    was, gains = known["ema"]["log_gain"], started["ema"]["log_gain"]
    expected = torch.stack([was[0], (was[0] + was[1]) / 2, was[1], was[1] + np.log(2)])
    assert torch.allclose(gains, expected, atol=1e-4)
    rates = started["history"][-1]["val_bpp"]
    assert rates == sorted(rates)
    assert rates[0] < 1.15 * known["history"][-1]["val_bpp"][0]


def test_bottlenecks_are_fitted_to_weights_that_have_none(trained, folder, tmp_path):
    """Exported weights hold tables; a run that starts from them starts at their rate."""
    path = export(trained[0], tmp_path, "tiny")
    config = settings(
        folder, tmp_path / "run", steps=1, lr=1e-9, bottleneck_lr=1e-9, init=str(path)
    )
    train(config)
    fresh = settings(folder, tmp_path / "fresh", steps=1, lr=1e-9, bottleneck_lr=1e-9)
    train(fresh)
    (fitted,), (unfitted,) = (
        load_checkpoint(tmp_path / run / "checkpoint.pt")["history"] for run in ("run", "fresh")
    )
    before = load_checkpoint(trained[0])["history"][-1]
    fitted, unfitted, before = (row["val_bpp"][-1] for row in (fitted, unfitted, before))
    assert fitted < 1.05 * before and fitted < 0.9 * unfitted


def test_stage_b_makes_its_own_tables_for_exported_weights(trained, folder, tmp_path):
    """Those of a weights file are integers, for nets that it does not hold as they were trained."""
    path = export(trained[1], tmp_path, "tiny")
    config = settings(folder, tmp_path / "again", stage="distributions", init=str(path), steps=1)
    again, first = (load_checkpoint(c)["ema"] for c in (train(config), trained[1]))
    assert torch.allclose(again["prior"].exp2(), first["prior"].exp2(), atol=0.02)
    total = again["class_prior"].exp2().sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=0.01)


def test_auto_precision_is_bf16_only_where_it_is_native(monkeypatch, folder, tmp_path):
    for native in (True, False):
        monkeypatch.setattr(
            "licodec.training.stages.stage.has_native_bf16", lambda native=native: native
        )
        for name, expected in (("auto", native), ("bf16", True), ("float32", False)):
            config = settings(folder, tmp_path, precision=name)
            assert uses_bf16(config, torch.device("cpu")) == expected


def test_recipe_tells_every_stage(trained, tmp_path):
    text = export(trained[1], tmp_path, "tiny").with_suffix(".json").read_text()
    first, second = json.loads(text)["stages"]
    assert first["config"]["train"]["stage"] == "transforms" and first["steps"] == 30
    assert second["config"]["train"]["stage"] == "distributions" and second["steps"] == 20
    assert second["provenance"]["data_sha256"]
    assert str(tmp_path.parent) not in text


def test_stage_b_leaves_the_transforms_alone(trained):
    a, b = (load_checkpoint(path)["ema"] for path in trained)
    for name in a:
        if name.startswith(("g_a", "g_s", "log_gain")):
            assert torch.equal(a[name], b[name])
    assert any(b[n].abs().sum() > 0 for n in b if n.startswith("h_s.layers.4"))


def test_joint_stage_trains_everything(trained, folder, tmp_path):
    b = trained[1]
    changes = dict(steps=3, stage="joint", init=str(b), lr=1e-3)
    with pytest.raises(UsageError, match="classes = 1"):
        settings(folder, tmp_path, **changes)
    c = train(settings(folder, tmp_path, classes=1, **changes))
    before, after = load_checkpoint(b)["model"], load_checkpoint(c)["model"]
    for part in ("g_a.0.weight", "g_s.0.weight", "h_a.layers.0.weight", "h_s.layers.4.weight"):
        assert not torch.equal(before[part], after[part])


@pytest.mark.slow
def test_two_processes(folder, tmp_path):
    """DDP over gloo: both ranks step together, and the result is a checkpoint like any other."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[data]\npath = "{folder}"\nholdout = 2\npatch = 64\nbatch = 2\n'
        "[model]\nN = 8\nM = 16\nlambdas = [0.005, 0.05]\n"
        f'[train]\nsteps = 3\nprecision = "float32"\ndevice = "cpu"\nout = "{tmp_path}/out"\n'
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "licodec", "train", str(config)]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(tmp_path / "out/checkpoint.pt")
    assert state["step"] == 3 and state["provenance"]["processes"] == 2


def test_an_echo_is_added_where_quality_pays_for_it():
    """A g_a that sees half of everything: the back-projection adds it, in bits that only a high λ pays."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    codec = SimpleNamespace(g_a=lambda x: x / 2, g_s=lambda y: y)
    y, missed = back_projected(codec, x)
    assert torch.allclose(missed, x / 4) and torch.allclose(y, x / 2)
    log_gain = torch.full((2, 3), 4.0)
    chosen = strengths(codec, (1e-6, 10.0), log_gain, x.clamp(min=0))
    assert chosen.tolist() == [0, max(STRENGTHS)]


def test_fewer_images_are_spread_evenly(folder):
    every = Images(folder, 2, 64, torch.device("cpu")).train
    some = Images(folder, 2, 64, torch.device("cpu"), count=3).train
    assert [any(torch.equal(a, b) for b in some) for a in every] == [True, False] * 3


def test_processes_see_different_images(folder):
    parts = [Images(folder, 2, 64, torch.device("cpu"), (rank, 2)).train for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 3
    assert not any(torch.equal(a, b) for a in parts[0] for b in parts[1])


def test_tar_shards_read_like_a_folder(folder, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "shard-0.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    a = Images(folder, 2, 64, torch.device("cpu"))
    b = Images(tmp_path, 2, 64, torch.device("cpu"))
    assert a.sha256 == b.sha256
    assert all(torch.equal(x, y) for x, y in zip(a.train, b.train, strict=True))


def test_start_is_a_good_linear_transform(folder):
    images = Images(folder, 2, 64, torch.device("cpu"))
    model = FactorizedNetwork(32, 64, (0.01,))
    karhunen_loeve(model, images, seed=0)
    x = torch.stack([image[:, :128, :128] for image in images.validation]).float() / 255
    with torch.no_grad():
        mse = ((model.g_s(model.g_a(x)) - x) ** 2).mean()
    assert -10 * torch.log10(mse) > 24


def test_rounding_passes_gradients():
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    out = round_ste(x)
    out.sum().backward()
    assert out.tolist() == [0, 2] and x.grad.tolist() == [1, 1]


def test_transforms_are_trained_with_the_echo_that_is_coded():
    """Both nets keep their gradients in bf16 too, and only patches with a back-projection change."""
    torch.manual_seed(0)
    x = torch.rand(4, 3, 64, 64)
    figures = []
    for shares in ((), (0.0, 0.75)):
        torch.manual_seed(1)
        model = FactorizedNetwork(16, 24, (0.01, 0.1), shares)
        with torch.autocast("cpu", torch.bfloat16):
            loss, seen = model(x, 0.2)
        loss.backward()
        figures.append(seen)
        for name, parameter in model.named_parameters():
            if not name.endswith("quantiles"):
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        y = model.g_a(x).float()
        heard = model.g_a(model.g_s(y)).float()
        wanted = y + (0.75 if shares else 0) * (y - heard)
        with torch.no_grad():
            u = (wanted * model.log_gain[1].exp()[:, None, None]).round()
            x_hat = model.g_s(u / model.log_gain[1].exp()[:, None, None]).clamp(0, 1)
        assert torch.isclose(model.evaluate(x, 1)[1], ((x_hat - x) ** 2).mean(), rtol=1e-3)
    assert figures[0][1, 0] == figures[1][1, 0] and figures[0][1, 1] != figures[1][1, 1]


def test_stage_b_loss_reaches_both_nets_and_nothing_else():
    model = AdaptiveNetwork(small_model(classes=2))
    torch.nn.init.normal_(model.h_s.layers[-1].weight, std=0.1)
    counts = torch.zeros(2, 16, 2, 257)
    counts[..., 120:136] = torch.rand(2, 16, 2, 16) * 50
    loss, _ = model.rates(counts, torch.tensor([0.0, 0.7]))
    loss.backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == name.startswith(("h_a", "h_s", "bottleneck.")) or "quantiles" in name


def test_between_interpolates_per_row():
    tables = torch.tensor([[0.0], [2.0], [6.0]])
    assert between(tables, torch.tensor([0.5, 1.0, 2.0])).flatten().tolist() == [1, 2, 6]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"train": {"steps": 1, "stage": "x"}}, "stage"),
        ({"train": {"steps": 1, "speed": 3}}, "train.speed"),
        ({"train": {"steps": "many"}}, "must be int"),
        ({"trains": {}}, "section"),
        ({"train": {}}, "steps or"),
        ({"train": {"steps": 1}, "data": {"batch": 7}}, "multiple"),
        ({"train": {"steps": 1}, "model": {"lambdas": [0.2, 0.1]}}, "rise"),
        ({"train": {"steps": 1}, "model": {"lambdas": ["a"]}}, "model.lambdas must be a list"),
        ({"train": {"steps": 1}, "model": {"lambdas": [[1]]}}, "model.lambdas must be a list"),
        ({"train": {"steps": 1}, "model": {"lambdas": [0.1, math.inf]}}, "lambdas must be finite"),
        ({"train": {"steps": 1}, "model": {"N": 0}}, "model.N must be at least 1"),
        ({"train": {"steps": 1}, "data": {"batch": 0}}, "data.batch must be at least 1"),
        ({"train": {"steps": 1}, "data": {"holdout": -1}}, "data.holdout must be at least 1"),
        ({"train": {"steps": 1, "minutes": -1}}, "train.minutes must be at least 0"),
        ({"train": {"steps": 1, "minutes": math.nan}}, "train.minutes must be finite"),
        ({"train": {"steps": 1, "lr": math.nan}}, "train.lr must be finite"),
        ({"train": {"steps": 1, "lr": 0}}, "train.lr must be positive"),
        ({"train": {"steps": 1, "cooldown": 2}}, "train.cooldown must be at most 1"),
        ({"train": {"steps": 1, "seed": -1}}, "train.seed must be at least 0"),
        ({"train": {"steps": 1, "device": "tpu"}}, "train.device is auto, cpu, cuda"),
        ({"train": {"steps": 1, "histogram_kernel": "x"}}, "train.histogram_kernel is uniform"),
        ({"train": {"steps": 1, "beta2": 1.0}}, "train.beta2 must be at most"),
        ({"train": {"steps": 1, "lr": 1e300}}, "train.lr must be at most"),
        ({"train": {"steps": 1, "out": "a\0b"}}, "train.out is no name"),
        ({"train": {"steps": 1}, "data": {"batch": 2 * 10**30}}, "data.batch must be at most"),
        ({"train": {"steps": 1}, "data": {"graphics": 10**400}}, "data.graphics must be finite"),
        ({"train": {"steps": 1}, "model": {"lambdas": [1, 10**400]}}, "lambdas must be finite"),
        ({"train": {"steps": 1}, "model": {"arch": "attention", "N": 1}}, "must be at least 2"),
    ],
)
def test_bad_configs(raw, reason):
    with pytest.raises(UsageError, match=reason):
        configs.from_dict(raw)


def test_kernels_of_configs_are_those_there_are():
    assert configs.HISTOGRAM_KERNELS == tuple(KERNELS)


def test_an_output_that_is_a_file_is_told_before_the_work(tmp_path, monkeypatch):
    def work(*arguments):
        raise AssertionError("worked")

    (tmp_path / "out").write_bytes(b"precious")
    monkeypatch.setattr(loop, "Images", work)
    config = configs.from_dict({"train": {"steps": 1, "out": str(tmp_path / "out")}})
    with pytest.raises(UsageError, match="not a folder"):
        loop.train(config, False, print)
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_the_command_line_stands_in_for_a_config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[data]\npath = "a"\npatch = 64\n[train]\nout = "b"\n')
    with pytest.raises(UsageError, match=r"set train.steps or train.minutes"):
        configs.load(path)
    given = configs.load(path, data={"path": "c"}, train={"steps": 3, "out": None})
    assert (given.data.path, given.data.patch) == ("c", 64)
    assert (given.train.steps, given.train.out) == (3, "b")
    with pytest.raises(UsageError, match=r"train.minutes must be float"):
        configs.load(path, train={"minutes": "x"})
    for text in ("\xff", "x = " + "[" * 10**5):
        path.write_text(text, "latin-1")
        with pytest.raises(UsageError, match="run.toml: "):
            configs.load(path)
    path.write_text("train = 1\n")
    with pytest.raises(UsageError, match=r"unknown section \[train\]"):
        configs.load(path, train={"steps": 3})


@pytest.mark.parametrize(
    "model",
    [
        {"groups": 5},
        {"groups": 0},
        {"width": 20},
        {"width": 0},
        {"kernel_size": 4},
        {"z_channels": 0},
    ],
)
def test_nets_over_distributions_that_cannot_be(model):
    raw = {"model": model, "train": {"steps": 1, "stage": "distributions", "init": "a.pt"}}
    with pytest.raises(UsageError, match="model.groups|model.kernel_size"):
        configs.from_dict(raw)


def test_what_earlier_versions_wrote_is_read_by_todays_names(trained, tmp_path):
    """Checkpoints and configs once said `echo` for the back-projection."""
    state = torch.load(trained[1], weights_only=True)
    told = state["ema"]["back_projection"].clone()
    for part in (state["ema"], state["model"]):
        part["echo"] = part.pop("back_projection")
    state["config"]["train"]["echo"] = state["config"]["train"].pop("back_projection")
    torch.save(state, tmp_path / "earlier.pt")
    loaded = load_checkpoint(tmp_path / "earlier.pt")
    assert torch.equal(loaded["ema"]["back_projection"], told) and "echo" not in loaded["model"]
    assert configs.from_dict(loaded["config"]).train.back_projection == ()
    raw = {"model": {"lambdas": [0.01]}, "train": {"steps": 1, "echo": [0.5]}}
    assert configs.from_dict(raw).train.back_projection == (0.5,)


def test_checkpoints_cannot_run_code(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    (tmp_path / "x.pt").write_bytes(pickle.dumps({"ema": Evil(), "config": {}}))
    with pytest.raises(UsageError) as refused:
        load_checkpoint(tmp_path / "x.pt")
    # PyTorch's own message advises to load it all the same.
    assert str(refused.value) == f"{tmp_path / 'x.pt'}: no readable checkpoint"
    assert not (tmp_path / "evil").exists()


def test_bits_are_those_of_the_distributions_written_down():
    torch.manual_seed(0)
    model = AdaptiveNetwork(small_model(classes=3))
    torch.nn.init.normal_(model.h_s.layers[-1].weight, std=0.5)
    model.class_prior.copy_(torch.randn_like(model.class_prior))
    counts = torch.randint(0, 9, (2, 16, 3, BINS + 1)).float()
    z_hat, t = torch.randint(-3, 4, (2, 4, SIDE_LENGTH)).float(), torch.tensor([0.0, 0.7])
    with torch.no_grad():
        delta = model.h_s(z_hat, t)[:, :, None]
        log_p = model.class_prior_at(t).clone()
        log_p[..., :-1] += delta
        log_p -= torch.logsumexp(log_p * np.log(2), -1, keepdim=True) / np.log(2)
        expected = -(counts * log_p).sum((1, 2, 3))
        got = model.bits(counts, z_hat, t)
    assert torch.allclose(got, expected, rtol=1e-5)


def test_training_needs_to_be_told_of_its_data(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(f'[train]\nsteps = 1\nout = "{tmp_path}/run"\n')
    with pytest.raises(UsageError, match="no data: --data"):
        train(configs.load(config))
    assert not (tmp_path / "run").exists()
