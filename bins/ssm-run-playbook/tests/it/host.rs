//! The Python that runs on hosts, piece by piece, where a whole run would show it late or by chance only.

use std::process::Command;

/// Runs a program that imports these pieces, and returns what it printed.
#[track_caller]
fn python(program: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3")
        .args(["-B", "-c", program])
        .args(arguments)
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/src/host"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_log_that_would_take_minutes_to_fetch_loses_its_middle_and_says_so() {
    const PROGRAM: &str = "
import answer, base64, gzip, os, random, sys
noise = random.Random(1).randbytes(3 << 20).hex().encode()
for log in noise, b'x' * (100 << 20), noise[:500_000]:
    with open(sys.argv[1] + '/log', 'wb') as file:
        file.write(log)
    answer.pack_log(sys.argv[1] + '/packed', sys.argv[1] + '/log')
    with open(sys.argv[1] + '/packed', 'rb') as file:
        packed = file.read()
    text = gzip.decompress(base64.b64decode(packed))
    cut = b'bytes are left out here; the host has all of them in ' + sys.argv[1].encode() in text
    ends = text[:9] == log[:9] and text[-9:] == log[-9:]
    print(len(packed) < 1_100_000, len(text) < (8 << 20) + 199, cut, text == log, ends)
";
    let folder = tempfile::tempdir().unwrap();
    let said = python(PROGRAM, &[folder.path().to_str().unwrap()]);
    let cut = "True True True False True\n";
    assert_eq!(said, format!("{cut}{cut}True True False True True\n"));
}

#[test]
fn a_log_is_masked_without_all_of_it_in_memory() {
    const PROGRAM: &str = "
import answer, resource, sys
with open(sys.argv[1] + '/raw', 'wb') as file:
    for _ in range(1 << 11):
        file.write(b'/room/x says hunter2 ' + b'x' * (1 << 16) + b'\\n')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answer.keep_log(sys.argv[1] + '/raw', sys.argv[1] + '/kept', '/room/', ['hunter2'])
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
with open(sys.argv[1] + '/kept', 'rb') as file:
    lines = file.readlines()
print(more < 20_000, len(lines), all(line.startswith(b'x says *** xxx') for line in lines))
";
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(python(PROGRAM, &[folder.path().to_str().unwrap()]), "True 2048 True\n");
}

#[test]
fn ansible_names_no_hundred_modules_before_it_names_the_place() {
    // ansible-core 2.14 to 2.18.
    const PROGRAM: &str = r#"
import answer
names = ", ".join("ansible.builtin.module%d" % number for number in range(99))
place = "\n\nThe error appears to be in '/tmp/p.yml': line 5, column 7"
log = "PLAY [x]\nERROR! this task 'a.b.c' has extra params, which is only allowed in the following modules: " + names + place
print(answer.error_in(log.encode()))
"#;
    let said =
        "ERROR! this task 'a.b.c' has extra params, which few modules take; is its name right?";
    let place = "The error appears to be in '/tmp/p.yml': line 5, column 7";
    assert_eq!(python(PROGRAM, &[]), format!("{said}\n\n{place}\n"));
}

#[test]
fn a_recap_fits_whatever_it_holds() {
    const PROGRAM: &str = "
import answer, json
long = '\\u00fc' * 3000
for recap in (
    {'state': 'timeout', 'last': long},
    {'state': 'done', 'rc': 2, 'last': long, 'error': long, 'slowest': [[long[:80], 5]] * 3,
        'failure': {'task': long, 'file': 'x.yml', 'line': 1, 'module': 'y', 'message': long}},
    {'state': 'done', 'last': 'short'},
):
    line = answer.fit(recap)
    found = json.loads(line[len(answer.MARKER):])
    print(len(line) <= 1500, found['state'], found['last'][:1])
";
    assert_eq!(python(PROGRAM, &[]), "True timeout ü\nTrue done ü\nTrue done s\n");
}

