"""Every public name with the parameters it takes, one a line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mixedeffects as me

__all__ = ["lines"]


def lines() -> list[str]:
    """Names, and of classes their attributes and methods, with parameters and defaults."""
    named = [(name, getattr(me, name)) for name in sorted(me.__all__)]
    out = [f"mixedeffects.{line}" for name, value in named for line in _of(name, value)]
    pictures = [(name, getattr(me.plot, name)) for name in sorted(me.plot.__all__)]
    out += [f"mixedeffects.plot.{name}{_parameters(value)}" for name, value in pictures]
    families = [(name, getattr(me.families, name)) for name in sorted(me.families.__all__)]
    of_families = [line for name, value in families for line in _of(name, value)]
    out += [f"mixedeffects.families.{line}" for line in of_families]
    for kind in _results():
        out += [f"{kind.__name__}.{line}" for line in _members(kind)]
    return out


def _results() -> list[type]:
    """Classes of what methods return, that have no name in the package itself."""
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    cake = me.load_dataset("cake")
    c = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    made = [
        m.summary(),
        m.influence("Subject"),
        m.variogram("Days"),
        m.check("levels"),
        m.robust("CR2"),
        m.wald("Days"),
        m.effects("Days"),
        c.emmeans("recipe"),
        c.emmeans("recipe").contrasts(),
        c.emmeans("recipe").contrasts().effect_size(),
        m.ranova(),
        m.icc(),
        m.r2(),
        m.caic(),
        m.satterthwaite,
        m.kenward_roger,
        m.profile("sigma"),
        m.ranef(),
        m.frame,
        m.dropped,
        m.V.parts,
        m.optimum.curvature,
    ]
    return [type(each) for each in made]


def _of(name: str, value: Any) -> Iterator[str]:
    if inspect.ismodule(value):
        yield name
    elif inspect.isclass(value):
        yield name
        if not issubclass(value, BaseException):
            yield from (f"{name}.{line}" for line in _members(value))
    else:
        yield f"{name}{_parameters(value)}"


def _members(kind: type) -> Iterator[str]:
    annotated = {name for each in kind.__mro__ for name in vars(each).get("__annotations__", {})}
    for name in sorted(set(dir(kind)) | annotated):
        if name.startswith("_") or (hasattr(dict, name) and issubclass(kind, dict)):
            continue
        value = inspect.getattr_static(kind, name, None)
        if getattr(value, "__module__", "") == "mixedeffects.model.generalized.refused":
            # Refused by name: nobody's to rely on.
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        yield f"{name}{_parameters(value)}" if inspect.isfunction(value) else name


def _parameters(function: Any) -> str:
    """Names, kinds and defaults, without annotations: these may become more exact."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


if __name__ == "__main__":
    (Path(__file__).parent / "reference" / "public_names.txt").write_text("\n".join(lines()) + "\n")
