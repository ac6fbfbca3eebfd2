//! Security groups, subnets, routes and network faults hold for real hosts.
//!
//! `web` and `db` stand in the shared public subnet, `inner` in a private one. Each answers on port 8080, TCP and UDP,
//! with the address that it sees, so that an answer also says how the caller appears.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::cloud::Cloud;

const PORT: u16 = 8080;
/// What is heard from where no answer comes.
const SILENCE: &str = "silence";
/// How long to wait for an answer that must not come. Answers come within milliseconds.
const SHORT: Duration = Duration::from_millis(900);
/// How long to wait for one that must come, on a machine that boots hosts at the same time.
const LONG: Duration = Duration::from_secs(20);

fn patience(wanted: &str) -> Duration {
    if wanted == SILENCE { SHORT } else { LONG }
}

/// Answers every TCP connection and every UDP packet with the caller's address; a TCP connection may go on asking.
const ANSWER: &str = r"
import socket, threading
def tcp(c, a):
    while True:
        c.sendall(a[0].encode() + b'\n')
        if not c.recv(1): return
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 8080))
    while True:
        d, a = s.recvfrom(2000); s.sendto(a[0].encode(), a)
threading.Thread(target=udp).start()
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('0.0.0.0', 8080)); l.listen(50)
while True:
    threading.Thread(target=tcp, args=l.accept()).start()
";

/// Asks once for each `protocol address port seconds` among the arguments, all at the same time, and prints one line each.
const ASK: &str = r"
import socket, sys, threading
answers = {}
def ask(n, k, h, p, t):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if k == 'tcp' else socket.SOCK_DGRAM); s.settimeout(float(t))
    try:
        s.connect((h, int(p)))
        if k == 'udp': s.send(b'x')
        answers[n] = s.recv(99).decode().strip() or 'closed'
    except socket.timeout: answers[n] = 'silence'
    except OSError as e: answers[n] = str(e)
asked = [a.split() for a in sys.argv[1:]]
ts = [threading.Thread(target=ask, args=[n] + a) for n, a in enumerate(asked)]
[t.start() for t in ts]; [t.join() for t in ts]
print('\n'.join(answers[n] for n in range(len(asked))))
";

struct Host<'a> {
    cloud: &'a Cloud,
    id: String,
    private: String,
    public: String,
    interface: String,
}

impl<'a> Host<'a> {
    fn launch(cloud: &'a Cloud, name: &str, more: &[&str]) -> Self {
        let id = cloud.launch(name, "bookworm", "", more);
        let mut host = Self {
            cloud,
            id,
            private: String::new(),
            public: String::new(),
            interface: String::new(),
        };
        host.look();
        host
    }

    fn look(&mut self) {
        let instance = self.cloud.instance(&self.id);
        let text = |path| instance.pointer(path).and_then(Value::as_str).unwrap_or_default();
        self.private = text("/PrivateIpAddress").to_owned();
        self.public = text("/PublicIpAddress").to_owned();
        self.interface = text("/NetworkInterfaces/0/NetworkInterfaceId").to_owned();
    }

    fn answers(&self) {
        let started =
            self.cloud.exec(&self.id, &format!("setsid python3 -c \"{ANSWER}\" >/dev/null 2>&1 &"));
        assert_eq!(started.code, 0, "{started}");
        let listens =
            "ss -Hlnt 'sport = 8080' 2>/dev/null | grep -q . || grep -q ':1F90 ' /proc/net/tcp";
        self.cloud.until("it answers", || self.cloud.exec(&self.id, listens).code == 0);
    }

    /// What it gets for each `protocol address port`, if it waits so long for each.
    fn asks(&self, targets: &[(&str, Duration)]) -> Vec<String> {
        let targets = targets
            .iter()
            .map(|(target, patience)| format!(" '{target} {}'", patience.as_secs_f32()));
        let run = self
            .cloud
            .exec(&self.id, &format!("python3 -c \"{ASK}\"{}", targets.collect::<String>()));
        assert_eq!(run.code, 0, "{run}");
        run.stdout.lines().map(str::to_owned).collect()
    }

