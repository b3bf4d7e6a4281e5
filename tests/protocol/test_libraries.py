"""What is said of an import that failed."""

from __future__ import annotations

import pytest

from lpt_service.protocol.libraries import missing_library


@pytest.mark.parametrize(("extra", "package"), [("", "lpt-service"), ("trio", "lpt-service[trio]")])
def test_a_library_that_is_not_there(extra: str, package: str) -> None:
    error = ModuleNotFoundError("No module named 'trio'", name="trio")
    assert missing_library(error, extra) == f'trio is not installed: pip install "{package}"'


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'trio._core'", name="trio._core"),
        ImportError("cannot import name 'run' from 'trio'", name="trio"),
        ImportError("wrong architecture", name="trio"),
    ],
)
def test_one_that_is_there_in_part_or_too_old(error: ImportError) -> None:
    said = f"trio cannot be used ({error}): pip install --force-reinstall --upgrade trio"
    assert missing_library(error, "trio") == said


@pytest.mark.parametrize("name", ["lpt_service.core", "lpt_client", "lptctl.common", "fcntl", "json.decoder", None])
def test_what_is_ours_or_python_s_is_a_mistake_and_not_explained(name: str | None) -> None:
    assert missing_library(ModuleNotFoundError("No module", name=name)) is None
