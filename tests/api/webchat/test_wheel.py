"""The API's wheel: what is installed from it serves the chat widget."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from fleetprompt.settings import Settings
from tests.api.webchat.test_widget_files import LOADER, build

API = Path(__file__).parents[3] / "api"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the API's sources, in a tree where the widget may be built or not."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(API, copy / "api", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def installed(tree: Path, into: Path) -> Path:
    """Build the wheel and unpack it, as an installer does."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    subprocess.run(command, cwd=tree / "api", check=True, capture_output=True, timeout=120)
    (wheel,) = into.glob("fleetprompt_api-*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(into / "site-packages")
    return into / "site-packages" / "fleetprompt_api"


def test_a_wheel_that_is_built_after_the_widget_serves_it(tree: Path, tmp_path: Path) -> None:
    build(tree / "widget" / "dist")
    package = installed(tree, tmp_path)
    spec = importlib.util.spec_from_file_location("from_wheel", package / "widget_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        found = module.current_build(Settings())
    finally:
        del sys.modules[spec.name]
    file, _ = found.find("loader.js")
    assert file.content == LOADER
    assert found.find(found.pinned)[0].content == LOADER
    assert {name.partition(".")[0] for name in found.files} == {"loader", "chat"}


def test_without_a_built_widget_there_is_a_wheel_without_one(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "widget", ignore_errors=True)
    assert not (installed(tree, tmp_path) / "widget").exists()
