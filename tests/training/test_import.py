import json
import os
import shutil

import pytest
import torch
from click.testing import CliRunner
from conftest import noise
from small_checkpoints import network

import licodec
from licodec.architectures import TABLE
from licodec.cli.main import main
from licodec.weights import catalogue
from licodec.weights import file as weights_file


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return invoke


@pytest.fixture
def png(tmp_path):
    noise(50, 40, "RGB").save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture
def state():
    return network("mbt2018-mean").state_dict()


def one_line(result, code):
    assert result.exit_code == code
    assert result.stderr.startswith("licodec: ") or "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_import_encode_decode(run, state, png, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "c.pt")
    made = run("import", tmp_path / "c.pt", "--arch", "mbt2018-mean", "-o", tmp_path / "w")
    assert made.exit_code == 0, made.stderr
    assert "noise" in made.stderr
    file = made.stdout.strip()
    recipe = json.loads((tmp_path / "w").glob("*.json").__next__().read_text())
    assert recipe["sha256"].startswith(file[-20:-12])
    # The same checkpoint gives the same weights.
    assert (
        run(
            "import", tmp_path / "c.pt", "--arch", "mbt2018-mean", "-o", tmp_path / "w"
        ).stdout.strip()
        == file
    )

    lic = tmp_path / "x.lic"
    assert run("encode", png, "-o", lic, "-m", "hyperprior", "--weights", file).exit_code == 0
    assert run("encode", png, "-o", lic, "-f", "--weights", file, "-q", 90).exit_code == 0
    assert "not installed" in one_line(run("decode", lic, "-o", tmp_path / "a.png"), 4)
    assert not (tmp_path / "a.png").exists()
    assert run("decode", lic, "-o", tmp_path / "a.png", "--weights", file).exit_code == 0
    assert "--weights" in one_line(run("verify", "--deep", lic), 4)
    assert run("verify", "--deep", lic, "--weights", file).exit_code == 0
    monkeypatch.setenv("LICODEC_WEIGHTS", str(tmp_path / "w"))
    assert run("decode", lic, "-o", tmp_path / "b.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "hyperprior@" in run("info", lic).stdout
    assert run("verify", "--deep", lic).exit_code == 0

    # One rate: every quality is that rate.
    assert weights_file.load(tmp_path / "w" / file.rsplit("/", 1)[-1]).position(200) == 0
    rows = json.loads(run("models", "--json").stdout)
    assert [r["model"] for r in rows if r["hash"] == file[-20:-12]] == ["hyperprior"]
    assert [r["model"] for r in rows if r["default"]] == [TABLE[0].name]
    named = f"hyperprior@{licodec.info(lic.read_bytes())['model_hash']}"
    assert run("encode", png, "-o", lic, "-f", "-m", named).exit_code == 0
    # The default model is still the installed one.
    assert licodec.info(licodec.encode(noise(20, 20, "RGB")))["model"] == TABLE[0].name


def test_a_model_without_weights_says_so(run, hyper_weights, png, tmp_path, monkeypatch):
    shutil.copy(hyper_weights["mbt2018"], tmp_path)
    monkeypatch.setattr(catalogue, "folders", lambda: [tmp_path])
    message = one_line(run("encode", png, "-o", tmp_path / "x.lic", "-m", "attention"), 4)
    assert "no weights for attention are installed" in message and message.count("\n") == 1
    assert not (tmp_path / "x.lic").exists()


def test_weights_and_model_must_agree(run, hyper_weights, png, tmp_path):
    file = hyper_weights["mbt2018"]
    lic = tmp_path / "x.lic"
    message = one_line(run("encode", png, "-o", lic, "-m", "hyperprior", "--weights", file), 2)
    assert "autoregressive" in message
    assert run("encode", png, "-o", lic, "--weights", file).exit_code == 0
    other = hyper_weights["mbt2018-mean"]
    message = one_line(run("decode", lic, "-o", tmp_path / "x.png", "--weights", other), 4)
    assert other.name in message
    one_line(run("encode", png, "-o", lic, "-f", "--weights", png), 4)
    one_line(run("encode", png, "-o", lic, "-f", "--weights", tmp_path / "none"), 4)


def test_what_is_no_such_checkpoint(run, state, tmp_path):
    path = tmp_path / "c.pt"

    def refused(saved, arch="mbt2018-mean"):
        torch.save(saved, path)
        return one_line(run("import", path, "--arch", arch, "-o", tmp_path / "w"), 2)

    assert "mbt2018" in refused(state, "mbt2018")
    assert "scale" not in refused({}, "bmshj2018-hyperprior")
    assert "rows" in refused({"state_dict": state, "log_gain": torch.zeros(2, 24)})
    assert "channels" in refused(
        {"state_dict": state, "log_gain": torch.zeros(1, 23), "lambdas": [0.1]}
    )
    broken = {k: v for k, v in state.items() if "matrices.0" not in k}
    assert "bottleneck" in refused(broken)
    assert "finite" in refused({**state, "h_s.0.bias": state["h_s.0.bias"] * float("nan")})
    path.write_bytes(b"PK not a checkpoint")
    one_line(run("import", path, "--arch", "mbt2018", "-o", tmp_path / "w"), 2)
    assert run("import", path, "--arch", "vgg16").exit_code == 2
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_checkpoints_that_have_no_end_are_refused(run, tmp_path, suffix):
    path = tmp_path / f"endless.{suffix}"
    path.symlink_to("/dev/zero")
    for command in (["import", path, "--arch", "mbt2018"], ["export", path]):
        assert "not a regular file" in one_line(run(*command, "-o", tmp_path / "w"), 2)
    assert not (tmp_path / "w").exists()


class Program:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "odd",
    [
        [1], None, {1: torch.zeros(2)}, {"lambdas": "abc"}, {"lambdas": 3}, {"lambdas": None},
        {"lambdas": [float("nan")]}, {"log_gain": "x", "lambdas": [1]},
        {"log_gain": torch.zeros(()), "lambdas": [1]}, {"log_gain": torch.zeros(1), "lambdas": [1]},
        {"log_gain": torch.full((1, 24), float("nan")), "lambdas": [1]},
        {"g_a.0.weight": torch.zeros(())}, {"g_a.6.weight": torch.zeros(())},
        {"g_a.0.weight": torch.zeros(0, 3, 5, 5)}, {"g_a.0.weight": torch.zeros(10**9, 0)},
        {"lambdas": [-1.0]}, {"lambdas": [0.1, 0.2]}, {"z_distributions.odd": torch.zeros(3)},
        {"z_distributions.prior": torch.zeros(1, 16, 5, dtype=torch.bfloat16)},
        {"entropy_bottleneck.quantiles": torch.full((16, 1, 3), 1e6)},
        {"g_a.0.weight": torch.zeros(16, 3, 5, 5).to_sparse()},
        {"g_a.0.weight": torch.zeros(16, 3, 5, 5, dtype=torch.complex64)},
        {"entropy_bottleneck.quantiles": torch.full((16, 1, 3), float("nan"))},
        {"more": Program()},
    ],
)  # fmt: skip
def test_odd_checkpoints_are_one_line(run, state, tmp_path, odd, capfd):
    path = tmp_path / "c.pt"
    torch.save({**state, **odd} if isinstance(odd, dict) and 1 not in odd else odd, path)
    message = one_line(run("import", path, "--arch", "mbt2018-mean", "-o", tmp_path / "w"), 2)
    (line,) = message.splitlines()
    assert str(path) in line and "internal" not in line
    assert "run" not in capfd.readouterr().out and not (tmp_path / "w").exists()


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1)])
def test_attention_of_one_channel_is_refused(run, tmp_path, sizes):
    state = network("cheng2020-attn").state_dict()
    for name, size in zip(("g_a.0.conv1.weight", "g_a.7.weight"), sizes, strict=True):
        state[name] = state[name][:size]
    torch.save(state, tmp_path / "c.pt")
    line = one_line(run("import", tmp_path / "c.pt", "--arch", "cheng2020-attn"), 2)
    assert "too few channels" in line and "internal" not in line


