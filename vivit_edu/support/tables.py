"""Figures and tables as text."""


def mean_sd(figure):
    """ ".834 ± .015", or the mean alone of a single run."""
    shown = [f"{value:.3f}".removeprefix("0") for value in (figure["mean"], figure["sd"]) if value is not None]
    return " ± ".join(shown)
