# What a run leaves on the host that was killed or is over: processes, folders that modules and workers made for
# themselves, and its own files. Only what certainly belongs to it is touched: another Ansible on the host has the same
# kinds of folders, and another run may be waiting for the lock.
import fcntl
import os
import shutil
import signal
import stat
import time

KEEP = 5  # finished runs and bundles that stay for inspection and reuse
ROOMS = ("work", "private")  # Folders that are of use to a run only while it lasts.
SENDING_SECONDS = 3600  # so long a run may take to send its bundle in parts


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


def end_descendants():
    """Ends everything below this process, which adopts orphans."""
    while True:
        left = descendants(os.getpid())
        if not left:
            return
        signal_all(left, signal.SIGKILL)
        reap()
        time.sleep(0.02)


def reap():
    """The processes below this one that have ended, with their statuses."""
    ended = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def remove_folders(room, pids, since):
    """Removes the module server's room, the folders that modules noted there, and those of Ansible's workers, which
    have the number of their process in the name. `pids` are those of the run that were ended."""
    made = []
    if room:
        try:
            with open(room + "/made", encoding="utf-8", errors="surrogateescape") as file:
                made = file.read().splitlines()
        except FileNotFoundError:
            pass  # No module made one, or whoever tidies old files in /tmp took it.
        shutil.rmtree(room, ignore_errors=True)
    for parent in (os.path.join(os.path.expanduser("~"), ".ansible", "tmp"), "/var/tmp", "/tmp"):
        for name in names_in(parent):
            parts = name.split("-")  # ansible-tmp-TIME-PROCESS-RANDOM
            if name.startswith("ansible-tmp-") and len(parts) == 5 and parts[3] in pids:
                made.append(os.path.join(parent, name))
    for path in made:
        try:
            found = os.lstat(path)
        except OSError:
            continue  # Who made it has tidied it away meanwhile.
        # An older one is of another process that had the number.
        if stat.S_ISDIR(found.st_mode) and found.st_mtime >= since - 1:
            shutil.rmtree(path, ignore_errors=True)


def names_in(folder):
    """What is in a folder, which others may remove at any time."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def prune(base, folder, bundle):
    """Removes what earlier runs left in `base`: all but the newest of them, and of those what only they needed. The run
    in `folder`, which calls this, holds the host's lock; others may be at their beginning, or wait for it."""
    for room, inner in (("runs", ROOMS + ("request.json",)), ("bundles", ())):
        room = os.path.join(base, room)
        old = [path for path in inside(room) if path not in (folder, bundle) and not is_held(path)]
        old.sort(key=changed, reverse=True)
        for path in old[KEEP - 1:]:
            remove(path)
        for path in old[: KEEP - 1]:
            for name in inner:
                remove(os.path.join(path, name))
    for path in inside(os.path.join(base, "incoming")):
        if changed(path) < time.time() - SENDING_SECONDS:
            remove(path)


def inside(folder):
    return [os.path.join(folder, name) for name in names_in(folder)]


def is_held(folder):
    """Whether a process of that run is alive: from its script's first line on it holds its folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True  # Somebody else has just removed it.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def changed(path):
    """When it changed; of what its own run has just removed, now."""
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return time.time()


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
