import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import noise
from PIL import Image

import licodec
from licodec.cli import batch, plan
from licodec.cli.main import main
from licodec.errors import LicodecError, UsageError


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def pair(inputs, **given):
    found = plan.find(inputs, False, lambda path: True, "image")
    return plan.pair(found, plan.Outputs(".lic", lambda path: path.suffix == ".lic", **given)).jobs


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def tree(tmp_path):
    """in/a.png, in/b/c.jpg, in/b/d/e.webp, and what is no image."""
    root = tmp_path / "in"
    (root / "b" / "d").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b/c.jpg", "b/d/e.webp")):
        noise(24, 16, "RGB", seed=i).save(root / name)
    (root / "b" / "notes.txt").write_text("no image")
    return root


@pytest.mark.parametrize("jobs", [1, 3])
def test_several_files_go_on_after_a_failure(tree, tmp_path, jobs):
    bad = tree / "bad.png"
    bad.write_text("no")
    out = tmp_path / "new" / "out"
    inputs = [tree / "a.png", bad, tree / "b" / "c.jpg"]
    result = run("encode", *inputs, "--output-dir", out, "-j", jobs)
    assert result.exit_code == 1
    assert files(out) == ["a.lic", "c.lic"]
    assert f"{bad}: not an image" in result.stderr
    assert "2 done, 0 skipped, 1 failed" in result.stderr
    for path in out.iterdir():
        assert licodec.decode(path.read_bytes()).size == (24, 16)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_tree_there_and_back(tree, tmp_path, jobs):
    out, back = tmp_path / "out", tmp_path / "back"
    encoded = run("encode", "-r", tree, "--output-dir", out, "-j", jobs)
    assert encoded.exit_code == 0, encoded.stderr
    assert files(out) == ["a.lic", "b/c.lic", "b/d/e.lic"]
    assert "note: 1 file in folders is no image\n" in encoded.stderr
    decoded = run("decode", "-r", out, "--output-dir", back, "--format", "ppm", "-j", jobs)
    assert decoded.exit_code == 0, decoded.stderr
    assert files(back) == ["a.ppm", "b/c.ppm", "b/d/e.ppm"]


def test_without_an_output_folder_files_lie_beside_their_sources(tree):
    assert run("encode", "-r", tree).exit_code == 0
    assert {"a.lic", "b/c.lic", "b/d/e.lic"} < set(files(tree))
    # Decoding a tree takes .lic files by their signature; all of a.png … exist already or are new.
    (tree / "a.lic").rename(tree / "renamed.bin")
    assert run("decode", "-r", tree).exit_code == 0
    assert {"renamed.png", "b/c.png", "b/d/e.png"} < set(files(tree))


def test_a_second_run_skips_what_is_done(tree, tmp_path):
    out = tmp_path / "out"
    run("encode", "-r", tree, "--output-dir", out)
    (out / "b" / "c.lic").unlink()
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.lic")}
    second = run("encode", "-r", tree, "--output-dir", out)
    assert second.exit_code == 0 and "1 done, 2 skipped, 0 failed" in second.stderr
    assert second.stderr.endswith(
        "; the skipped have an output already: --output-dir names another place, -f makes them anew\n"
    )
    assert (out / "b" / "c.lic").exists()
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    forced = run("encode", "-r", tree, "--output-dir", out, "-f")
    assert forced.stderr.endswith("3 done, 0 skipped, 0 failed\n")
    assert all(p.stat().st_mtime_ns > t for p, t in before.items())


def test_several_named_files_skip_too_but_a_lone_one_is_refused(tree):
    a, c = tree / "a.png", tree / "b" / "c.jpg"
    assert run("encode", a, c).exit_code == 0
    assert "0 done, 2 skipped" in run("encode", a, c).stderr
    lone = run("encode", a)
    assert (
        lone.exit_code == 1 and "exists; -o names another output, -f overwrites it\n" in lone.stderr
    )


def test_the_second_of_one_name_gets_a_longer_one(tree, tmp_path):
    noise(24, 16, "RGB", seed=9).save(tree / "a.bmp")
    out = tmp_path / "out"
    result = run("encode", tree / "a.png", tree / "a.bmp", "--output-dir", out)
    assert result.exit_code == 0 and files(out) == ["a.bmp.lic", "a.lic"]
    note = f"note: {tree / 'a.bmp'} becomes {out / 'a.bmp.lic'}; {out / 'a.lic'} is that of"
    assert note in result.stderr
    for name, source in (("a.lic", "a.png"), ("a.bmp.lic", "a.bmp")):
        assert (out / name).read_bytes() == licodec.encode(Image.open(tree / source))


def test_two_files_of_one_name_and_one_output_are_not_both_written(tree, tmp_path):
    noise(24, 16, "RGB", seed=9).save(tree / "b" / "a.png")
    out = tmp_path / "out"
    result = run("encode", tree / "a.png", tree / "b" / "a.png", "--output-dir", out)
    assert result.exit_code == 1
    assert f"{out / 'a.lic'} is also the output of {tree / 'a.png'}\n" in result.stderr
    assert (out / "a.lic").read_bytes() == licodec.encode(Image.open(tree / "a.png"))


