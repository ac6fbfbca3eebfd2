//! NAT gateways come and go slowly: `pending` before `available`, `deleting` before `deleted`, listed for a while after.
//!
//! The emulator makes and deletes them at once and keeps their addresses and interfaces. Here a deletion is held back:
//! only when its time has passed is the address freed, the interface removed and the emulator told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use jiff::Timestamp;
use tokio::time::Instant;

use super::answers::{self, Refusal};
use super::{Ec2, Request};
use crate::log;
use crate::operation::Form;
use crate::timing::Timing;
use crate::xml::Element;

/// All states of a NAT gateway (API reference, `NatGateway`).
const STATES: [&str; 5] = ["pending", "failed", "available", "deleting", "deleted"];

/// How long each step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatTiming {
    /// From the creation to `available`; one to two minutes on AWS.
    pub pending: Duration,
    /// From the deletion to `deleted`; one to five minutes on AWS.
    pub deleting: Duration,
    /// How long a deleted one stays listed; about an hour on AWS.
    pub listed: Duration,
}

impl Default for NatTiming {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(1),
            deleting: Duration::from_secs(2),
            listed: Duration::from_secs(60),
        }
    }
}

/// What is known about the NAT gateways of this run.
#[derive(Debug, Default)]
pub struct NatGateways {
    timing: NatTiming,
    known: Mutex<BTreeMap<String, Life>>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    available: Instant,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    asked: Timestamp,
    deleted: Instant,
    /// Whether the emulator was told; until then it is `deleting`, however late.
    done: bool,
}

impl From<&Timing> for NatTiming {
    fn from(timing: &Timing) -> Self {
        Self { pending: timing.nat_pending, deleting: timing.nat_deleting, listed: timing.listed }
    }
}

