"""What scripts/bench/ssm-run-playbook measures. The tool reaches the API through a counter."""

import argparse
import base64
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time

from counting_server import KEYS, Server, passing_on

FOLDER = "/etc/bench"
# As people set it who care for speed; pipelining besides.
SSH = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "0", "LC_ALL": "C.UTF-8",
       "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s"}


def spent(server):
    calls = server.counted()
    polls = calls.pop("ListCommandInvocations", 0)
    return {"calls": calls.total(), "polls": polls, **calls}


class Simulated:
    """Stand-in for Systems Manager and hosts that have the bundle: every run ends a second after it was sent, something
    changed, and its events and log fill the 24,000 characters that GetCommandInvocation returns."""

    def __init__(self):
        self.commands, self.lock = {}, threading.Lock()
        event = {"e": "result", "status": "changed", "task": "t", "module": "copy", "file": None, "line": None, "ms": 7}
        noise = base64.b64encode(os.urandom(8_000)).decode()
        self.events = self.pack(json.dumps({**event, "message": noise}) + "\n")
        self.log = self.pack(base64.b64encode(os.urandom(7_500)).decode())
        stats = {"ok": 1, "changed": 1, "failures": 0, "skipped": 0, "unreachable": 0, "rescued": 0, "ignored": 0}
        recap = {"state": "done", "rc": 0, "ms": 900, "stats": stats, "tasks": 1}
        for name, packed in (("events", self.events), ("log", self.log)):
            recap[name] = [len(packed), hashlib.sha256(packed.encode()).hexdigest()]
        line = "ssm-run-playbook/1 " + json.dumps(recap)
        self.output = f"{line}\nevents {self.events}\nlog {self.log}\n"
        assert 20_000 < len(self.output) < 24_000, len(self.output)

    @staticmethod
    def pack(text):
        return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

    def answer(self, _path, headers, body):
        answer = self.ssm(headers["x-amz-target"].split(".")[1], json.loads(body))
        return 200, "application/x-amz-json-1.1", json.dumps(answer).encode()

    def ssm(self, operation, asked):
        if operation == "DescribeInstanceInformation":
            ids = asked["Filters"][0]["Values"]
            return {"InstanceInformationList": [{"InstanceId": i, "PingStatus": "Online"} for i in ids]}
        if operation == "SendCommand":
            with self.lock:
                command = f"00000000-0000-4000-8000-{len(self.commands):012}"
                self.commands[command] = (time.time(), asked["InstanceIds"])
            return {"Command": {"CommandId": command, "Status": "Pending"}}
        if operation == "ListCommandInvocations":
            sent, ids = self.commands[asked["CommandId"]]
            ended = time.time() - sent > 1
            status = "Success" if ended else "InProgress"
            plugin = {"Name": "aws:runShellScript", "ResponseCode": 0, "Output": self.output[:2_500] if ended else ""}
            return {"CommandInvocations": [{"InstanceId": i, "Status": status, "StatusDetails": status,
                                            "CommandPlugins": [plugin]} for i in ids]}
        if operation == "GetCommandInvocation":
            return {"Status": "Success", "StandardOutputContent": self.output, "StandardErrorContent": ""}
        return {}


def playbook(folder, tasks):
    """A role with a mix of what roles do; every run finds a clean folder."""
    kinds = [
        lambda n: {"ansible.builtin.file": {"path": f"{FOLDER}/dir-{n}", "state": "directory", "mode": "0755"}},
        lambda n: {"ansible.builtin.copy": {"dest": f"{FOLDER}/file-{n}", "content": f"number {n}\n", "mode": "0644"}},
        lambda n: {"ansible.builtin.command": {"cmd": f"touch {FOLDER}/command-{n}", "creates": f"{FOLDER}/command-{n}"}},
        lambda n: {"ansible.builtin.lineinfile": {"path": f"{FOLDER}/lines", "line": f"line {n}", "create": True, "mode": "0644"}},
    ]
    os.makedirs(f"{folder}/roles/bench/tasks", exist_ok=True)
    os.makedirs(f"{folder}/playbooks", exist_ok=True)
    play = {"hosts": "all", "gather_facts": False, "vars": {"ansible_python_interpreter": "/usr/bin/python3"}}
    for count in {tasks, 10, 1}:
        mixed = [{"name": f"Task {n}", **kinds[n % 4](n)} for n in range(count)]
        write(f"{folder}/playbooks/tasks-{count}.yml", [{**play, "tasks": mixed}])
    waiting = [{"name": "Wait", "ansible.builtin.command": "sleep 30", "changed_when": False}]
    write(f"{folder}/playbooks/wait.yml", [{**play, "tasks": waiting}])


