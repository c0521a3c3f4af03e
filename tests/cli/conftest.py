"""Commands keep nothing in the user's own folders."""

import pytest


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
    """Where real images' features are kept: a folder of the session."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("jaxgen.cli.references.folder", lambda: folder)
    return folder