@pytest.mark.parametrize("way", ["absolute", "dots", "linked outputs", "linked folder"])
def test_two_names_of_one_output_are_seen_through(tree, monkeypatch, way):
    noise(24, 16, "RGB", seed=9).save(tree / "a.jpg")
    monkeypatch.chdir(tree)
    if way == "linked outputs":
        Path("one.lic").touch()
        for name in ("a", "c"):
            Path(f"{name}.lic").symlink_to("one.lic")
        Path("a.jpg").rename("c.jpg")
    Path("here").symlink_to(".")
    second = {
        "absolute": tree / "a.jpg", "dots": "b/../a.jpg", "linked outputs": "c.jpg",
        "linked folder": "here/a.jpg",
    }[way]  # fmt: skip
    result = run("encode", "-f", "a.png", second)
    assert result.exit_code == 0, result.stderr
    first = Path("one.lic") if way == "linked outputs" else Path("a.lic")
    assert first.read_bytes() == licodec.encode(Image.open("a.png"))
    other = Path(f"{Path(second).name}.lic")
    assert other.read_bytes() == licodec.encode(Image.open(second))


def test_a_file_named_twice_is_done_once(tree):
    result = run("encode", tree / "a.png", tree / "b" / ".." / "a.png")
    assert result.exit_code == 0 and "1 done, 0 skipped, 0 failed" in result.stderr


