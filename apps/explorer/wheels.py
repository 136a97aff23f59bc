"""Wheels of what runs elsewhere: nodes and clients, without Django, built from the site's own tree.

A wheel is a zip of files with a list of their hashes (PEP 427). Names are sorted and times fixed,
so that the same tree gives the same bytes on every machine: who doubts the site's wheel builds it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tomllib
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings

TIME = (1980, 1, 1, 0, 0, 0)
PYTHON = ">=3.11"


@dataclass(frozen=True)
class Recipe:
    """What goes into a wheel, what it needs besides, and the command that it installs."""

    name: str
    summary: str
    folders: tuple[str, ...]
    needs: tuple[str, ...]
    command: tuple[str, str] | None = None
    extras: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Wheel:
    recipe: Recipe
    filename: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


# Shared by the two others, so that both can be installed side by side.
RECIPES = (
    Recipe(
        "flai-mpc",
        "Sharing, sealing and engines; the protocol's rules",
        ("apps/protocol", "workers/mpc"),
        ("cryptography>=50", "numpy"),
    ),
    Recipe(
        "flai-client",
        "Agents, buyers and auditors: python -m workers.client",
        ("workers/client",),
        ("flai-mpc=={version}", "httpx", "scikit-learn"),
        ("flai", "workers.client.cli:main"),
        (("parquet", "pyarrow==26.0.1"),),
    ),
    Recipe(
        "flai-node",
        "The node's daemon: python -m workers.node",
        ("workers/node",),
        ("flai-mpc=={version}", "httptools", "mpyc", "prometheus-client", "starlette", "uvicorn"),
        ("flai-node", "workers.node.__main__:main"),
    ),
)


@cache
def wheels() -> tuple[Wheel, ...]:
    """All of them, from the tree that this process runs."""
    return tuple(_build(settings.BASE_DIR, recipe, version()) for recipe in RECIPES)


def version() -> str:
    """The release that this process runs."""
    about = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())
    return str(about["project"]["version"])


def wheel(filename: str) -> Wheel | None:
    return next((found for found in wheels() if found.filename == filename), None)


def _build(root: Path, recipe: Recipe, version: str) -> Wheel:
    base = f"{recipe.name.replace('-', '_')}-{version}"
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in _sources(root, recipe)
    }
    info = f"{base}.dist-info"
    files[f"{info}/METADATA"] = _metadata(recipe, version).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: flai\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if recipe.command:
        name, target = recipe.command
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {target}\n".encode()
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
            archive.writestr(zipfile.ZipInfo(name, TIME), files[name])
    return Wheel(recipe, f"{base}-py3-none-any.whl", out.getvalue())


def _sources(root: Path, recipe: Recipe) -> list[Path]:
    """The folders' files. `apps` and `workers` get no `__init__.py`: several wheels share them."""
    found = [path for folder in recipe.folders for path in (root / folder).rglob("*")]
    return sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def _metadata(recipe: Recipe, version: str) -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {recipe.name}",
        f"Version: {version}",
        f"Summary: {recipe.summary}",
        f"Requires-Python: {PYTHON}",
        *(f"Requires-Dist: {need.format(version=version)}" for need in recipe.needs),
        *(f"Provides-Extra: {name}" for name, _ in recipe.extras),
        *(f'Requires-Dist: {need}; extra == "{name}"' for name, need in recipe.extras),
    ]
    return "\n".join(lines) + "\n"
