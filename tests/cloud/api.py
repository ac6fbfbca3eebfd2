"""boto3 as a process that stays, since `aws` takes a second to start: a line on stdin is a call,
`{"service": "ec2", "operation": "describe_instances", "parameters": {...}}`, a line on stdout its answer or `{"error": ...}`."""

import json
import sys

import boto3
from botocore.exceptions import ClientError

clients = {}
for line in sys.stdin:
    call = json.loads(line)
    service = call["service"]
    if service not in clients:
        clients[service] = boto3.client(service)
    try:
        answer = getattr(clients[service], call["operation"])(**call["parameters"])
    except ClientError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()
