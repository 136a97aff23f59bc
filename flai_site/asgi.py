"""The ASGI application that uvicorn serves: pages and API, and the pages' socket."""

import os
from importlib import import_module

import django
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "flai_site.settings")
django.setup(set_prefix=False)

import flai_site.celery  # noqa: E402, F401 - makes it the default application for wake-ups
from apps.explorer.live import LiveConsumer  # noqa: E402 - these need Django set up
from flai_site.bodies import BodyLimit  # noqa: E402
from flai_site.garbage import settle  # noqa: E402
from flai_site.threads import ThreadedHandler  # noqa: E402

sockets = URLRouter([path("live/", LiveConsumer.as_asgi())])
application = ProtocolTypeRouter(
    {
        "http": BodyLimit(ThreadedHandler(), bytes_max=settings.BODY_BYTES_MAX),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets)),
    }
)

import_module(settings.ROOT_URLCONF)  # all pages, or the first visitor would wait for them
settle()