    /// It gets just that from each `protocol address port`.
    #[track_caller]
    fn hears(&self, targets: &[String], wanted: &[&str]) {
        let asked: Vec<_> = targets
            .iter()
            .zip(wanted)
            .map(|(target, want)| (target.as_str(), patience(want)))
            .collect();
        assert_eq!(self.asks(&asked), wanted, "{targets:?}");
    }

    /// It gets an answer from a service of AWS.
    #[track_caller]
    fn reaches(&self, service: &str) {
        assert_ne!(self.calls(service, LONG), 0, "no answer from {service}");
    }

    /// It gets none.
    #[track_caller]
    fn reaches_not(&self, service: &str) {
        assert_eq!(self.calls(service, SHORT), 0, "an answer from {service}");
    }

    /// The status of an HTTPS call, 0 without an answer.
    fn calls(&self, service: &str, patience: Duration) -> u16 {
        let curl = format!(
            "curl --silent --output /dev/null --max-time {} --write-out '%{{http_code}}'",
            patience.as_secs_f32()
        );
        let run = self
            .cloud
            .exec(&self.id, &format!("{curl} https://{service}.us-east-1.amazonaws.com/"));
        run.stdout.trim().parse().unwrap_or(0)
    }

    /// [`Host::calls`] with a signature, so that the call is one of a service.
    fn calls_signed(&self, service: &str) -> u16 {
        let curl = "curl --silent --output /dev/null --max-time 20 --write-out '%{http_code}'";
        let key: Vec<String> = self.cloud.key().into_iter().map(|(_, value)| value).collect();
        let signed = format!("--aws-sigv4 aws:amz:us-east-1:{service} --user {}", key.join(":"));
        let target = "--header 'X-Amz-Target: TrentService.ListKeys' --data '{}'";
        let url = format!("https://{service}.us-east-1.amazonaws.com/");
        let run = self.cloud.exec(&self.id, &format!("{curl} {signed} {target} {url}"));
        run.stdout.trim().parse().unwrap_or_else(|_| panic!("{run}"))
    }

    fn has_metadata(&self) -> bool {
        let curl =
            "curl --silent --max-time 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'";
        self.cloud
            .exec(&self.id, &format!("{curl} http://169.254.169.254/latest/api/token"))
            .stdout
            .len()
            > 10
    }
}

fn udp(address: &str) -> String {
    format!("udp {address} {PORT}")
}

fn tcp(address: &str) -> String {
    format!("tcp {address} {PORT}")
}

/// What this machine, which stands for the internet, gets.
fn outside(target: &str, patience: Duration) -> String {
    let mut words = target.split(' ');
    let (protocol, address) = (words.next(), words.next().and_then(|a| a.parse::<Ipv4Addr>().ok()));
    let address = SocketAddr::from((address.expect("an address"), PORT));
    let mut buffer = [0; 99];
    let got = if protocol == Some("udp") {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(patience)).expect("a timeout");
        socket
            .connect(address)
            .and_then(|()| socket.send(b"x"))
            .and_then(|_| socket.recv(&mut buffer))
    } else {
        connect(address, patience).and_then(|mut stream| stream.read(&mut buffer))
    };
    match got {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).trim().to_owned(),
        Err(error) if is_silence(&error) => SILENCE.to_owned(),
        Err(error) => error.to_string(),
    }
}

fn connect(address: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
}

/// This machine gets just that.
#[track_caller]
fn outside_hears(target: &str, wanted: &str) {
    assert_eq!(outside(target, patience(wanted)), wanted, "{target}");
}

/// A TCP connection that asks again and again.
struct Talk(TcpStream);

impl Talk {
    fn open(address: &str) -> Self {
        let address = SocketAddr::from((address.parse::<Ipv4Addr>().expect("an address"), PORT));
        let mut talk = Self(connect(address, LONG).expect("a connection"));
        assert!(talk.hears(), "the first answer");
        talk
    }

