# Resolves `secretsmanager:NAME-OR-ARN[#json-key]` and `ssm:/NAME` on the host with the instance role's credentials, with
# nothing but Python's standard library (3.6 and newer). Errors name the reference and AWS's error code, never a value.
import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request

METADATA = "http://169.254.169.254"
METADATA_PATIENCE = 5
PATIENCE = 15
ATTEMPTS = 4
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)  # Nobody is there, the answer was cut, or is no JSON.
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "UnrecognizedClientException",
)
MISSING = (
    "InvalidKeyId",
    "InvalidParameterException",
    "InvalidRequestException",
    "ParameterNotFound",
    "ParameterVersionNotFound",
    "ResourceNotFoundException",
    "ValidationException",
)


class ReferenceError(Exception):
    """`state` is what the recap says: reference-denied, reference-missing or reference-failed."""

    def __init__(self, reference, state, text):
        super().__init__("%s: %s" % (reference, text))
        self.state = state


class Failure(Exception):
    def __init__(self, state, text):
        super().__init__(text)
        self.state = state


def metadata(path, method="GET", headers=None):
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
    request = urllib.request.Request(base.rstrip("/") + path, method=method, headers=headers or {})
    # Instance metadata is never behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=METADATA_PATIENCE) as answer:
        return answer.read().decode()


class Role:
    """The instance role's credentials and the region, asked for once."""

    def __init__(self):
        self.token = self.credentials = None

    def ask(self, path):
        try:
            if self.token is None:
                seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
                self.token = metadata("/latest/api/token", "PUT", seconds)
            return metadata("/latest/meta-data/" + path, headers={"X-aws-ec2-metadata-token": self.token})
        except urllib.error.HTTPError as error:
            raise Failure("reference-denied", "instance metadata answers %d for %s; has the host a role?" % (error.code, path)) from None
        except NO_ANSWER as error:
            reason = getattr(error, "reason", error)
            raise Failure("reference-failed", "instance metadata does not answer: %s" % reason) from None

    def keys(self):
        if self.credentials is None:
            room = "iam/security-credentials/"
            role = self.ask(room).strip()
            answer = json.loads(self.ask(room + role))
            if "AccessKeyId" not in answer:
                # "Failed" with status 200: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshoot-iam.html
                said = ": ".join(str(answer[name]) for name in ("Code", "Message") if answer.get(name))
                text = "the host cannot assume its role %s: %s" % (role, said or "no credentials and no reason")
                raise Failure("reference-denied", text)
            self.credentials = (answer["AccessKeyId"], answer["SecretAccessKey"], answer["Token"])
        return self.credentials

    def region(self):
        for name in ("AWS_SSM_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"):
            if os.environ.get(name):
                return os.environ[name]
        return self.ask("placement/region").strip()


def signed(keys, service, region, url, target, body, now):
    """The headers of a request of the JSON protocol with Signature Version 4."""
    access, secret, token = keys
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    day = moment[:8]
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urllib.parse.urlsplit(url).netloc,
        "x-amz-date": moment,
        "x-amz-security-token": token,
        "x-amz-target": target,
    }
    names = ";".join(sorted(headers))
    lines = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers))
    canonical = "POST\n/\n\n%s\n%s\n%s" % (lines, names, hashlib.sha256(body).hexdigest())
    scope = "%s/%s/%s/aws4_request" % (day, region, service)
    text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (moment, scope, hashlib.sha256(canonical.encode()).hexdigest())
    key = ("AWS4" + secret).encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"
    headers["authorization"] = credential % (access, scope, names, signature)
    return headers


def code_of(error):
    """AWS's code in an error answer; its message may quote the request and is not shown."""
    try:
        answer = json.loads(error.read().decode())
        code = answer.get("__type") or answer.get("code") or ""
    except NO_ANSWER + (AttributeError,):
        code = ""
    return str(code).rpartition("#")[2] or "HTTP status %d" % error.code


