"""What scripts/bench/wait-for-cloud-init measures. Both contenders reach the API through a counter of their own."""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
from datetime import datetime

from counting_server import KEYS, Server, passing_on

HERE = os.path.dirname(os.path.abspath(__file__))


class Simulated:
    """Stand-in for EC2, Systems Manager and hosts: each runs at once, its agent is online after `online` seconds, its
    result.json is written after `done` seconds. A command ends when the host is done, or its own window is over."""

    def __init__(self, count, online, done):
        self.begun, self.online, self.commands, self.lock = time.time(), online, {}, threading.Lock()
        self.done = {f"i-{number:017x}": done * (0.5 + 0.5 * number / count) for number in range(1, count + 1)}

    def truth(self, host):
        return self.begun + self.done[host]

    def answer(self, _path, headers, body):
        target = headers.get("x-amz-target")
        if target:
            return 200, "application/x-amz-json-1.1", json.dumps(self.ssm(target.split(".")[1], json.loads(body))).encode()
        form = urllib.parse.parse_qs(body.decode())
        action = form["Action"][0]
        ids = [values[0] for key, values in sorted(form.items()) if re.match(r"(InstanceId|Filter\.1\.Value)\.", key)]
        state = "<code>16</code><name>running</name>"
        if action == "DescribeInstances":
            items = "".join(f"<item><instanceId>{i}</instanceId><instanceState>{state}</instanceState></item>" for i in ids)
            inner = f"<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>"
        else:
            ok = "<status>ok</status>"
            inner = "".join(f"<item><instanceId>{i}</instanceId><instanceState>{state}</instanceState><systemStatus>{ok}"
                            f"</systemStatus><instanceStatus>{ok}</instanceStatus></item>" for i in ids)
            inner = f"<instanceStatusSet>{inner}</instanceStatusSet>"
        xml = f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{inner}</{action}Response>'
        return 200, "text/xml", xml.encode()

    def ssm(self, operation, asked):
        now = time.time()
        if operation == "DescribeInstanceInformation":
            online = now - self.begun >= self.online
            ids = asked["Filters"][0]["Values"] if online else []
            return {"InstanceInformationList": [{"InstanceId": i, "PingStatus": "Online"} for i in ids]}
        if operation == "SendCommand":
            with self.lock:
                command = f"00000000-0000-4000-8000-{len(self.commands):012}"
                script = asked["Parameters"]["commands"][0]
                window = re.search(r"-lt (\d+) \]", script)
                self.commands[command] = (now, int(window[1]) if window else 3600, asked["InstanceIds"])
            return {"Command": {"CommandId": command, "Status": "Pending"}}
        if operation == "ListCommandInvocations":
            sent, window, ids = self.commands[asked["CommandId"]]
            return {"CommandInvocations": [self.invocation(i, sent, window, now) for i in ids]}
        if operation == "GetCommandInvocation":
            sent, window, _ = self.commands[asked["CommandId"]]
            return {"Status": self.invocation(asked["InstanceId"], sent, window, now)["Status"]}
        return {}

    def invocation(self, host, sent, window, now):
        # A second for delivery and the way back.
        ends = max(min(self.truth(host), sent + window), sent) + 1
        if now < ends:
            return {"InstanceId": host, "Status": "InProgress", "StatusDetails": "InProgress"}
        finished = ends - 1 >= self.truth(host)
        stage = {"start": self.begun, "finished": self.truth(host) if finished else None, "errors": []}
        status = json.dumps({"v1": {"stage": None if finished else "modules-final", "modules-final": stage}})
        result = json.dumps({"v1": {"errors": []}}) if finished else ""
        output = (f"probe=1\nbinary=/usr/bin/cloud-init\nversion=25.1.4\nboot=b\nfinal=active\nresult={result}\n"
                  f"status={status}\nlong=\nend=1\n")
        plugin = {"Name": "aws:runShellScript", "ResponseCode": 0, "Output": output}
        return {"InstanceId": host, "Status": "Success", "StatusDetails": "Success", "CommandPlugins": [plugin]}


def start_tool(binary, endpoint, ids):
    """Returns a function that waits for its end: verdict time per ID, memory in MiB."""
    folder = tempfile.mkdtemp()
    hosts = {f"host-{number}": {"instance_id": i} for number, i in enumerate(ids)}
    with open(f"{folder}/inventory.json", "w") as file:
        json.dump({"all": {"hosts": hosts, "vars": {"deploy_region": "us-east-1"}}}, file)
    process = subprocess.Popen([binary, "--inventory", "inventory.json", "--report", "report.json", "--timeout", "20m"],
                               cwd=folder, env={**os.environ, **KEYS, "AWS_ENDPOINT_URL": endpoint},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait():
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"the tool ended with {status}, see {folder}"
        report = json.load(open(f"{folder}/report.json"))
        started = datetime.fromisoformat(report["started_at"].replace("Z", "+00:00")).timestamp()
        when = {host["data"]["instance_id"]: started + host["elapsed_ms"] / 1000 for host in report["subjects"]}
        return when, usage.ru_maxrss / 1024

    return wait


def start_people(aws, endpoint, ids):
    path = f"{os.path.dirname(aws)}:{os.environ['PATH']}"
    process = subprocess.Popen([f"{HERE}/people-write.sh", *ids], text=True, stdout=subprocess.PIPE,
                               env={**os.environ, **KEYS, "AWS_ENDPOINT_URL": endpoint, "PATH": path})

    def wait():
        out, _ = process.communicate()
        assert process.returncode == 0, f"people-write.sh ended with {process.returncode}"
        return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}

    return wait


