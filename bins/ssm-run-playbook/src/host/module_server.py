# Runs Ansible's modules without starting a Python for each: most of what a small task costs is Python's start, its
# imports, and compiling the module's helpers, which come as source in every task. One Python that has imported the
# standard library's part forks for each module, and keeps what was compiled for the next one.
#
# Only what Ansible would pipe into exactly the interpreter that this server is comes here; everything else (become,
# environment, async, raw, other interpreters) goes its usual way.
import atexit
import gc
import hashlib
import importlib
import io
import json
import marshal
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import types

# Of the standard library, what most modules import. Missing ones are none of our business.
PRELOAD = """__future__ abc argparse ast atexit base64 bz2 collections.abc configparser contextlib copy csv dataclasses datetime decimal
difflib email.utils enum errno fcntl filecmp fnmatch functools getpass glob grp gzip hashlib hmac html http.client importlib.util
inspect io ipaddress itertools json locale logging lzma math multiprocessing numbers operator os pathlib pickle pkgutil platform
pprint pwd queue random re runpy secrets select selectors shlex shutil signal socket ssl stat string struct subprocess sys syslog
tarfile tempfile textwrap threading time traceback types typing unicodedata urllib.error urllib.parse urllib.request uuid
warnings xml.etree.ElementTree zipfile zipimport zlib""".split()
LENGTH = struct.Struct("!I")
FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


# --- In Ansible ------------------------------------------------------------------------------------------------------


def use(loader, path, python):
    """Lets Ansible's local connection ask the server at `path` for what it would pipe into `python`."""
    ours = "/bin/sh -c '%s && sleep 0'" % python
    for name in ("ansible.builtin.local", "ansible.legacy.local"):
        plugin = loader.get(name, class_only=True)
        if getattr(plugin, "ssm_run_playbook", False):
            continue
        plugin.ssm_run_playbook = True
        plugin.exec_command = wrapped(plugin.exec_command, path, ours)


def wrapped(usual, path, ours):
    def exec_command(connection, cmd, in_data=None, sudoable=True):
        if in_data is None or cmd != ours:
            return usual(connection, cmd, in_data=in_data, sudoable=sudoable)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(path)
        except OSError:  # It was ended, perhaps for want of memory.
            server.close()
            return usual(connection, cmd, in_data=in_data, sudoable=sudoable)
        with server:
            answer = ask(server, in_data, os.fsdecode(connection.cwd or os.getcwd()))
        if answer is None:  # It ended before it had taken the module.
            return usual(connection, cmd, in_data=in_data, sudoable=sudoable)
        return answer

    return exec_command


def ask(server, program, folder):
    """Runs a program and returns its status, stdout and stderr, as the local connection does; None when it has certainly
    not begun."""
    umask = os.umask(0o077)
    os.umask(umask)
    head = json.dumps({"folder": folder, "umask": umask, "environ": dict(os.environ)}).encode()
    # In memory: a pipe would have to be fed while the outputs are read, and the program may hold secrets.
    with os.fdopen(os.memfd_create("program"), "wb") as source:
        source.write(program)
        source.flush()
        source.seek(0)
        (out, out_writer), (err, err_writer) = os.pipe(), os.pipe()
        try:
            socket.send_fds(server, [LENGTH.pack(len(head))], [source.fileno(), out_writer, err_writer])
            server.sendall(head)
            taken = server.recv(1)
        except OSError:
            taken = b""
        finally:
            os.close(out_writer)
            os.close(err_writer)
    if not taken:
        os.close(out)
        os.close(err)
        return None
    texts = {}

    def read(descriptor):
        with os.fdopen(descriptor, "rb") as file:
            texts[descriptor] = file.read()

    other = threading.Thread(target=read, args=(err,))
    other.start()
    read(out)
    other.join()
    answer = server.recv(LENGTH.size, socket.MSG_WAITALL)
    if len(answer) < LENGTH.size:
        return 1, texts[out], texts[err] + b"\nthe process that runs modules ended\n"
    return LENGTH.unpack(answer)[0], texts[out], texts[err]


# --- The server ------------------------------------------------------------------------------------------------------


SUFFIX = ".compiled"
compiled = {}  # The code of what modules import, by the SHA-256 of its name and source.


