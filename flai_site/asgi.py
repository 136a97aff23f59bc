"""The ASGI application that uvicorn serves."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "flai_site.settings")
application = get_asgi_application()

import flai_site.celery  # noqa: E402, F401 - makes it the default application for wake-ups
