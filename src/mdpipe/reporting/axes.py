"""Where the numbers on an axis stand."""

import math

MOST_TICKS = 6


def round_ticks(low: float, high: float, least: float = 0) -> list[float]:
    """Some `MOST_TICKS` round numbers in [low, high], 1, 2 or 5 times a power of ten but at least `least` apart."""
    span = high - low
    power = 10 ** math.floor(math.log10(span / MOST_TICKS))
    step = max(least, next(power * factor for factor in (1, 2, 5, 10) if power * factor * MOST_TICKS >= span))
    return [round(step * at, 10) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def doubling_ticks(low: float, high: float) -> list[int]:
    """At most `MOST_TICKS` powers of two in [low, high], for a logarithmic axis: each the same factor above the last.

    The range must start above 0.5 and hold such a power: it does if its end is at least twice its start.
    """
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    apart = math.ceil((last - first + 1) / MOST_TICKS)
    return [2**power for power in range(first, last + 1, apart)]
