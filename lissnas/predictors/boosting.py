"""XGBoost, the one place that imports it.

It imports scikit-learn, and with it pandas and scipy.stats, for classes that lissnas does not use: a second or two of
a small shrink. They are hidden only while XGBoost is imported.
"""

from __future__ import annotations

import sys
from typing import Any, cast


def _without_sklearn() -> Any:
    """Return XGBoost; unless scikit-learn is loaded already, XGBoost takes it to be missing."""
    hidden = "sklearn" not in sys.modules and "xgboost" not in sys.modules
    if hidden:
        sys.modules["sklearn"] = cast(Any, None)  # importing it raises ImportError
    try:
        import xgboost
    finally:
        if hidden:
            del sys.modules["sklearn"]
    return xgboost


xgb: Any = _without_sklearn()
