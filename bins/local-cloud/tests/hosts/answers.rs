//! Every answer that a test got, by the AWS CLI or boto3: compared with botocore's model of the service and with the
//! list of what is true (`src/coverage.rs`). What is known to differ stands, with its reason, in
//! `conformance/differences.json`, which the documentation shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use local_cloud::coverage::{Class, services};
use serde::Deserialize;
use serde_json::Value;

static ANSWERS: Mutex<Vec<Answer>> = Mutex::new(Vec::new());

/// As `conformance/shapes.py` writes it.
#[derive(Debug, Clone, Deserialize)]
struct Answer {
    service: String,
    operation: String,
    status: u16,
    mark: Option<String>,
    /// Path, kind, detail.
    differences: Vec<[String; 3]>,
}

/// A difference that is known.
#[derive(Debug, Deserialize)]
struct Known {
    service: String,
    operation: String,
    path: String,
    kind: String,
    detail: Option<String>,
}

/// Keeps what was answered.
pub(crate) fn keep(answers: impl Iterator<Item = Value>) {
    let read = |value: Value| {
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
    };
    let answers: Vec<Answer> = answers.map(read).collect();
    ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
}

/// Says what is wrong with them. After a run of `all` scenarios also what was never called, and what is known to differ
/// but does not.
pub(crate) fn judged(all: bool) -> bool {
    let answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = include_str!("../../conformance/differences.json");
    let known: Vec<Known> = serde_json::from_str(text).expect("a list of differences");
    let mut wrong: BTreeMap<String, usize> = BTreeMap::new();
    let mut met = BTreeSet::new();
    for answer in &answers {
        for fault in faults(answer, &known, &mut met) {
            *wrong.entry(fault).or_default() += 1;
        }
    }
    if all {
        for operation in never_true(&answers) {
            wrong.insert(format!("{operation} is listed as true, and no call of it succeeded"), 1);
        }
        for (number, known) in known.iter().enumerate() {
            if !met.contains(&number) {
                wrong.insert(format!("known to differ, but it does not: {known:?}"), 1);
            }
        }
    }
    let operations: BTreeSet<_> = answers.iter().map(|a| (&a.service, &a.operation)).collect();
    println!(
        "answers: {} of {} operations compared, {} wrong",
        answers.len(),
        operations.len(),
        wrong.len()
    );
    for (fault, times) in &wrong {
        println!("  {times:3} × {fault}");
    }
    wrong.is_empty()
}

fn faults(answer: &Answer, known: &[Known], met: &mut BTreeSet<usize>) -> Vec<String> {
    let Answer { service, operation, status, mark, differences } = answer;
    let mut found = Vec::new();
    let class =
        services().find(|s| s.name == service).map_or(Class::Answered, |s| s.class(operation));
    // One that is true may refuse a parameter; an answer without a mark is none of the operation's own, as a fault.
    let partly = class == Class::True && mark.as_deref() == Some(Class::Refused.name());
    if let Some(mark) = mark
        && mark != class.name()
        && !partly
    {
        found.push(format!("{service} {operation} is {mark}, listed as {}", class.name()));
    }
    // What the emulator answers is its own affair.
    if mark.as_deref() == Some(Class::Answered.name()) {
        return found;
    }
    for [path, kind, detail] in differences {
        let hit = known.iter().position(|known| {
            matches(&known.service, service)
                && matches(&known.operation, operation)
                && matches(&known.path, path)
                && known.kind == *kind
                && known.detail.as_ref().is_none_or(|wanted| wanted == detail)
        });
        match hit {
            Some(number) => drop(met.insert(number)),
            None => {
                found.push(format!("{service} {operation} ({status}) {path}: {kind}: {detail}"))
            }
        }
    }
    found
}

/// Operations that are listed as true and were never answered with success.
fn never_true(answers: &[Answer]) -> Vec<String> {
    let listed = services().flat_map(|service| {
        service.made_true.iter().map(move |operation| (service.name, operation.name))
    });
    listed
        .filter(|(service, operation)| {
            !answers
                .iter()
                .any(|a| a.service == *service && a.operation == *operation && a.status < 300)
        })
        .map(|(service, operation)| format!("{service} {operation}"))
        .collect()
}

/// Whether a text fits a pattern with at most one `*`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}
