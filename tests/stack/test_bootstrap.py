"""From a bare Python to a ready environment, without asking a package index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flai_site import bootstrap

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without requirements: everything but the downloads is real."""
    monkeypatch.delenv("FLAI_VENV", raising=False)
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    return tmp_path


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 12, 1), (3, 13), (2, 7, 18)])
def test_wrong_python_is_refused_by_name(version: tuple[int, ...]) -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"needs Python 3\.11.*is Python [23]\.\d+"):
        bootstrap.check_python(version)


def test_right_python_passes() -> None:
    bootstrap.check_python((3, 11, 7))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A project after its first start, and what that start said."""
    root = tmp_path_factory.mktemp("made")
    (root / "requirements.txt").write_text("# nothing\n")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLAI_VENV", raising=False)
        assert bootstrap.ensure(["requirements.txt"], root=root, say=said.append) == (
            root / ".venv/bin/python"
        )
        yield root, said


def test_first_start_makes_the_environment(made: tuple[Path, list[str]]) -> None:
    root, said = made
    assert said[0] == f"  making {root}/.venv"
    subprocess.run([root / ".venv/bin/python", "-m", "pip", "--version"], check=True)


def test_second_start_does_nothing(made: tuple[Path, list[str]]) -> None:
    said: list[str] = []
    bootstrap.ensure(["requirements.txt"], root=made[0], say=said.append)
    assert said == []


def test_changed_requirements_are_noticed(made: tuple[Path, list[str]]) -> None:
    root, _ = made
    (root / "other.txt").write_text("# nothing\n")
    bootstrap.ensure(["other.txt"], root=root, say=lambda _: None)
    assert bootstrap.missing(root / ".venv", ["other.txt"], root) == []
    (root / "other.txt").write_text("# something else\n")
    assert bootstrap.missing(root / ".venv", ["other.txt"], root) == ["other.txt"]


def test_requirement_without_hash_is_refused_and_tried_again(
    made: tuple[Path, list[str]],
) -> None:
    root, _ = made
    (root / "bare.txt").write_text("six==1.17.0\n")
    with pytest.raises(bootstrap.BootstrapError, match=r"(?s)could not be installed.*hash"):
        bootstrap.ensure(["bare.txt"], root=root, say=lambda _: None)
    assert bootstrap.missing(root / ".venv", ["bare.txt"], root) == ["bare.txt"]


def test_interrupted_installation_resumes(project: Path) -> None:
    venv = project / ".venv"
    (venv / "bin").mkdir(parents=True)  # killed before pip was there
    (venv / "bin/python").symlink_to(sys.executable + "-that-is-not-there")
    bootstrap.ensure(["requirements.txt"], root=project, say=lambda _: None)
    assert bootstrap.missing(venv, ["requirements.txt"], project) == []


def test_unwritable_directory_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").write_text("")
    monkeypatch.setenv("FLAI_VENV", str(project / "file" / "venv"))
    with pytest.raises(bootstrap.BootstrapError, match=r"file/venv cannot be written"):
        bootstrap.ensure(["requirements.txt"], root=project, say=lambda _: None)


def test_manage_py_needs_only_the_standard_library() -> None:
    code = "import manage, sys; print(sorted(m for m in sys.modules if 'django' in m))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_two_starts_wait_for_each_other(project: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from flai_site.bootstrap import ensure;"
        "ensure(['requirements.txt'], root=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(project)]
    environment = {k: v for k, v in os.environ.items() if k != "FLAI_VENV"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [child.communicate()[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert sum("making" in text for text in said) == 1


def test_without_ensurepip_the_hosts_pip_installs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = bootstrap._find_spec
    monkeypatch.setattr(bootstrap, "_find_spec", lambda name: name != "ensurepip" and here(name))
    python = bootstrap.ensure(["requirements.txt"], root=project, say=lambda _: None)
    assert bootstrap._pip_command(project / ".venv")[-2:] == ["--python", str(python)]
    assert bootstrap.missing(project / ".venv", ["requirements.txt"], project) == []


def test_without_any_pip_the_message_names_the_package(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_find_spec", lambda name: False)
    with pytest.raises(bootstrap.BootstrapError, match="apt-get install python3-venv"):
        bootstrap.ensure(["requirements.txt"], root=project, say=lambda _: None)
