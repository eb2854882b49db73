"""Figures and tables as text."""


def three_digits(value: float | None) -> str:
    """A figure from 0 to 1 as "0.834"; "–" where there is none, as for the AUC of a split with one class."""
    return "–" if value is None or value != value else f"{value:.3f}"


def mean_sd(figure: dict[str, float | None]) -> str:
    """{"mean", "sd"} as ".834 ± .015", the mean alone of a single run, "–" of none."""
    shown = [three_digits(value).removeprefix("0") for value in (figure["mean"], figure["sd"]) if value is not None]
    return " ± ".join(shown) or "–"
