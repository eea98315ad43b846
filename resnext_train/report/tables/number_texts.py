"""Numbers as a report's tables show them; "" for what is not known. Imports no torch."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """Return a share in per cent with two digits, without its sign."""
    return "" if value is None else f"{value:.2f}"


def difference(value: float | None) -> str:
    """Return a difference in percentage points, with its sign.

    >>> difference(0.25), difference(-0.001)
    ('+0.25', '+0.00')
    """
    if value is None:
        return ""
    rounded = round(value, 2) + 0.0  # of -0.0 as well it is 0.0
    return f"{rounded:+.2f}".replace("-", "\N{MINUS SIGN}")


def interval(low_high: tuple[float, float] | None) -> str:
    """Return an interval in per cent."""
    return "" if low_high is None else f"{low_high[0]:.2f} to {low_high[1]:.2f}"


def spread(mean: float | None, deviation: float | None) -> str:
    """Return a mean with its standard deviation, if there is one."""
    return percent(mean) if deviation is None else f"{percent(mean)} ± {percent(deviation)}"


def whole_number(value: int | None) -> str:
    """Return a whole number, its digits in threes."""
    return "" if value is None else f"{value:,}"


def billions(value: int | None) -> str:
    """Return a number of operations in G or M."""
    if value is None:
        return ""
    return f"{value / 1e9:.2f} G" if value >= 1e8 else f"{value / 1e6:.2f} M"


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units: 42 s, 12 min 05 s, 5 h 07 min, 3 d 04 h."""
    if seconds is None:
        return ""
    left = max(0, round(seconds))
    for length, unit, below, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= length:
            return f"{left // length} {unit} {left % length // below:02d} {name}"
    return f"{left} s"


def probability(value: float) -> str:
    """Return a p-value with three significant digits."""
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"
