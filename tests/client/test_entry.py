"""The client's command runs under any Python 3.11 of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.client.cli import main

ROOT = Path(__file__).resolve().parents[2]
BARE = [str(Path(sys.base_prefix) / "bin" / "python3"), "-S", "-m", "workers.client"]


def run(environment: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BARE, *arguments],
        cwd=ROOT,
        env={**os.environ, "FLAI_VENV": environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_libraries_it_goes_on_in_the_environment() -> None:
    done = run(sys.prefix, "--help")
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_without_an_environment_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = run(str(tmp_path / "none"), "--help")
    assert done.returncode == 1
    assert "manage.py help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("key", "said"), [("", "API key is empty"), ("flai_gw23…", "no API key")])
def test_a_key_that_is_none_is_refused_in_one_line(
    key: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(key)
    home = ["--home", str(tmp_path / "me"), "--url", "http://127.0.0.1:1"]
    assert main(["connect", *home, "--api-key-file", str(tmp_path / "key")]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "me").exists()