    fn goes_on(&mut self) -> bool {
        std::io::Write::write_all(&mut self.0, b"?").is_ok() && self.hears()
    }

    fn hears(&mut self) -> bool {
        self.0.read(&mut [0; 99]).is_ok_and(|length| length > 0)
    }
}

pub(crate) fn scenarios(cloud: &Cloud) {
    let groups = ["net-web", "net-db"].map(|name| cloud.make_group(name));
    let [web_group, db_group] = groups.each_ref().map(String::as_str);
    let private = private_subnet(cloud);
    let mut hosts = std::thread::scope(|scope| {
        let web =
            scope.spawn(|| Host::launch(cloud, "net-web", &["--security-group-ids", web_group]));
        let db = scope.spawn(|| Host::launch(cloud, "net-db", &["--security-group-ids", db_group]));
        let more = [
            "--security-group-ids",
            db_group,
            "--subnet-id",
            &private.subnet,
            "--no-associate-public-ip-address",
        ];
        let inner = scope.spawn(move || Host::launch(cloud, "net-inner", &more));
        [web, db, inner].map(|host| host.join().expect("a host"))
    });
    for host in &mut hosts {
        host.look();
        host.answers();
    }
    let [web, db, inner] = &hosts;
    let allow = |group: &str, permission: &str| {
        cloud.ok(&[
            "ec2",
            "authorize-security-group-ingress",
            "--group-id",
            group,
            "--ip-permissions",
            permission,
        ]);
    };
    let revoke = |side: &str, group: &str, permission: &str| {
        let operation = format!("revoke-security-group-{side}");
        cloud.ok(&["ec2", &operation, "--group-id", group, "--ip-permissions", permission]);
    };
    const OPEN: &str = "IpProtocol=tcp,FromPort=8080,ToPort=8080,IpRanges=[{CidrIp=0.0.0.0/0}]";
    const NARROW: &str =
        "IpProtocol=tcp,FromPort=8080,ToPort=8080,IpRanges=[{CidrIp=198.51.100.1/32}]";

    cloud.check("without a rule nothing comes in, not even quickly refused", || {
        outside_hears(&tcp(&web.public), SILENCE);
        outside_hears(&udp(&web.public), SILENCE);
        let asked = [tcp(&web.private), udp(&web.private), tcp(&web.public)];
        db.hears(&asked, &[SILENCE; 3]);
    });

    cloud.check("a rule holds at once, and its end as well", || {
        allow(web_group, OPEN);
        outside_hears(&tcp(&web.public), "198.51.100.1");
        // The rule is about TCP.
        outside_hears(&udp(&web.public), SILENCE);
        // A private address is not reached from outside.
        outside_hears(&tcp(&web.private), SILENCE);
        let asked = [tcp(&web.private), tcp(&web.public), udp(&web.private)];
        db.hears(&asked, &[db.private.as_str(), &db.public, SILENCE]);
        // Its own public address.
        web.hears(&[tcp(&web.public)], &[web.public.as_str()]);
        // Open in both directions: not tracked, so the flow ends with its rule.
        let mut untracked = Talk::open(&web.public);
        revoke("ingress", web_group, OPEN);
        assert!(!untracked.goes_on(), "an untracked flow has ended with its rule");
        outside_hears(&tcp(&web.public), SILENCE);
        // From one address: tracked, so the flow stays and no new one comes.
        allow(web_group, NARROW);
        let mut tracked = Talk::open(&web.public);
        revoke("ingress", web_group, NARROW);
        assert!(tracked.goes_on(), "a tracked flow outlives its rule");
        outside_hears(&tcp(&web.public), SILENCE);
    });

    cloud.check("a group admits its members, by private address, as they come and go", || {
        let members = format!(
            "IpProtocol=udp,FromPort=8080,ToPort=8080,UserIdGroupPairs=[{{GroupId={db_group}}}]"
        );
        allow(web_group, &members);
        let asked = [udp(&web.private), udp(&web.public)];
        db.hears(&asked, &[db.private.as_str(), SILENCE]);
        inner.hears(&[udp(&web.private)], &[inner.private.as_str()]);
        outside_hears(&udp(&web.public), SILENCE);
        cloud.ok(&[
            "ec2",
            "modify-network-interface-attribute",
            "--network-interface-id",
            &inner.interface,
            "--groups",
            web_group,
        ]);
        assert_eq!(
            cloud.instance(&inner.id).pointer("/SecurityGroups/0/GroupId").and_then(Value::as_str),
            Some(web_group)
        );
        // No member any more.
        inner.hears(&[udp(&web.private)], &[SILENCE]);
        cloud.ok(&[
            "ec2",
            "modify-instance-attribute",
            "--instance-id",
            &inner.id,
            "--groups",
            db_group,
            web_group,
        ]);
        // A member again.
        inner.hears(&[udp(&web.private)], &[inner.private.as_str()]);
        cloud.ok(&[
            "ec2",
            "modify-instance-attribute",
            "--instance-id",
            &inner.id,
            "--groups",
            db_group,
        ]);
        let own = format!(
            "IpProtocol=tcp,FromPort=8080,ToPort=8080,UserIdGroupPairs=[{{GroupId={db_group}}}]"
        );
        allow(db_group, &own);
        change_a_rule(cloud, db, inner, db_group);
        // The group itself.
        inner.hears(&[tcp(&db.private)], &[inner.private.as_str()]);
        web.hears(&[tcp(&db.private)], &[SILENCE]);
    });

    cloud.check("a prefix list holds, as it is now", || prefix_list(cloud, web, web_group));

    cloud.check("egress rules hold; metadata is subject to none, AWS's APIs are", || {
        const ALL: &str = "IpProtocol=-1,IpRanges=[{CidrIp=0.0.0.0/0}]";
        allow(db_group, OPEN);
        web.hears(&[tcp(&db.private)], &[web.private.as_str()]);
        web.reaches("ssm");
        revoke("egress", web_group, ALL);
        web.hears(&[tcp(&db.private)], &[SILENCE]);
        web.reaches_not("ssm");
        assert!(web.has_metadata());
        allow(web_group, OPEN);
        // An answer needs no rule.
        outside_hears(&tcp(&web.public), "198.51.100.1");
        cloud.ok(&[
            "ec2",
            "authorize-security-group-egress",
            "--group-id",
            web_group,
            "--ip-permissions",
            ALL,
        ]);
        revoke("ingress", db_group, OPEN);
    });

    cloud.check("a private subnet reaches outside through a NAT gateway only", || {
        private_reaches_outside(cloud, &private, inner);
    });
    cloud.check("an endpoint leads to its service only", || {
        endpoint_leads_to_one_service(cloud, &private, inner);
    });
    cloud.check("a network ACL stands before its subnet, for answers too", || {
        acl_stands_before_a_subnet(cloud, &private, web, inner, db_group);
    });
    cloud.check("a host loses packets, and its network, as long as asked", || {
        faults(cloud, web);
    });
    cloud.check("a host loses what it sends to another one, and nothing else", || {
        loss_between(cloud, web, db, inner);
    });
    cloud.terminate(&[&web.id, &db.id, &inner.id]);
}

