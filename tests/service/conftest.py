"""An application with a token of every scope, in this process: the ASGI client on a real SQLite database."""

import itertools

import pytest
from serving import make_client


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    with make_client(tmp_path_factory.mktemp("service"), run_workers=0) as one:
        yield one


_numbers = itertools.count()


@pytest.fixture
def own_client(tmp_path):
    """Makes a client of its own, with limits."""
    opened = []

    def make(**limits):
        opened.append(make_client(tmp_path / str(next(_numbers)), **limits).__enter__())
        return opened[-1]

    yield make
    for one in opened:
        one.__exit__(None, None, None)