def write(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


def timed(command, **more):
    begun = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    seconds = time.perf_counter() - begun
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
    return seconds


class Tool:
    """Runs the tool on some hosts; returns seconds and MiB."""

    def __init__(self, args, folder, endpoint):
        self.binary, self.folder, self.endpoint = f"{args.bin}/ssm-run-playbook", folder, endpoint

    def __call__(self, ids, name, *more):
        hosts = {f"host-{number}": {"instance_id": i} for number, i in enumerate(ids)}
        write(f"{self.folder}/inventory.json", {"all": {"hosts": hosts, "vars": {"deploy_region": "us-east-1"}}})
        with open(f"{self.folder}/said", "w+", encoding="utf-8") as said:
            begun = time.perf_counter()
            process = subprocess.Popen(
                [self.binary, "--inventory", "inventory.json", "--ansible-dir", "ansible", *more, f"playbooks/{name}.yml"],
                cwd=self.folder, env={**os.environ, **KEYS, "AWS_ENDPOINT_URL": self.endpoint}, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begun
            said.seek(0)
            assert status == 0, f"the tool ended with {status}: {said.read()}"
        return seconds, usage.ru_maxrss / 1024


def network(args, cloud, iam):
    vpc = cloud.create_vpc(CidrBlock=args.cidr)["Vpc"]["VpcId"]
    subnet = cloud.create_subnet(VpcId=vpc, CidrBlock=args.cidr)["Subnet"]["SubnetId"]
    cloud.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    gateway = cloud.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    cloud.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    tables = cloud.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    cloud.create_route(RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                                                     "Principal": {"Service": "ec2.amazonaws.com"}}]}
    iam.create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName="bench", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.create_instance_profile(InstanceProfileName="bench")
    iam.add_role_to_instance_profile(InstanceProfileName="bench", RoleName="bench")
    return subnet


