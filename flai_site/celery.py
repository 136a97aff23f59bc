"""The Celery application: `celery -A flai_site worker|beat`.

Tasks are in workers/tasks, named "flai.<task>"; only the worker imports them. Whoever sends a
message (apps.core.wake) goes by name through this application, the process's default one.
"""

import os
import pkgutil
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "flai_site.settings")

_tasks = Path(__file__).resolve().parent.parent / "workers" / "tasks"

app = Celery(
    "flai", include=[m.name for m in pkgutil.iter_modules([str(_tasks)], "workers.tasks.")]
)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