class Resolver:
    def __init__(self, role=None):
        self.role = role or Role()
        self.known = {}

    def call(self, service, region, target, request):
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        url = os.environ.get("AWS_ENDPOINT_URL") or "https://%s.%s.%s" % (service, region, suffix)
        url = url.rstrip("/") + "/"
        body = json.dumps(request).encode()
        for attempt in range(1, ATTEMPTS + 1):
            now = datetime.datetime.now(datetime.timezone.utc)
            headers = signed(self.role.keys(), service, region, url, target, body, now)
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=PATIENCE) as answer:
                    return json.loads(answer.read().decode())
            except urllib.error.HTTPError as error:
                code = code_of(error)
                if code in DENIED:
                    raise Failure("reference-denied", code) from None
                if code in MISSING:
                    raise Failure("reference-missing", "no such secret (%s)" % code) from None
                reason = code
                again = error.code >= 500 or "Throttl" in code or code == "TooManyRequestsException"
            except NO_ANSWER as error:
                reason = "%s does not answer: %s" % (urllib.parse.urlsplit(url).netloc, getattr(error, "reason", error))
                again = True
            if not again or attempt == ATTEMPTS:
                raise Failure("reference-failed", reason)
            time.sleep(0.3 * 2**attempt)

    def fetch(self, service, name):
        """The text of a secret or of a parameter, asked for once."""
        if (service, name) in self.known:
            return self.known[service, name]
        region = self.role.region()
        if service == "ssm":
            answer = self.call(service, region, "AmazonSSM.GetParameter", {"Name": name, "WithDecryption": True})
            text = answer["Parameter"]["Value"]
        else:
            if name.startswith("arn:"):
                region = (name.split(":") + [""] * 4)[3] or region
            answer = self.call(service, region, "secretsmanager.GetSecretValue", {"SecretId": name})
            text = answer.get("SecretString")
            if text is None:
                try:
                    text = base64.b64decode(answer["SecretBinary"]).decode()
                except UnicodeDecodeError:
                    raise Failure("reference-missing", "the secret is binary and not UTF-8") from None
        self.known[service, name] = text
        return text

    def value(self, reference):
        """What a reference stands for: text, or with `#json-key` what the JSON holds there."""
        service, _, name = reference.partition(":")
        try:
            if service == "ssm":
                return self.fetch(service, name)
            name, with_key, key = name.partition("#")
            text = self.fetch(service, name)
            if not with_key:
                return text
            try:
                values = json.loads(text)
            except ValueError:
                raise Failure("reference-missing", "the secret is not JSON") from None
            if not isinstance(values, dict) or key not in values:
                raise Failure("reference-missing", "the secret has no key `%s`" % key)
            return values[key]
        except Failure as failure:
            raise ReferenceError(reference, failure.state, failure) from None


def in_yaml(value):
    """A value as YAML on one line that Ansible takes as it is: no template, no other type."""
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (quoted(key), in_yaml(one)) for key, one in value.items())
    if isinstance(value, list):
        return "[%s]" % ", ".join(in_yaml(one) for one in value)
    return "!unsafe " + quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text):
    def shown(letter):
        plain = " " <= letter <= "~" or "\u00a0" <= letter <= "\ud7ff" or "\ue000" <= letter
        if letter in '"\\':
            return "\\" + letter
        if plain and letter not in "\u2028\u2029\ufeff\ufffe\uffff":
            return letter
        return "\\u%04x" % ord(letter)

    return '"%s"' % "".join(map(shown, text))


def texts(value):
    """Every text and number in a value, for the mask; also those of a text that is JSON, which a play may take apart."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts(one)]
    if isinstance(value, bool) or value is None:
        return []
    if not isinstance(value, str):
        return [json.dumps(value)]
    try:
        inner = json.loads(value)
    except ValueError:
        return [value]
    return [value] + (texts(inner) if isinstance(inner, (dict, list)) else [])


def forms(text):
    """How a text is written by JSON (also in a text of JSON), YAML, Python, shells, addresses and base64."""
    as_json = [json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False)]
    data = text.encode("utf-8", "surrogateescape")
    return [
        text,
        text.strip(),
        *as_json,
        *(json.dumps(one)[1:-1] for one in as_json),
        quoted(text)[1:-1],
        text.replace("'", "''"),
        repr(text)[1:-1],
        shlex.quote(text).strip("'"),
        urllib.parse.quote(data),
        urllib.parse.quote(data, safe=""),
        urllib.parse.quote_plus(data),
        base64.b64encode(data).decode(),
        *text.splitlines(),
    ]


def masks(values):
    """What must not be shown: texts in all their forms, and their lines. Shorter ones than four characters would hide half
    of a log."""
    every = (form for value in values for text in texts(value) for form in forms(text))
    return sorted({form for form in every if len(form.strip()) >= 4}, key=len, reverse=True)
