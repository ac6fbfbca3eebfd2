#!/usr/bin/env python3
"""Writes ec2.tsv, query.tsv and json.tsv beside this file: what AWS's service models say of a request's form.

    python3 generate.py [FOLDER OF BOTOCORE]

They come from botocore's service models, those of the moto that the rehearsal cloud installs. One operation a line,
columns separated by tabs; src/model.rs reads them and says what each column is.
"""

import gzip
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent

# Signing name → folders of botocore's data.
QUERY = {
    "autoscaling": ["autoscaling"],
    "elasticache": ["elasticache"],
    "elasticloadbalancing": ["elb", "elbv2"],
    "iam": ["iam"],
    "monitoring": ["cloudwatch"],
    "rds": ["rds"],
    "sns": ["sns"],
    "sqs": ["sqs"],
    "sts": ["sts"],
}
JSON = {
    "acm": ["acm"],
    "dynamodb": ["dynamodb"],
    "ecs": ["ecs"],
    "events": ["events"],
    "kms": ["kms"],
    "logs": ["logs"],
    "monitoring": ["cloudwatch"],
    "secretsmanager": ["secretsmanager"],
    "sqs": ["sqs"],
    "ssm": ["ssm"],
    "tagging": ["resourcegroupstaggingapi"],
}
LETTERS = {"string": "s", "boolean": "b", "list": "l", "map": "m", "structure": "m", "blob": "s", "timestamp": "t"}
NUMBERS = {"integer", "long", "float", "double"}
# Bounds that only the prose says (API references), or that the model's are wider than.
BOUNDS = {
    "GetResources": (1, 100),
    "ListSecrets": (1, 100),
    "DescribeAutoScalingGroups": (1, 100),
    "DescribeLaunchTemplateVersions": (1, 200),
}
# Ids that EC2 refuses together with MaxResults although its prose does not say so (aws-cli issue 1976).
NOT_WITH = {"DescribeVolumes": "VolumeId"}
SIZES = ("MaxResults", "maxResults", "MaxItems", "MaxRecords", "PageSize", "limit", "Limit", "ResourcesPerPage")


def model(data, folder):
    version = sorted(path for path in (data / folder).iterdir() if path.is_dir())[-1]

    def read(name):
        packed = version / f"{name}.json.gz"
        if packed.exists():
            return json.loads(gzip.decompress(packed.read_bytes()))
        plain = version / f"{name}.json"
        return json.loads(plain.read_text()) if plain.exists() else {}

    return read("service-2"), read("paginators-1").get("pagination", {})


def members(service, operation, side):
    shape = operation.get(side, {}).get("shape")
    found = service["shapes"].get(shape, {})
    return found.get("members", {}), found.get("required", [])


def query_name(name, member):
    if "queryName" in member:
        return member["queryName"]
    wire = member.get("locationName", name)
    return wire[0].upper() + wire[1:]


def bounds(service, member):
    shape = service["shapes"][member["shape"]]
    text = re.sub("<[^>]+>", "", member.get("documentation", ""))
    low, high = shape.get("min"), shape.get("max")
    if low is None or high is None:
        said = re.search(r"between ([\d,]+) and ([\d,]+)", text) or re.search(r"between ([\d,]+) to ([\d,]+)", text)
        if said:
            low, high = (int(part.replace(",", "")) for part in said.groups())
    return low, high


def filters(service, inputs):
    """The names that the documentation of `Filters` lists; none where it lists none."""
    member = inputs.get("Filters") or inputs.get("Filter")
    if not member:
        return []
    text = member.get("documentation", "")
    names = re.findall(r"<li>\s*<p>\s*<code>([^<]+)</code>", text)
    found = []
    for name in names:
        name = name.replace("&lt;", "<").replace("&gt;", ">").strip()
        name = re.sub(r"^tag(?::|\s*:\s*)<.*>$", "tag:", name)
        name = re.sub(r"^tag:.*$", "tag:", name)
        if re.fullmatch(r"[a-zA-Z0-9.:_-]+", name) and name not in found:
            found.append(name)
    return found


