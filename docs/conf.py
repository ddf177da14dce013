"""Configuration of the documentation: sphinx-build -W docs docs/_build/html."""

import sys
from importlib.metadata import version as _version
from pathlib import Path as _Path

sys.path.insert(0, str(_Path(__file__).parent / "_extensions"))

project = "mixedeffects"
author = "The mixedeffects developers"
project_copyright = author
version = release = _version("mixedeffects")

extensions = [
    "mathml",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_extensions", "images"]
templates_path = ["_templates"]

html_static_path = ["_static"]
html_css_files = ["tables.css", "pages.css"]
html_theme = "furo"
html_title = f"mixedeffects {release}"

# Formulas become MathML when the pages are built (docs/_extensions/mathml.py, by latex2mathml).
# Every browser of today draws it, so pages need no script for it and no network; MathJax would
# come from a server, or be some megabytes of script beside the pages.
html_math_renderer = "mathml"

# Buttons that copy code; printed text and outputs have none.
# The selector stands in single quotes in the script, so it has none itself.
copybutton_selector = 'div[class*="highlight-"]:not(.output):not(.highlight-text) pre'
copybutton_exclude = ".linenos, .gp, .go"

# Names in single backquotes are looked up as Python objects; those that are none become code.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = True
numpydoc_show_class_members = False

myst_enable_extensions = ["dollarmath"]
# Pages with code cells are run at every build, and an error stops it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
