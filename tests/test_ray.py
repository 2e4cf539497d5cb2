"""A batch on Ray: a real cluster of this machine with two workers, one of which is killed."""

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner
from conftest import noise

import licodec
from licodec.cli.main import main
from licodec.errors import DamagedFileError, FileAccessError, UsageError

pytest.importorskip("pyarrow")
import pyarrow
from pyarrow import parquet

from licodec.ray.batch import Task, Worker
from licodec.ray.coding import Coding
from licodec.ray.shards import bytes_column, convert
from licodec.ray.store import Store, located

# Ray leaves handles of its processes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def png(seed):
    buffer = io.BytesIO()
    noise(48, 32, "RGB", seed=seed).save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1234567
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def members_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def table_of(data):
    return parquet.read_table(io.BytesIO(data)).to_pydict()


def parquet_of(columns):
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


class Reversing(Coding):
    """Stands for an encoder where only names and places matter."""

    def __call__(self, source):
        data = source.read()
        if data == b"bad":
            raise ValueError("no")
        return data[::-1], {}


def converted(name, data):
    target = io.BytesIO()
    shard = convert(name, io.BytesIO(data), target, Reversing(True))
    return target.getvalue(), shard


def test_a_tar_shard_keeps_its_keys_and_all_that_is_no_image():
    long = "folder/" + "k" * 120  # a name that needs an extended header
    data = tar_of(
        {"0.jpg": b"ab", "0.txt": b"caption", "1.PNG": b"bad", "1.txt": b"x", "2.left.png": b"cd",
         "2.right.png": b"ef", "3.png": b"1", "3.webp": b"2", f"{long}.png": b"gh"}
    )  # fmt: skip
    coded, shard = converted("shard.tar", data)
    assert members_of(coded) == {
        "0.lic": b"ba", "0.txt": b"caption", "1.txt": b"x", "2.left.lic": b"dc", "2.right.lic": b"fe",
        "3.lic": b"1", "3.webp.lic": b"2", f"{long}.lic": b"hg",
    }  # fmt: skip
    assert shard.images == 7
    assert [row["member"] for row in shard.failed] == ["1.PNG"]
    with tarfile.open(fileobj=io.BytesIO(coded)) as tar:
        assert {entry.mtime for entry in tar} == {1234567}


def test_a_tar_shard_that_is_cut_short_is_no_shard():
    data = tar_of({f"{i}.png": bytes(3000) for i in range(3)})
    for size in (0, 100, 2000, 8000):
        with pytest.raises(DamagedFileError, match="no tar file that can be read"):
            converted("a.tar", data[:size])


def test_a_parquet_file_keeps_its_rows_and_columns():
    data = parquet_of({"id": [1, 2, 3, 4], "bytes": [b"ab", None, b"bad", b"cd"], "z": [b""] * 4})
    coded, shard = converted("a.parquet", data)
    assert table_of(coded) == {
        "id": [1, 2, 3, 4], "bytes": [b"ba", None, None, b"dc"], "z": [b""] * 4,
    }  # fmt: skip
    assert shard.images == 3
    assert [row["row"] for row in shard.failed] == [2]
    with pytest.raises(DamagedFileError, match="no Parquet file"):
        converted("a.parquet", data[:-9])


def test_the_column_of_bytes():
    kind = pyarrow.large_binary()
    assert bytes_column(pyarrow.schema([("id", pyarrow.int64()), ("image", kind)])) == "image"
    assert bytes_column(pyarrow.schema([("image", kind), ("bytes", kind)])) == "bytes"
    for names in ([], ["a", "b"]):
        with pytest.raises(DamagedFileError, match=f"{len(names)} columns of bytes"):
            bytes_column(pyarrow.schema([(name, kind) for name in names]))


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_store_writes_whole_files(tmp_path, scheme):
    store, folder = located(f"{scheme}{tmp_path}")
    assert (store.system is None) == (scheme in ("", "file://"))
    name = f"{folder}/a/b.bin"
    assert not store.has(name) and store.names(f"{folder}/a") == set()
    store.write(name, b"one", False)
    store.write(name, memoryview(b"two"), True)
    assert store.names(folder) == {name}  # and no temporary one
    with store.open(name) as file:
        assert file.read() == b"two"
    store.remove(name)
    store.remove(name)
    assert not store.has(name)
    for place in (name, f"{folder}/a"):
        with pytest.raises(FileAccessError):
            store.open(place)


def test_a_store_that_there_is_not():
    with pytest.raises(UsageError, match="nowhere://a"):
        located("nowhere://a")


def test_a_task_that_is_done_again_tells_what_failed_the_first_time(tmp_path):
    source, target = tmp_path / "in.tar", tmp_path / "out.tar"
    source.write_bytes(tar_of({"0.png": b"ab", "1.png": b"bad"}))
    worker = Worker(Reversing(True), Store(), Store())
    task = Task(7, str(source), str(target))
    first, made = worker.row(task), target.read_bytes()
    second = worker.row(task)
    for row in (first, second):
        assert (row["number"], row["ok"]) == (7, False)
        assert [one["member"] for one in row["failed"]] == ["1.png"]
    assert target.read_bytes() == made
    source.write_bytes(tar_of({"0.png": b"ab"}))
    assert worker.row(replace(task, replace=True))["ok"]
    assert worker.row(task) == {"number": 7, "ok": True, "skipped": True}


