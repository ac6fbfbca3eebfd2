//! `--limit` chooses what Ansible's own inventory manager chooses, over many patterns.

use crate::ansible::ansible_inventory;
use crate::tool;
use deploy_inventory::{Inventory, PatternError};
use deploy_testkit::Tool;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Asks Ansible which hosts each pattern names as `--limit`; null where it refuses the pattern.
const ASK: &str = r"
import json, sys
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
answers = []
manager = InventoryManager(DataLoader(), sources=[sys.argv[1]])
for pattern in json.load(open(sys.argv[2])):
    manager.clear_pattern_cache()
    try:
        manager.subset(pattern)
        answers.append(sorted(host.name for host in manager.get_hosts('all')))
    except AnsibleError:
        answers.append(None)
print(json.dumps(answers))
";

fn asked(inventory: &Path, patterns: &[String]) -> Vec<Option<Vec<String>>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("patterns.json");
    fs::write(&path, json!(patterns).to_string()).unwrap();
    let outcome = Tool::new(ansible_inventory().with_file_name("python3"))
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_HOST_PATTERN_MISMATCH", "ignore")
        .args([Path::new("-c"), Path::new(ASK), inventory, &path])
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// Groups in groups, hosts in an order that is not the alphabet's, one in no group, one with a dot.
fn inventory() -> Value {
    json!({"all": {
        "hosts": {"web2": {}, "web1": {}, "db1": {}, "lone": {}, "web10": {}, "app-a": {}, "app-b": {}, "web.x": {}},
        "vars": {"x": 1},
        "children": {
            "zone": {"children": {"web": {"hosts": {"web10": {}, "web2": {}, "web1": {}}}, "app": {}}},
            "db": {"hosts": {"db1": {}}},
            "app": {"hosts": {"app-b": {}, "app-a": {}}},
            "mixed": {"hosts": {"db1": {}, "web.x": {}}, "children": {"app": {}}},
            "empty": {}, "ungrouped": {"hosts": {"lone": {}}}}}})
}

fn patterns() -> Vec<String> {
    let fixed = [
        "web[0]",
        "web[1]",
        "web[2]",
        "web[-1]",
        "web[-3]",
        "web[-4]",
        "web[3]",
        "web[0:1]",
        "web[0:2]",
        "web[1:]",
        "web[1-2]",
        "web[1-]",
        "web[0:0]",
        "web[2:0]",
        "web[2:1]",
        "web[5:9]",
        "web[5:0]",
        "web[-2:]",
        "web[:1]",
        "web[99999999999999999999]",
        "web[-99999999999999999999]",
        "web[0:99999999999999999999]",
        "zone[0]",
        "zone[3]",
        "zone[-1]",
        "mixed[0]",
        "mixed[1]",
        "mixed[-1]",
        "all[0]",
        "all[-1]",
        "all[2:4]",
        "*[0]",
        "*[8]",
        "w*[0]",
        "w*[4]",
        "web?[0]",
        "web1[0]",
        "web1",
        "web[1]*",
        "web[12]",
        "web[12]*",
        "[wd]*[1]",
        "all:!web[0]",
        "all:!web[1]",
        "all:&web[1:]",
        "web:&zone[0:1]",
        "!web[1]",
        "&web[0]",
        "web[0],db[0]",
        "web[0]:db[0]",
        "web[0:1]:!web[1]",
        "web[0] db",
        "~web[12]$",
        "~web[0]",
        "~(web|db)1",
        "ungrouped",
        "ungrouped[0]",
        "ungr*",
        "empty",
        "empty[0]",
        "empty[1:]",
        "nowhere",
        "nowhere[0]",
        "app-[ab]",
        "app-[a-b]",
        "app-[!a]",
        "app-[b-a]",
        "app-[12]",
        "app[0]:app-a",
        "web[",
        "web]",
        "web[1",
        "db1:22",
        "lone,",
        ",",
        " web[1] , db ",
        "all:!all",
        "*",
        "all",
        "zone:!web:&app",
        "web[01]",
        "web[+1]",
        "web[1 ]",
    ];
    let mut all: Vec<String> = fixed.iter().map(|text| (*text).to_owned()).collect();
    let names = [
        "web",
        "zone",
        "mixed",
        "db",
        "app",
        "all",
        "empty",
        "ungrouped",
        "web*",
        "*1",
        "app-?",
        "[dw]*",
        "web1",
        "lone",
    ];
    let subscripts =
        ["", "", "[0]", "[1]", "[-1]", "[-2]", "[0:1]", "[1:]", "[2:0]", "[1-2]", "[7]"];
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..1500 {
        let separator = [":", ","][rng.random_range(0..2)];
        let parts: Vec<String> = (0..rng.random_range(1..4))
            .map(|_| {
                let sign = ["", "", "!", "&"][rng.random_range(0..4)];
                let name = names[rng.random_range(0..names.len())];
                let subscript = subscripts[rng.random_range(0..subscripts.len())];
                format!("{sign}{name}{subscript}")
            })
            .collect();
        all.push(parts.join(separator));
    }
    all
}

