"""A file imports only what stands below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "licodec"

# From the bottom up. Folders stand for all of their files.
ORDER = [
    "process", "errors", "progress", "threads", "container", "catalogue", "info", "rate", "rangecoder",
    "distributions", "gaussian", "weights", "histogram", "pdf_transform", "transforms",
    "attention_transforms",
    "refine", "hyper_networks", "integer_nets", "contexts", "surprises", "expected",
    "image_distributions", "hyperprior", "models",
    "alpha", "bitdepth", "metadata", "image", "output", "files", "codec", "pillow_plugin", "", "batch",
    "coding", "training", "bench", "cli", "__main__",
]  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("licodec"):
            if node.module == "licodec":
                names |= {alias.name if is_module(alias.name) else "" for alias in node.names}
            else:
                names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "licodec":
                    names.add((alias.name.split(".") + [""])[1])
    return names


def is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def layer(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_has_its_place():
    assert {layer(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = ORDER.index(layer(path))
    for name in imported(path):
        below = ORDER.index(name) < here or (name == layer(path) and path.parent != PACKAGE)
        assert below, f"{path.name} imports {name or 'licodec'}"


@pytest.mark.parametrize(
    "name",
    [
        "process",
        "container",
        "catalogue",
        "info",
        "errors",
        "files",
        "pillow_plugin",
        "cli",
        "rate",
        "progress",
        "batch",
        "coding",
    ],
)
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
