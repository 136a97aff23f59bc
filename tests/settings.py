"""The site's settings with what only a test may have: cheap password hashes, no broker wait."""

from flai_site.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
