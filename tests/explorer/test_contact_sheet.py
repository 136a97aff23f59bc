"""The sheet of pictures, without the pictures: those need a running site."""

from __future__ import annotations

import re
from pathlib import Path

from apps.explorer.management.commands.contact_sheet import write_index


def test_the_sheet_has_each_page_once_with_all_its_looks(tmp_path: Path) -> None:
    """By relative names, so that the directory can be moved; what is no picture stays out."""
    looks = ["light-1280", "light-360", "dark-1280", "dark-360"]
    pictures = [f"rfm-{look}.png" for look in looks] + ["rfm-new-dark-360.png"]
    for name in (*pictures, "notes.txt", "other.png"):
        (tmp_path / name).touch()
    sheet = write_index(tmp_path).read_text()
    assert re.findall("<h2>(.*?)</h2>", sheet) == ["rfm", "rfm-new"]
    assert re.findall('src="(.*?)"', sheet) == pictures == re.findall('href="(.*?)"', sheet)
