"""Apply prefect.yaml with its work pools and automations to the Prefect server.

python -m infra.deploy     (or `make deploy`)

Repeated calls apply only changes. The server is PREFECT_API_URL, or if unset the one that `make up` started.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from infra.settings import POOLS, load, services_folder, unreachable
from lissnas.core import process
from lissnas.core.errors import LissnasError, UserError
from lissnas.core.redaction import move_prefect_credentials

HOME = "LISSNAS_HOME"
"""Environment variable: folder of the repository on the machines that run flows; default: this checkout."""
ROOT = Path(__file__).resolve().parents[1]
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
NOTIFY = "NOTIFY"
"""Environment variable that names a notification block; also the placeholder of its id in automations.yaml."""
LIMIT = "limit:"
"""Prefix of deployment tags with a time limit in automations.yaml."""
NO_SERVER = "no Prefect server is configured: run `make up`, or set PREFECT_API_URL to a running server"


def find_servers() -> None:
    """Set the addresses of Prefect, MLflow and storage in the environment unless set; raise UserError if unknown."""
    if os.environ.get("PREFECT_API_URL"):
        move_prefect_credentials()
        return
    addresses = load(services_folder())
    if addresses is None:
        raise UserError(NO_SERVER)
    for name, value in addresses.client_environment().items():
        os.environ.setdefault(name, value)


def deploy() -> None:
    """Apply prefect.yaml, its work pools and the automations; print each deployment."""
    find_servers()  # before the import of Prefect, which reads its settings
    os.environ.setdefault(HOME, str(ROOT))
    config = declared()
    if found := problems(config):
        raise UserError("prefect.yaml:\n" + "\n".join(f"  {line}" for line in found))
    if error := unreachable(url := os.environ["PREFECT_API_URL"]):
        raise LissnasError(f"PREFECT_API_URL={url}{error}. Run `make up`, or fix the address")
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _make_pools(client)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if made.returncode:
            end = (made.stdout + made.stderr)[-3000:]
            raise LissnasError(f"prefect deploy ended with code {made.returncode}:\n{end}")
        _apply_automations(client)
        _drop_others(client, config)
        for one in sorted(client.read_deployments(), key=lambda d: (d.work_pool_name or "", d.entrypoint or "")):
            when = ", ".join(s.schedule.cron for s in one.schedules if s.active and hasattr(s.schedule, "cron"))
            process.say(f"{one.work_pool_name:<5} {one.entrypoint:<42} {when}".rstrip())
    process.out.print(f"next: [bold]make schedule-demo[/], or {url.removesuffix('/api')}")


def _drop_others(client: Any, config: dict[str, Any]) -> None:
    """Delete deployments of this repository's flows that are not in prefect.yaml: their runs would fail."""
    wanted = {(d["entrypoint"], d["name"]) for d in config["deployments"]}
    for one in client.read_deployments():
        ours = (one.entrypoint or "").startswith("flows/") and {"stage", "method"} & set(one.tags)
        if ours and (one.entrypoint, one.name) not in wanted:
            client.delete_deployment(one.id)
            process.out.print(f"deleted {one.entrypoint} on {one.work_pool_name}: prefect.yaml no longer has it")


def _make_pools(client: Any) -> None:
    """Create the missing work pools, of type `process`."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    for name in POOLS:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def declared(file: Path = ROOT / "prefect.yaml") -> dict[str, Any]:
    """Return the parsed content of prefect.yaml, or of another YAML file."""
    from ruamel.yaml import YAML

    content: dict[str, Any] = YAML(typ="safe").load(file.read_text())
    return content


def problems(config: dict[str, Any]) -> list[str]:
    """Return the problems of deployments: missing flows, undefined time limits, invalid schedules."""
    from prefect.client.schemas.schedules import CronSchedule

    found, limits = [], AUTOMATIONS.read_text()
    for i, one in enumerate(config["deployments"]):
        where = f"deployments[{i}] ({one['entrypoint']})"
        file, _, name = one["entrypoint"].partition(":")
        if not (ROOT / file).is_file() or not re.search(rf"^def {re.escape(name)}\(", (ROOT / file).read_text(), re.M):
            found.append(f"{where}: the flow does not exist; correct the entrypoint, or remove the deployment")
        for j, schedule in enumerate(one.get("schedules", ())):
            try:
                CronSchedule(cron=schedule["cron"], timezone=schedule.get("timezone"))
            except ValueError:
                about = f"{schedule['cron']!r} in {schedule.get('timezone')!r}"
                found.append(
                    f"{where}: schedules[{j}]: invalid cron expression or time zone {about}; example: '0 2 * * *'"
                )
        found += [
            f"{where}: no time limit for tag {tag!r} in infra/automations.yaml"
            for tag in one["tags"]
            if tag.startswith(LIMIT) and f'"prefect.tag.{tag}"' not in limits
        ]
    return found


def automations(notify: str | None) -> list[dict[str, Any]]:
    """Return the automations to apply; `notify` is the id of a notification block, None to leave out notifications."""
    found: list[dict[str, Any]] = declared(AUTOMATIONS)["automations"]
    sending = [action for one in found for action in one["actions"] if action.get("block_document_id") == NOTIFY]
    for action in sending:
        action["block_document_id"] = notify
    return [one for one in found if notify or not any(action in sending for action in one["actions"])]


def _apply_automations(client: Any) -> None:
    """Create the automations, or replace those of the same name."""
    from prefect.events.schemas.automations import AutomationCore

    for one in automations(_notification_block(client)):
        automation = AutomationCore.model_validate(one)
        for old in client.read_automations_by_name(automation.name):
            client.delete_automation(old.id)
        client.create_automation(automation)


def _notification_block(client: Any) -> str | None:
    """Return the id of the block that NOTIFY names as TYPE/NAME, None if NOTIFY is not set."""
    from prefect.exceptions import ObjectNotFound

    if not (named := os.environ.get(NOTIFY)):
        return None
    expected = "expected TYPE/NAME of a block, such as slack-webhook/team (Blocks on the server's page)"
    kind, _, name = named.partition("/")
    if not re.fullmatch(r"[\w-]+/[\w-]+", named):  # possibly a webhook's address, a secret: not printed
        raise UserError(f"{NOTIFY}: {expected}; an address belongs in the block")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound:
        raise UserError(f"{NOTIFY}={named}: the block does not exist; {expected}") from None


if __name__ == "__main__":
    process.run(lambda: typer.run(deploy))