struct Private {
    subnet: String,
    table: String,
    range: String,
    association: String,
}

/// A list of this machine's address, then of another one; and a rule that is changed.
fn prefix_list(cloud: &Cloud, web: &Host<'_>, group: &str) {
    let list = cloud.ok(&[
        "ec2",
        "create-managed-prefix-list",
        "--prefix-list-name",
        "net-phones",
        "--address-family",
        "IPv4",
        "--max-entries",
        "5",
        "--entries",
        "Cidr=198.51.100.1/32",
    ]);
    let list = text(&list, "/PrefixList/PrefixListId");
    let rule =
        format!("IpProtocol=udp,FromPort=8080,ToPort=8080,PrefixListIds=[{{PrefixListId={list}}}]");
    let change = |operation: &str| {
        cloud.ok(&["ec2", operation, "--group-id", group, "--ip-permissions", &rule]);
    };
    change("authorize-security-group-ingress");
    outside_hears(&udp(&web.public), "198.51.100.1");
    cloud.ok(&[
        "ec2",
        "modify-managed-prefix-list",
        "--prefix-list-id",
        &list,
        "--current-version",
        "1",
        "--add-entries",
        "Cidr=198.51.100.254/32",
        "--remove-entries",
        "Cidr=198.51.100.1/32",
    ]);
    outside_hears(&udp(&web.public), SILENCE);
    change("revoke-security-group-ingress");
}

