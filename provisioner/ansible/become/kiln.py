# SPDX-License-Identifier: Apache-2.0
"""
Becoming another user in a guest of kiln, where every step is root and sudo may not be installed.

It stands in for sudo, su and doas too (kiln lays it under their names before Ansible's own): root stays as it is, anybody
else is become by the guest's su, which keeps the step's environment. Passwords and flags are not needed and not looked at.
"""
from __future__ import annotations

DOCUMENTATION = """
name: kiln
short_description: Become a user in the image that kiln bakes
description: Used by kiln's provisioner "ansible" whatever become_method a play names.
author: kiln
options:
  become_user:
    description: Whom to become.
    default: root
    type: str
    keyword: [{name: become_user}]
    ini: [{section: privilege_escalation, key: become_user}]
    vars: [{name: ansible_become_user}, {name: ansible_sudo_user}, {name: ansible_su_user}]
    env: [{name: ANSIBLE_BECOME_USER}]
  become_exe:
    description: Not looked at.
    type: str
    keyword: [{name: become_exe}]
    vars: [{name: ansible_become_exe}]
  become_flags:
    description: Not looked at.
    type: str
    default: ''
    keyword: [{name: become_flags}]
    vars: [{name: ansible_become_flags}]
  become_pass:
    description: Not looked at.
    type: str
    vars: [{name: ansible_become_password}, {name: ansible_become_pass}]
"""

import shlex

from ansible.plugins.become import BecomeBase


class BecomeModule(BecomeBase):
    name = "kiln"

    def build_become_command(self, cmd, shell):
        super().build_become_command(cmd, shell)
        user = self.get_option("become_user") or "root"
        if not cmd:
            return cmd
        if user == "root":
            return cmd
        return "su -s /bin/sh %s -c %s" % (shlex.quote(user), self._build_success_command(cmd, shell, noexe=True))

    def expect_prompt(self):
        return False