def ec2(data):
    service, paginators = model(data, "ec2")
    for name, operation in sorted(service["operations"].items()):
        inputs, required = members(service, operation, "input")
        outputs, _ = members(service, operation, "output")
        dry = "dry" if "DryRun" in inputs else "-"
        needed = [query_name(field, inputs[field]) for field in required]
        page = "-"
        size, pager = inputs.get("MaxResults"), paginators.get(name)
        lists = [field for field, member in outputs.items() if service["shapes"][member["shape"]]["type"] == "list"]
        if size and "NextToken" in inputs and (pager or len(lists) == 1):
            keys = (pager or {}).get("result_key", lists)
            key = keys[0] if isinstance(keys, list) else keys
            if key in outputs:
                low, high = BOUNDS.get(name) or bounds(service, size)
                text = re.sub("<[^>]+>", "", size.get("documentation", ""))
                ids = NOT_WITH.get(name, "-")
                if re.search(r"cannot specify this parameter and", text):
                    lists = [
                        field
                        for field, member in inputs.items()
                        if field.endswith("Ids") and service["shapes"][member["shape"]]["type"] == "list"
                    ]
                    ids = query_name(lists[0], inputs[lists[0]]) if lists else "-"
                page = f"{low or 5}:{high or 1000}:{outputs[key].get('locationName', key)}:{ids}"
        named = filters(service, inputs)
        yield "\t".join([name, dry, ",".join(needed) or "-", page, ",".join(named) or "-"])


def json_type(service, member):
    kind = service["shapes"][member["shape"]]["type"]
    return "n" if kind in NUMBERS else LETTERS[kind]


def paging(service, paginators, name, inputs):
    """Of lists whose token is a text; a log's events and a table's rows are read on in ways of their own."""
    pager = paginators.get(name)
    if not pager or isinstance(pager.get("output_token"), list):
        return "-"
    if not name.startswith(("Describe", "List", "GetResources", "GetTag", "GetParameter")):
        return "-"
    if service["shapes"][inputs[pager["input_token"]]["shape"]]["type"] != "string":
        return "-"
    key = pager.get("result_key")
    key = key[0] if isinstance(key, list) else key
    size = pager.get("limit_key") or next((known for known in SIZES if known in inputs), None)
    if not key or not size or size not in inputs:
        return "-"
    low, high = BOUNDS.get(name) or bounds(service, inputs[size])
    token_in, token_out = pager["input_token"], pager["output_token"]
    token_out = token_out.split(" || ")[0]
    return ":".join([size, str(low or 1), str(high or 1000), token_in, token_out, key, pager.get("more_results", "")])


def others(data, services, with_members):
    for signing, folders in sorted(services.items()):
        for folder in folders:
            service, paginators = model(data, folder)
            protocol = service["metadata"].get("protocols", [service["metadata"]["protocol"]])
            if with_members and not any(p.startswith("json") for p in protocol):
                continue
            for name, operation in sorted(service["operations"].items()):
                inputs, required = members(service, operation, "input")
                columns = [signing, name]
                if with_members:
                    fields = [
                        f"{'!' if field in required else ''}{field}:{json_type(service, member)}"
                        for field, member in inputs.items()
                    ]
                else:
                    fields = [query_name_plain(field, inputs[field]) for field in required]
                columns += [",".join(fields) or "-", paging(service, paginators, name, inputs)]
                yield "\t".join(columns)


def query_name_plain(name, member):
    return member.get("locationName", name)


def main():
    if len(sys.argv) > 1:
        botocore = Path(sys.argv[1])
    else:
        import botocore as package

        botocore = Path(package.__file__).parent
    version = re.search(r"__version__ = '([^']+)'", (botocore / "__init__.py").read_text()).group(1)
    data = botocore / "data"
    for name, lines in (
        ("ec2", ec2(data)),
        ("query", others(data, QUERY, False)),
        ("json", others(data, JSON, True)),
    ):
        text = f"# From botocore {version}; written by generate.py.\n" + "".join(f"{line}\n" for line in lines)
        (HERE / f"{name}.tsv").write_text(text)


if __name__ == "__main__":
    main()
