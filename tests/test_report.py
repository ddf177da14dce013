"""The report: valid, self-contained, complete and true; in a browser where there is one."""

from __future__ import annotations

import base64
import builtins
import html
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
import mixedeffects.pictures.ranef_plots
import mixedeffects.pictures.residual_plots
import mixedeffects.reporting.report
from mixedeffects.cli import main
from mixedeffects.errors import CostWarning
from references import fitted_model

VOID = {"meta", "img", "br", "hr", "link", "input"}
SECTIONS = [
    "Model and data",
    "Fixed effects",
    "Tests of terms",
    "Random effects",
    "Optimum",
    "Checks",
    "Diagnostics",
    "Conditional modes",
    "Matrices",
    "For the paper",
]


def sections(name: str) -> list[str]:
    """The sections of a page: effects need a variable in the fixed part."""
    place = SECTIONS.index("Diagnostics")
    return (
        SECTIONS
        if name.startswith("dyestuff")
        else [*SECTIONS[:place], "Effects", *SECTIONS[place:]]
    )


class Page(HTMLParser):
    """What is in a page; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.notes: list[str] = []
        self.words = ""
        self._label = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"attribute given twice in {tag}"
        self.tags.append((tag, attributes))
        if tag not in VOID:
            # A paragraph ends where a block begins, so nothing of the kind may be inside one.
            assert tag not in ("p", "div", "table", "ul", "dl", "figure") or "p" not in self.open
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        elif tag == "p" and attributes.get("class") == "note":
            self.notes.append("")
        elif tag == "div" and "aria-label" in attributes:
            self._label = attributes["aria-label"] or ""
        elif tag == "table":
            self.tables[self._label] = []
        elif tag == "tr":
            self.tables[self._label].append([])
        elif tag in ("td", "th"):
            self.tables[self._label][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        last = self.open[-1] if self.open else ""
        if re.fullmatch("h[1-6]", last):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        elif last == "p" and self.notes and self.tags[-1][1].get("class") == "note":
            self.notes[-1] += data
        elif last in ("td", "th"):
            self.tables[self._label][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def numbers(self, table: str) -> pd.DataFrame:
        head, *rows = self.tables[table]
        values = pd.DataFrame([row[1:] for row in rows], index=[r[0] for r in rows])
        return values.set_axis(head[1:], axis=1).apply(pd.to_numeric, errors="coerce")


@cache
def odd_model() -> me.LinearMixedModel:
    rng = np.random.default_rng(2)
    n = 90
    data = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "a_covariate_with_a_name_that_is_far_too_long_for_any_telephone": rng.normal(size=n),
            "a<b>&c": rng.choice(["<script>alert(1)</script>", "x"], n),
            "w": rng.uniform(0.5, 2.0, n),
            "many": rng.integers(0, 65, n).astype(str),
        }
    )
    data.loc[4, "y"] = np.nan
    data.attrs["name"] = "data <of> & others"
    return me.lmer(
        "y ~ a_covariate_with_a_name_that_is_far_too_long_for_any_telephone"
        " + I(2 * a_covariate_with_a_name_that_is_far_too_long_for_any_telephone)"
        " + (1 | `a<b>&c`) + (1 | many)",
        data,
        weights="w",
    )


@cache
def report(name: str) -> str:
    """The page of one model."""
    import tempfile

    m = odd_model() if name == "odd" else fitted_model(name)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        return m.report(Path(folder) / "r.html").read_text(encoding="utf-8")


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what has nothing to do with them, because they take most of the time."""
    monkeypatch.setattr(mixedeffects.reporting.report, "_drawn", lambda *_: iter(()))


@pytest.mark.parametrize("name", ["sleepstudy", "star_sample", "dyestuff2", "odd"])
def test_page_is_well_formed_and_self_contained(name: str) -> None:
    text = report(name)
    page = Page(text)
    assert text.startswith("<!doctype html>\n<html lang=")
    assert {"charset": "utf-8"} in page.all("meta")
    assert not page.all("script") and not page.all("link") and "<script" not in text
    assert not re.search(r"url\(|@import|https?:|\bon\w+=", text)
    assert [heading for level, heading in page.headings if level == 2] == sections(name)
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert max(np.diff(levels)) <= 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = [str(a["href"]) for a in page.all("a")]
    assert sorted(targets) == sorted(f"#{each}" for each in ids)
    assert len(page.all("table")) == sum(
        str(attributes.get("class")).split()[0] == "scroll" for attributes in page.all("div")
    )


