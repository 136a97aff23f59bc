"""The JavaScript client for Node.js, as a package that npm installs from the site's address.

The very modules that the site serves to pages, in a tar of sorted names and fixed times, stored
without compression: the same tree gives the same bytes on every machine. It is not called as the
wheel is, or pip, which reads the same page, would take it for that one's source.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from functools import cache
from pathlib import Path

from django.conf import settings

from apps.explorer.wheels import Recipe, Wheel, version

ENTRY = "flai-client.js"
TIME_S = 499_162_500  # what npm itself writes: 1985-10-26
RECIPE = Recipe(
    "flai-client-js", "Private predictions from Node.js 20 and later", ("static/js",), ()
)
_IMPORT = re.compile(r'^(?:import|export)\b.*? from "(\.{1,2}/[\w./-]+)";$', re.MULTILINE)


@cache
def package() -> Wheel:
    """The package as npm reads it, from the tree that this process runs."""
    root = settings.BASE_DIR / "static" / "js"
    about = {
        "name": RECIPE.name,
        "version": version(),
        "description": RECIPE.summary,
        "type": "module",
        "exports": f"./{ENTRY}",
        "engines": {"node": ">=20"},
    }
    files = {"package.json": json.dumps(about, indent=2).encode()}
    files |= {name: (root / name).read_bytes() for name in modules(root)}
    files["vendor/LICENSE"] = (root / "vendor" / "LICENSE").read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"package/{name}")
            member.size, member.mtime = len(data), TIME_S
            archive.addfile(member, io.BytesIO(data))
    content = gzip.compress(out.getvalue(), compresslevel=0, mtime=0)
    return Wheel(RECIPE, f"{RECIPE.name}-{version()}.tgz", content)


def modules(root: Path) -> list[str]:
    """The client's module and all that it imports, by their names below `root`."""
    found, waiting = set[str](), [root / ENTRY]
    while waiting:
        path = waiting.pop().resolve()
        name = path.relative_to(root.resolve()).as_posix()
        if name not in found:
            found.add(name)
            waiting += [path.parent / other for other in _IMPORT.findall(path.read_text())]
    return sorted(found)
