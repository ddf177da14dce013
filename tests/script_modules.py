"""Scripts that stand beside the package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


@cache
def script(path: str) -> ModuleType:
    """The script at a path from the root of the project, run once."""
    # Not its own name, which a package may have.
    name = f"script_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look themselves up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