def test_a_target_that_is_more_generous_than_needed_is_noted():
    coding = Coding(True, {"target_size": 1e6, "model": "factorized"})
    assert "quality 100" in " ".join(coding(io.BytesIO(png(0)))[1]["notes"])


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ray"], "--output-dir names it"),
        (["-o", "a.lic", "--ray"], "--output-dir names it"),
        (["--output-dir", "out", "--ray", "photos"], "photos is no address of a Ray cluster"),
        (["--output-dir", "out", "--psnr", "--ray"], "--psnr and --ray exclude each other"),
        (["memory://x", "--output-dir", "out", "--ray"], "several stores"),
    ],
)
def test_what_does_not_go_with_ray_is_one_line(tmp_path, monkeypatch, arguments, message):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    noise(16, 16, "RGB").save("a.png")
    result = run("encode", "a.png", *arguments)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert os.listdir() == ["a.png"]


def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("encode", "-r", tmp_path, "--output-dir", tmp_path / "out", "--ray")
    assert result.exit_code == 2
    assert "pip install 'licodec[ray]'" in result.stderr and result.stderr.count("\n") == 1


IMAGES = 10
OPTIONS = {"quality": 30, "model": "factorized"}
FACTORIZED = ["-q", 30, "-m", "factorized"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images in a folder and one below it, a bad one, a tar shard and a Parquet file, each with a bad one."""
    root = tmp_path_factory.mktemp("photos")
    (root / "below").mkdir()
    for i in range(IMAGES):
        (root / ("below" if i % 2 else "") / f"{i}.png").write_bytes(png(i))
    (root / "bad.png").write_bytes(b"no image")
    members = {f"{i}.png": png(20 + i) for i in range(3)} | {"3.png": b"none", "0.txt": b"text"}
    (root / "shard.tar").write_bytes(tar_of(members))
    columns = {"id": [1, 2, 3], "bytes": [png(30), b"none", png(31)]}
    (root / "shard.parquet").write_bytes(parquet_of(columns))
    return root


@pytest.fixture(scope="module")
def address():
    """Of a cluster of this machine with two workers."""
    ray = pytest.importorskip("ray")
    from licodec.ray.batch import cluster

    with cluster(None, 2):
        yield ray.get_runtime_context().gcs_address
    gc.collect()


@contextlib.contextmanager
def one_thread():
    """As a worker has: threads may split sums otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def encoded(data):
    target = io.BytesIO()
    licodec.encode_file(io.BytesIO(data), target, **OPTIONS)
    return target.getvalue()


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def command(*arguments):
    found = subprocess.run(
        [sys.executable, "-m", "licodec", *map(str, arguments)], capture_output=True, text=True
    )
    assert "Traceback" not in found.stderr
    return found


def dying(place):
    """Encoding that loses its worker once, after some images."""

    class Dying(Coding):
        def __call__(self, source):
            with contextlib.suppress(FileNotFoundError):
                (place / os.urandom(8).hex()).touch()
                if len(os.listdir(place)) > 4:
                    place.rename(place.with_name("once"))
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(source)

    return Dying(True, OPTIONS)


def deadly():
    """The same at one image always."""

    class Deadly(Coding):
        def __call__(self, source):
            data = source.read()
            if data == b"deadly":
                os.kill(os.getpid(), signal.SIGKILL)
            return data, {}

    return Deadly(False)


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")


@pytest.mark.slow
@needs_kill
def test_a_batch_that_loses_a_worker_makes_what_a_batch_makes(photos, address, tmp_path):
    from licodec.ray import batch

    out, calls = tmp_path / "out", tmp_path / "calls"
    calls.mkdir()
    sources = sorted(p for p in photos.rglob("*") if p.is_file())
    tasks = []
    for number, source in enumerate(sources):
        suffix = source.suffix if source.stem == "shard" else ".lic"
        target = out / source.with_suffix(suffix).name
        tasks.append(batch.Task(number, str(source), str(target)))
    rows = list(batch.run(tasks, dying(calls), Store(), Store(), 2))

    assert (tmp_path / "once").exists()  # a worker was lost
    assert sorted(row["number"] for row in rows) == list(range(len(tasks)))
    errors = {sources[row["number"]].name: row["error"] for row in rows if not row["ok"]}
    assert errors == {
        "bad.png": "not an image that can be read",
        "shard.tar": "1 of 4 images failed",
        "shard.parquet": "1 of 3 images failed",
    }
    made = tree(out)
    with one_thread():
        expected = {f"{i}.lic": encoded(png(i)) for i in range(IMAGES)}
        tarred = {f"{i}.lic": encoded(png(20 + i)) for i in range(3)}
        rowed = [encoded(png(30)), None, encoded(png(31))]
    assert {k: v for k, v in made.items() if k[0].isdigit()} == expected
    assert members_of(made["shard.tar"]) == {**tarred, "0.txt": b"text"}
    assert table_of(made["shard.parquet"]) == {"id": [1, 2, 3], "bytes": rowed}
    shards = {"shard.tar", "shard.parquet"}
    assert set(made) == set(expected) | shards | {f"{name}.failed.jsonl" for name in shards}


@pytest.mark.slow
@needs_kill
def test_an_image_that_ends_every_worker_fails_alone(address, tmp_path, monkeypatch):
    from licodec.ray import batch

    monkeypatch.setattr(batch, "RETRIES", 1)
    contents = [b"1", b"deadly", b"3"]
    tasks = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.lic").write_bytes(content)
        tasks.append(
            batch.Task(number, str(tmp_path / f"{number}.lic"), str(tmp_path / f"{number}.png"))
        )
    rows = {row["number"]: row for row in batch.run(tasks, deadly(), Store(), Store(), 1)}
    assert [rows[number]["ok"] for number in range(3)] == [True, False, True]
    assert rows[1]["error"] == "every worker was lost at it, 2 of them"
    assert {path.read_bytes() for path in tmp_path.glob("*.png")} == {b"1", b"3"}


@pytest.mark.slow
def test_the_command_there_again_and_back(photos, address, tmp_path):
    plain, out, back = tmp_path / "plain", tmp_path / "out", tmp_path / "back"
    options = FACTORIZED
    with one_thread():
        assert run("encode", "-r", photos, "--output-dir", plain, *options).exit_code == 1
    out.mkdir()
    for name in ("0.lic", "4.lic"):  # as an earlier run would leave it
        (out / name).write_bytes(tree(plain)[name])
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}

    first = command(
        "encode", "-r", photos, "--output-dir", out, *options, "--ray", address, "--json"
    )
    assert first.returncode == 1
    assert "licodec: 8 done, 2 skipped, 3 failed" in first.stderr
    rows = json.loads(first.stdout)
    assert len(rows) == IMAGES + 3 and sum(row["ok"] for row in rows) == IMAGES
    assert {path: path.stat().st_mtime_ns for path in before} == before
    made = tree(out)
    assert {k: v for k, v in made.items() if k.endswith(".lic")} == tree(plain)
    failed = [json.loads(line) for line in made["failed.jsonl"].splitlines()]
    where = {os.path.basename(row["file"]): row.get("member", row.get("row")) for row in failed}
    assert where == {"bad.png": None, "shard.tar": "3.png", "shard.parquet": 1}

    # What is known beforehand starts nothing.
    below = run(
        "encode", "-r", photos / "below", "--output-dir", out / "below", *options, "--ray", "auto"
    )
    assert below.exit_code == 0 and "0 done, 5 skipped, 0 failed" in below.stderr
    shard = run("encode", photos / "shard.tar", "--output-dir", out, *options, "--ray", "auto")
    assert shard.exit_code == 1 and "1 of its images failed before" in shard.stderr

    decoded = command(
        "decode", "-r", out, "--output-dir", back, "--format", "ppm", "--ray", address
    )
    assert (decoded.returncode, decoded.stdout) == (0, ""), decoded.stderr
    pictures = tree(back)
    assert len([name for name in pictures if name.endswith(".ppm")]) == IMAGES
    assert set(members_of(pictures["shard.tar"])) == {"0.ppm", "1.ppm", "2.ppm", "0.txt"}
    with one_thread():
        target = io.BytesIO()
        licodec.decode_file(io.BytesIO(made["0.lic"]), target, format="ppm")
    assert pictures["0.ppm"] == target.getvalue()


