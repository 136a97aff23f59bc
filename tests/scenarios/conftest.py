"""The browser and the world of the explorer's tests."""

from tests.explorer.conftest import browser, sign_in, site, visit, world  # noqa: F401 - fixtures
