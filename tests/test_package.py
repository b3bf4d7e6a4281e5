"""The package: its version, what importing it needs, what the wheel carries."""

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import lpt_service

PROJECT = Path(__file__).parent.parent


def test_version_is_that_of_the_metadata() -> None:
    assert lpt_service.__version__ == importlib.metadata.version("lpt-service")


def test_protocol_and_sdk_import_with_msgpack_alone() -> None:
    script = """
import sys
for name in ("trio", "click", "pydantic", "rich"):
    sys.modules[name] = None  # importing it raises ImportError
import lpt_service.protocol.codec
import lpt_client
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_wheel_carries_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    info = f"lpt_service-{lpt_service.__version__}.dist-info"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
        metadata = wheel.read(f"{info}/METADATA").decode()

    assert {name.split("/")[0] for name in names} == {"lpt_service", "lpt_client", "lptctl", info}
    assert {"lpt_service/py.typed", "lpt_client/py.typed", f"{info}/licenses/LICENSE"} <= names
    assert "lptd = lpt_service.__main__:main" in entry_points
    assert "lptctl = lptctl.__main__:main" in entry_points
    assert "Requires-Python: >=3.10" in metadata
    assert "License-Expression: MIT" in metadata
