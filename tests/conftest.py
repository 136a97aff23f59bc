"""Fixtures of every test; the services themselves come from tests/plugin/services.py."""

import flai_site.celery  # noqa: F401 - the default application for wake-ups, as in the site
import tests.support.flush  # noqa: F401 - append-only tables can be emptied between tests
