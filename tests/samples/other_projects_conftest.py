"""A project with a fixture db of its own, and tests that are no Python functions."""

import pytest


@pytest.fixture
def db():
    return {}


class Item(pytest.Item):
    def runtest(self):
        pass


class File(pytest.File):
    def collect(self):
        yield Item.from_parent(self, name="item")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".yaml":
        return File.from_parent(parent, path=file_path)
