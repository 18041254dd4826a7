"""Survey: whether the package sources answer, asked all at once by a child that is killed at the deadline.

A child, because a name server that does not answer blocks a thread for longer than anybody wants to wait, and
because a process with threads must not fork the runner later.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from gpuprov.agent.survey_proxy import masked, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

#: How long all of them together may take.
DEADLINE_S = 3.0
_DIRECT = ("direct", "_none_", "false", "")


def reach(host: Host, repositories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *repositories* with "reachable", "error" and "via" (the proxy). Blocking, at most DEADLINE_S."""
    sources = host.kept["sources"]
    proxies = settings(host)
    for source in sources:
        source["via"] = proxy_for(source, proxies)
    answers = _answers(host, sources)
    late = {"reachable": False, "error": "no answer within %g s" % DEADLINE_S}
    return [
        {**one, **({} if source["error"] else answers.get(number, late)), "via": masked(source["via"]) or None}
        for number, (one, source) in enumerate(zip(repositories, sources))
    ]


def _answers(host: Host, sources: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return source's number -> answer, of those that answered in time."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _live(host, sources, write_end)
    os.close(write_end)
    data, deadline = b"", time.monotonic() + DEADLINE_S
    try:
        while True:
            ready, _, _ = select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(read_end, 65536) if ready else b""
            if not piece:
                break
            data += piece
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
    return {line.pop("number"): line for line in lines}


def _live(host: Host, sources: list[dict[str, Any]], write_end: int) -> None:
    """Be the child: ask all sources, write one line for each, never return."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):  # ours is the controller's channel
            os.dup2(null, fd)
        import threading

        from gpuprov.agent.survey_ask import ask

        def work(number: int, source: dict[str, Any]) -> None:
            answer = {"number": number, **ask(host, source, DEADLINE_S)}
            os.write(write_end, json.dumps(answer).encode() + b"\n")  # short enough to be written in one piece

        threads = [threading.Thread(target=work, args=(n, s)) for n, s in enumerate(sources) if not s["error"]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os._exit(0)


def proxy_for(source: dict[str, Any], proxies: dict[str, dict[str, str]]) -> str:
    """Return the proxy that the package manager would use for a source; "" for none. Pure."""
    scheme, _, rest = source["ask"][0].partition("://")
    server = rest.partition("/")[0].rpartition("@")[2].partition(":")[0]
    variables = {**proxies["etc_environment"], **proxies["environment"]}
    apt = {name.lower(): value for name, value in proxies.get("apt", {}).items()}
    named = [
        source["options"].get("proxy"),
        apt.get("acquire::%s::proxy::%s" % (scheme, server)),
        apt.get("acquire::http::proxy::%s" % server),
        apt.get("acquire::%s::proxy" % scheme),
        apt.get("acquire::http::proxy"),
        proxies.get("dnf", {}).get("proxy"),
    ]
    told = next((value for value in named if value is not None), None)
    if told is not None:
        return "" if told.lower() in _DIRECT else told
    if _is_excepted(server, variables.get("no_proxy", "")):
        return ""
    return {**variables, **proxies.get("zypper", {})}.get(scheme + "_proxy") or variables.get("all_proxy", "")


def _is_excepted(server: str, no_proxy: str) -> bool:
    names = [name.strip().lstrip("*").lstrip(".") for name in no_proxy.split(",") if name.strip()]
    return any(name == "" or server == name or server.endswith("." + name) for name in names)
