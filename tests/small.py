"""Parameters for which a stage takes about a second."""

from __future__ import annotations

LOCALITY = {
    "locality.pairs": 100,
    "locality.walks": 4,
    "locality.steps": 50,
    "locality.lags": 5,
    "locality.resamples": 100,
    "locality.repeats": 5,
}
