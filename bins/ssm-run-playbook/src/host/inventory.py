# Runs on the host, inside ansible-playbook, before it reads anything that may be encrypted: inventory plugins are the first
# that Ansible loads. It reads no inventory.
from __future__ import annotations

import json
import os
import sys

from ansible.plugins.inventory import BaseInventoryPlugin

TOOL = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.append(TOOL)
import decrypted  # noqa: E402

sys.path.remove(TOOL)

DOCUMENTATION = """
name: ssm_run_playbook
short_description: no inventory
description: Remembers what Ansible Vault decrypts, so that it is masked.
options: {}
"""

with open(os.environ["SSM_RUN_PLAYBOOK"], encoding="utf-8") as file:
    decrypted.remember(json.load(file)["decrypted"])


class InventoryModule(BaseInventoryPlugin):
    NAME = "ssm_run_playbook"

    def verify_file(self, path):
        return False
