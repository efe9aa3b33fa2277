"""The house is as ARCHITECTURE.md says: imports go down, packages explain themselves, files stay small."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("synapse_modules", "appservices", "bridges", "wallet_appservice")
LINES_MAX = 600


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_import_goes_down() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_imports_scripts_or_tests_but_they_themselves() -> None:
    for path in modules(*PACKAGES):
        for name in imported_names(path):
            assert name.split(".")[0] not in ("scripts", "tests"), path


def test_every_module_says_what_it_is_for() -> None:
    for path in modules(*PACKAGES, "scripts", "tests"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or not tree.body, path


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for path in modules(*PACKAGES, "scripts"):
        assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc", "manager"}, path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX, path


def test_nothing_registers_on_new_event() -> None:
    for path in modules("synapse_modules"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        keywords = {
            keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
        }
        assert "on_new_event" not in keywords, path


def test_the_import_path_of_a_package_is_its_file_path() -> None:
    for path in modules(*PACKAGES):
        for folder in path.relative_to(ROOT).parents:
            is_data = re.search(r"migrations$", str(folder))
            assert folder == Path() or is_data or (ROOT / folder / "__init__.py").exists(), folder


def test_the_browser_libraries_are_locked_by_hash_and_bound_to_no_registry() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
    assert "//" not in re.sub(r'"integrity": "[^"]*"', "", (ROOT / "package-lock.json").read_text())
    assert "omit-lockfile-registry-resolved=true" in (ROOT / ".npmrc").read_text()
    wanted = json.loads((ROOT / "package.json").read_text())
    locked = lock["packages"][""]
    assert locked["dependencies"] == wanted["dependencies"]
    assert locked["devDependencies"] == wanted["devDependencies"]


@pytest.mark.parametrize("script", ["up", "setup", "test", "fetch-assets", "write-docs"])
def test_a_script_is_executable_and_readable_by_any_posix_shell(script: str) -> None:
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names