@pytest.mark.parametrize("name", ["sleepstudy", "star_sample", "dyestuff2", "odd"])
def test_pictures_are_embedded_and_described(name: str) -> None:
    page = Page(report(name))
    m = odd_model() if name == "odd" else fitted_model(name)
    effects = sum(table.shape[1] for table in m.ranef().values())
    alts = [str(image["alt"]) for image in page.all("img")]
    assert sum(alt.startswith("Caterpillar plot") for alt in alts) == effects
    assert len(alts) >= 6 + effects + 2
    assert all(len(alt) > 20 for alt in alts) and len(set(alts)) == len(alts)
    for image in page.all("img"):
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/png;base64"
        file = base64.b64decode(data, validate=True)
        assert file.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", file[16:24])
        shown = float(str(image["width"])) / float(str(image["height"]))
        assert width / height == pytest.approx(shown, rel=0.02)


@pytest.mark.parametrize("name", ["sleepstudy", "star_sample", "dyestuff2", "odd"])
def test_numbers_are_those_of_the_model(name: str) -> None:
    page = Page(report(name))
    m = odd_model() if name == "odd" else fitted_model(name)
    table = page.numbers("Fixed effects")
    expected = m.coef_table()
    assert list(table.index) == list(m.fixef.index)
    for column in ("Estimate", "Std. Error", "df", "lower", "upper"):
        np.testing.assert_allclose(table[column], expected[column], rtol=6e-3, atol=6e-4)
    variances = m.varcorr.to_frame()
    variances = variances[variances["var2"].isna()]
    rows = page.tables["Variances of the random effects"]
    sds = [float(row[rows[0].index("Std.Dev.")]) for row in rows[1:]]
    np.testing.assert_allclose(sds, variances["sdcor"], rtol=1e-3, atol=1e-4)
    shares = page.numbers("Shares of the variance")["Share"]
    assert shares["ICC, adjusted"] == pytest.approx(m.icc().adjusted, abs=6e-5)
    assert shares["R2, conditional"] == pytest.approx(m.r2().conditional, abs=6e-5)
    if len(m.fixef) > 1:
        tests = page.numbers("Tests of terms")
        anova = m.anova()
        np.testing.assert_allclose(tests["F value"], anova["F value"], rtol=1e-4)
        np.testing.assert_allclose(tests["DenDF"], anova["DenDF"], atol=0.06)
    certificate = page.numbers("Certificate of the optimum")["Value"]
    assert certificate["Smallest curvature"] == pytest.approx(
        m.optimum.certificate.smallest_curvature, rel=0.06
    )
    assert f"{m.criterion:.2f}" in page.words and "The certificate holds" in page.words


def test_what_was_left_out_and_what_to_know() -> None:
    odd, singular = Page(report("odd")), Page(report("star_sample"))
    for sentence in odd_model().dropped.sentences():
        assert sentence in odd.words
    assert "89 of 90" in odd.words and "Prior weights" in odd.words
    assert any(text.startswith("Boundary (singular) fit") for text in singular.notes)
    assert "no variance is estimated" not in Page(report("sleepstudy")).words
    assert "Nothing: all rows and columns are used." in Page(report("sleepstudy")).words
    assert odd.headings[0] == (1, "Linear mixed model of data <of> & others")