def test_threads_make_the_very_files_that_one_makes(tree, tmp_path):
    for jobs in (1, 3):
        run(
            "encode",
            "-r",
            tree,
            "--output-dir",
            tmp_path / str(jobs),
            "-j",
            jobs,
            "--device",
            "cpu",
        )
    for name in files(tmp_path / "1"):
        assert (tmp_path / "3" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_model_is_loaded_once(tree, tmp_path, monkeypatch, jobs):
    from licodec import open_codec
    from licodec.entropy import tabled
    from licodec.weights import file as weights_file

    made = []
    for module, name in ((weights_file, "Weights"), (open_codec, "Codec"), (tabled, "Adaptive")):
        original = getattr(module, name).__init__

        def counted(self, *arguments, original=original, name=name, **options):
            made.append(name)
            original(self, *arguments, **options)

        monkeypatch.setattr(getattr(module, name), "__init__", counted)
    weights_file.load.cache_clear()
    open_codec._codec.cache_clear()
    open_codec._transforms.cache_clear()
    arguments = ("-m", "adaptive", "--output-dir", tmp_path / "out", "-j", jobs)
    assert run("encode", "-r", tree, *arguments).exit_code == 0
    assert sorted(made) == ["Adaptive", "Codec", "Weights"]


def test_a_folder_needs_r(tree, tmp_path):
    result = run("encode", tree, tree / "a.png", "--output-dir", tmp_path / "out")
    assert result.exit_code == 1 and "is a directory; -r goes into it" in result.stderr
    assert files(tmp_path / "out") == ["a.lic"]


def test_the_folder_one_is_in(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert run("encode", "-r", ".", "--output-dir", "out").exit_code == 0
    assert files(tree / "out") == ["a.lic", "b/c.lic", "b/d/e.lic"]
    refused = run("encode", ".")
    assert refused.exit_code == 1 and "is a directory; -r goes into it" in refused.stderr


def test_a_folder_that_cannot_be_read_fails_and_the_rest_goes_on(tree, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(folder) == "d":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    result = run("encode", "-r", tree, "--output-dir", tmp_path / "out", "--quiet")
    assert result.exit_code == 1
    assert f"licodec: {tree / 'b' / 'd'}: cannot be read: Permission denied\n" in result.stderr
    assert result.stderr.endswith("2 done, 0 skipped, 1 failed\n")
    assert files(tmp_path / "out") == ["a.lic", "b/c.lic"]


@pytest.mark.parametrize(
    ("odd", "flag"),
    [("/", "--quiet"), (".", "--quiet"), ("", "--quiet"), ("", "-r"), ("x" * 300, "--quiet"),
     ("x" * 300, "-r"), ("\0", "-r")],
)  # fmt: skip
def test_an_odd_name_fails_and_the_rest_goes_on(tree, tmp_path, odd, flag):
    result = run("encode", odd, tree / "a.png", flag, "--output-dir", tmp_path / "out")
    assert result.exit_code == 1 and files(tmp_path / "out") == ["a.lic"]
    assert result.stderr.endswith("1 done, 0 skipped, 1 failed\n")
    assert "internal error" not in result.stderr


def test_a_file_whose_state_cannot_be_told_is_a_failure(tree, tmp_path, monkeypatch):
    original = Path.stat

    def refuse(path, **options):
        if path.name == "c.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    found = plan.find([str(tree)], True, lambda path: True, "image")
    assert str(tree / "b" / "c.jpg") in [source.path for source in found.sources]


def test_hidden_files_and_folders_are_left_alone(tmp_path, monkeypatch):
    """As of a viewer's thumbnails and of a versioning system."""
    for name in (".thumbnails/a.png", "in/.git/b.png", "in/.c.png", "in/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        noise(9, 7, "RGB").save(tmp_path / name)
    found = plan.find([str(tmp_path)], True, lambda path: True, "image")
    assert [source.path for source in found.sources] == [str(tmp_path / "in" / "d.png")]
    named = plan.find([str(tmp_path / ".thumbnails")], True, lambda path: True, "image")
    assert len(named.sources) == 1


def test_links_to_folders_are_not_followed_and_each_is_noted(tree, tmp_path):
    (tree / "b" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "gone").symlink_to(tree / "nowhere")
    arguments = ("encode", "-r", tree, "--output-dir", tmp_path / "out")
    result = run(*arguments)
    assert result.exit_code == 0 and files(tmp_path / "out") == ["a.lic", "b/c.lic", "b/d/e.lic"]
    note = f"note: {tree / 'b' / 'loop'} is a link to a folder, and is not followed\n"
    assert result.stderr.count(note) == 1
    assert "note: 2 files in folders" in result.stderr
    assert "note" not in run(*arguments, "--quiet").stderr


@pytest.mark.parametrize(
    "arguments", [("-o", "x"), ("-o", "x", "--output-dir", "y")], ids=["-o", "both"]
)
def test_one_output_for_a_tree_is_a_usage_error(tree, arguments):
    assert run("encode", "-r", tree, *arguments).exit_code == 2


def test_an_output_folder_that_cannot_be_made_is_one_line_a_file(tree, tmp_path):
    (tmp_path / "file").touch()
    result = run("encode", tree / "a.png", "--output-dir", tmp_path / "file" / "out")
    assert result.exit_code == 1 and "cannot make" in result.stderr
    assert "Traceback" not in result.stderr


def test_plan_pairs_inputs_with_outputs(tmp_path):
    assert pair(["a.png", "-"], output_dir="out") == [
        plan.Job("a.png", os.path.join("out", "a.lic")),
        plan.Job("-", os.path.join("out", "stdin.lic")),
    ]
    assert pair(["-"]) == [plan.Job("-", "-")]
    with pytest.raises(UsageError):
        pair(["a", "b"], output="c")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("a defect"), OSError("no"), KeyError(3)]
)
def test_whatever_goes_wrong_with_a_file_the_rest_goes_on(tmp_path, capsys, error):
    def work(job):
        if job.source == "bad":
            raise error
        return batch.Result(b"data", "fine")

    jobs = [plan.Job(name, str(tmp_path / name)) for name in ("bad", "good")]
    with pytest.raises(LicodecError, match="1 done, 0 skipped, 1 failed"):
        todo = plan.Plan(jobs, [], False)
        batch.Batch("encode", todo, batch.Telling(lines=False)).run(lambda source: None, work, 1)
    assert (tmp_path / "good").read_bytes() == b"data"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("licodec: bad: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_signal_ends_it_without_a_partial_file(tmp_path, number, jobs):
    """Interrupted in the midst of a large image; what was done before is whole."""
    small = noise(24, 16, "RGB")
    small.save(tmp_path / "a.png")
    for name in ("b.png", "c.png", "d.png"):
        noise(6000, 4000, "RGB").save(tmp_path / name, compress_level=1)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "licodec", "encode", "-r", str(tmp_path), "--output-dir", str(out),
         "-j", jobs],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    done = out / "a.lic"
    deadline = time.monotonic() + 120
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.exists()
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -number
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert said.strip().split("\n")[-1] == "licodec: interrupted"
    assert files(out) == ["a.lic"]
    assert licodec.decode(done.read_bytes()).size == small.size
    assert not list(Path(tmp_path).rglob("*.tmp"))


def test_equal_images_make_equal_files(tmp_path):
    """At once, too: no thread changes how another one rounds."""
    for i in range(6):
        noise(80, 64, "RGB").save(tmp_path / f"{i}.png")
    lic, back = tmp_path / "lic", tmp_path / "back"
    options = ["-j", 3, "-m", "hyperprior", "--output-dir", lic]
    assert run("encode", "-r", tmp_path, *options).exit_code == 0
    assert run("decode", "-r", lic, "-j", 3, "--output-dir", back).exit_code == 0
    for folder in (lic, back):
        made = [path.read_bytes() for path in folder.iterdir()]
        assert len(made) == 6 and len({*made}) == 1


def test_info_and_verify_go_into_folders(tree, tmp_path):
    out = tmp_path / "out"
    assert run("encode", "-r", tree, "--output-dir", out).exit_code == 0
    whole = (out / "a.lic").read_bytes()
    (out / "b" / "torn.lic").write_bytes(whole[:-3])
    for command in ("info", "verify"):
        result = run(command, "-r", out, "--json")
        rows = json.loads(result.stdout)
        assert [Path(row["file"]).name for row in rows] == ["a.lic", "c.lic", "torn.lic", "e.lic"]
        assert [row.get("ok", True) for row in rows] == [True, True, False, True]
        assert result.exit_code == 3
        refused = run(command, out)
        assert refused.exit_code == 1 and "is a directory; -r goes into it" in refused.stderr
    assert "4 files in folders are no .lic files" in run("verify", "-r", tree).stderr
