"""Draw the pictures of the README and the documentation: python docs/images/make.py."""

from pathlib import Path

from matplotlib.figure import Figure

import mixedeffects as me

HERE = Path(__file__).parent


def main() -> None:
    """Write V of the sleep study: all rows, and one subject with its numbers."""
    model = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    model.V.plot(ax=left, units="ms²", title="V of the sleep study, one block per subject")
    model.V.plot("308", ax=right, units="ms²", title="V of subject 308")
    figure.savefig(HERE / "V-sleepstudy.png", dpi=90)


if __name__ == "__main__":
    main()
