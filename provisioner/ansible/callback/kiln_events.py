# SPDX-License-Identifier: Apache-2.0
"""
What kiln wants to know of a play beside its exit code, as lines of JSON in the file $KILN_ANSIBLE_EVENTS:

    {"event": "service", "name": "nginx", "state": "restarted"}     asked for in a guest that is not booted
    {"event": "failed", "task": "wait for it", "message": "..."}
"""
from __future__ import annotations

DOCUMENTATION = """
name: kiln_events
type: aggregate
short_description: Tell kiln which services a play started, and what failed
description: Used by kiln's provisioners "ansible" and "ansible-local".
author: kiln
"""

import json
import os

from ansible.plugins.callback import CallbackBase

SERVICE_MODULES = ("service", "systemd", "systemd_service", "sysvinit", "openrc", "runit")
STATES = ("started", "restarted", "reloaded")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kiln_events"
    CALLBACK_NEEDS_ENABLED = True

    def _tell(self, event):
        path = os.environ.get("KILN_ANSIBLE_EVENTS")
        if path:
            with open(path, "a") as out:
                out.write(json.dumps(event) + "\n")

    def _service(self, result, arguments):
        name, state = arguments.get("name") or arguments.get("service") or arguments.get("unit"), arguments.get("state")
        if name and state in STATES:
            self._tell({"event": "service", "name": str(name), "state": state})

    def v2_runner_on_ok(self, result):
        if result._task.action.rsplit(".", 1)[-1] not in SERVICE_MODULES:
            return
        # The arguments as templated come back with the result; a loop's, with each item.
        for one in result._result.get("results") or [result._result]:
            arguments = (one.get("invocation") or {}).get("module_args") or {}
            merged = dict(arguments, name=arguments.get("name") or one.get("name"), state=arguments.get("state") or one.get("state"))
            self._service(one, merged)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if ignore_errors:
            return
        found = result._result
        for one in found.get("results") or []:
            if isinstance(one, dict) and one.get("failed"):
                found = one
        message = found.get("msg") or found.get("stderr") or found.get("module_stderr") or ""
        if found.get("msg") == "non-zero return code" and found.get("stderr"):
            message = "%s: %s" % (found["msg"], found["stderr"])
        self._tell({"event": "failed", "task": result._task.get_name(), "message": str(message)[:2000]})

    def v2_runner_on_unreachable(self, result):
        self._tell({"event": "failed", "task": result._task.get_name(), "message": str(result._result.get("msg"))[:2000]})
