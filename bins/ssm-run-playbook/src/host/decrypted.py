# Runs on the host, inside ansible-playbook: remembers what Ansible Vault decrypts, so that it is masked like every other
# secret. Ansible decrypts in its workers too, so the values go to a file that only root can read and that goes with the
# run.
import json
import os

from references import masks


def remember(path):
    """Lets every decryption of this process and of its workers write what it gave to `path`."""
    from ansible.parsing.vault import VaultLib

    usual = VaultLib.decrypt_and_get_vault_id
    if getattr(usual, "ssm_run_playbook", False):
        return
    known = set()

    def remembered(*arguments, **named):
        answer = usual(*arguments, **named)
        if answer[0] not in known:
            known.add(answer[0])
            keep(path, answer[0])
        return answer

    remembered.ssm_run_playbook = True
    VaultLib.decrypt_and_get_vault_id = remembered


def keep(path, data):
    """Adds the masks of a decrypted value, or of a decrypted file, as one line."""
    line = json.dumps(masks(secrets_in(data.decode("utf-8", "surrogateescape")))) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb", 0) as file:
        file.write(line.encode())  # In one piece: workers write at the same time.


def secrets_in(text):
    """The values of a file of variables; of a file of tasks those without their names; any other text as it is."""
    try:
        import yaml

        tree = yaml.load(text, Loader=loader(yaml))
    except Exception:  # No YAML, or YAML that only Ansible understands: the text itself, line by line.
        return [text]
    if isinstance(tree, dict):
        return [tree]
    if isinstance(tree, list) and all(isinstance(one, dict) for one in tree):
        return [{key: value for key, value in one.items() if key != "name"} for one in tree]
    return [text]


def loader(yaml):
    """Reads Ansible's own tags as the plain values below them, and dates as text."""

    class Loader(yaml.BaseLoader):
        def plain(self, _, node):
            if isinstance(node, yaml.MappingNode):
                return self.construct_mapping(node, deep=True)
            if isinstance(node, yaml.SequenceNode):
                return self.construct_sequence(node, deep=True)
            return "" if node.value.startswith("$ANSIBLE_VAULT") else self.construct_scalar(node)

    Loader.add_multi_constructor("", Loader.plain)
    return Loader


class Masks:
    """What must not be shown: what is known from the start, and what was decrypted since."""

    def __init__(self, first, path):
        self.texts, self.path, self.read = list(first), path, 0

    def all(self):
        """The longest first."""
        if self.path and os.path.exists(self.path) and os.path.getsize(self.path) > self.read:
            with open(self.path, "rb") as file:
                file.seek(self.read)
                lines = file.read().rpartition(b"\n")[0]
            self.read += len(lines) + bool(lines)
            more = {text for line in lines.splitlines() for text in json.loads(line.decode())}
            self.texts = sorted(more.union(self.texts), key=len, reverse=True)
        return self.texts

