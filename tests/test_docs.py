"""The documentation says what the package does: its examples run and its lists are complete."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects import cli
from script_modules import script

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page.stem for page in DOCS.glob("*.md"))


# --- examples -------------------------------------------------------------------------------------


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """Indented ``mixedeffects fit`` lines, continued ones joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        shlex.split(line)[1:] for line in re.findall(r"^    (mixedeffects fit .*)$", text, re.M)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the reader's own data, my.csv."""
    rng = np.random.default_rng(1)
    school = np.repeat(np.arange(12), 24)
    classes = np.tile(np.repeat(np.arange(3), 8), 12)
    age = rng.integers(6, 15, len(school)).astype(float)
    slopes = rng.normal(0, 0.4, 12)[school] + rng.normal(0, 0.3, 36)[3 * school + classes]
    score = 50 + age * (1 + slopes) + rng.normal(0, 3, 12)[school] + rng.normal(0, 2, len(school))
    group = rng.choice(["old", "new"], len(school))
    table = {"school": school, "class": classes, "age": age, "group": group, "score": score}
    pd.DataFrame(table).to_csv(tmp_path / "my.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=lambda p: p.name)
def test_python_examples_run(page: Path, folder: Path) -> None:
    blocks = python_blocks(page)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    plt.close("all")


def test_numbers_in_the_readme(folder: Path) -> None:
    block = python_blocks(ROOT / "README.md")[0]
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    m, V = names["m"], names["V"]
    stated = re.search(r"coef  # ([\d.]+), ([\d.]+)", block)
    assert stated
    assert [f"{value:.2f}" for value in m.fixef] == list(stated.groups())
    assert abs(m.V.sparse() - V).max() == 0.0


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/covariance.md"])
def test_commands_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = commands(ROOT / page)
    assert lines
    for line in lines:
        assert cli.main(line) == 0, line
    assert capsys.readouterr().out


# --- the reference --------------------------------------------------------------------------------


def entries() -> list[str]:
    """What the reference lists, without the leading tilde."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^   ~?([A-Za-z_][\w.]*)$", text, re.M)


def resolve(entry: str) -> Any:
    parts = entry.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        try:
            found = importlib.import_module(".".join(["mixedeffects", *parts[:cut]]))
            for name in parts[cut:]:
                found = getattr(found, name)
        except (ImportError, AttributeError):
            continue
        return found
    raise AssertionError(f"docs/api.md lists {entry}, which is not there")


def test_every_entry_of_the_reference_is_there() -> None:
    assert len(entries()) == len(set(entries()))
    for entry in entries():
        assert inspect.getdoc(resolve(entry)), entry


def test_every_public_name_is_in_the_reference() -> None:
    listed = set(entries())
    # Of modules their functions are listed.
    missing = [
        name
        for name in me.__all__
        if name not in listed and not any(entry.startswith(f"{name}.") for entry in listed)
    ]
    assert not missing


def test_every_method_of_a_model_is_in_the_reference() -> None:
    """By task; each once, as all entries are."""
    public = [name for name in dir(me.LinearMixedModel) if not name.startswith("_")]
    assert not {f"LinearMixedModel.{name}" for name in public} - set(entries())


def test_every_result_is_in_the_reference() -> None:
    """Classes of the package in the return annotations of what is listed are listed too."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in package_sources())
    classes = set(re.findall(r"^class ([A-Za-z]\w*)", source, re.M))
    documented = {entry.rsplit(".", 1)[-1] for entry in entries()}
    assert {"LinearMixedModel", "Influence"} <= classes & documented
    missing = set()
    for entry in entries():
        found = resolve(entry)
        for function in functions_of(found):
            annotation = str(inspect.get_annotations(function).get("return", ""))
            missing |= (set(re.findall(r"\w+", annotation)) & classes) - documented
    assert not missing


def package_sources() -> list[Path]:
    return sorted(Path(me.__file__).parent.rglob("*.py"))


def functions_of(found: Any) -> list[Any]:
    members = [found]
    if inspect.isclass(found):
        members = [value for name, value in vars(found).items() if not name.startswith("_")]
    unwrapped = [
        getattr(value, "fget", None) or getattr(value, "func", None) or inspect.unwrap(value)
        for value in members
        if callable(value) or isinstance(value, property) or hasattr(value, "func")
    ]
    return [value for value in unwrapped if inspect.isfunction(value)]


# --- pages ----------------------------------------------------------------------------------------


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"<([\w-]+)>$", index, re.M)
    assert sorted([*listed, "index"]) == PAGES


@pytest.mark.parametrize("page", ["../README", *PAGES])
def test_links_between_pages(page: str) -> None:
    path = DOCS / f"{page}.md"
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


# --- the validation page --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validation() -> Any:
    return script("benchmarks/validation.py")