#[test]
fn patterns_choose_what_ansible_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.json");
    fs::write(&path, inventory().to_string()).unwrap();
    let patterns = patterns();
    let answers = asked(&path, &patterns);
    let ours = Inventory::parse(&inventory().to_string()).unwrap();
    let sorted = |hosts: Vec<&deploy_inventory::Host>| {
        hosts
            .into_iter()
            .map(|host| host.name.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let hosts = ours.hosts().iter().map(|host| host.name.as_str());
    let known: BTreeSet<&str> = hosts.chain(ours.groups()).chain(["all", "ungrouped"]).collect();
    let mut chosen = 0;
    for (pattern, expected) in patterns.iter().zip(answers) {
        // Nobody means nothing by a pattern without a part, and the flag refuses it.
        if pattern.trim_matches([',', ' ']).is_empty() {
            continue;
        }
        match (ours.select(Some(pattern)), expected) {
            (Ok(hosts), Some(expected)) => {
                chosen += usize::from(!expected.is_empty());
                assert_eq!(sorted(hosts), expected, "{pattern}");
            }
            (Err(PatternError::Subscript { .. }), None) => {}
            // Ansible warns of a name that is not there and goes on with the rest: here it is an error.
            (Err(PatternError::NoMatch { part, .. }), _) => {
                assert!(!known.contains(part.as_str()), "{pattern}: {part} is there");
            }
            (ours, ansible) => panic!("{pattern}: {ours:?}, and Ansible {ansible:?}"),
        }
    }
    assert!(chosen > 750, "{chosen} patterns choose hosts");
}

/// The same by the binary, on what it writes itself: the second of the group, not the host `web1`.
#[test]
fn limit_takes_a_number_as_ansible_does() {
    let folder = tempfile::tempdir().unwrap();
    let hosts: Value = ["web1", "web2", "db1"]
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let host = json!({"instance_id": format!("i-{at:017x}"), "private_ip": "10.0.0.1", "groups": [&name[..name.len() - 1]]});
            ((*name).to_owned(), host)
        })
        .collect::<serde_json::Map<String, Value>>()
        .into();
    let value = json!({"version": 1, "project": "p", "environment": "dev", "region": "us-east-1", "hosts": hosts});
    let outputs =
        json!({"inventory": {"sensitive": false, "type": "dynamic", "value": value}}).to_string();
    let path = folder.path().join("inventory.json");
    let written = tool().args(["-", "--output"]).args([&path]).stdin(outputs.clone()).run();
    assert_eq!(written.code, 0, "{}", written.stderr);
    let patterns: Vec<String> =
        ["web[1]", "web[-1]", "web[0:0]", "web[1:]", "all[0]", "all:!web[1]", "web[0],db"]
            .map(str::to_owned)
            .to_vec();
    for (pattern, expected) in patterns.iter().zip(asked(&path, &patterns)) {
        let outcome = tool().args(["-", "--limit", pattern]).stdin(outputs.clone()).run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let found: Vec<String> =
            value["all"]["hosts"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(Some(found), expected, "{pattern}");
    }
    let outcome = tool().args(["-", "--limit", "web[2]"]).stdin(outputs).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    assert!(outcome.stderr.contains("2 hosts match before the bracket"), "{}", outcome.stderr);
}
