"""Apply prefect.yaml and what it rests on: work pools, the limit of GPU tasks, automations.

python -m infra.deploy     (or `make deploy`)

Applying it again changes what has changed. The server is PREFECT_API_URL's, else the one that `make up` started.
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
"""The repository's folder where flows run; here, unless the variable says otherwise."""
ROOT = Path(__file__).resolve().parents[1]
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
NOTIFY = "NOTIFY"
"""The variable that names a notification block; in automations.yaml, where its id goes."""
LIMIT = "limit:"
"""How the tag of a deployment begins that has a time limit in automations.yaml."""
NOBODY = "no Prefect server is known: `make up` starts one, or set PREFECT_API_URL to yours"


def find_servers() -> None:
    """Set the variables by which Prefect, MLflow and storage are found, unless they are; raises UserError."""
    if os.environ.get("PREFECT_API_URL"):
        move_prefect_credentials()
        return
    addresses = load(services_folder())
    if addresses is None:
        raise UserError(NOBODY)
    for name, value in addresses.client_environment().items():
        os.environ.setdefault(name, value)


def deploy() -> None:
    """Apply prefect.yaml, the pools it names and the automations; prints each deployment."""
    find_servers()  # before Prefect is imported, which reads its settings then
    os.environ.setdefault(HOME, str(ROOT))
    said = declared()
    if found := problems(said):
        raise UserError("prefect.yaml:\n" + "\n".join(f"  {line}" for line in found))
    if error := unreachable(url := os.environ["PREFECT_API_URL"]):
        raise LissnasError(f"PREFECT_API_URL={url} does not answer ({error}): `make up`, or name yours")
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _make_pools(client)
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if made.returncode:
            end = (made.stdout + made.stderr)[-3000:]
            raise LissnasError(f"prefect deploy ended with code {made.returncode}:\n{end}")
        _apply_automations(client)
        _drop_others(client, said)
        for one in sorted(client.read_deployments(), key=lambda d: (d.work_pool_name or "", d.entrypoint or "")):
            when = ", ".join(s.schedule.cron for s in one.schedules if s.active and hasattr(s.schedule, "cron"))
            process.say(f"{one.work_pool_name:<5} {one.entrypoint:<42} {when}".rstrip())
    process.out.print(f"next: [bold]make schedule-demo[/], or {url.removesuffix('/api')}")


def _drop_others(client: Any, said: dict[str, Any]) -> None:
    """Delete deployments of flows of this repository that prefect.yaml no longer has: their runs would fail."""
    wanted = {(d["entrypoint"], d["name"]) for d in said["deployments"]}
    for one in client.read_deployments():
        ours = (one.entrypoint or "").startswith("flows/") and {"stage", "method"} & set(one.tags)
        if ours and (one.entrypoint, one.name) not in wanted:
            client.delete_deployment(one.id)
            process.out.print(f"deleted {one.entrypoint} on {one.work_pool_name}: prefect.yaml no longer has it")


def _make_pools(client: Any) -> None:
    """Make the work pools that are not there, for processes."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    for name in POOLS:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def declared(file: Path = ROOT / "prefect.yaml") -> dict[str, Any]:
    """Return what prefect.yaml, or another file, declares."""
    from ruamel.yaml import YAML

    said: dict[str, Any] = YAML(typ="safe").load(file.read_text())
    return said


def problems(said: dict[str, Any]) -> list[str]:
    """Return what is wrong with deployments: flows and time limits that are not there, schedules that don't parse."""
    from prefect.client.schemas.schedules import CronSchedule

    found, limits = [], AUTOMATIONS.read_text()
    for i, one in enumerate(said["deployments"]):
        where = f"deployments[{i}] ({one['entrypoint']})"
        file, _, name = one["entrypoint"].partition(":")
        if not (ROOT / file).is_file() or not re.search(rf"^def {re.escape(name)}\(", (ROOT / file).read_text(), re.M):
            found.append(f"{where}: there is no such flow; name one that is there, or take the deployment out")
        for j, schedule in enumerate(one.get("schedules", ())):
            try:
                CronSchedule(cron=schedule["cron"], timezone=schedule.get("timezone"))
            except ValueError:
                about = f"{schedule['cron']!r} in {schedule.get('timezone')!r}"
                found.append(
                    f"{where}: schedules[{j}]: {about} is no cron expression in a time zone, such as '0 2 * * *'"
                )
        found += [
            f"{where}: tag {tag!r}: infra/automations.yaml has no time limit for it"
            for tag in one["tags"]
            if tag.startswith(LIMIT) and f'"prefect.tag.{tag}"' not in limits
        ]
    return found


def automations(notify: str | None) -> list[dict[str, Any]]:
    """Return the automations to apply; `notify` is the id of a notification block, without one none notifies."""
    found: list[dict[str, Any]] = declared(AUTOMATIONS)["automations"]
    sending = [action for one in found for action in one["actions"] if action.get("block_document_id") == NOTIFY]
    for action in sending:
        action["block_document_id"] = notify
    return [one for one in found if notify or not any(action in sending for action in one["actions"])]


def _apply_automations(client: Any) -> None:
    """Make or replace the automations, known by their names."""
    from prefect.events.schemas.automations import AutomationCore

    for one in automations(_notification_block(client)):
        automation = AutomationCore.model_validate(one)
        for old in client.read_automations_by_name(automation.name):
            client.delete_automation(old.id)
        client.create_automation(automation)


def _notification_block(client: Any) -> str | None:
    """Return the id of the block that NOTIFY names as TYPE/NAME, None without it."""
    from prefect.exceptions import ObjectNotFound

    if not (named := os.environ.get(NOTIFY)):
        return None
    expected = "expected TYPE/NAME of a block, such as slack-webhook/team (Blocks on the server's page)"
    kind, _, name = named.partition("/")
    if not re.fullmatch(r"[\w-]+/[\w-]+", named):  # such as a webhook's address, which nobody should see
        raise UserError(f"{NOTIFY}: {expected}; an address belongs in the block")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound:
        raise UserError(f"{NOTIFY}={named}: there is no such block; {expected}") from None


if __name__ == "__main__":
    process.run(lambda: typer.run(deploy))