def learn(folder):
    """Loads what modules have compiled since, so that every later one finds it in its memory."""
    for name in os.listdir(folder):
        if name.endswith(SUFFIX) and name not in compiled:
            with open(os.path.join(folder, name), "rb") as file:
                compiled[name] = marshal.load(file)


def keep_compiled(folder):
    """Modules come as source in a zip archive; what was compiled of it once is never compiled again."""
    import zipimport

    compile_source = getattr(zipimport, "_compile_source", None)
    if compile_source is None:
        return

    def remembered(pathname, source):
        inside = pathname.rpartition(".zip")[2]
        name = hashlib.sha256(inside.encode() + b"\0" + source).hexdigest() + SUFFIX
        if name in compiled:
            return compiled[name]
        compiled[name] = code = compile_source(pathname, source)
        draft = os.path.join(folder, str(os.getpid()))
        try:
            with open(draft, "wb") as file:
                marshal.dump(code, file)
            os.rename(draft, os.path.join(folder, name))
        except OSError:
            pass  # A full disk, perhaps: the next module compiles it again.
        return code

    zipimport._compile_source = remembered


def note_folders(path):
    """Writes down the folders that modules make for themselves: one that is killed cannot remove them."""
    make = tempfile.mkdtemp

    def noted(suffix=None, prefix=None, dir=None):
        folder = make(suffix, prefix, dir)
        name = prefix if isinstance(prefix, str) else ""
        # Ansible's own two kinds; what a task asked for stays.
        if name.startswith("ansible-moduletmp-") or (name.startswith("ansible_") and name.endswith("_payload_")):
            try:
                with open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(os.path.abspath(folder) + "\n")
            except OSError:
                pass  # No module fails for that.
        return folder

    tempfile.mkdtemp = noted


def serve(listener, folder):
    """Returns in the process that shall run a module, with its program."""
    while True:
        client, _ = listener.accept()
        learn(folder)
        # A collection in a child would touch, and so copy, every page that it shares with this process.
        gc.freeze()
        if os.fork():
            client.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        data, given, _, _ = socket.recv_fds(client, LENGTH.size, 3)
        head = json.loads(client.recv(LENGTH.unpack(data)[0], socket.MSG_WAITALL))
        client.sendall(b"!")
        child = os.fork()
        if child == 0:
            client.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return head, given
        for descriptor in given:
            os.close(descriptor)
        status = os.waitpid(child, 0)[1]
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        try:
            client.sendall(LENGTH.pack(code))
        except OSError:
            pass  # Ansible was ended meanwhile.
        os._exit(0)


def become(head, given):
    """Makes this process what a Python with the program on its stdin would be, and returns the program."""
    for number, descriptor in enumerate(given):
        os.dup2(descriptor, number)
    os.closerange(3, 64)
    os.chdir(head["folder"])
    os.umask(head["umask"])
    os.environ.clear()
    os.environ.update(head["environ"])
    sys.argv = [""]
    sys.path[0] = ""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    with open(0, "rb", closefd=False) as file:
        return compile(file.read(), "<stdin>", "exec"), main.__dict__


def main():
    if not hasattr(socket, "recv_fds"):
        return  # Older than Python 3.9: modules go Ansible's usual way.
    descriptor, folder = sys.argv[1:3]
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    keep_compiled(folder)
    note_folders(folder + "/made")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Of the server itself there is nothing to tidy up.
    program, names = become(*serve(socket.socket(fileno=int(descriptor)), folder))
    run(program, names)


def run(program, names):
    """Runs a program to the end of this process, as Python would, but for the last step: taking apart all that was imported
    would touch, and so copy, every page that this process shares with the server."""
    code = 0
    try:
        exec(program, names)
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        threading._shutdown()  # Waits for threads.
        atexit._run_exitfuncs()
        # A collection may end a file before the text that is to be written to it.
        left_open = [thing for thing in gc.get_objects() if type(thing) in FILES]
        for file in [sys.stdout, sys.stderr] + left_open:
            if file and not file.closed and file.writable():
                file.flush()
        gc.collect()  # What closes or removes itself when nobody uses it any more.
    except (OSError, ValueError):
        code = 120  # Python's status when its last words cannot be written.
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