def test_the_validation_page_is_made_from_the_stored_results(validation: Any) -> None:
    results = json.loads(validation.STORE.read_text(encoding="utf-8"))
    assert validation.PAGE.read_text(encoding="utf-8") == validation.page(results)


@pytest.mark.parametrize("name", ["sleepstudy", "threelevel", "dyestuff2", "penicillin"])
def test_the_stored_results_are_those_of_this_package(validation: Any, name: str) -> None:
    stored = {r["name"]: r for r in json.loads(validation.STORE.read_text(encoding="utf-8"))}[name]
    fresh = validation.compare(name)
    assert fresh["at_optimum"]["criterion"] == pytest.approx(
        stored["at_optimum"]["criterion"], abs=1e-8
    )
    for key in ("excess_default", "excess_stored"):
        assert fresh["at_optimum"][key] == pytest.approx(stored["at_optimum"][key], abs=1e-8)
    for result in (fresh, stored):
        at_theirs = result["at_theirs"]
        assert max(at_theirs[key] for key in ("criterion", *validation.ESTIMATES)) < 1e-9
        assert at_theirs["V"]["nnz"] == 0.0
        assert max(at_theirs["V"].values()) < 1e-12
        assert at_theirs["inference"]["satterthwaite"] < 1e-6
        assert at_theirs["inference"]["kr_df"] < 1e-9


@pytest.mark.parametrize("name", ["cbpp", "salamander", "cake_gamma"])
def test_the_stored_generalized_results_are_those_of_this_package(
    validation: Any, name: str
) -> None:
    import generalized_validation

    every = json.loads(generalized_validation.STORE.read_text(encoding="utf-8"))["laplace"]
    stored = {r["name"]: r for r in every}[name]
    fresh = generalized_validation.compare(name)
    assert fresh["criterion"] == pytest.approx(stored["criterion"], abs=1e-8)
    for key in ("evaluations", "start", "certificate", "formula", "nobs"):
        assert fresh[key] == stored[key]
    for key in ("at_theirs", "less_dense", "theirs_less_dense"):
        assert abs(fresh[key]) < 1e-9


def test_what_is_asked_of_generalized_models_is_on_the_validation_page(validation: Any) -> None:
    import generalized_validation

    stored = json.loads(generalized_validation.STORE.read_text(encoding="utf-8"))
    exact = {r["name"]: r["ours"] for r in stored["exact"]}
    for r in stored["laplace"]:
        assert r["certificate"]
        assert r["evaluations"] + r["start"] <= 12
        # Where R stopped short, the minimum in extended precision stands in.
        best = r | exact.get(r["name"], {})
        assert r["excess"] > -1e-6
        assert abs(r["less_dense"]) < 1e-8
        assert max(best["theta"], best["fixef"], r["phi"] or 0.0) < 1e-5
        assert best["se"] < 1e-4
        if r["name"] != "toenail":
            assert max(r["modes"] or 0.0, r["conditional_variances"] or 0.0) < 1e-5
    assert np.median([r["evaluations"] for r in stored["laplace"]]) <= 7
    for r in stored["quadrature"]:
        assert abs(r["less_exact"]) < 1e-9
        assert r["excess"] > -1e-6
        assert r["fixef"] < 1e-5 and r["se"] < 1e-4


def test_exact_answers_named_on_the_validation_page(validation: Any) -> None:
    """Of balanced designs the F test and the degrees of freedom are known in closed form."""
    cake = me.load_dataset("cake")
    plots = cake.groupby(["recipe", "replicate"], observed=True)["angle"].mean()
    recipes = plots.groupby("recipe", observed=True).mean()
    between = 15 * recipes.var()
    within = plots.groupby("recipe", observed=True).var().mean()
    m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    statistic = m.anova().loc["recipe", "F value"]
    assert statistic == pytest.approx(between / within, rel=1e-12)
    assert f"{statistic:.10f}" in validation.INFERENCE_TEXT

    growth = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
    np.testing.assert_allclose(growth.coef_table()["df"], 25.0, atol=5e-5)


def test_a_difference_is_measured_on_its_scale(validation: Any) -> None:
    assert validation.largest([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    assert validation.largest([[0.0, 3.0]], [0.0, 1.0], 4.0) == pytest.approx(0.5)
    assert validation.largest(1e-3, 0.0) == pytest.approx(1e-3)
    assert validation.cell(None) == "–"
    assert validation.cell(2.6e-5, signed=True) == "+3e-05"


def test_the_selector_of_the_copy_buttons_fits_into_its_script() -> None:
    """Sphinx-copybutton writes it between single quotes; one inside ends the script."""
    settings: dict[str, Any] = {"__file__": str(DOCS / "conf.py")}
    code = (DOCS / "conf.py").read_text(encoding="utf-8")
    found = re.search(r"^copybutton_selector = .*$", code, re.M)
    assert found is not None
    exec(found[0], settings)
    assert "'" not in settings["copybutton_selector"]
