"""Configuration of the documentation: sphinx-build -W docs docs/_build/html."""

from importlib.metadata import version as _version

project = "mixedeffects"
author = "The mixedeffects developers"
project_copyright = author
version = release = _version("mixedeffects")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "images"]
templates_path = ["_templates"]

html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme = "furo"
html_title = f"mixedeffects {release}"

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
