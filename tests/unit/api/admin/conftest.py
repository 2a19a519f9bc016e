import pytest

from tests.admin_site import AdminSite


@pytest.fixture
def site(database, clock):
    return AdminSite(database, clock)
