"""The site's settings with what only a test may have: cheap password hashes, its own cache."""

import os

from flai_site.settings import *  # noqa: F403
from flai_site.settings import VALKEY_URL

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Each process of pytest-xdist has a database of Valkey: one empties its cache in the midst of
# another's test, which counts there. Subscriptions know no databases: they get another prefix.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    VALKEY_URL += f"{'&' if '?' in VALKEY_URL else '?'}db={int(worker.removeprefix('gw')) % 15 + 1}"
    CACHES["default"]["LOCATION"] = VALKEY_URL  # noqa: F405
    CHANNEL_LAYERS["default"]["CONFIG"] = {  # noqa: F405
        "hosts": [{"address": VALKEY_URL, "socket_connect_timeout": 2}],
        "prefix": worker,
    }
