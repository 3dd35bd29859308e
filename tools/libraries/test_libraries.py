"""What libraries.toml says is what the recordings say."""

import json
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = tomllib.loads(Path(__file__).with_name("libraries.toml").read_text())


def test_every_recording_of_a_library_is_listed() -> None:
    folders = {path.name for path in (ROOT / "golden").glob("*-cpu")}
    assert {library["folder"] for library in LIBRARIES.values()} == folders


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_version_is_the_recorded_one(name: str) -> None:
    library = LIBRARIES[name]
    installed = [package for packages in library["install"] for package in packages]
    for file in (ROOT / "golden" / library["folder"]).glob("*.safetensors"):
        content = file.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        subject = json.loads(header["__metadata__"]["normative"])["subject"]
        assert any(package.endswith(f"=={subject['version']}") for package in installed), file
        for other, version in subject["details"].items():
            if other in ("torch", "torchvision", "jax", "onnx"):
                assert f"{other}=={version.split('+')[0]}" in installed, (file, other)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_adapter_is_there(name: str) -> None:
    assert (ROOT / "adapters" / "python" / LIBRARIES[name]["adapter"].split()[0]).is_file()
