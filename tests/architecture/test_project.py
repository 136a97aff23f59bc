"""What a person who clones the project relies on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ("requirements.txt", "requirements-test.txt")


def test_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "python3 manage.py demo" in text
    assert "python3 manage.py test" in text


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(" ")]
    lines = [line for line in lines if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"^[a-z0-9][a-z0-9._-]*(\[[a-z,-]+\])?==\S+ ", line), line
        assert line.count("--hash=sha256:") >= 1, line


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file:|--index|--find-links|--extra", text)


def test_every_direct_requirement_is_pinned() -> None:
    pinned = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-test.txt").read_text()
    for name in ("requirements.in", "requirements-test.in"):
        for line in (ROOT / name).read_text().splitlines():
            wanted = re.match(r"^[a-zA-Z0-9][a-zA-Z0-9._-]*", line)
            if wanted:
                assert re.search(rf"^{re.escape(wanted[0].lower())}==", pinned, re.M), wanted[0]


@pytest.mark.django_db
def test_every_model_change_has_its_migration() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_ci_runs_the_test_command() -> None:
    assert "python3 manage.py test" in (ROOT / ".ci/run").read_text()
