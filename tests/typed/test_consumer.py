"""A project of somebody else's: it installs the wheel, and nothing of this tree, into a new environment.

There its type checkers say that it is in order, pyright also that the packages' own types are complete, and
it runs. Each of these needs something that a machine may not have; what is missing is said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.examples.support import ROOT

CONSUMER = Path(__file__).parent / "consumer"

IN_THE_WHEEL = ("LICENSE", "README.md", "pyproject.toml", "reactor", "tao")

TIMEOUT = 300.0
"""Seconds for any of the programs that are run here, on a machine that has a lot to do."""


Command: TypeAlias = list[str | Path]


def run(
    command: Command, *, cwd: Path | None = None, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end without this tree on its path. `path` is put before the PATH."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment.get('PATH', '')}"
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree: to build leaves things behind."""
    if find_spec("pip") is None:
        pytest.skip("no pip: cannot build the wheel, so nothing says whether it is complete")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in IN_THE_WHEEL:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    build: Command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        out,
    ]
    # First with the build back end of this environment, which needs no network; then with one of its own.
    offline = run([*build, "--no-build-isolation", tree])
    if offline.returncode:
        online = run([*build, tree])
        if online.returncode:
            pytest.skip(
                "cannot build the wheel, so nothing says whether it is complete: needs setuptools 69 and "
                f"wheel in this environment, or a package index; pip says: {online.stderr.strip()[-500:]}"
            )
    (built,) = out.glob("tao-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's Python, with the wheel and nothing else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=os.name != "nt")
    found = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip: Command = [sys.executable, "-m", "pip", "--python", found]
    installed = run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel])
    assert installed.returncode == 0, installed.stderr
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The consumer's files, where nothing of this tree is near."""
    return Path(shutil.copytree(CONSUMER, tmp_path / "consumer"))


def pyright_command() -> Command:
    """How pyright is called here; skips where it is not."""
    if find_spec("pyright") is not None:
        return [sys.executable, "-m", "pyright"]
    found = shutil.which("pyright")
    if found is None:
        pytest.skip("pyright is not installed: what it says of the types has not been asked")
    return [found]


def test_what_is_installed_is_the_wheel(python: Path, project: Path) -> None:
    code = "import reactor, tao, tao.testing; print(tao.__file__, reactor.__file__, sep='\\n')"
    result = run([python, "-W", "error", "-c", code], cwd=project)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        path = Path(line)
        assert python.parent.parent in path.parents
        assert (path.parent / "py.typed").exists()


def test_the_program_runs(python: Path, project: Path) -> None:
    result = run([python, "-X", "dev", "-W", "error", "consumer_program.py"], cwd=project)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["1 Hello, Ann!", "2 Hello, Bob!", "closed by this side"]


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_finds_it_in_order(python: Path, project: Path) -> None:
    mypy: Command = [sys.executable, "-m", "mypy", "--python-executable", python]
    result = run([*mypy, "--config-file", "pyproject.toml", "."], cwd=project)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_would_find_an_error(python: Path, project: Path) -> None:
    """It sees the installed types, and not what it knows nothing of and lets pass."""
    types = project / "consumer_types.py"
    code = types.read_text("utf-8")
    wrong = "registry.register(1, Chat.deserialize, on_move)  # type: ignore[misc]"
    assert wrong in code
    types.write_text(code.replace(wrong, wrong.partition("  #")[0]), "utf-8")
    mypy: Command = [sys.executable, "-m", "mypy", "--python-executable", python]
    result = run([*mypy, "--config-file", "pyproject.toml", "."], cwd=project)
    assert result.returncode == 1
    assert "Found 1 error in 1 file" in result.stdout


def test_pyright_finds_it_in_order(python: Path, project: Path) -> None:
    result = run([*pyright_command(), "--pythonpath", python], cwd=project)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("package", ["reactor", "tao"])
def test_pyright_finds_the_types_complete(package: str, python: Path, project: Path) -> None:
    # It takes the first Python of the path for the one that the packages are installed in. What is
    # external are the hosts of `reactor.embed`, which are not installed here, and tkinter's own gaps.
    verify: Command = [*pyright_command(), "--verifytypes", package, "--ignoreexternal"]
    result = run(verify, cwd=project, path=python.parent)
    assert "Type completeness score: 100%" in result.stdout, result.stdout[-3000:]
    assert result.returncode == 0
