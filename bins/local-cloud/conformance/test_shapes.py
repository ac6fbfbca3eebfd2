"""The comparison itself: an answer that fits has no difference, and each kind of fault is seen.

    python -m unittest conformance/test_shapes.py
"""

import json
import unittest

import botocore.session

import shapes

SESSION = botocore.session.get_session()
XML = {"Content-Type": "text/xml;charset=UTF-8"}
JSON = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "r"}
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


def differences(service, operation, body, status=200, headers=None):
    model = SESSION.get_service_model(service).operation_model(operation)
    headers = headers or (JSON if service == "ssm" else XML)
    body = json.dumps(body) if isinstance(body, dict) else body
    answer = shapes.Answer(model, {"status_code": status, "headers": headers, "body": body.encode()})
    return [(path, kind) for path, kind, _ in answer.differences]


def console(inner, name="GetConsoleOutputResponse", namespace=NAMESPACE):
    return f'<{name} xmlns="{namespace}"><requestId>r</requestId>{inner}</{name}>'


class Ec2(unittest.TestCase):
    def check(self, inner, *expected):
        self.assertEqual(differences("ec2", "GetConsoleOutput", console(inner)), list(expected))

    def test_fits(self):
        self.check("<instanceId>i-1</instanceId><timestamp>2026-01-01T00:00:00.000Z</timestamp><output>eA==</output>")

    def test_faults(self):
        self.check("<surprise>1</surprise>", ("surprise", "unknown"))
        self.check("<timestamp>yesterday</timestamp>", ("Timestamp", "type"))
        self.check("<instanceId>a</instanceId><instanceId>b</instanceId>", ("InstanceId", "twice"))

    def test_envelope(self):
        def check(body, *expected):
            self.assertEqual(differences("ec2", "GetConsoleOutput", body), list(expected))

        check(console("", name="WrongResponse"), ("", "root"))
        check(console("", namespace="urn:x"), ("", "namespace"))
        check(f'<GetConsoleOutputResponse xmlns="{NAMESPACE}"/>', ("requestId", "missing"))
        check("no XML", ("", "not-xml"))

    def test_nested(self):
        state = "<instanceState><code>{}</code><name>{}</name></instanceState>"
        body = "<reservationSet><item><instancesSet><item>{}</item></instancesSet></item></reservationSet>"

        def check(inner, *expected):
            text = console(body.format(inner), name="DescribeInstancesResponse")
            self.assertEqual(differences("ec2", "DescribeInstances", text), list(expected))

        path = "Reservations[].Instances[]."
        check(state.format(16, "running"))
        check(state.format("x", "walking"), (f"{path}State.Code", "type"), (f"{path}State.Name", "enum"))
        check("<groupSet><member/></groupSet>", (f"{path}SecurityGroups[]", "unknown"))
        check("<ebsOptimized>yes</ebsOptimized>", (f"{path}EbsOptimized", "type"))

    def test_errors(self):
        def check(inner, *expected):
            body = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>r</RequestID></Response>"
            self.assertEqual(differences("ec2", "GetConsoleOutput", body, 400), list(expected))

        check("<Code>InvalidInstanceID.NotFound</Code><Message>m</Message>")
        check("<Code>OwnInvention</Code><Message>m</Message>", ("Code", "error-code"))
        check("<Code>InvalidParameterValue</Code>", ("Error.Message", "missing"))


class Query(unittest.TestCase):
    def test_result(self):
        def check(inner, *expected):
            name, space = "DescribeScalingActivities", "http://autoscaling.amazonaws.com/doc/2011-01-01/"
            body = (f'<{name}Response xmlns="{space}"><{name}Result>{inner}</{name}Result>'
                    f"<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{name}Response>")
            self.assertEqual(differences("autoscaling", name, body), list(expected))

        check("<Activities/>")
        check("", ("Activities", "missing"))
        check("<Activities><item/></Activities>", ("Activities[]", "unknown"))


class Json(unittest.TestCase):
    def check(self, body, *expected, operation="ListCommands", **more):
        self.assertEqual(differences("ssm", operation, body, **more), list(expected))

    def test_fits(self):
        self.check({"Commands": [{"Status": "Success", "RequestedDateTime": 1.7e9}]})

    def test_faults(self):
        def one(**members):
            return {"Commands": [members]}

        self.check(one(Surprise=1), ("Commands[].Surprise", "unknown"))
        self.check(one(Status="Fine"), ("Commands[].Status", "enum"))
        self.check(one(RequestedDateTime="2026"), ("Commands[].RequestedDateTime", "type"))
        self.check(one(RequestedDateTime=1.7e12), ("Commands[].RequestedDateTime", "type"))
        self.check(one(TargetCount="1"), ("Commands[].TargetCount", "type"))
        self.check(one(TargetCount=True), ("Commands[].TargetCount", "type"))
        self.check(one(Comment=None), ("Commands[].Comment", "null"))
        self.check(one(CommandId="short"), ("Commands[].CommandId", "length"))
        self.check({"Commands": {}}, ("Commands", "type"))
        self.check({}, ("Content-Type", "header"), headers={"Content-Type": "text/html", "x-amzn-RequestId": "r"})

    def test_errors(self):
        def check(code, *expected, **more):
            body = {"__type": code, **more}
            self.check(body, *expected, operation="GetCommandInvocation", status=400)

        check("InvocationDoesNotExist")
        check("com.amazonaws.ssm#InvalidInstanceId", Message="m")
        check("DocumentLimitExceeded", ("Code", "error-code"))
        check("InvocationDoesNotExist", ("Surprise", "unknown"), Surprise=1)


if __name__ == "__main__":
    unittest.main()
