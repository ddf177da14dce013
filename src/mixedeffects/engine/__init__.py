"""The engine: arrays and blocks in, an optimum with its certificate out."""

from mixedeffects.engine.assembly import make_crossproducts
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.optimum import Certificate, Control, Optimum
from mixedeffects.engine.telling import Progress

__all__ = [
    "Certificate",
    "Control",
    "CrossProducts",
    "EngineTerm",
    "Factorisation",
    "Optimum",
    "Progress",
    "find_optimum",
    "make_crossproducts",
]