impl NatGateways {
    /// None yet; with these times.
    pub fn new(timing: NatTiming) -> Self {
        Self { timing, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Life>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn created(&self, id: &str, now: Instant) {
        let life = Life { available: now + self.timing.pending, end: None };
        self.known().insert(id.to_owned(), life);
    }

    /// Marks one as being deleted; `false` when it already was.
    fn begin_deletion(&self, id: &str, now: Instant, asked: Timestamp) -> bool {
        let mut known = self.known();
        let life = known.entry(id.to_owned()).or_insert(Life { available: now, end: None });
        let first = life.end.is_none();
        let end = End { asked, deleted: now + self.timing.deleting, done: false };
        life.end.get_or_insert(end);
        first
    }

    fn end_deletion(&self, id: &str) {
        if let Some(end) = self.known().get_mut(id).and_then(|life| life.end.as_mut()) {
            end.done = true;
        }
    }

    /// Whether packets pass through it; one that the emulator alone knows is as the emulator says.
    pub(super) fn works(&self, id: &str) -> bool {
        let state = self.state(id, Instant::now());
        state.is_none_or(|(shown, _)| shown == Shown::State("available"))
    }

    /// Its state at a time, and when its deletion was asked for; `None` for one that the emulator alone knows.
    fn state(&self, id: &str, now: Instant) -> Option<(Shown, Option<Timestamp>)> {
        let life = *self.known().get(id)?;
        let shown = match life.end {
            None if now < life.available => Shown::State("pending"),
            None => Shown::State("available"),
            Some(end) if !end.done => Shown::State("deleting"),
            Some(end) if now < end.deleted + self.timing.listed => Shown::State("deleted"),
            Some(_) => Shown::NoMore,
        };
        Some((shown, life.end.map(|end| end.asked)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    State(&'static str),
    NoMore,
}

impl Ec2 {
    pub(super) async fn create_nat_gateway(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let answer = self.pass(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        if let Some(gateway) = root.child_mut("natGateway")
            && let Some(id) = gateway.text_at(&["natGatewayId"])
        {
            self.nat_gateways.created(&id, Instant::now());
            show(gateway, &self.nat_gateways, Instant::now());
            let ec2 = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(ec2.nat_gateways.timing.pending).await;
                ec2.networks_changed().await;
            });
        }
        Ok(answer.with_body(root.write()))
    }

    pub(super) async fn delete_nat_gateway(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let id = request.form.get("NatGatewayId").unwrap_or_default().to_owned();
        let Some(gateway) = self.nat_gateway(&request.region, &id).await? else {
            return Err(unknown(&id));
        };
        if gateway.text_at(&["state"]).as_deref() != Some("deleted")
            && self.nat_gateways.begin_deletion(&id, Instant::now(), Timestamp::now())
        {
            log::line(format_args!("{id} is deleting"));
            self.networks_changed().await;
            let (ec2, id) = (Arc::clone(self), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(ec2.nat_gateways.timing.deleting).await;
                match ec2.finish_nat_gateway(&request.region, &gateway).await {
                    Ok(()) => log::line(format_args!("{id} is deleted")),
                    Err(refusal) => log::line(format_args!("{id}: {}", refusal.message)),
                }
                ec2.nat_gateways.end_deletion(&id);
            });
        }
        Ok(answers::simple("DeleteNatGatewayResponse", vec![Element::leaf("natGatewayId", &id)]))
    }

    async fn nat_gateway(&self, region: &str, id: &str) -> Result<Option<Element>, Refusal> {
        // Not by id: what is unknown would be an error of the emulator's own.
        let form = Form::new([("Action", "DescribeNatGateways"), ("Version", "2016-11-15")]);
        let root = self.upstream.ask("ec2", region, &form).await?;
        let found = root
            .items(&["natGatewaySet"])
            .find(|item| item.text_at(&["natGatewayId"]).as_deref() == Some(id));
        Ok(found.cloned())
    }

    /// Frees what a gateway held, then lets the emulator delete it.
    async fn finish_nat_gateway(&self, region: &str, gateway: &Element) -> Result<(), Refusal> {
        let mut steps = Vec::new();
        for address in gateway.items(&["natGatewayAddressSet"]) {
            if let Some(association) = address.text_at(&["associationId"]) {
                steps.push(("DisassociateAddress", "AssociationId", association));
            }
            if let Some(interface) = address.text_at(&["networkInterfaceId"]) {
                steps.push(("DeleteNetworkInterface", "NetworkInterfaceId", interface));
            }
        }
        let id = gateway.text_at(&["natGatewayId"]).unwrap_or_default();
        steps.push(("DeleteNatGateway", "NatGatewayId", id));
        for (operation, parameter, value) in steps {
            let form = Form::new([
                ("Action", operation),
                ("Version", "2016-11-15"),
                (parameter, value.as_str()),
            ]);
            self.upstream.ask("ec2", region, &form).await?;
        }
        self.refresh().await
    }

    pub(super) async fn describe_nat_gateways(
        &self,
        mut request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = take_state_filter(&mut request.form);
        let ids: Vec<String> =
            request.form.list("NatGatewayId").into_iter().map(str::to_owned).collect();
        let answer = self.pass_changed(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        if let Some(set) = root.child_mut("natGatewaySet") {
            let now = Instant::now();
            set.children.retain_mut(|gateway| show(gateway, &self.nat_gateways, now));
            let named = |gateway: &Element| gateway.text_at(&["natGatewayId"]);
            if let Some(id) =
                ids.iter().find(|id| !set.children.iter().any(|g| named(g).as_ref() == Some(*id)))
            {
                return Err(unknown(id));
            }
            set.children.retain(|gateway| {
                let state = gateway.text_at(&["state"]).unwrap_or_default();
                wanted.as_ref().is_none_or(|wanted| wanted.contains(&state))
            });
        }
        Ok(answer.with_body(root.write()))
    }
}

/// Gives a gateway the state that is true now; `false` when it is listed no more.
fn show(gateway: &mut Element, gateways: &NatGateways, now: Instant) -> bool {
    let id = gateway.text_at(&["natGatewayId"]).unwrap_or_default();
    let Some((shown, asked)) = gateways.state(&id, now) else { return true };
    let Shown::State(state) = shown else { return false };
    gateway.set(Element::leaf("state", state));
    if let Some(asked) = asked {
        gateway.set(Element::leaf("deleteTime", &format!("{asked:.3}")));
    }
    true
}

/// Takes the filter on the state out of a request: the emulator knows no state in between.
fn take_state_filter(form: &mut Form) -> Option<Vec<String>> {
    let (prefix, wanted) = form.filters().into_iter().find_map(|(prefix, name, values)| {
        let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        (name == "state").then_some((prefix, values))
    })?;
    form.remove(|name| name.starts_with(&format!("{prefix}Value")));
    for (number, state) in STATES.iter().enumerate() {
        form.push(format!("{prefix}Value.{}", number + 1), *state);
    }
    Some(wanted)
}

fn unknown(id: &str) -> Refusal {
    let well_formed = id.strip_prefix("nat-").is_some_and(|rest| {
        matches!(rest.len(), 8 | 17) && rest.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if well_formed {
        Refusal::client("NatGatewayNotFound", format!("The Nat Gateway {id} was not found"))
    } else {
        let message = format!("The Nat Gateway id {id} is malformed");
        Refusal::client("NatGatewayMalformed", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_goes_through_its_states() {
        let timing = NatTiming::default();
        let gateways = NatGateways::new(timing);
        let start = Instant::now();
        let state = |now| gateways.state("nat-1", now).map(|(shown, _)| shown);
        assert_eq!(state(start), None);
        gateways.created("nat-1", start);
        assert_eq!(state(start), Some(Shown::State("pending")));
        let later = start + timing.pending;
        assert_eq!(state(later), Some(Shown::State("available")));
        assert!(gateways.begin_deletion("nat-1", later, Timestamp::UNIX_EPOCH));
        assert!(!gateways.begin_deletion("nat-1", later, Timestamp::UNIX_EPOCH));
        // Not before the emulator has freed what it held.
        assert_eq!(state(later + timing.deleting * 2), Some(Shown::State("deleting")));
        gateways.end_deletion("nat-1");
        assert_eq!(state(later + timing.deleting), Some(Shown::State("deleted")));
        assert_eq!(state(later + timing.deleting + timing.listed), Some(Shown::NoMore));
    }

    #[test]
    fn a_filter_on_the_state_holds_for_the_true_state() {
        let mut form = Form::parse(
            b"Filter.1.Name=vpc-id&Filter.1.Value.1=v&Filter.2.Name=state&Filter.2.Value.1=deleting",
        );
        assert_eq!(take_state_filter(&mut form), Some(vec!["deleting".to_owned()]));
        assert_eq!(form.list("Filter.2.Value"), STATES);
        assert_eq!(form.list("Filter.1.Value"), ["v"]);
    }

    #[test]
    fn unknown_and_malformed_ids_differ() {
        assert_eq!(unknown("nat-0123456789abcdef0").code, "NatGatewayNotFound");
        assert_eq!(unknown("nat-x").code, "NatGatewayMalformed");
    }
}
