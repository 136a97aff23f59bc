"""Every URL of the site: the REST API under /api/v1/, its schema, the pages, the health check."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularJSONAPIView

import flai_site.wiring  # noqa: F401 - completes what pages and API say of a SubDAO
from flai_site.health import healthz
from flai_site.metrics import metrics
from flai_site.schema import SchemaOnce

# participants has no URLs of its own: applications are filed under their RFM. What is asked most is
# first, as they are looked through in this order.
APIS = (
    "listings",
    "accounts",
    "notify",
    "wallets",
    "exchange",
    "subdaos",
    "compute",
    "governance",
    "training",
    "rfms",
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path(
        "api/v1/schema/", SpectacularJSONAPIView.as_view(generator_class=SchemaOnce), name="schema"
    ),
    *[path("api/v1/", include(f"apps.{app}.apis")) for app in APIS],
    path("", include("apps.explorer.urls")),
]

handler400 = "flai_site.errors.bad_request"
handler404 = "flai_site.errors.not_found"
handler500 = "flai_site.errors.server_error"
