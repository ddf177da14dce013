"""Print the folder of the Eigen headers that the cmeel-eigen package installed."""

import sys
from importlib.metadata import files

for file in files("cmeel-eigen") or ():
    parts = file.parts
    if parts[-2:] == ("Eigen", "Core"):
        print(file.locate().resolve().parent.parent.as_posix())
        sys.exit(0)
sys.exit(1)
