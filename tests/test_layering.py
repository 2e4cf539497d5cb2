"""A file imports only what stands below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "licodec"

# From the bottom up. A folder stands for all of its files; within it, only circles are forbidden.
ORDER = """
    signals errors memory progress help container rate_control options architectures
    weights/catalogue info rangecoder weights/file weights/needed tiles quantize entropy/threads
    entropy/tables entropy/gaussian interface entropy/pdf_transform networks/build
    networks/transforms networks/tiled networks/attention networks/hyper networks/fixed_point
    networks/everyday networks/everyday_torch networks/everyday_slope
    entropy/learning_tables entropy/corrections
    entropy/residual tile_plan entropy/class_distributions
    entropy/quadtree entropy/integer_nets entropy/classes entropy/scale_shifts weights/schema
    weights/everyday_schema entropy/image_distributions entropy/wavefronts entropy/hyperprior
    entropy/tabled entropy/float_nets io/alpha io/bitdepth io/exif io/libtiff io/metadata
    io/image io/output io/files
    zipped_size distortion open_codec latent_search rdo_quantization payload cheapest
    target_search shortfall codec
    file_functions pillow_plugin __init__ training torch_models bench ray cli __main__
""".split()
ROOT = "__init__"
WHOLE = {"training", "bench", "ray", "cli"}


def place(parts: list[str]) -> str:
    """The entry of ORDER that a dotted path below the package belongs to."""
    if not parts:
        return ROOT
    if parts[0] in WHOLE or (PACKAGE / f"{parts[0]}.py").exists():
        return parts[0]
    return "/".join(parts[:2]) if (PACKAGE / parts[0]).is_dir() else ROOT


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("licodec"):
            package = node.module.split(".")[1:]
            folder = not package or (PACKAGE.joinpath(*package)).is_dir()
            names |= {place([*package, a.name] if folder else package) for a in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "licodec":
                    names.add(place(alias.name.split(".")[1:]))
    return names


def layer(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return place(parts)


FILES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if p.parent == PACKAGE or p.name != "__init__.py" or p.parent.name in WHOLE
)


def test_every_file_has_its_place():
    assert {layer(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = ORDER.index(layer(path))
    for name in imported(path):
        below = ORDER.index(name) < here or (name == layer(path) and name in WHOLE)
        assert below, f"{path.name} imports {name}"


LIGHT = """
    signals help container weights/catalogue info errors io/files pillow_plugin cli/main cli/batch
    cli/plan cli/compare cli/shared_options cli/encode_decode rate_control progress options
    architectures interface memory
""".split()


@pytest.mark.parametrize("name", LIGHT)
def test_light_files_import_no_heavy_library(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text("utf-8"))
    heavy = {"torch", "numpy", "constriction", "safetensors", "compressai", "rich"}
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & heavy
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in heavy


def test_only_one_file_knows_the_range_coder():
    users = [p.name for p in FILES if "import constriction" in p.read_text("utf-8")]
    assert users == ["rangecoder.py"]


def test_only_one_place_lets_pillow_look_at_a_file():
    """With a fixed list of formats: some of Pillow's start a program on what they read."""
    benchmarks = sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))
    users = [
        path.name
        for path in (*FILES, *benchmarks)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    ]
    assert users == ["files.py"]


def test_one_class_name_stands_for_one_thing():
    """But for everyday's nets, which are the same as they are trained and as they are run."""
    found = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            twin = path.stem in ("everyday", "fixed_point")
            if isinstance(node, ast.ClassDef) and not twin and not node.name.startswith("_"):
                assert node.name not in found, f"{path} and {found[node.name]}: {node.name}"
                found[node.name] = path
    assert len(found) > 50
