"""What runs on your own machine, to download; also a list that pip's --find-links reads."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from apps.explorer.package import package
from apps.explorer.page import show
from apps.explorer.wheels import wheel, wheels

INSTALL = """python3 -m venv flai
flai/bin/pip install --find-links {url}/downloads/ {name}
flai/bin/{command} --help
"""
INSTALL_NODE = """npm install {url}/downloads/{filename}
"""


def downloads(request: HttpRequest) -> HttpResponse:
    install = {
        made.recipe.name: INSTALL.format(
            url=settings.BASE_URL, name=made.recipe.name, command=made.recipe.command[0]
        )
        for made in wheels()
        if made.recipe.command
    }
    script = INSTALL_NODE.format(url=settings.BASE_URL, filename=package().filename)
    install[package().recipe.name] = script
    return show(request, "downloads.html", "", wheels=[*wheels(), package()], install=install)


def download(request: HttpRequest, filename: str) -> HttpResponse:
    found = package() if filename == package().filename else wheel(filename)
    if found is None:
        raise Http404
    return HttpResponse(
        found.content,
        content_type="application/gzip" if found is package() else "application/zip",
        headers={"Content-Disposition": f'attachment; filename="{found.filename}"'},
    )
