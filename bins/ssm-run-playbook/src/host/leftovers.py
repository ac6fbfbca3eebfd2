# What a run that was killed leaves on the host: processes, and folders that modules and workers made for themselves.
# Only what certainly belongs to the run is touched: another Ansible on the host has the same kinds.
import os
import shutil


def descendants(root):
    """Every process below root, by asking /proc."""
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # It ended while we looked.
        children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def remove_folders(room, pids, since):
    """Removes the module server's room, the folders that modules noted there, and those of Ansible's workers, which
    have the number of their process in the name. `pids` are those of the run that were ended."""
    made = []
    if room:
        if os.path.exists(room + "/made"):
            with open(room + "/made", encoding="utf-8", errors="surrogateescape") as file:
                made = file.read().splitlines()
        shutil.rmtree(room, ignore_errors=True)
    for parent in (os.path.join(os.path.expanduser("~"), ".ansible", "tmp"), "/var/tmp", "/tmp"):
        for name in os.listdir(parent) if os.path.isdir(parent) else []:
            parts = name.split("-")  # ansible-tmp-TIME-PROCESS-RANDOM
            if name.startswith("ansible-tmp-") and len(parts) == 5 and parts[3] in pids:
                made.append(os.path.join(parent, name))
    for path in made:
        # An older one is of another process that had the number.
        if not os.path.islink(path) and os.path.isdir(path) and os.lstat(path).st_mtime >= since - 1:
            shutil.rmtree(path, ignore_errors=True)
