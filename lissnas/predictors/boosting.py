"""Fast import of XGBoost; import it from here.

XGBoost imports scikit-learn, pandas and scipy.stats for classes that lissnas does not use, which takes a second or
two. scikit-learn is hidden only while XGBoost is imported.
"""

from __future__ import annotations

import sys
from typing import Any, cast


def _without_sklearn() -> Any:
    """Return XGBoost, imported as if scikit-learn were missing unless it is already loaded."""
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