fn text(value: &Value, path: &str) -> String {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{path} in {value}"))
        .to_owned()
}

/// A subnet whose routes lead nowhere but into the VPC.
fn private_subnet(cloud: &Cloud) -> Private {
    let range = cloud.cidr.replace("0.0/16", "77.0/24");
    let subnet =
        cloud.ok(&["ec2", "create-subnet", "--vpc-id", &cloud.vpc, "--cidr-block", &range]);
    let subnet = text(&subnet, "/Subnet/SubnetId");
    let table = cloud.ok(&["ec2", "create-route-table", "--vpc-id", &cloud.vpc]);
    let table = text(&table, "/RouteTable/RouteTableId");
    let association = associate(cloud, &table, &subnet);
    Private { subnet, table, range, association }
}

/// A rule of an address becomes one of another address, and never one of a group.
fn change_a_rule(cloud: &Cloud, db: &Host<'_>, inner: &Host<'_>, group: &str) {
    let open = "IpProtocol=udp,FromPort=8080,ToPort=8080,IpRanges=[{CidrIp=198.51.100.0/24}]";
    let args = ["ec2", "authorize-security-group-ingress", "--group-id", group];
    let args: Vec<&str> = args.iter().chain(&["--ip-permissions", open]).copied().collect();
    let rule = text(&cloud.ok(&args), "/SecurityGroupRules/0/SecurityGroupRuleId");
    inner.hears(&[udp(&db.private)], &[SILENCE]);
    let wanted = |peer: &str| {
        format!(
            "SecurityGroupRuleId={rule},SecurityGroupRule={{IpProtocol=udp,FromPort=8080,ToPort=8080,{peer}}}"
        )
    };
    let modify = ["ec2", "modify-security-group-rules", "--group-id", group];
    let with = |wanted: &str| {
        let args = modify.iter().copied().chain(["--security-group-rules", wanted]);
        args.map(str::to_owned).collect::<Vec<_>>()
    };
    let args = with(&wanted(&format!("CidrIpv4={}/32", inner.private)));
    cloud.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    inner.hears(&[udp(&db.private)], &[inner.private.as_str()]);
    let args = with(&wanted(&format!("ReferencedGroupId={group}")));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cloud.refused("InvalidParameterValue", &args);
    let args = ["ec2", "revoke-security-group-ingress", "--group-id", group];
    let args: Vec<&str> =
        args.iter().chain(&["--security-group-rule-ids", rule.as_str()]).copied().collect();
    cloud.ok(&args);
}

fn associate(cloud: &Cloud, table: &str, subnet: &str) -> String {
    let args = ["ec2", "associate-route-table", "--route-table-id", table, "--subnet-id", subnet];
    text(&cloud.ok(&args), "/AssociationId")
}

