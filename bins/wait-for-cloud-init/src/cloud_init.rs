//! What a host's answer says about cloud-init. Pure, and the same for every version from 20.4 on.
//!
//! Finished means that `result.json` exists: its exit status is 0, 1 or 2 while it still runs, depending on the version
//! (`doc/status.txt` and `cloudinit/cmd/status.py` of the tags 20.4 to 26.2).

use crate::probe::Reading;
use crate::quote;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Smaller times are seconds since boot, as newer versions write them (25.1 and 26.2 do, 22.4 does not); 2001 by the
/// other reckoning.
const SINCE_BOOT: f64 = 1e9;

/// How far cloud-init is.
#[derive(Debug, Clone, PartialEq)]
pub enum CloudInit {
    /// Not finished. The stage it is in, and what went wrong so far.
    Running {
        /// `init-local`, `init`, `modules-config`, `modules-final`; `None` between stages or before the first.
        stage: Option<String>,
        /// Errors so far; they become a failure when it finishes.
        errors: Vec<String>,
    },
    /// Finished without a complaint.
    Done,
    /// Finished, and recovered from errors.
    Degraded {
        /// What it recovered from.
        recovered: Vec<String>,
        /// Whether these are notices of deprecation and nothing else.
        only_deprecated: bool,
    },
    /// Finished or given up, with errors.
    Failed(Vec<String>),
    /// Switched off, and by what.
    Disabled(String),
    /// Not installed.
    Absent,
}

/// One stage's times, seconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTimes {
    /// Its name in `status.json`.
    pub name: String,
    /// When it began.
    pub start: Option<f64>,
    /// When it ended.
    pub finished: Option<f64>,
    /// Whether it had errors.
    pub has_errors: bool,
}

