//! Broken documents by the thousand, through everything that reads and writes; no input makes it panic.
//!
//! `TF_TO_INVENTORY_FUZZ_INPUTS` says how many (3,000), `TF_TO_INVENTORY_FUZZ_SEED` which (1): the same seed gives the
//! same inputs. `scripts/bench/tf-to-inventory-fuzz` runs a million.

use crate::fixture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use tf_to_inventory::document::{Wanted, read};
use tf_to_inventory::guess::{OnDuplicate, Options, guess};
use tf_to_inventory::merge::{GroupBy, OnConflict, Part, merge};
use tf_to_inventory::{ansible, contract, scaling};

/// What breaks parsers.
const TOKENS: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "-0.0",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "{{ x }}",
    "\u{feff}",
    "\u{2028}",
    "\"version\":",
    "\"resources\":",
    "\"values\":",
    "\"inventory\":",
    "\"sensitive\":true",
    "\"hosts\":",
    "<",
    "&lt;",
    "&#0;",
    "</member>",
    "]]>",
];

fn number(name: &str, default: u64) -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "how much a test does is said by the environment"
    )]
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

fn corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = ["outputs.json", "state.json", "show.json", "nested.json"]
        .iter()
        .map(|name| fs::read(fixture(name)).unwrap())
        .collect();
    all.push(include_bytes!("../fixtures/groups.xml").to_vec());
    all.push(include_bytes!("../fixtures/instances.xml").to_vec());
    all
}

fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let end = (at + rng.random_range(0..40)).min(bytes.len());
        match rng.random_range(0..9) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
            6 => {
                // Part of another document.
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..other.len());
                let to = (from + rng.random_range(0..200)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            7 => {
                let depth = rng.random_range(1..300);
                let open = if rng.random() { "[" } else { "{\"a\":" };
                bytes.splice(at..at, open.repeat(depth).into_bytes());
            }
            _ => {
                // One string for another.
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                if let Some(start) =
                    bytes[at..].iter().position(|byte| *byte == b'"').map(|found| at + found + 1)
                {
                    let length = bytes[start..].iter().position(|byte| *byte == b'"').unwrap_or(0);
                    bytes.splice(start..start + length, token.bytes().filter(|byte| *byte != b'"'));
                }
            }
        }
    }
    bytes
}

/// A document that is still JSON, with a few values changed for others or taken away.
fn reshaped(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&corpus[rng.random_range(0..4)]).unwrap();
    let values = json!([null, true, 0, -1, 1e300, 4, "", "a", "{{ x }}", "a b", "sip", "i-0123456789abcdef0", [], {}, [["a"]],
        {"a": {"b": []}}, {"__ansible_unsafe": "x"}, {"sensitive": true, "value": 1, "type": "x"}]);
    for _ in 0..rng.random_range(1..4) {
        change(&mut value, rng, &values);
    }
    value.to_string().into_bytes()
}

/// Changes one value somewhere in it for another, or takes it away.
fn change(value: &mut Value, rng: &mut StdRng, values: &Value) {
    let deeper = rng.random_bool(0.85);
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let chosen = members.keys().nth(rng.random_range(0..members.len())).unwrap().clone();
            if rng.random_bool(0.02) {
                members.remove(&chosen);
            } else {
                change(&mut members[&chosen], rng, values);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let chosen = rng.random_range(0..items.len());
            change(&mut items[chosen], rng, values);
        }
        _ => *value = values[rng.random_range(0..18)].clone(),
    }
}

/// All of it; returns how far it came.
fn exercise(bytes: &[u8]) -> &'static str {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let groups = scaling::groups_page(text, &mut BTreeMap::new());
        let instances = scaling::instances_page(text, &mut BTreeMap::new());
        if groups.is_ok() || instances.is_ok() {
            return "page";
        }
    }
    let wanted = Wanted { outputs: vec!["vpc_id".into()], sensitive: vec![], guess: false };
    let found = match read(bytes, &wanted) {
        Ok(found) => found,
        Err(fault) => {
            assert!(!fault.to_string().is_empty() && !fault.hint().is_empty());
            return "refused";
        }
    };
    let inventory = match found.inventory {
        Ok(value) => contract::convert(&value, false).map(|converted| converted.inventory),
        Err(_) => {
            let resources = found.resources;
            let options = Options {
                on_duplicate: OnDuplicate::Suffix,
                role_groups: true,
                ..Options::default()
            };
            let guess = guess(&resources.unwrap_or_default(), options);
            guess
                .map(|guess| guess.inventory)
                .map_err(|problems| problems.iter().map(ToString::to_string).collect())
        }
    };
    let Ok(inventory) = inventory else { return "problems" };
    let part = Part { name: "x".into(), inventory };
    let parts = vec![part.clone(), part];
    let Ok(merged) = merge(parts, OnConflict::Last, &[GroupBy::Environment, GroupBy::Region])
    else {
        return "conflict";
    };
    let text = ansible::json_file(&merged.inventory);
    let again = deploy_inventory::Inventory::parse(&text).unwrap();
    assert_eq!(deploy_inventory::Inventory::parse(&ansible::json_file(&again)).unwrap(), again);
    // But for numbers that only Python reads with all their digits.
    let read: Value = serde_json::from_str(&text).unwrap();
    if serde_json::to_string_pretty(&read).unwrap() + "\n" == text {
        assert_eq!(ansible::json_file(&again), text);
    }
    assert!(!ansible::yaml_file(&merged.inventory).is_empty());
    assert!(!ansible::script_list(&merged.inventory).is_empty());
    for host in merged.inventory.hosts() {
        merged.inventory.variable(host, "x");
    }
    "inventory"
}

#[test]
fn no_input_makes_it_panic() {
    let inputs = number("TF_TO_INVENTORY_FUZZ_INPUTS", 3_000);
    let seed = number("TF_TO_INVENTORY_FUZZ_SEED", 1);
    let corpus = corpus();
    for document in &corpus {
        assert!(matches!(exercise(document), "inventory" | "page"));
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for number in 0..inputs {
        let broken = rng.random_bool(0.5);
        let bytes = if broken { mutated(&mut rng, &corpus) } else { reshaped(&mut rng, &corpus) };
        match catch_unwind(|| exercise(&bytes)) {
            Ok(end) => *ends.entry(end).or_default() += 1,
            Err(_) => panic!("input {number} of seed {seed}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
    println!("{inputs} inputs of seed {seed}, no panic: {ends:?}");
    assert!(ends.len() >= 4, "inputs come to different ends: {ends:?}");
}
