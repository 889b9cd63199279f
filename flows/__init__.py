"""The pipeline as Prefect flows. Importing this sets what Prefect and MLflow must not do by themselves."""

import os
from pathlib import Path

from lissnas.core.redaction import sign_prefect_apart

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
# A busy machine takes longer than the 20 s that Prefect waits for its own server.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
if not {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"} & os.environ.keys():
    # With no server of the user's own, keep the embedded one's database in the checkout.
    os.environ["PREFECT_HOME"] = str(Path.cwd() / ".prefect")
sign_prefect_apart()