def figures(calls, when, truth):
    late = [when[i] - max(truth[i], 0) for i in truth]
    return {"calls": calls, "median_s": round(statistics.median(late), 1), "worst_s": round(max(late), 1)}


def real(args, count):
    """Hosts whose user data takes 20 s; both contenders watch the same boots."""
    import boto3
    cloud = boto3.client("ec2", endpoint_url=args.endpoint, region_name="us-east-1")
    launched = cloud.run_instances(ImageId="ami-0deb120000b00c0de", InstanceType="t3.micro", MinCount=count, MaxCount=count,
                                   SubnetId=args.subnet, IamInstanceProfile={"Name": "bench"},
                                   UserData="#cloud-config\nruncmd:\n  - sleep 20\n")
    ids = [instance["InstanceId"] for instance in launched["Instances"]]
    ours, theirs = Server(passing_on(args.endpoint)), Server(passing_on(args.endpoint))
    tool = start_tool(f"{args.bin}/wait-for-cloud-init", ours.url, ids)
    people = start_people(args.aws, theirs.url, ids)
    when, mib = tool()
    people_when = people()
    truth = {}
    for i in ids:
        command = [f"{args.bin}/local-cloud", "exec", i, "--", "stat", "-L", "-c", "%.Y", "/run/cloud-init/result.json"]
        truth[i] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    cloud.terminate_instances(InstanceIds=ids)
    return {"hosts": count, "tool": {**figures(ours.counted().total(), when, truth), "mib": round(mib, 1)},
            "people": figures(theirs.counted().total(), people_when, truth)}


def simulated(args, count, online, done, people):
    found = {"hosts": count}
    for name in ["tool", "people"] if people else ["tool"]:
        hosts = Simulated(count, online, done)
        server = Server(hosts.answer)
        ids = list(hosts.done)
        if name == "tool":
            when, mib = start_tool(f"{args.bin}/wait-for-cloud-init", server.url, ids)()
        else:
            when = start_people(args.aws, server.url, ids)()
        # Of a host that was ready before it was asked for, the truth is the begin.
        found[name] = figures(server.counted().total(), when, {i: hosts.truth(i) for i in ids})
        if name == "tool":
            found[name]["mib"] = round(mib, 1)
    return found


def network(args):
    import boto3
    more = {"endpoint_url": args.endpoint, "region_name": "us-east-1"}
    ec2, iam = boto3.client("ec2", **more), boto3.client("iam", **more)
    vpc = ec2.create_vpc(CidrBlock=args.cidr)["Vpc"]["VpcId"]
    args.subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=args.cidr)["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=args.subnet, MapPublicIpOnLaunch={"Value": True})
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                                                     "Principal": {"Service": "ec2.amazonaws.com"}}]}
    iam.create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName="bench", PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
    iam.create_instance_profile(InstanceProfileName="bench")
    iam.add_role_to_instance_profile(InstanceProfileName="bench", RoleName="bench")


def start_up_ms(binary):
    def once():
        begun = time.perf_counter()
        subprocess.run([binary, "--version"], check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - begun) * 1000

    return round(statistics.median(once() for _ in range(21)), 1)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--bin", "--aws"):
        parser.add_argument(name, required=True)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--cidr", default="10.97.0.0/20")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--simulated-only", action="store_true")
    only.add_argument("--real-only", action="store_true")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()

    found = {"bench": "wait-for-cloud-init", "load_average": os.getloadavg()[0],
             "start_up_ms": start_up_ms(f"{args.bin}/wait-for-cloud-init")}
    if not args.real_only:
        found |= {"ready_50": simulated(args, 50, 0, 0, False), "ready_1": simulated(args, 1, 0, 0, False),
                  "booting_20": simulated(args, 20, 10, 60, True), "booting_500": simulated(args, 500, 10, 60, args.all)}
    if not args.simulated_only:
        with open("/dev/null") as nothing:
            up = subprocess.run([f"{args.bin}/local-cloud", "up"], check=True, stdout=subprocess.PIPE, stdin=nothing, text=True)
        exported = dict(re.findall(r"export (\w+)=(\S+)", up.stdout))
        args.endpoint = exported["AWS_ENDPOINT_URL"]
        # For boto3 and for what passes calls on.
        os.environ.update({name: exported[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")})
        network(args)
        found["real_1"] = real(args, 1)
        found["real_many"] = real(args, args.hosts)

    print("| hosts | who | API calls | truth to verdict, median | worst | memory |\n|---|---|---|---|---|---|")
    for name, what in [("ready_1", "1 simulated, ready"), ("ready_50", "50 simulated, ready"),
                       ("booting_20", "20 simulated, booting"), ("booting_500", "500 simulated, booting"),
                       ("real_1", "1 real, booting"), ("real_many", f"{args.hosts} real, booting")]:
        for who in ("tool", "people"):
            if seen := found.get(name, {}).get(who):
                memory = f"{seen['mib']} MiB" if "mib" in seen else ""
                print(f"| {what} | {'wait-for-cloud-init' if who == 'tool' else 'what people write'} | {seen['calls']} "
                      f"| {seen['median_s']} s | {seen['worst_s']} s | {memory} |")
    print(f"\nGoals: at most 6 calls for 50 ready hosts; verdict at most 5 s after the truth; memory flat; start-up below "
          f"50 ms (seen: {found['start_up_ms']} ms). Load of the machine at the begin: {found['load_average']:.1f}.\n")
    print(json.dumps(found))


main()