#[test]
fn an_event_that_was_cut_by_a_kill_or_a_full_disk_hides_no_other() {
    const PROGRAM: &str = r#"
import answer
lines = b'''{"e":"task","name":"One"}
{"e":"result","status":"ok","task":"One","ms":5}
{"e":"result","sta{"e":"task","name":"Two"}
{"e":"task","name":"Three"}
{"e":"resu'''
figures = answer.Figures(lines, "host")
print(len(figures.timed), figures.last, figures.open)
"#;
    assert_eq!(python(PROGRAM, &[]), "1 Three True\n");
}

#[test]
fn a_secret_is_masked_in_the_forms_that_plays_give_it() {
    const PROGRAM: &str = r#"
import answer, base64, json, references, shlex, urllib.parse
word = 'pä\'ss "w\tö$rd/+'
whole = json.dumps({"user": "somebody", "nested": [{"pin": 86420}], "port": 443, "tls": True})
masks = references.masks([word, whole, 97531])
def check(text):
    shown = answer.masked(text.encode(), masks).decode()
    return [part for part in ("ss", "somebody", "86420", "97531", "cMOk") if part in shown]
for text in (
    word, json.dumps(word), json.dumps(word, ensure_ascii=False), repr(word), shlex.quote(word),
    json.dumps(json.dumps(word)), urllib.parse.quote(word), urllib.parse.quote(word, safe=""),
    base64.b64encode(word.encode()).decode(), "'%s'" % word.replace("'", "''"), whole,
    "somebody has 86420 and 97531",
):
    found = check(text)
    if found:
        print(text, found)
print(answer.masked(b"port 443 is True", masks).decode())
"#;
    assert_eq!(python(PROGRAM, &[]), "port 443 is True\n");
}

#[test]
fn an_answer_about_a_secret_that_was_cut_is_asked_for_again_and_nonsense_is_named() {
    const PROGRAM: &str = r#"
import http.server, os, references, threading
answers = [(99, b'{"Para'), (None, b'{"Parameter": {"Value": "x"}}')] + [(None, b"<html>")] * references.ATTEMPTS
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length, text = answers.pop(0)
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *words):
        pass
class Role:
    def keys(self):
        return "a", "b", "c"
    def region(self):
        return "us-east-1"
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:%d" % server.server_port
references.time.sleep = lambda seconds: None
print(references.Resolver(Role()).value("ssm:/x"))
try:
    references.Resolver(Role()).value("ssm:/x")
except references.ReferenceError as error:
    print(error.state, str(error).startswith("ssm:/x: 127.0.0.1:"), "html" in str(error))
"#;
    assert_eq!(python(PROGRAM, &[]), "x\nreference-failed True False\n");
}

#[test]
fn a_run_that_is_being_ended_does_not_take_a_processor_of_its_own() {
    const PROGRAM: &str = "
import os, run, subprocess, sys, time
run.GRACE_SECONDS = 1
reader, writer = os.pipe()
found, rounds = run.descendants, []
def counted(root):
    if not rounds:
        os.close(writer)  # The agent kills the first process after the deadline.
    rounds.append(root)
    return found(root)
run.descendants = counted
supervisor = run.Supervisor.__new__(run.Supervisor)
supervisor.pipe, supervisor.pids, supervisor.deadline = reader, set(), time.monotonic()
supervisor.stop = sys.argv[1] + '/stop'
print(supervisor.supervise(subprocess.Popen(['sleep', '60']).pid), len(rounds) < 60)
";
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(python(PROGRAM, &[folder.path().to_str().unwrap()]), "(2, 'timeout') True\n");
}

#[test]
fn what_a_hosts_own_python_runs_has_the_grammar_of_an_old_one() {
    const PROGRAM: &str = "
import ast, sys
for name in 'answer', 'decrypted', 'leftovers', 'module_server', 'references', 'run':
    with open('%s/%s.py' % (sys.argv[1], name), encoding='utf-8') as file:
        ast.parse(file.read(), name, feature_version=(3, 6))
";
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/host");
    assert_eq!(python(PROGRAM, &[folder]), "");
}
