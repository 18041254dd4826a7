"""Survey: what gpuprov did to this host last time."""

from __future__ import annotations

import json

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORD = "/var/lib/gpuprov/applied.json"


def applied(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"applied": the record of the last stack, or None when there was none}."""
    text = host.text(RECORD)
    if not host.exists(RECORD):
        return {"applied": None}
    try:
        record = json.loads(text)
    except ValueError as error:
        raise Untold("%s is damaged: %s" % (RECORD, error)) from None
    if not isinstance(record, dict):
        raise Untold("%s is damaged: it is no object" % RECORD)
    if isinstance(record.get("begun"), dict):  # the whole package list is nobody's business but the module's
        record["begun"] = {key: value for key, value in record["begun"].items() if key != "packages"}
    return {"applied": record}
