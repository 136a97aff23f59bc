"""Node and client as wheels: the same bytes each time, running where there is no Django."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from packaging.requirements import Requirement

from apps.explorer import wheels as building
from apps.explorer.package import package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wheels")
    with open(os.devnull, "w") as nowhere:
        call_command("wheels", out=made, stdout=nowhere)
    return made


def add_dependencies(site: Path, wheels: Path) -> None:
    """Link in what the wheels' own metadata asks for, from this environment, and nothing else."""
    waiting = [need for path in wheels.glob("*.whl") for need in needs(path)]
    seen: set[str] = set()
    while waiting:
        name = Requirement(waiting.pop()).name
        if name in seen or name.startswith("flai-"):
            continue
        seen.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
        for text in found.requires or ():
            required = Requirement(text)
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                waiting.append(text)


def needs(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("METADATA")]
        lines = archive.read(name).decode().splitlines()
    return [line.split(": ")[1] for line in lines if line.startswith("Requires-Dist")]


def test_the_wheels_run_where_no_django_is(folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    python = tmp_path / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )

    names = ["flai-client", "flai-node"]
    offline = ["--no-index", "--no-deps", "--find-links", str(folder), "--quiet"]
    done = run(*pip, "install", *offline, "flai-mpc", *names)
    assert done.returncode == 0, done.stderr
    add_dependencies(next((tmp_path / "env/lib").glob("python3*/site-packages")), folder)
    checked = run(*pip, "check")
    assert checked.returncode == 0, checked.stdout
    for module in ("django", "celery", "apps.core", "flai_site"):
        assert "ModuleNotFoundError" in run(str(python), "-c", f"import {module}").stderr
    for command in (
        [str(python.with_name("flai")), "--help"],
        [str(python.with_name("flai-node")), "--help"],
        [str(python), "-m", "workers.client", "--help"],
        [str(python), "-m", "workers.node", "--help"],
        [str(python), "-c", "import workers.client.agent, workers.client.buyer"],
        [str(python), "-c", "import workers.node.daemon, workers.node.control"],
    ):
        ran = run(*command)
        assert ran.returncode == 0, (command, ran.stderr)
    home = tmp_path / "node"
    made = run(
        str(python), "-m", "workers.node", "--home", str(home), "init", "--index", "0",
        "--name", "n", "--control", "127.0.0.1:1", "--mesh", "127.0.0.1:2",
    )  # fmt: skip
    assert made.returncode == 0 and made.stdout.strip(), made.stderr


def test_the_same_tree_gives_the_same_bytes(folder: Path) -> None:
    building.wheels.cache_clear()
    package.cache_clear()
    for made in (*building.wheels(), package()):
        assert (folder / made.filename).read_bytes() == made.content


@pytest.mark.django_db
def test_the_site_serves_what_its_page_says(folder: Path) -> None:
    client = Client()
    page = client.get("/downloads/").content.decode()
    for made in (*building.wheels(), package()):
        assert f'/downloads/{made.filename}#sha256={made.sha256}"' in page
        served = client.get(f"/downloads/{made.filename}")
        assert hashlib.sha256(served.content).hexdigest() == made.sha256
    assert client.get("/downloads/flai_client-0.0.0-py3-none-any.whl").status_code == 404


def test_a_wheel_holds_its_own_files_and_no_other(folder: Path) -> None:
    """No file is in two of them, and each is listed with its hash."""
    seen: set[str] = set()
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            record = next(n for n in names if n.endswith("RECORD"))
            listed = [line.split(",")[0] for line in archive.read(record).decode().splitlines()]
        assert sorted(listed) == sorted(names)
        assert not seen & set(names)
        seen |= set(names)
    assert {"workers/node/daemon.py", "workers/client/cli.py", "workers/mpc/mesh.py"} <= seen
    assert not [n for n in seen if "__pycache__" in n or n.startswith(("flai_site", "apps/core"))]


def test_the_javascript_package_holds_the_clients_modules_as_the_site_serves_them() -> None:
    with tarfile.open(fileobj=io.BytesIO(package().content)) as archive:
        held = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]
    about = json.loads(held.pop("package/package.json"))
    assert held[f"package/{about['exports'].removeprefix('./')}"]
    for name, content in held.items():
        served = settings.BASE_DIR / "static" / "js" / name.removeprefix("package/")
        assert content == served.read_bytes()
    modules = {name for name in held if name.endswith(".js")}
    assert {"package/mpc/sealing.js", "package/mpc/pins.js", "package/vendor/hpke.js"} <= modules
    assert not {"package/try-it.js", "package/asking.js"} & modules  # of the page alone
    for name in modules:
        imports = re.findall(rb'from "(\.[^"]+)"', held[name])
        for other in imports:
            found = os.path.normpath(os.path.join(os.path.dirname(name), other.decode()))
            assert found in held, (name, other)
