# SPDX-License-Identifier: Apache-2.0
"""
Ansible's way into a guest of kiln: a unix socket, behind which provisioner/ansible-server.c asks the guest's runner.

One request a connection, so that whatever worker process a task runs in needs no state:

    request    u32 size of head, u32 size of body (big-endian), head (JSON), body
               {"op": "exec", "command": TEXT}              body: standard input
               {"op": "put", "from": HOST, "to": GUEST}     kiln, the same user on the same machine, reads the file itself
               {"op": "get", "from": GUEST, "to": HOST}
    answer     the same shape: {"code": N, "out": N} with standard output (that many bytes) and error, {}, or {"error": TEXT}
"""
from __future__ import annotations

DOCUMENTATION = """
name: kiln
short_description: Run tasks in the image that kiln bakes
description: Used by kiln's provisioner "ansible" for every host of a play.
author: kiln
options:
  pipelining:
    description: Modules go to the interpreter's standard input. There is no other way that would be faster.
    type: bool
    default: true
    env: [{name: ANSIBLE_PIPELINING}]
  socket:
    description: Where kiln listens.
    type: str
    env: [{name: KILN_ANSIBLE_SOCKET}]
"""

import json
import os
import shlex
import socket
import struct

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase


DRAIN = " && sleep 0"


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _text(data):
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def _plain(command):
    """Without the shell around it, since kiln's own is one, and without the moment that Ansible gives a terminal to drain."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if len(words) == 3 and words[:2] == ["/bin/sh", "-c"]:
        command = words[2]
    return command[:-len(DRAIN)] if command.endswith(DRAIN) else command


def _receive(link, size):
    parts = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            raise AnsibleConnectionFailure("kiln ended the connection: the guest or the bake is over")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Connection(ConnectionBase):
    transport = "kiln"
    has_pipelining = True
    # Steps run as root; how a user is become is kiln's own become plugin's business.
    become_methods = frozenset(["kiln", "sudo", "su", "doas"])

    def _connect(self):
        self._connected = True
        return self

    def _ask(self, head, body=b""):
        text = json.dumps(head).encode()
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(os.environ["KILN_ANSIBLE_SOCKET"])
                link.sendall(struct.pack(">II", len(text), len(body)) + text + body)
                sizes = struct.unpack(">II", _receive(link, 8))
                answer, data = json.loads(_receive(link, sizes[0])), _receive(link, sizes[1])
        except (OSError, KeyError) as problem:
            raise AnsibleConnectionFailure("kiln does not answer: %s" % problem)
        if "error" in answer:
            raise AnsibleConnectionFailure(answer["error"])
        return answer, data

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        answer, data = self._ask({"op": "exec", "command": _plain(_text(cmd))}, _bytes(in_data or b""))
        return answer["code"], data[:answer["out"]], data[answer["out"]:]

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound("file or module does not exist: %s" % _text(in_path))
        self._copy({"op": "put", "from": os.path.abspath(_text(in_path)), "to": self._absolute(out_path)})

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        self._copy({"op": "get", "from": self._absolute(in_path), "to": os.path.abspath(_text(out_path))})

    def _copy(self, request):
        try:
            self._ask(request)
        except AnsibleConnectionFailure as problem:
            raise AnsibleError(str(problem))  # a failed task, not a guest that is gone

    @staticmethod
    def _absolute(path):
        path = _text(path)
        return path if path.startswith("/") else os.path.join("/root", path)

    def close(self):
        self._connected = False