@pytest.mark.usefixtures("without_pictures")
def test_title_and_robust_standard_errors(tmp_path: Path) -> None:
    m = fitted_model("threelevel")
    path = m.report(str(tmp_path / "r.html"), "Teachers <3", vcov="CR2", cluster="sch.cl")
    assert path == tmp_path / "r.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.headings[0] == (1, "Teachers <3")
    assert "CR2 covariance, clusters sch.cl (10)" in page.words
    robust = m.robust("CR2", "sch.cl").table
    table = page.numbers("Fixed effects")
    np.testing.assert_allclose(table["Std. Error"], robust["Std. Error"], rtol=1e-3)
    own = page.numbers("Fixed effects with the standard errors of the model")
    np.testing.assert_allclose(own["Std. Error"], m.se, rtol=1e-3)
    terms = page.numbers("Tests of terms")
    assert list(terms)[:3] == ["NumDF", "DenDF", "F value"]
    assert terms.loc["x1", "F value"] == pytest.approx(robust.loc["x1", "t value"] ** 2, rel=1e-3)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("ddf", "method"),
    [
        ("kr", "t-tests use Kenward-Roger's method"),
        ("inf", "tests use the normal distribution"),
    ],
)
def test_other_degrees_of_freedom(tmp_path: Path, ddf: str, method: str) -> None:
    m = fitted_model("sleepstudy")
    page = Page(m.report(tmp_path / "r.html", ddf=ddf).read_text(encoding="utf-8"))
    assert f"Intervals of 95 %; {method}." in page.words
    assert f"all others; they use {method.split(' use ')[1]}." in page.words
    table = page.numbers("Fixed effects")
    np.testing.assert_allclose(table["upper"], m.coef_table(ddf=ddf)["upper"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_report_is_the_same_every_time(tmp_path: Path) -> None:
    import matplotlib as mpl

    m = fitted_model("dyestuff")
    first = m.report(tmp_path / "a.html").read_bytes()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert m.report(tmp_path / "b.html").read_bytes() == first


@pytest.mark.usefixtures("without_pictures")
def test_errors_name_the_path_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = fitted_model("dyestuff")
    with pytest.raises(me.DataError, match=r"no folder '.*nowhere' to write 'r.html'"):
        m.report(tmp_path / "nowhere" / "r.html")
    with pytest.raises(me.DataError, match="is a folder; give the name of a file"):
        m.report(tmp_path)
    for bad in (3, None):
        with pytest.raises(me.ModelError, match="needs the name of a file"):
            m.report(bad)  # type: ignore[arg-type]
    with pytest.raises(me.ModelError, match="title must be text"):
        m.report(tmp_path / "r.html", 7)  # type: ignore[arg-type]
    with pytest.raises(me.ModelError, match="ddf 'satt' is not known"):
        m.report(tmp_path / "r.html", ddf="satt")
    with pytest.raises(me.ModelError, match="vcov kind 'HC3' is not known"):
        m.report(tmp_path / "r.html", vcov="HC3")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.html").write_text("before")

    def fail(self: Path, *args: Any, **options: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        m.report(tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "before"


def test_pictures_that_cannot_be_drawn_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = fitted_model("dyestuff")

    def refuse(*args: Any, **options: Any) -> Any:
        raise me.ModelError("Too much for <this> computer.")

    def warn(*args: Any, **options: Any) -> Any:
        warnings.warn("This takes long.", CostWarning, stacklevel=2)

    monkeypatch.setattr(mixedeffects.pictures.residual_plots, "leverage_of", refuse)
    monkeypatch.setattr(mixedeffects.pictures.ranef_plots, "caterpillar", warn)
    page = Page(m.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    refused = [text for text in page.notes if "not drawn" in text]
    assert refused == [
        "Residuals against leverages of 30 rows: not drawn. Too much for <this> computer."
    ]
    assert "This takes long." in page.notes
    assert [heading for level, heading in page.headings if level == 2] == sections("dyestuff")


@pytest.mark.usefixtures("without_pictures")
def test_certificate_of_large_models_is_left_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixedeffects.reporting.report, "_LARGE_CORE", -1)
    data = me.load_dataset("dyestuff")
    m = me.lmer("Yield ~ 1 + (1 | Batch)", data)
    page = Page(m.report(tmp_path / "r.html", ddf="residual").read_text(encoding="utf-8"))
    assert any("The certificate was not computed" in text for text in page.notes)
    page = Page(m.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Certificate of the optimum" in page.tables


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    m = fitted_model("dyestuff")
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            patch.delitem(sys.modules, name)
        patch.setattr(builtins, "__import__", refuse)
        page = Page(m.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.all("img") == []
    assert any("mixedeffects[plots]" in text for text in page.notes)
    assert len(page.tables["Fixed effects"]) == 2


# In a browser ------------------------------------------------------------------------------------


def chromium() -> str | None:
    """A Chromium of the system, of playwright, or the one that CHROMIUM names."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    cache_folder = Path.home() / ".cache" / "ms-playwright"
    found += [
        str(p) for p in sorted(cache_folder.glob("chromium*/chrome-*/*chrome*")) if p.is_file()
    ]
    return next((each for each in found if each), None)


BROWSER = chromium()
#: What a page says of itself, handed to the page around it.
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const outside = [...document.querySelectorAll("body *")].filter(e =>
    !e.closest(".scroll") && e.getBoundingClientRect().right > root.clientWidth + 0.5);
  parent.postMessage({
    width: innerWidth, scroll: root.scrollWidth, client: root.clientWidth,
    images: [...document.images].map(i => i.naturalWidth),
    shown: [...document.images].map(i => i.getBoundingClientRect().width),
    outside: outside.map(e => e.outerHTML.slice(0, 80)),
    size: parseFloat(getComputedStyle(document.body).fontSize),
  }, "*");
});
</script>"""


def browse(address: Path, folder: Path) -> tuple[str, str]:
    """The page as it is after loading, and what the browser logged."""
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--log-level=0",
        "--virtual-time-budget=5000",
        "--window-size=1400,1000",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        address.as_uri(),
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if ":CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium (on the path, of playwright, $CHROMIUM)")
@pytest.mark.parametrize("name", ["star_sample", "odd"])
def test_in_a_browser(name: str, tmp_path: Path) -> None:
    text = report(name)
    original = tmp_path / "report.html"
    original.write_text(text, encoding="utf-8")
    _, log = browse(original, tmp_path)
    assert console(log) == []

    # The page itself runs no scripts: a copy does, in frames of a telephone's and a desk's width.
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert copy != text
    copy = html.escape(copy.replace("</body>", f"{PROBE}</body>"))
    around = tmp_path / "around.html"
    frames = "".join(
        f'<iframe srcdoc="{copy}" style="width:{width}px;height:900px;border:0"></iframe>'
        for width in (390, 1280)
    )
    around.write_text(
        "<!doctype html><meta charset='utf-8'><pre id='said'></pre><script>const said = [];"
        "addEventListener('message', e => {said.push(e.data);"
        "document.getElementById('said').textContent = JSON.stringify(said);});</script>"
        f"{frames}",
        encoding="utf-8",
    )
    after, log = browse(around, tmp_path)
    assert console(log) == []
    found = re.search(r'<pre id="said">(.*?)</pre>', after, re.DOTALL)
    assert found is not None
    said = {each["width"]: each for each in json.loads(html.unescape(found.group(1)))}
    assert sorted(said) == [390, 1280]
    n_images = text.count("<img ")
    for width, page in said.items():
        assert len(page["images"]) == n_images and min(page["images"]) > 0
        assert page["scroll"] <= page["client"] <= width
        assert page["outside"] == []
        assert page["size"] >= 16
        assert max(page["shown"]) <= width
    assert min(said[390]["shown"]) > 300


def test_advice_is_broken_into_lines_and_pictures_are_small(tmp_path: Path) -> None:
    """No sentence is to be scrolled for; points and lines take few colours, matrices their own."""
    path = fitted_model("sleepstudy").report(tmp_path / "sleep.html")
    text = path.read_text(encoding="utf-8")
    checks = next(
        attributes
        for tag, attributes in Page(text).tags
        if tag == "div" and attributes.get("aria-label") == "Checks"
    )
    assert checks["class"] == "scroll sentences"
    assert len(text) < 400_000
    found = re.findall(r'base64,([^"]*)".*?alt="([^"]*)"', text)
    kinds = {alt: base64.b64decode(data)[25] for data, alt in found}
    # The colour type of a PNG file: 3 is a palette, 2 are colours.
    assert {kind for alt, kind in kinds.items() if alt.startswith("Picture of")} == {2}
    assert {kind for alt, kind in kinds.items() if not alt.startswith("Picture of")} == {3}


def test_a_report_is_no_file_of_another_format(tmp_path: Path) -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    with pytest.raises(me.DataError, match=r"must end in \.html"):
        m.report(tmp_path / "report.docx")
    arguments = ["fit", "dyestuff", "Yield ~ 1 + (1 | Batch)"]
    assert main([*arguments, "--html", str(tmp_path / "report.PDF")]) == 1
    assert not list(tmp_path.iterdir())