@pytest.mark.slow
@needs_kill
def test_a_signal_ends_the_command_with_whole_files(address, tmp_path):
    for i in range(60):
        noise(256, 256, "RGB", seed=i).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    arguments = ["encode", "-r", tmp_path, "--output-dir", out, *FACTORIZED, "--ray", address]
    with subprocess.Popen(
        [sys.executable, "-m", "licodec", *map(str, arguments), "--quiet"],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not list(out.glob("*.lic")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGTERM, "licodec: interrupted\n")
    made = tree(out)
    assert 0 < len(made) < 60
    for name, data in made.items():
        assert name.endswith(".lic") and licodec.info(data)["width"] == 256


@pytest.mark.slow
def test_columns_of_a_dataset(address):
    import ray

    import licodec.ray

    items = [{"id": i, "photo": png(i) if i else b"none"} for i in range(3)]
    dataset = licodec.ray.encode(ray.data.from_items(items), column="photo", workers=1, **OPTIONS)
    rows = sorted(dataset.take_all(), key=lambda row: row["id"])
    with one_thread():
        assert [row["photo"] for row in rows] == [None, encoded(png(1)), encoded(png(2))]
    assert [row["error"] for row in rows] == ["not an image that can be read", None, None]
    with pytest.raises(UsageError, match="quality"):
        licodec.ray.encode(ray.data.from_items(items), quality=101)