fn private_reaches_outside(cloud: &Cloud, private: &Private, inner: &Host<'_>) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(peer) = stream.peer_addr() else { continue };
            let mut stream = stream;
            // Whoever has gone again needs no answer.
            let _ = std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes());
        }
    });
    let here = format!("tcp 198.51.100.1 {port}");
    let hears = |wanted: &str| inner.hears(std::slice::from_ref(&here), &[wanted]);
    assert_eq!(inner.public, "");
    hears(SILENCE);
    inner.reaches_not("ssm");
    assert!(inner.has_metadata());

    let address = cloud.ok(&["ec2", "allocate-address", "--domain", "vpc"]);
    let (allocation, public) = (text(&address, "/AllocationId"), text(&address, "/PublicIp"));
    let args =
        ["ec2", "create-nat-gateway", "--subnet-id", &cloud.subnet, "--allocation-id", &allocation];
    let nat = text(&cloud.ok(&args), "/NatGateway/NatGatewayId");
    let to_everywhere =
        ["--route-table-id", &private.table, "--destination-cidr-block", "0.0.0.0/0"];
    let route = |operation: &str, more: &[&str]| {
        let args: Vec<&str> =
            ["ec2", operation].iter().chain(&to_everywhere).chain(more).copied().collect();
        cloud.ok(&args);
    };
    route("create-route", &["--nat-gateway-id", &nat]);
    cloud.until("the NAT gateway works", || inner.asks(&[(&here, SHORT)]) == [public.as_str()]);
    inner.reaches("ssm");
    cloud.ok(&["ec2", "delete-nat-gateway", "--nat-gateway-id", &nat]);
    // A black hole.
    hears(SILENCE);
    inner.reaches_not("ssm");
    route("replace-route", &["--gateway-id", &gateway_of(cloud)]);
    // An internet gateway needs a public address.
    hears(SILENCE);
    route("delete-route", &[]);

    // A table of its own, another one, none: the VPC's main one, which leads to the internet gateway.
    let elastic =
        ["ec2", "associate-address", "--allocation-id", &allocation, "--instance-id", &inner.id];
    cloud.until("the address is free again", || cloud.aws(&elastic).is_ok());
    // A public address needs a route.
    hears(SILENCE);
    let main = main_table(cloud);
    let replaced = cloud.ok(&[
        "ec2",
        "replace-route-table-association",
        "--association-id",
        &private.association,
        "--route-table-id",
        &main,
    ]);
    hears(&public);
    let association = text(&replaced, "/NewAssociationId");
    cloud.ok(&["ec2", "disassociate-route-table", "--association-id", &association]);
    // The main table.
    hears(&public);
    associate(cloud, &private.table, &private.subnet);
    hears(SILENCE);
    cloud.ok(&["ec2", "disassociate-address", "--public-ip", &public]);
}

fn gateway_of(cloud: &Cloud) -> String {
    let filter = format!("Name=attachment.vpc-id,Values={}", cloud.vpc);
    let found = cloud.ok(&["ec2", "describe-internet-gateways", "--filters", &filter]);
    text(&found, "/InternetGateways/0/InternetGatewayId")
}

fn main_table(cloud: &Cloud) -> String {
    let filters =
        [format!("Name=vpc-id,Values={}", cloud.vpc), "Name=association.main,Values=true".into()];
    let found = cloud.ok(&["ec2", "describe-route-tables", "--filters", &filters[0], &filters[1]]);
    text(&found, "/RouteTables/0/RouteTableId")
}

