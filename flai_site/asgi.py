"""The ASGI application that uvicorn serves: pages and API, and the pages' socket."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "flai_site.settings")
pages = get_asgi_application()

import flai_site.celery  # noqa: E402, F401 - makes it the default application for wake-ups
from apps.explorer.live import LiveConsumer  # noqa: E402 - needs Django set up

sockets = URLRouter([path("live/", LiveConsumer.as_asgi())])
application = ProtocolTypeRouter(
    {"http": pages, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))}
)
