"""Run the tests on every Python that is declared, with the lowest and the newest dependencies.

``make test-matrix`` runs this file. It uses the Pythons that the machine has (on the path, of
pyenv, of uv) and says which are missing; environments and builds stay in ``.matrix`` and are used
again.

    python tools/test_matrix.py                      # every Python x {lowest, newest}
    python tools/test_matrix.py 3.12 newest          # one of them
    python tools/test_matrix.py lowest -- -k formula # arguments behind -- are pytest's
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".matrix"
RESOLUTIONS = ("lowest", "newest")
EXTRAS = ("plots", "arrow", "test")


def declared_pythons(project: dict) -> list[str]:
    """Versions among the classifiers, such as 3.12."""
    pattern = re.compile(r"Programming Language :: Python :: (\d+\.\d+)$")
    return [found[1] for text in project["classifiers"] if (found := pattern.match(text))]


def lowest_versions(project: dict) -> list[str]:
    """Every requirement of the package and of its tests, pinned to the version it starts from."""
    requirements = list(project["dependencies"])
    for extra in EXTRAS:
        requirements += project["optional-dependencies"][extra]
    pins: dict[str, str] = {}
    for requirement in requirements:
        found = re.match(r"([A-Za-z0-9_.-]+(?:\[[a-z,]+\])?)>=([0-9.]+)", requirement)
        if found is None:
            raise SystemExit(f"{requirement!r} in pyproject.toml has no lowest version.")
        if pins.setdefault(found[1], found[2]) != found[2]:
            raise SystemExit(f"pyproject.toml has two lowest versions of {found[1]}.")
    return [f"{name}=={version}" for name, version in pins.items()]


def find_python(version: str) -> str | None:
    """Interpreter of that version: of the path, of pyenv, or of uv."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    if uv := shutil.which("uv"):
        found = subprocess.run(
            [uv, "python", "find", version], capture_output=True, text=True, check=False
        )
        candidates.append(found.stdout.strip())
    for candidate in filter(None, candidates):
        # A shim on the path may stand for a version that is not installed.
        shown = subprocess.run(
            [candidate, "--version"], capture_output=True, text=True, check=False
        )
        if shown.stdout.startswith(f"Python {version}."):
            return candidate
    return None


def make_environment(python: str, version: str, resolution: str, project: dict) -> Path:
    """Virtual environment with the package in place; returns its interpreter."""
    folder = FOLDER / f"{version}-{resolution}"
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # One build a Python: both of its environments take the compiled kernels from it.
    install += ["--config-settings", f"build-dir={FOLDER / f'build-{version}'}"]
    if resolution == "lowest":
        pins = FOLDER / "lowest.txt"
        pins.write_text("\n".join(lowest_versions(project)) + "\n")
        install += ["--constraint", str(pins)]
    else:
        install += ["--upgrade", "--upgrade-strategy", "eager"]
    subprocess.run([*install, "--editable", f".[{','.join(EXTRAS)}]"], cwd=ROOT, check=True)
    return interpreter


def main(arguments: list[str]) -> int:
    """Run what is asked for; the number of combinations that failed or could not be run."""
    for_pytest = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, for_pytest = arguments[:at], arguments[at + 1 :]
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    known = declared_pythons(project)
    unknown = [each for each in arguments if each not in (*known, *RESOLUTIONS)]
    if unknown:
        raise SystemExit(f"Not a declared Python, nor lowest or newest: {', '.join(unknown)}.")
    pythons = [each for each in known if each in arguments] or known
    resolutions = [each for each in RESOLUTIONS if each in arguments] or list(RESOLUTIONS)
    FOLDER.mkdir(exist_ok=True)
    outcomes: dict[str, str] = {}
    for version in pythons:
        python = find_python(version)
        for resolution in resolutions:
            name = f"Python {version}, {resolution}"
            print(f"== {name}", flush=True)
            if python is None:
                outcomes[name] = "not run: this machine has no such Python"
                continue
            interpreter = make_environment(python, version, resolution, project)
            ended = subprocess.run(
                [str(interpreter), "-m", "pytest", "-q", *for_pytest], cwd=ROOT, check=False
            )
            outcomes[name] = "passed" if ended.returncode == 0 else f"FAILED ({ended.returncode})"
    print("\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    return sum(outcome != "passed" for outcome in outcomes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