/// What the host's answer says.
pub fn assess(reading: &Reading) -> CloudInit {
    let stages = members(reading);
    let mut errors: Vec<String> = Vec::new();
    let mut add = |found: Vec<String>| {
        for error in found {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
    };
    for (name, stage) in &stages {
        add(strings(stage.get("errors"))
            .into_iter()
            .map(|error| format!("{name}: {}", quote::message(&error)))
            .collect());
    }
    // A host that goes down right after its result does so because its user data wants a reboot: what counts is how it
    // comes back.
    if reading.leaving {
        return CloudInit::Running { stage: None, errors };
    }
    if let Some(result) = &reading.result {
        // The same errors again, without their stage; kept for files of versions that list them only here.
        if errors.is_empty() {
            errors = strings(result["v1"].get("errors"))
                .iter()
                .map(|error| quote::message(error))
                .collect();
        }
        if errors.is_empty() && says(reading, "status: error") {
            errors = vec![quote::message(&detail(reading))];
        }
        // Each stage reads the same configuration and says the same of it again: the first one's words are enough.
        let mut recovered: Vec<Recovered> = Vec::new();
        for found in stages.iter().flat_map(|(name, stage)| recoverable(name, stage)) {
            if !recovered.iter().any(|known| known.text == found.text) {
                recovered.push(found);
            }
        }
        let only_deprecated = recovered.iter().all(|found| found.level == "DEPRECATED");
        let recovered: Vec<String> = recovered
            .iter()
            .map(|Recovered { stage, level, text }| format!("{stage}: {level}: {text}"))
            .collect();
        return match (errors.is_empty(), recovered.is_empty()) {
            (false, _) => CloudInit::Failed(errors),
            (true, false) => CloudInit::Degraded { recovered, only_deprecated },
            (true, true) => CloudInit::Done,
        };
    }
    if reading.binary.is_empty() && reading.status.is_none() {
        return CloudInit::Absent;
    }
    if reading.marked_disabled || says(reading, "status: disabled") {
        return CloudInit::Disabled(quote::message(&disabled_by(reading)));
    }
    if reading.final_unit == "failed" {
        errors.push("cloud-final.service failed before it could write a result".to_owned());
        return CloudInit::Failed(errors);
    }
    let stage = reading.status.as_ref().and_then(|status| status["v1"]["stage"].as_str());
    CloudInit::Running { stage: stage.map(str::to_owned), errors }
}

/// When each stage began and ended, in the order of their beginning.
pub fn timeline(reading: &Reading) -> Vec<StageTimes> {
    let time = |stage: &Map<String, Value>, key: &str| {
        let time = stage.get(key).and_then(Value::as_f64)?;
        if time >= SINCE_BOOT { Some(time) } else { reading.booted_at.map(|boot| boot + time) }
    };
    members(reading)
        .into_iter()
        .map(|(name, stage)| StageTimes {
            name: name.to_owned(),
            start: time(stage, "start"),
            finished: time(stage, "finished"),
            has_errors: !strings(stage.get("errors")).is_empty(),
        })
        .filter(|stage| stage.start.is_some())
        .collect()
}

/// The datasource that cloud-init found, e.g. `DataSourceEc2`.
pub fn datasource(reading: &Reading) -> Option<String> {
    [&reading.result, &reading.status]
        .into_iter()
        .flatten()
        .find_map(|file| file["v1"]["datasource"].as_str())
        .map(|name| quote::message(name.split_whitespace().next().unwrap_or(name)))
}

/// For the report: version, datasource, stages.
pub fn data(reading: &Reading) -> Value {
    let stages: Vec<Value> = timeline(reading)
        .into_iter()
        .map(|stage| json!({"name": stage.name, "start": time(stage.start), "finished": time(stage.finished)}))
        .collect();
    json!({
        "version": reading.version.split_whitespace().last(),
        "datasource": datasource(reading),
        "stages": stages,
    })
}

fn time(seconds: Option<f64>) -> Option<String> {
    let millis = (seconds? * 1000.0).round();
    // Whole milliseconds since 1970 fit into 53 bits for some hundred thousand years.
    #[expect(clippy::cast_possible_truncation, reason = "checked by jiff's range right after")]
    jiff::Timestamp::from_millisecond(millis as i64).ok().map(|time| time.to_string())
}

/// The stages of `status.json`, its members that are objects, in the order in which they began.
fn members(reading: &Reading) -> Vec<(&str, &Map<String, Value>)> {
    let status = reading.status.as_ref().and_then(|status| status["v1"].as_object());
    let mut stages: Vec<(&str, &Map<String, Value>)> = status
        .into_iter()
        .flatten()
        .filter_map(|(name, stage)| Some((name.as_str(), stage.as_object()?)))
        .collect();
    let start =
        |stage: &Map<String, Value>| stage.get("start").and_then(Value::as_f64).unwrap_or(f64::MAX);
    stages.sort_by(|(_, a), (_, b)| start(a).total_cmp(&start(b)));
    stages
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.and_then(Value::as_array).into_iter().flatten().map(text).collect()
}

/// One error that cloud-init recovered from.
struct Recovered {
    stage: String,
    level: String,
    text: String,
}

/// A map level → messages since 23.4; earlier versions have none.
fn recoverable(name: &str, stage: &Map<String, Value>) -> Vec<Recovered> {
    let levels: BTreeMap<&String, &Value> =
        stage.get("recoverable_errors").and_then(Value::as_object).into_iter().flatten().collect();
    levels
        .into_iter()
        .flat_map(|(level, messages)| {
            strings(Some(messages)).into_iter().map(move |text| Recovered {
                stage: name.to_owned(),
                level: level.clone(),
                text: quote::message(&text),
            })
        })
        .collect()
}

fn says(reading: &Reading, line: &str) -> bool {
    reading.long.iter().any(|found| found == line)
}

/// The line after `detail:`.
fn detail(reading: &Reading) -> String {
    let mut lines = reading.long.iter().skip_while(|line| !line.starts_with("detail:"));
    let first =
        lines.next().and_then(|line| line.strip_prefix("detail:")).unwrap_or_default().trim();
    match first {
        "" => lines.next().cloned().unwrap_or_else(|| "`cloud-init status` says error".to_owned()),
        text => text.to_owned(),
    }
}

/// `boot_status_code` says it since 23.1, the detail before.
fn disabled_by(reading: &Reading) -> String {
    let code = reading.long.iter().find_map(|line| line.strip_prefix("boot_status_code:"));
    match code.map(str::trim).filter(|code| !code.is_empty()) {
        Some(code) => code.to_owned(),
        None if says(reading, "status: disabled") => detail(reading),
        None => "its generator".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(start: f64, finished: Value, errors: Value) -> Value {
        json!({"start": start, "finished": finished, "errors": errors})
    }

    /// Files as the versions before 23.4 write them, less what is not read.
    fn reading(stage_name: Value, final_stage: Value, result: Option<Value>) -> Reading {
        Reading {
            binary: "/usr/bin/cloud-init".into(),
            version: "/usr/bin/cloud-init 22.4.2".into(),
            status: Some(json!({"v1": {"datasource": "DataSourceEc2", "stage": stage_name,
                "init-local": stage(10.0, json!(11.0), json!([])), "init": stage(11.5, json!(12.0), json!([])),
                "modules-config": stage(12.5, json!(13.0), json!([])), "modules-final": final_stage}})),
            result,
            ..Reading::default()
        }
    }

    fn empty_result() -> Option<Value> {
        Some(json!({"v1": {"datasource": "DataSourceEc2", "errors": []}}))
    }

    #[test]
    fn a_version_that_says_error_while_it_runs_is_still_running() {
        // 22.4.2: exit status 1 and `status: error` long before the end.
        let mut early =
            reading(json!("modules-final"), stage(13.5, Value::Null, json!(["boom"])), None);
        early.long = vec!["status: error".into(), "detail:".into(), "boom".into()];
        assert_eq!(
            assess(&early),
            CloudInit::Running {
                stage: Some("modules-final".into()),
                errors: vec!["modules-final: boom".into()]
            }
        );
    }

    #[test]
    fn a_host_that_is_about_to_reboot_has_not_finished() {
        let done = reading(Value::Null, stage(13.5, json!(14.0), json!([])), empty_result());
        let leaving = Reading { leaving: true, ..done };
        assert_eq!(assess(&leaving), CloudInit::Running { stage: None, errors: vec![] });
    }

    #[test]
    fn nothing_yet_is_running() {
        // 20.4 and 24.1: `not run`, `not started`; the files do not exist.
        for words in ["status: not run", "status: not started", ""] {
            let reading = Reading {
                binary: "/usr/bin/cloud-init".into(),
                long: vec![words.into()],
                ..Reading::default()
            };
            assert_eq!(assess(&reading), CloudInit::Running { stage: None, errors: vec![] });
        }
    }

    #[test]
    fn done_is_done_in_every_version() {
        let done = reading(Value::Null, stage(13.5, json!(14.0), json!([])), empty_result());
        assert_eq!(assess(&done), CloudInit::Done);
        // 23.3 and later say `running` until systemd has settled; the result is there already.
        let settling = Reading { long: vec!["status: running".into()], ..done };
        assert_eq!(assess(&settling), CloudInit::Done);
    }

    #[test]
    fn errors_are_shown_once_with_their_stage() {
        let result = Some(json!({"v1": {"datasource": "DataSourceEc2", "errors": ["boom"]}}));
        let failed =
            reading(Value::Null, stage(13.5, json!(14.0), json!(["boom"])), result.clone());
        assert_eq!(assess(&failed), CloudInit::Failed(vec!["modules-final: boom".into()]));
        // status.json was lost: the result still says it.
        assert_eq!(
            assess(&Reading { status: None, ..failed }),
            CloudInit::Failed(vec!["boom".into()])
        );
        // A unit that systemd killed leaves clean files; 24.1 and later say so in words.
        let mut killed = reading(Value::Null, stage(13.5, json!(14.0), json!([])), empty_result());
        killed.long = ["status: error", "detail:", "Failed due to systemd unit failure."]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            assess(&killed),
            CloudInit::Failed(vec!["Failed due to systemd unit failure.".into()])
        );
    }

    #[test]
    fn recoverable_errors_degrade() {
        // 23.4 and later.
        let mut last = stage(13.5, json!(14.0), json!([]));
        last["recoverable_errors"] =
            json!({"WARNING": ["no hosts file"], "DEPRECATED": ["old key"]});
        let degraded = reading(Value::Null, last.clone(), empty_result());
        assert_eq!(
            assess(&degraded),
            CloudInit::Degraded {
                recovered: vec![
                    "modules-final: DEPRECATED: old key".into(),
                    "modules-final: WARNING: no hosts file".into()
                ],
                only_deprecated: false
            }
        );
        let mut old = stage(13.5, json!(14.0), json!([]));
        old["recoverable_errors"] = json!({"DEPRECATED": ["old key"]});
        assert!(matches!(
            assess(&reading(Value::Null, old, empty_result())),
            CloudInit::Degraded { only_deprecated: true, .. }
        ));
        last["errors"] = json!(["boom"]);
        assert!(matches!(
            assess(&reading(Value::Null, last, empty_result())),
            CloudInit::Failed(_)
        ));
    }

    #[test]
    fn disabled_names_what_switched_it_off() {
        let check = |long: &[&str], marked: bool, expected: &str| {
            let reading = Reading {
                binary: "/usr/bin/cloud-init".into(),
                long: long.iter().map(|line| (*line).to_owned()).collect(),
                marked_disabled: marked,
                ..Reading::default()
            };
            assert_eq!(assess(&reading), CloudInit::Disabled(expected.into()));
        };
        check(
            &["status: disabled", "boot_status_code: disabled-by-marker-file", "detail:", "x"],
            true,
            "disabled-by-marker-file",
        );
        // 20.4 and 22.4 have no code.
        check(
            &[
                "status: disabled",
                "detail:",
                "Cloud-init disabled by /etc/cloud/cloud-init.disabled",
            ],
            false,
            "Cloud-init disabled by /etc/cloud/cloud-init.disabled",
        );
        check(&[], true, "its generator");
    }

    #[test]
    fn a_host_without_cloud_init_is_absent_not_failed() {
        assert_eq!(assess(&Reading::default()), CloudInit::Absent);
    }

    #[test]
    fn a_last_unit_that_died_never_writes_a_result() {
        let mut dead = reading(json!("modules-final"), stage(13.5, Value::Null, json!([])), None);
        dead.final_unit = "failed".into();
        assert_eq!(
            assess(&dead),
            CloudInit::Failed(vec![
                "cloud-final.service failed before it could write a result".into()
            ])
        );
    }

    #[test]
    fn what_a_host_says_is_cut_and_cleaned() {
        let long = "x".repeat(1000);
        let failed = reading(
            Value::Null,
            stage(13.5, json!(14.0), json!([long, "a\u{1b}[31m\nb"])),
            empty_result(),
        );
        let CloudInit::Failed(errors) = assess(&failed) else { panic!("not failed") };
        assert_eq!(errors[0].chars().count(), "modules-final: ".len() + 300 + 1);
        assert_eq!(errors[1], "modules-final: a b");
    }

    #[test]
    fn the_report_has_the_stages_in_order() {
        let done = reading(Value::Null, stage(13.5, json!(14.25), json!([])), empty_result());
        assert_eq!(timeline(&done), [], "times since a boot that nobody knows");
        let done = Reading { booted_at: Some(1_700_000_000.0), ..done };
        let data = data(&done);
        assert_eq!(data["version"], "22.4.2");
        assert_eq!(data["datasource"], "DataSourceEc2");
        assert_eq!(data["stages"][0]["name"], "init-local");
        assert_eq!(
            data["stages"][3],
            json!({"name": "modules-final", "start": "2023-11-14T22:13:33.5Z", "finished": "2023-11-14T22:13:34.25Z"})
        );
    }
}