def test_half_precision_is_imported(run, state, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(half, tmp_path / "c.pt")
    made = run("import", tmp_path / "c.pt", "--arch", "mbt2018-mean", "-o", tmp_path / "w")
    assert made.exit_code == 0, made.stderr


def test_old_names_and_wrappers_of_checkpoints(state, tmp_path):
    from licodec.training.convert.import_checkpoint import read

    old = {}
    for key, value in state.items():
        for part, name in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"entropy_bottleneck.{part}", f"entropy_bottleneck.{name}")
        old[f"module.{key}"] = value
    torch.save({"network": old}, tmp_path / "c.pt")
    found = read(tmp_path / "c.pt").state
    assert set(found) == set(state)
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_calibration_images(run, state, tmp_path):
    torch.save(state, tmp_path / "c.pt")
    (tmp_path / "images").mkdir()
    arguments = ["import", tmp_path / "c.pt", "--arch", "mbt2018-mean", "-o", tmp_path / "w"]
    one_line(run(*arguments, "--calibrate", tmp_path / "images"), 2)
    noise(200, 130, "RGB").save(tmp_path / "images" / "a.png")
    noise(90, 70, "RGB", 1).save(tmp_path / "images" / "b.png")
    made = run(*arguments, "--calibrate", tmp_path / "images")
    assert made.exit_code == 0 and "noise" not in made.stderr


