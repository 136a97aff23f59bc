"""Settings, read from the environment; the names are listed in docs/operations.md.

The same code runs embedded (`manage.py up` sets every name) and grown up: DATABASE_URL, VALKEY_URL
and the key files decide what it talks to.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from flai_site.database import database_from_url

BASE_DIR = Path(__file__).resolve().parent.parent


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0", "false", "no")


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise ImproperlyConfigured(f"{name}={text} is no count.")
    return int(text)


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if (
        not (text.isascii() and text.isdigit())
        or len(text) > 7
        or not 1 <= int(text) <= 30 * 86_400
    ):
        raise ImproperlyConfigured(f"{name}={text} is no number of seconds up to 30 days.")
    return int(text)


def _path(name: str, default: Path) -> Path:
    return Path(os.environ.get(name) or default)


FLAI_HOME = _path("FLAI_HOME", BASE_DIR / ".flai")
LOG_KEY_FILE = _path("FLAI_LOG_KEY_FILE", FLAI_HOME / "secrets" / "log.key")
COORDINATOR_KEY_FILE = _path("FLAI_COORDINATOR_KEY_FILE", FLAI_HOME / "secrets/coordinator.key")
NODES_FILE = _path("FLAI_NODES", FLAI_HOME / "nodes.json")
BASE_URL = os.environ.get("FLAI_URL", "http://127.0.0.1:8000").rstrip("/")
FAUCET = _flag("FLAI_FAUCET")
UNSTAKE_DELAY_S = _seconds("FLAI_UNSTAKE_DELAY_S", 7 * 86_400)
VOTING_PERIOD_MIN_S = _seconds("FLAI_VOTING_PERIOD_MIN_S", 3600)
# Requests a minute of one key, person or address.
RATE_PER_MINUTE = _count("FLAI_RATE_PER_MINUTE", 12_000)
# What nodes answer at most in one query, unless their operators' policy.json says otherwise.
ROWS_PER_QUERY = _count("FLAI_ROWS_PER_QUERY", 10_000)
# And of one model in one of their epochs of so many UTC days.
ROWS_PER_EPOCH = _count("FLAI_ROWS_PER_EPOCH", 2000)
ROWS_EPOCH_DAYS = _count("FLAI_ROWS_EPOCH_DAYS", 1)
REFRESH_EVERY_S = _count("FLAI_REFRESH_EVERY_S", 86_400)
# Webhooks to addresses of this machine's own networks, and without TLS: for trying things out.
WEBHOOKS_PRIVATE = _flag("FLAI_WEBHOOKS_PRIVATE")
# Who shows it may read /metrics; where it is not set, this machine alone may.
METRICS_TOKEN = os.environ.get("FLAI_METRICS_TOKEN", "")
BEHIND_PROXY = _flag("FLAI_BEHIND_PROXY")
DEBUG = _flag("FLAI_DEBUG")

_secret_key_file = _path("FLAI_SECRET_KEY_FILE", FLAI_HOME / "secrets" / "django.key")
try:
    SECRET_KEY = _secret_key_file.read_text().strip()
except OSError as error:
    raise ImproperlyConfigured(
        f"No readable secret key at {_secret_key_file} ({error.strerror}). "
        "Start through manage.py, which makes one, or set FLAI_SECRET_KEY_FILE."
    ) from None

_base = urlsplit(BASE_URL)
_https = _base.scheme == "https"
ALLOWED_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    *filter(None, [_base.hostname, *os.environ.get("FLAI_ALLOWED_HOSTS", "").split(",")]),
]
CSRF_TRUSTED_ORIGINS = [f"{_base.scheme}://{_base.netloc}"]

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "django_htmx",
    "apps.core",
    "apps.accounts",
    "apps.notify",
    "apps.wallets",
    "apps.exchange",
    "apps.subdaos",
    "apps.compute",
    "apps.governance",
    "apps.participants",
    "apps.training",
    "apps.rfms",
    "apps.listings",
    "apps.explorer",
]
AUTH_USER_MODEL = "accounts.User"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "apps.core.csp.ContentSecurityPolicyMiddleware",
    "apps.core.cors.cross_origin",
    "apps.core.compression.TextCompressionMiddleware",
    "apps.core.wellformed.WellFormedMiddleware",
    "apps.core.slashes.ApiSlashMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "flai_site.urls"
ASGI_APPLICATION = "flai_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
FORM_RENDERER = "apps.core.widgets.Renderer"

# The pool is for long-lived servers only: a one-shot command gains nothing from it.
_pool_max = int(os.environ.get("FLAI_DB_POOL", "0"))
DATABASES = {
    "default": database_from_url(
        os.environ.get("DATABASE_URL", "postgresql:///flai"), pool_max=_pool_max
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

VALKEY_URL = os.environ.get("VALKEY_URL", "redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": VALKEY_URL,
    }
}

# Wake-ups of open pages (apps/core/live.py). Of the layers of channels_redis this is the one whose
# sockets survive a restart of the broker.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "apps.core.broker.PatientLayer",
        "CONFIG": {"hosts": [{"address": VALKEY_URL, "socket_connect_timeout": 2}]},
    }
}

# Messages are wake-ups, the database is the truth: nothing is lost with the broker, so nothing
# waits for it either. The sweeps find whatever a lost message would have announced.
CELERY_BROKER_URL = VALKEY_URL.replace("unix://", "redis+socket://", 1)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 2, "socket_timeout": 10}
CELERY_TASK_DEFAULT_QUEUE = "flai"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TIMEZONE = "UTC"
# Deadlines (a vote, an epoch) are messages with an eta; the default looks once a second.
CELERY_WORKER_TIMER_PRECISION = 0.1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "flai.sweep", "schedule": 2.0, "options": {"expires": 2.0}},
    "cosign_log": {"task": "flai.cosign_log", "schedule": 5.0, "options": {"expires": 5.0}},
    "refresh": {"task": "flai.refresh_shares", "schedule": 60.0, "options": {"expires": 60.0}},
    "count_use": {"task": "flai.count_use", "schedule": 60.0, "options": {"expires": 60.0}},
    "sequence_log": {"task": "flai.sequence_log", "schedule": 1.0, "options": {"expires": 1.0}},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "apps.accounts.permissions.KeyScope",
        "rest_framework.permissions.IsAuthenticatedOrReadOnly",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["apps.accounts.throttling.RateLimit"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "apps.core.schema.Schema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "apps.core.problems.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "FLAI",
    "DESCRIPTION": "Requests for Model, private training, governance and paid private inference.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# A query's sealed rows are about eleven bytes a value in JSON, 2^21 values at most; shares of
# rounds come in parts of 2 MiB. More is refused before Django reads it (flai_site/bodies.py).
BODY_BYTES_MAX = 32 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_BYTES_MAX

# scrypt is memory-hard and on this class of machine five times quicker than a million of PBKDF2.
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("FLAI_STATIC_ROOT") or None
STATICFILES_DIRS = [BASE_DIR / "static"]
# Embedded there is no collectstatic step: files are served from where they lie in the tree.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

SESSION_COOKIE_SECURE = _https
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = _https
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = False
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOG_JSON = _flag("FLAI_LOG_JSON")
# Messages name ids and codes, never bodies: no handler here may print a request's content.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "json": {"()": "workers.mpc.jsonlines.JsonLines"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "json" if LOG_JSON else "line",
        }
    },
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
if LOG_JSON:  # uvicorn has handlers of its own, made before Django is set up
    for _name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        LOGGING["loggers"][_name] = {"handlers": [], "propagate": True}
