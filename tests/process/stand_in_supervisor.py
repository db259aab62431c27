"""A supervisor of commands given as JSON: `{"children": [[...], ...], "api": n, "first": [...], "port": n}`."""

import asyncio
import json
import os
import sys
from pathlib import Path

from ledger.listener import open_listener
from ledger.supervisor import Child, Supervisor

API = (sys.executable, str(Path(__file__).with_name("stand_in_api.py")))


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def supervise() -> int:
    plan = json.loads(sys.argv[1])
    listener = open_listener("127.0.0.1", plan["port"]) if "port" in plan else None
    children = [Child(label="child", command=tuple(command)) for command in plan.get("children", [])]
    if listener is not None:
        command = (*API, "--listener", str(listener.fileno()))
        children += [Child(label="API", command=command) for _ in range(plan.get("api", 1))]
    supervisor = Supervisor(
        children=children,
        environ=os.environ,
        listener=listener,
        stop_timeout_s=plan.get("stop_timeout_s", 20.0),
        first_pause_s=0.1,
    )
    first = Child(label="first", command=tuple(plan["first"])) if "first" in plan else None
    return await supervisor.run(on_ready=say_ready, first=first)


if __name__ == "__main__":
    sys.exit(asyncio.run(supervise()))