fn endpoint_leads_to_one_service(cloud: &Cloud, private: &Private, inner: &Host<'_>) {
    let group = cloud.make_group("net-endpoint");
    let endpoint = |service: &str, more: &[&str]| {
        let name = format!("com.amazonaws.us-east-1.{service}");
        let mut args =
            vec!["ec2", "create-vpc-endpoint", "--vpc-id", &cloud.vpc, "--service-name", &name];
        args.extend(more);
        text(&cloud.ok(&args), "/VpcEndpoint/VpcEndpointId")
    };
    // Not Systems Manager's own: other scenarios' hosts in this VPC need it.
    let interface = [
        "--vpc-endpoint-type",
        "Interface",
        "--private-dns-enabled",
        "--subnet-ids",
        &private.subnet,
        "--security-group-ids",
        &group,
    ];
    let kms = endpoint("kms", &interface);
    inner.reaches_not("kms");
    let https =
        format!("IpProtocol=tcp,FromPort=443,ToPort=443,IpRanges=[{{CidrIp={}}}]", private.range);
    cloud.ok(&[
        "ec2",
        "authorize-security-group-ingress",
        "--group-id",
        &group,
        "--ip-permissions",
        &https,
    ]);
    inner.reaches("kms");
    let fault = ["add", "server-error", "--service", "kms", "--host", &inner.id, "--code", "503"];
    let said = cloud.fault(&[&fault[..], &["--count", "1"]].concat());
    assert_eq!(inner.calls_signed("kms"), 503, "{said}");
    assert_eq!(inner.calls_signed("kms"), 200, "once only");
    inner.reaches_not("logs");
    inner.reaches_not("s3");
    let change = |flag: &str| {
        cloud.ok(&["ec2", "modify-vpc-endpoint", "--vpc-endpoint-id", &kms, flag, &group]);
    };
    let closed = cloud.make_group("net-endpoint-closed");
    cloud.ok(&[
        "ec2",
        "modify-vpc-endpoint",
        "--vpc-endpoint-id",
        &kms,
        "--add-security-group-ids",
        &closed,
    ]);
    change("--remove-security-group-ids");
    inner.reaches_not("kms");
    change("--add-security-group-ids");
    inner.reaches("kms");
    let s3 = endpoint("s3", &["--route-table-ids", &private.table]);
    inner.reaches("s3");
    cloud.ok(&["ec2", "delete-vpc-endpoints", "--vpc-endpoint-ids", &kms, &s3]);
    inner.reaches_not("kms");
    inner.reaches_not("s3");
}

fn acl_stands_before_a_subnet(
    cloud: &Cloud,
    private: &Private,
    web: &Host<'_>,
    inner: &Host<'_>,
    db_group: &str,
) {
    let open = "IpProtocol=tcp,FromPort=8080,ToPort=8080,IpRanges=[{CidrIp=0.0.0.0/0}]";
    cloud.ok(&[
        "ec2",
        "authorize-security-group-ingress",
        "--group-id",
        db_group,
        "--ip-permissions",
        open,
    ]);
    let hears = |wanted: &str| web.hears(&[tcp(&inner.private)], &[wanted]);
    hears(&web.private);
    let acl = text(
        &cloud.ok(&["ec2", "create-network-acl", "--vpc-id", &cloud.vpc]),
        "/NetworkAcl/NetworkAclId",
    );
    let filter = format!("Name=association.subnet-id,Values={}", private.subnet);
    let found = cloud.ok(&["ec2", "describe-network-acls", "--filters", &filter]);
    let associations = found.pointer("/NetworkAcls/0/Associations").and_then(Value::as_array);
    let association = associations
        .into_iter()
        .flatten()
        .find(|association| association["SubnetId"] == private.subnet.as_str())
        .map(|association| text(association, "/NetworkAclAssociationId"))
        .expect("an association");
    let replaced = cloud.ok(&[
        "ec2",
        "replace-network-acl-association",
        "--association-id",
        &association,
        "--network-acl-id",
        &acl,
    ]);
    let association = text(&replaced, "/NewAssociationId");
    // A new ACL admits nothing.
    hears(SILENCE);
    let entry = |operation: &str, side: &str, ports: &str, action: &str| {
        let args = [
            "ec2",
            operation,
            "--network-acl-id",
            &acl,
            side,
            "--rule-number",
            "100",
            "--protocol",
            "tcp",
            "--port-range",
            ports,
            "--cidr-block",
            "0.0.0.0/0",
            "--rule-action",
            action,
        ];
        cloud.ok(&args);
    };
    entry("create-network-acl-entry", "--ingress", "From=8080,To=8080", "allow");
    // The answer needs a rule of its own.
    hears(SILENCE);
    entry("create-network-acl-entry", "--egress", "From=1024,To=65535", "allow");
    hears(&web.private);
    entry("replace-network-acl-entry", "--ingress", "From=8080,To=8080", "deny");
    hears(SILENCE);
    entry("replace-network-acl-entry", "--ingress", "From=8080,To=8080", "allow");
    hears(&web.private);
    cloud.ok(&[
        "ec2",
        "delete-network-acl-entry",
        "--network-acl-id",
        &acl,
        "--ingress",
        "--rule-number",
        "100",
    ]);
    hears(SILENCE);
    let default =
        found.pointer("/NetworkAcls/0/NetworkAclId").and_then(Value::as_str).expect("an ACL");
    cloud.ok(&[
        "ec2",
        "replace-network-acl-association",
        "--association-id",
        &association,
        "--network-acl-id",
        default,
    ]);
}

