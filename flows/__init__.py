"""The pipeline as Prefect flows.

Importing this package sets defaults for the logging and telemetry of Prefect and MLflow; variables that are already
set take precedence. Import it before Prefect and MLflow, which read these variables only once.
"""

import os
import warnings
from pathlib import Path

from lissnas.core.environment import set_defaults
from lissnas.core.redaction import move_prefect_credentials

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    # A busy machine takes longer than the 20 s that Prefect waits for its own server.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}
set_defaults()
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
if not {"PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_SETTINGS_PATH"} & os.environ.keys():
    # A line for each task run would hide the lines of the flow, which `flows.common.log_line` prints.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
if not {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"} & os.environ.keys():
    # If no server is configured, keep the database of Prefect's embedded server in the checkout.
    os.environ["PREFECT_HOME"] = str(Path.cwd() / ".prefect")
# MLflow's hints about schemas and sources require no action.
warnings.filterwarnings("ignore", module=r"mlflow\.", append=True)
move_prefect_credentials()