class Cloud:
    """A rehearsal cloud of the benchmark's own."""

    def __init__(self, args):
        import boto3
        up = subprocess.run([f"{args.bin}/local-cloud", "up"], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.args, exported = args, dict(re.findall(r"export (\w+)=(\S+)", up.stdout))
        self.endpoint = exported["AWS_ENDPOINT_URL"]
        # For what passes calls on to it.
        os.environ.update({name: exported[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")})
        more = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        self.ec2, self.ssm = boto3.client("ec2", **more), boto3.client("ssm", **more)
        self.subnet = network(args, self.ec2, boto3.client("iam", **more))

    def launch(self, count):
        """Boots hosts and returns their IDs once every agent is online and every boot is over."""
        launched = self.ec2.run_instances(ImageId=self.args.image, InstanceType="t3.micro", MinCount=count, MaxCount=count,
                                          SubnetId=self.subnet, IamInstanceProfile={"Name": "bench"})
        ids = [instance["InstanceId"] for instance in launched["Instances"]]
        pages = self.ssm.get_paginator("describe_instance_information")
        while True:
            found = [one for page in pages.paginate(Filters=[{"Key": "InstanceIds", "Values": ids}]) for one in page["InstanceInformationList"]]
            online = sum(one["PingStatus"] == "Online" for one in found)
            if online == count and all(on_host(self.args, i, "test -e /run/cloud-init/result.json") == 0 for i in ids):
                return ids
            time.sleep(1)


def on_host(args, host, command):
    return subprocess.run([f"{args.bin}/local-cloud", "exec", host, "--", "sh", "-c", command], capture_output=True).returncode


@contextlib.contextmanager
def quiet(found, name):
    """While somebody measures, nobody else computes, and what booting hosts left to do is over."""
    with contextlib.ExitStack() as held:
        if path := os.environ.get("QUIET"):
            fcntl.flock(held.enter_context(open(path, "w")), fcntl.LOCK_EX)
        until = time.time() + 90
        while os.getloadavg()[0] > 1 and time.time() < until:
            time.sleep(2)
        found[name] = round(os.getloadavg()[0], 1)
        yield


def real(args, found):
    folder = tempfile.mkdtemp()
    playbook(f"{folder}/ansible", args.tasks)
    cloud = Cloud(args)
    first = cloud.launch(1)
    server = Server(passing_on(cloud.endpoint))
    tool = Tool(args, folder, server.url)
    runner, target = f"{args.ssh}-runner", f"{args.ssh}-target"
    exec_in = [f"{args.bin}/local-cloud", "exec", first[0], "--"]
    # The host has the same files where the local connection looks for them.
    archive = subprocess.run(["tar", "-C", folder, "-c", "ansible"], check=True, capture_output=True).stdout
    encoded = base64.b64encode(archive).decode()
    subprocess.run([*exec_in, "sh", "-c", f"echo {encoded} | base64 -d | tar -C /root -x"], check=True)
    subprocess.run(["docker", "cp", f"{folder}/ansible", f"{runner}:/root/ansible"], check=True, capture_output=True)
    more = [f"-e{key}={value}" for key, value in SSH.items()]

    def clean():
        subprocess.run([*exec_in, "sh", "-c", f"rm -rf {FOLDER}; mkdir {FOLDER}"], check=True)
        subprocess.run(["docker", "exec", target, "sh", "-c", f"rm -rf {FOLDER}; mkdir {FOLDER}"], check=True)

    def ssh(name):
        # A connection of its own for each run, as in CI.
        subprocess.run(["docker", "exec", runner, "sh", "-c", "rm -rf /root/.ansible"], check=True)
        return timed(["docker", "exec", *more, runner, "ansible-playbook", "-i", f"{target},", "-u", "root", f"/root/ansible/playbooks/{name}.yml"])

    def local(name):
        return timed([*exec_in, "env", "ANSIBLE_PIPELINING=1", "LC_ALL=C.UTF-8", "ansible-playbook", "-i", "localhost,", "-c", "local",
                      f"/root/ansible/playbooks/{name}.yml"])

    def ours(name):
        return tool(first, name)[0]

    clean()
    ours("tasks-1")
    seen = {}
    with quiet(found, "load_one"):
        for _ in range(args.rounds):
            for name, who, run in [(f"tasks-{args.tasks}", "ssh", ssh), (f"tasks-{args.tasks}", "local", local),
                                   (f"tasks-{args.tasks}", "ours", ours)] + [("tasks-1", "local", local), ("tasks-1", "ours", ours)] * 3:
                clean()
                seen.setdefault((name, who), []).append(run(name))
                if who == "ours":
                    found["calls"] = spent(server)
    ids = first + cloud.launch(args.hosts - 1)
    with quiet(found, "load_many"):
        found["one_waiting_s"] = [ours("wait")]
        found["many_waiting_s"] = [tool(ids, "wait")[0]]
        found["one_10_tasks_s"] = [ours("tasks-10")]
        spent(server)
        found["many_10_tasks_s"] = [tool(ids, "tasks-10")[0]]
        found["calls_many"] = spent(server)
    for (name, who), seconds in seen.items():
        found[f"{name}_{who}_s"] = [round(one, 2) for one in seconds]


def simulated(args):
    folder = tempfile.mkdtemp()
    playbook(f"{folder}/ansible", 100)
    server = Server(Simulated().answer)
    tool = Tool(args, folder, server.url)
    found = {}
    for count in (1, 20, 200):
        seconds, mib = tool([f"i-{number:017x}" for number in range(1, count + 1)], "tasks-100", "--log-dir", "logs")
        found[f"simulated_{count}"] = {"s": round(seconds, 2), "mib": round(mib, 1), **spent(server)}
    return found


def start_up_ms(binary):
    def once():
        begun = time.perf_counter()
        subprocess.run([binary, "--version"], check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - begun) * 1000

    return round(statistics.median(once() for _ in range(21)), 1)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--bin", "--image", "--ssh"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--cidr", default="10.98.0.0/20")
    parser.add_argument("--simulated-only", action="store_true")
    args = parser.parse_args()

    found = {"processors": os.cpu_count(), "start_up_ms": start_up_ms(f"{args.bin}/ssm-run-playbook"), **simulated(args)}
    if not args.simulated_only:
        real(args, found)

    def row(what, who, seconds):
        middle, spread = statistics.median(seconds), max(seconds) - min(seconds)
        print(f"| {what} | {who} | {middle:.1f} s | {spread:.1f} s | {len(seconds)} |")
        return middle

    ratios, figures = {}, {"start_up_ms": found["start_up_ms"], "memory_200_hosts_mib": found["simulated_200"]["mib"]}
    if not args.simulated_only:
        many = f"{args.tasks} tasks"
        big = {who: f"tasks-{args.tasks}_{who}_s" for who in ("ssh", "local", "ours")}
        print("| play | how | median | spread | runs |\n|---|---|---|---|---|")
        ssh = row(many, "ansible-playbook over SSH, pipelining and ControlPersist", found[big["ssh"]])
        local = row(many, "`-c local` on the host", found[big["local"]])
        ours = row(many, "ssm-run-playbook, all included", found[big["ours"]])
        one_local = row("1 task", "`-c local` on the host", found["tasks-1_local_s"])
        one_ours = row("1 task", "ssm-run-playbook, all included", found["tasks-1_ours_s"])
        hosts = f"{args.hosts} hosts"
        waits = [row("waits 30 s", who, found[key]) for who, key in (("1 host", "one_waiting_s"), (hosts, "many_waiting_s"))]
        works = [row("10 tasks", who, found[key]) for who, key in (("1 host", "one_10_tasks_s"), (hosts, "many_10_tasks_s"))]
        ratios = {"ours/ssh": round(ours / ssh, 2), "ours/local": round(ours / local, 2), "local/ssh": round(local / ssh, 2),
                  "many/one, waiting": round(waits[1] / waits[0], 2), "many/one, working": round(works[1] / works[0], 2)}
        figures.update({"overhead_1_task_s": round(one_ours - one_local, 2), "overhead_all_tasks_s": round(ours - local, 2),
                        "calls": found["calls"], "calls_many": found["calls_many"]})
        print(f"\nOver one task ours takes {one_ours - one_local:.1f} s longer than `-c local`, over {args.tasks} {ours - local:.1f} s. "
              f"Calls of one run: {found['calls']['calls']} and {found['calls']['polls']} polls; of {args.hosts} hosts: "
              f"{found['calls_many']['calls']} and {found['calls_many']['polls']} polls. {found['processors']} processors, load of the "
              f"machine before: {found['load_one']} and {found['load_many']}.")
    print("\n| simulated hosts, 22 KB each | time | memory | calls | polls |\n|---|---|---|---|---|")
    for count in (1, 20, 200):
        seen = found[f"simulated_{count}"]
        print(f"| {count} | {seen['s']} s | {seen['mib']} MiB | {seen['calls']} | {seen['polls']} |")
    print(f"\nGoals: {args.tasks} tasks in at most 0.6 of SSH's time; overhead at most 3 s and the same for every number of tasks; 20 hosts in "
          f"at most 1.3 of one's time where processors allow; at most 4 calls and the polls; 50 MB with 200 hosts; start-up below 20 ms "
          f"(seen: {found['start_up_ms']} ms).\n")
    print(json.dumps({"bench": "ssm-run-playbook", "ratios": ratios, "figures": figures}))


main()
