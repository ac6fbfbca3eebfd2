"""Compares an answer, as it came over the wire, with botocore's model of the service.

botocore itself reads leniently: what it does not know it drops, what is missing stays away. Here every element must be
in the model, of its type, within its enumeration, pattern and limits, and what the model requires must be there.
Works with any botocore, the AWS CLI's own copy included. Protocols: ec2, query, json; others are not looked at.
"""

import base64
import binascii
import datetime
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
# "Common errors" of the services' API references.
COMMON_ERRORS = {
    "AccessDeniedException", "ExpiredTokenException", "IncompleteSignature", "InternalFailure", "InvalidClientTokenId",
    "MalformedHttpRequestException", "NotAuthorized", "OptInRequired", "RequestAbortedException",
    "RequestEntityTooLargeException", "RequestExpired", "RequestTimeoutException", "ServiceUnavailable",
    "ServiceUnavailableException", "ThrottlingException", "UnrecognizedClientException", "UnknownOperationException",
    "ValidationError", "ValidationException", "AccessDenied", "Throttling", "SerializationException",
}


def ec2_errors():
    lines = (HERE / "ec2-errors.txt").read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


EC2_ERRORS = ec2_errors()


class Answer:
    """One answer; `differences` are (path, kind, detail)."""

    def __init__(self, operation, response):
        model = operation.service_model
        self.operation = operation
        self.service = model.signing_name
        self.protocol = getattr(model, "resolved_protocol", None) or model.metadata["protocol"]
        self.status = response["status_code"]
        self.headers = {name.lower(): value for name, value in response["headers"].items()}
        self.body = response["body"]
        self.code = None
        self.differences = []
        compare = {"ec2": self.ec2, "query": self.query, "json": self.json}.get(self.protocol)
        if compare is not None:
            compare()

    def record(self):
        return {
            "service": self.service,
            "operation": self.operation.name,
            "status": self.status,
            "code": self.code,
            "mark": self.headers.get("x-local-cloud"),
            "differences": self.differences,
        }

    def say(self, path, kind, detail):
        self.differences.append([path, kind, str(detail)[:200]])

    # The protocols.

    def ec2(self):
        root = self.parse_xml()
        if root is None:
            return
        if self.status >= 300:
            error = self.only_child(self.only_child(root, "Response", "Errors"), "Errors", "Error")
            self.error(error, {"Code", "Message"})
            self.leaf(root, "RequestID")
            if self.code is not None and self.code not in EC2_ERRORS:
                self.say("Code", "error-code", self.code)
            return
        self.root(root)
        self.leaf(root, "requestId")
        children = [child for child in root if tag(child) != "requestId"]
        shape = self.operation.output_shape
        if shape is None:
            for child in children:
                if tag(child) != "return" or child.text != "true":
                    self.say(tag(child), "unknown", child.text)
            return
        self.structure(shape, children, "")

    def query(self):
        root = self.parse_xml()
        if root is None:
            return
        if self.status >= 300:
            if tag(root) != "ErrorResponse":
                self.say("", "root", tag(root))
            error = root.find("{*}Error")
            self.error(error, {"Type", "Code", "Message", "Detail"})
            self.leaf(root, "RequestId")
            self.declared()
            return
        self.root(root)
        metadata = root.find("{*}ResponseMetadata")
        if metadata is None:
            self.say("ResponseMetadata", "missing", "")
        else:
            self.leaf(metadata, "RequestId")
        shape = self.operation.output_shape
        rest = [child for child in root if tag(child) != "ResponseMetadata"]
        if shape is None:
            for child in rest:
                self.say(tag(child), "unknown", child.text)
            return
        wrapper = shape.serialization.get("resultWrapper")
        if wrapper is None:
            self.structure(shape, rest, "")
            return
        if [tag(child) for child in rest] != [wrapper]:
            self.say(wrapper, "missing", [tag(child) for child in rest])
            return
        self.structure(shape, list(rest[0]), "")

    def json(self):
        kind = self.headers.get("content-type", "")
        version = self.operation.service_model.metadata.get("jsonVersion", "1.1")
        if kind.split(";")[0] != f"application/x-amz-json-{version}":
            self.say("Content-Type", "header", kind)
        if not self.headers.get("x-amzn-requestid"):
            self.say("x-amzn-RequestId", "header", "missing")
        try:
            body = json.loads(self.body or b"{}")
        except ValueError as error:
            self.say("", "not-json", error)
            return
        if self.status >= 300:
            self.code = str(body.get("__type", "")).split("#")[-1]
            texts = [key for key in body if key.lower() == "message"]
            if not self.code:
                self.say("__type", "missing", sorted(body))
            if len(texts) > 1:
                self.say("message", "twice", texts)
            shape = self.declared()
            known = {member.lower() for member in shape.members} if shape is not None else set()
            for key in body:
                if key != "__type" and key.lower() != "message" and key.lower() not in known:
                    self.say(key, "unknown", body[key])
            return
        shape = self.operation.output_shape
        if shape is None:
            for key in body:
                self.say(key, "unknown", body[key])
            return
        self.value(shape, body, "")

    # Errors.

    def error(self, error, known):
        if error is None:
            self.say("Error", "missing", self.body)
            return
        found = {tag(child): child.text for child in error}
        for name in found.keys() - known:
            self.say(f"Error.{name}", "unknown", found[name])
        for name in ("Code", "Message"):
            if not found.get(name):
                self.say(f"Error.{name}", "missing", found)
        self.code = found.get("Code")

    def declared(self):
        """The error's shape; says so when the operation has none of this code."""
        for shape in self.operation.error_shapes:
            error = shape.metadata.get("error", {})
            if self.code in (error.get("code"), shape.name):
                wanted = error.get("httpStatusCode")
                if wanted is not None and wanted != self.status:
                    self.say("status", "status", f"{self.status}, the model says {wanted}")
                return shape
        if self.code is not None and self.code not in COMMON_ERRORS:
            self.say("Code", "error-code", self.code)
        return None

    # XML.

    def parse_xml(self):
        kind = self.headers.get("content-type", "")
        if kind.split(";")[0] != "text/xml":
            self.say("Content-Type", "header", kind)
        try:
            return ElementTree.fromstring(self.body)
        except ElementTree.ParseError as error:
            self.say("", "not-xml", error)
            return None

    def root(self, root):
        wanted = f"{self.operation.name}Response"
        if tag(root) != wanted:
            self.say("", "root", f"{tag(root)} instead of {wanted}")
        namespace = self.operation.service_model.metadata.get("xmlNamespace")
        if namespace is None and self.protocol == "ec2":
            version = self.operation.service_model.api_version
            namespace = f"http://ec2.amazonaws.com/doc/{version}"
        found = root.tag[1:].split("}")[0] if root.tag.startswith("{") else ""
        if namespace is not None and found.rstrip("/") != namespace.rstrip("/"):
            self.say("", "namespace", found)

    def only_child(self, node, name, child):
        if node is None:
            return None
        if tag(node) != name or [tag(one) for one in node if tag(one) != "RequestID"] != [child]:
            self.say(name, "missing", f"{tag(node)}: {[tag(one) for one in node]}")
        return node.find(f"{{*}}{child}")

    def leaf(self, node, name):
        found = node.find(f"{{*}}{name}")
        if found is None or not (found.text or "").strip():
            self.say(name, "missing", "")

    def structure(self, shape, children, path):
        wires = {}
        for name, member in shape.members.items():
            wire = member.serialization.get("name", name)
            flat = member.type_name == "list" and member.serialization.get("flattened")
            if flat:
                wire = member.member.serialization.get("name", wire)
            wires[wire] = (name, member, flat)
        seen = {}
        for child in children:
            known = wires.get(tag(child))
            if known is None:
                self.say(join(path, tag(child)), "unknown", child.text)
                continue
            name, member, flat = known
            seen[name] = seen.get(name, 0) + 1
            if flat:
                self.element(member.member, child, join(path, name))
            else:
                if seen[name] > 1:
                    self.say(join(path, name), "twice", child.text)
                self.element(member, child, join(path, name))
        self.required(shape, seen, path)

    def element(self, shape, node, path):
        kind = shape.type_name
        if kind == "structure":
            self.structure(shape, list(node), path)
        elif kind == "list":
            wanted = shape.member.serialization.get("name", "member")
            for child in node:
                if tag(child) != wanted:
                    self.say(f"{path}[]", "unknown", tag(child))
                else:
                    self.element(shape.member, child, f"{path}[]")
            self.limits(shape, len(node), path)
        elif kind == "map":
            for entry in node:
                if tag(entry) != "entry" or [tag(one) for one in entry] != ["key", "value"]:
                    self.say(path, "map", tag(entry))
        elif len(node):
            self.say(path, "type", f"{kind} with elements")
        else:
            self.text(shape, node.text or "", path)

    def text(self, shape, text, path):
        kind = shape.type_name
        if kind in ("integer", "long"):
            if not re.fullmatch(r"-?\d+", text):
                self.say(path, "type", f"{kind}: {text!r}")
            else:
                self.number(shape, int(text), path)
        elif kind in ("float", "double"):
            try:
                float(text)
            except ValueError:
                self.say(path, "type", f"{kind}: {text!r}")
        elif kind == "boolean":
            if text not in ("true", "false"):
                self.say(path, "type", f"boolean: {text!r}")
        elif kind == "timestamp":
            self.iso_time(text, path)
        elif kind == "blob":
            self.blob(text, path)
        else:
            self.string(shape, text, path)

    # JSON.

    def value(self, shape, value, path):
        kind = shape.type_name
        if kind == "structure":
            if not isinstance(value, dict):
                self.say(path, "type", f"structure: {value!r}")
                return
            wires = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
            for key, part in value.items():
                if key not in wires:
                    self.say(join(path, key), "unknown", part)
                elif part is None:
                    self.say(join(path, key), "null", "")
                else:
                    self.value(wires[key][1], part, join(path, wires[key][0]))
            self.required(shape, {wires[key][0] for key in value if key in wires}, path)
        elif kind == "list":
            if not isinstance(value, list):
                self.say(path, "type", f"list: {value!r}")
                return
            for part in value:
                self.value(shape.member, part, f"{path}[]")
            self.limits(shape, len(value), path)
        elif kind == "map":
            if not isinstance(value, dict):
                self.say(path, "type", f"map: {value!r}")
                return
            for key, part in value.items():
                self.value(shape.key, key, f"{path}{{}}")
                self.value(shape.value, part, f"{path}{{}}")
        elif kind in ("integer", "long"):
            if not isinstance(value, int) or isinstance(value, bool):
                self.say(path, "type", f"{kind}: {value!r}")
            else:
                self.number(shape, value, path)
        elif kind in ("float", "double"):
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                self.say(path, "type", f"{kind}: {value!r}")
        elif kind == "boolean":
            if not isinstance(value, bool):
                self.say(path, "type", f"boolean: {value!r}")
        elif kind == "timestamp":
            form = shape.serialization.get("timestampFormat", "unixTimestamp")
            if form == "unixTimestamp":
                # Seconds of this century: milliseconds would be a thousand times as many.
                if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 5e9:
                    self.say(path, "type", f"timestamp: {value!r}")
            else:
                self.iso_time(value, path)
        elif not isinstance(value, str):
            self.say(path, "type", f"{kind}: {value!r}")
        elif kind == "blob":
            self.blob(value, path)
        else:
            self.string(shape, value, path)

    # Both.

    def required(self, shape, seen, path):
        for name in shape.required_members:
            if name not in seen:
                self.say(join(path, name), "missing", "")

    def string(self, shape, text, path):
        if shape.enum:
            if text not in shape.enum:
                self.say(path, "enum", text)
            return
        self.limits(shape, len(text), path)
        pattern = shape.metadata.get("pattern")
        if pattern is None:
            return
        try:
            matches = re.compile(pattern).search if pattern.startswith("^") else re.compile(pattern).fullmatch
        except re.error:
            return  # A class that Python does not know, such as \p{L}.
        if matches(text) is None:
            self.say(path, "pattern", f"{text!r} is not {pattern}")

    def limits(self, shape, size, path):
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if (least is not None and size < least) or (most is not None and size > most):
            self.say(path, "length", f"{size} is not within {least}..{most}")

    def number(self, shape, number, path):
        bits = 31 if shape.type_name == "integer" else 63
        if not -(2**bits) <= number < 2**bits:
            self.say(path, "type", f"{shape.type_name}: {number}")
        self.limits(shape, number, path)

    def iso_time(self, text, path):
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)", str(text)):
            self.say(path, "type", f"timestamp: {text!r}")
            return
        try:
            datetime.datetime.fromisoformat(str(text)[:19])
        except ValueError:
            self.say(path, "type", f"timestamp: {text!r}")

    def blob(self, text, path):
        try:
            base64.b64decode("".join(text.split()), validate=True)
        except binascii.Error:
            self.say(path, "type", f"blob: {text[:40]!r}")


def tag(node):
    return node.tag.split("}")[-1]


def join(path, name):
    return f"{path}.{name}" if path else name


def watch(events, records):
    """Appends a record of every answer; `events` is a botocore session or a client's `meta.events`."""

    def look(operation_model, response_dict, **_):
        records.append(Answer(operation_model, response_dict).record())

    events.register("before-parse", look)