fn faults(cloud: &Cloud, web: &Host<'_>) {
    let add = |kind: &str, more: &[&str]| {
        let args: Vec<&str> =
            ["add", kind, "--host", &web.id].iter().chain(more).copied().collect();
        let said = cloud.fault(&args);
        let number = said.split(' ').nth(1).unwrap_or_else(|| panic!("{said}")).to_owned();
        cloud.until("the fault lasts", || {
            let said = if kind == "packet-loss" { "loses 40 %" } else { "has no network" };
            cloud.log().contains(&format!("{} {said}", web.id))
        });
        number
    };
    let remove = |number: &str, times: usize| {
        cloud.fault(&["remove", number]);
        cloud.until("the network is back", || {
            cloud.log().matches(&format!("{} has its network back", web.id)).count() == times
        });
    };
    let open = "IpProtocol=udp,FromPort=8080,ToPort=8080,IpRanges=[{CidrIp=198.51.100.1/32}]";
    cloud.ok(&[
        "ec2",
        "authorize-security-group-ingress",
        "--group-id",
        &group_of(cloud, web),
        "--ip-permissions",
        open,
    ]);
    // Asked one after the other, each question and each answer meets the next of the hundred numbers.
    let answered = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout");
        socket.connect((web.public.as_str(), PORT)).expect("an address");
        let asked =
            (0..100).filter(|_| socket.send(b"x").is_ok() && socket.recv(&mut [0; 99]).is_ok());
        asked.count()
    };
    let loss = add("packet-loss", &["--percent", "40", "--seed", "7"]);
    let count = answered();
    // 60 of 100 questions arrive and 60 of 100 answers: 36.
    assert!((25..=47).contains(&count), "{count} answers");
    remove(&loss, 1);
    assert!(answered() >= 98, "all answers but for a slow one");

    let lost = add("network-lost", &[]);
    outside_hears(&udp(&web.public), SILENCE);
    assert!(!web.has_metadata(), "nothing is reached");
    cloud.until("its agent is lost", || cloud.ping(&web.id) == "ConnectionLost");
    remove(&lost, 2);
    cloud.online(&web.id);
    outside_hears(&udp(&web.public), "198.51.100.1");
}

/// The group of `db` and `inner` admits TCP from everywhere by now.
fn loss_between(cloud: &Cloud, web: &Host<'_>, db: &Host<'_>, inner: &Host<'_>) {
    let asked = [tcp(&db.private), tcp(&db.public), tcp(&inner.private)];
    web.hears(&asked, &[&web.private, &web.public, &web.private]);
    let to = ["--host", "net-web", "--to", db.id.as_str(), "--percent", "100"];
    let said = cloud.fault(&[&["add", "packet-loss"], &to[..]].concat());
    let number = said.split(' ').nth(1).unwrap_or_else(|| panic!("{said}"));
    let told = |what: &str| cloud.log().contains(&format!("{} {what}", web.id));
    let begins = format!("loses 100 % of its packets to {}", db.id);
    cloud.until("the fault lasts", || told(&begins));
    web.hears(&asked, &[SILENCE, SILENCE, &web.private]);
    inner.hears(&asked[..1], &[&inner.private]);
    outside_hears(&tcp(&db.public), "198.51.100.1");
    cloud.fault(&["remove", number]);
    let ends = format!("has its way to {} back", db.id);
    cloud.until("the way is back", || told(&ends));
    web.hears(&asked, &[&web.private, &web.public, &web.private]);
}

fn group_of(cloud: &Cloud, host: &Host<'_>) -> String {
    text(&cloud.instance(&host.id), "/SecurityGroups/0/GroupId")
}