def test_an_echo_is_chosen_where_lambdas_are_told(run, state, tmp_path, monkeypatch):
    from licodec.training.convert import import_checkpoint

    seen = []

    def strengths(codec, lambdas, log_gain, x):
        seen.append((lambdas, tuple(log_gain.shape), tuple(x.shape)))
        return torch.tensor([0.0, 0.5])

    monkeypatch.setattr(import_checkpoint, "strengths", strengths)
    several = {"state_dict": state, "log_gain": torch.full((2, 24), 4.0), "lambdas": [0.01, 0.1]}
    torch.save(several, tmp_path / "c.pt")
    (tmp_path / "images").mkdir()
    noise(300, 330, "RGB").save(tmp_path / "images" / "large.png")
    noise(200, 130, "RGB").save(tmp_path / "images" / "small.png")
    arguments = ["import", tmp_path / "c.pt", "--arch", "mbt2018-mean", "-o", tmp_path / "w"]
    plain = run(*arguments).stdout.strip()
    assert not seen and weights_file.BACK_PROJECTION not in weights_file.load(
        tmp_path / "w" / plain.rsplit("/", 1)[-1]
    )
    made = run(*arguments, "--calibrate", tmp_path / "images").stdout.strip()
    assert seen == [([0.01, 0.1], (2, 24), (1, 3, 256, 256))]
    loaded = weights_file.load(tmp_path / "w" / made.rsplit("/", 1)[-1])
    assert [loaded.back_projection(position) for position in (0, 128, 256)] == [0, 0.25, 0.5]
    image = noise(64, 64, "RGB")
    high, low = (licodec.encode(image, quality=q, weights=made) for q in (100, 0))
    monkeypatch.setattr(weights_file.Weights, "back_projection", lambda self, position: 0.0)
    assert high != licodec.encode(image, quality=100, weights=made)
    assert low == licodec.encode(image, quality=0, weights=made)
    assert licodec.decode(high, weights=made).size == (64, 64)


@pytest.mark.parametrize("place", ["state_dict", "log_gain", "beside"])
def test_tensors_larger_than_what_is_stored_of_them(run, tmp_path, place):
    """One number that says it is 34 GB of them."""
    bomb = torch.zeros(1).expand(2**33)
    saved = {"state_dict": {"g_a.0.weight": bomb if place == "state_dict" else torch.zeros(1)}}
    saved |= {} if place == "state_dict" else {place: bomb if place == "log_gain" else [(bomb,)]}
    torch.save(saved, tmp_path / "c.pth")
    said = one_line(run("import", tmp_path / "c.pth", "--arch", "mbt2018-mean"), 2)
    assert "larger than what is stored" in said
    assert "larger than what is stored" in one_line(run("export", tmp_path / "c.pth"), 2)


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors"])
@pytest.mark.parametrize("verb", ["export", "import"])
def test_what_libraries_say_of_odd_files_is_not_passed_on(run, tmp_path, verb, name):
    (tmp_path / name).write_bytes(b"\x80\x02c\x1b[31mmodule\nname\n." * 3)
    options = ["--arch", "mbt2018-mean"] if verb == "import" else []
    said = one_line(run(verb, tmp_path / name, *options), 2)
    assert said == f"licodec: {tmp_path / name}: {SAID[verb, name]}\n"


SAID = {
    ("export", "c.pth"): "no readable checkpoint",
    ("export", "c.safetensors"): "no readable checkpoint",
    ("import", "c.pth"): "holds more than tensors, or is damaged",
    ("import", "c.safetensors"): "no readable checkpoint",
}
