//! What AWS's service models say of a request's form: which operations there are, what they need, how they are paged.
//!
//! Read from tables that `models/generate.py` writes from botocore's models. Pure.

use std::collections::HashMap;
use std::sync::OnceLock;

/// One operation of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2Operation {
    /// Whether it has the parameter `DryRun`.
    pub dry_run: bool,
    /// Parameters that must be there; of a list, its name without a number.
    pub required: Vec<&'static str>,
    /// How it is paged, if it is.
    pub page: Option<Ec2Page>,
    /// The filters that its documentation lists; none where it lists none. `tag` stands for `tag:KEY`.
    pub filters: Vec<&'static str>,
}

/// How an operation of EC2 is paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ec2Page {
    /// The least `MaxResults`.
    pub least: u32,
    /// The most.
    pub most: u32,
    /// The element of the answer that holds the items.
    pub list: &'static str,
    /// The list of ids that may not be given together with `MaxResults`.
    pub not_with: Option<&'static str>,
}

/// One operation of another service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// The members of its request; of the query protocol, only the required ones.
    pub members: Vec<Member>,
    /// How it is paged, if it is.
    pub page: Option<Page>,
}

/// A member of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What it must be in JSON.
    pub kind: Kind,
}

/// Kinds of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// An array.
    List,
    /// An object.
    Map,
    /// A time: a number or a text.
    Time,
}

/// How an operation of another service is paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The member that asks for a size.
    pub size: &'static str,
    /// The least.
    pub least: u32,
    /// The most.
    pub most: u32,
    /// The member that takes a token.
    pub token: &'static str,
    /// The member of the answer that gives the next one.
    pub next: &'static str,
    /// The member of the answer that holds the items.
    pub list: &'static str,
    /// The member of the answer that says whether there is more.
    pub more: Option<&'static str>,
}

/// Which protocol a request came in; some services speak two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Fields of a form, answered in XML.
    Query,
    /// AWS JSON 1.0 and 1.1.
    Json,
}

type Services = HashMap<&'static str, HashMap<&'static str, Operation>>;

/// An operation of EC2; `None` when there is none of this name.
pub fn ec2(operation: &str) -> Option<&'static Ec2Operation> {
    static TABLE: OnceLock<HashMap<&'static str, Ec2Operation>> = OnceLock::new();
    let table =
        TABLE.get_or_init(|| lines(include_str!("../models/ec2.tsv")).map(ec2_line).collect());
    table.get(operation)
}

/// The operations of another service; `None` for services whose requests are not looked at.
pub fn service(
    protocol: Protocol,
    service: &str,
) -> Option<&'static HashMap<&'static str, Operation>> {
    static QUERY: OnceLock<Services> = OnceLock::new();
    static JSON: OnceLock<Services> = OnceLock::new();
    let services = match protocol {
        Protocol::Query => QUERY.get_or_init(|| table(include_str!("../models/query.tsv"))),
        Protocol::Json => JSON.get_or_init(|| table(include_str!("../models/json.tsv"))),
    };
    services.get(service)
}

/// Whether a service has a model in either protocol.
pub fn knows(name: &str) -> bool {
    [Protocol::Query, Protocol::Json].into_iter().any(|protocol| service(protocol, name).is_some())
}

fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn names(column: &'static str) -> Vec<&'static str> {
    if column == "-" { Vec::new() } else { column.split(',').collect() }
}

fn ec2_line(columns: Vec<&'static str>) -> (&'static str, Ec2Operation) {
    let column = |number: usize| columns.get(number).copied().unwrap_or("-");
    let operation = Ec2Operation {
        dry_run: column(1) == "dry",
        required: names(column(2)),
        page: ec2_page(column(3)),
        filters: names(column(4)),
    };
    (column(0), operation)
}

fn ec2_page(column: &'static str) -> Option<Ec2Page> {
    let mut parts = column.split(':');
    Some(Ec2Page {
        least: parts.next()?.parse().ok()?,
        most: parts.next()?.parse().ok()?,
        list: parts.next()?,
        not_with: parts.next().filter(|name| *name != "-"),
    })
}

fn table(text: &'static str) -> Services {
    let mut services = Services::new();
    for columns in lines(text) {
        let column = |number: usize| columns.get(number).copied().unwrap_or("-");
        let operation = Operation {
            members: names(column(2)).into_iter().map(member).collect(),
            page: page(column(3)),
        };
        services.entry(column(0)).or_default().insert(column(1), operation);
    }
    services
}

fn member(text: &'static str) -> Member {
    let Some((name, kind)) = text.split_once(':') else {
        return Member { name: text, required: true, kind: Kind::Text };
    };
    let kind = match kind {
        "n" => Kind::Number,
        "b" => Kind::Flag,
        "l" => Kind::List,
        "m" => Kind::Map,
        "t" => Kind::Time,
        _ => Kind::Text,
    };
    let stripped = name.strip_prefix('!');
    Member { name: stripped.unwrap_or(name), required: stripped.is_some(), kind }
}

fn page(column: &'static str) -> Option<Page> {
    let mut parts = column.split(':');
    Some(Page {
        size: parts.next()?,
        least: parts.next()?.parse().ok()?,
        most: parts.next()?.parse().ok()?,
        token: parts.next()?,
        next: parts.next()?,
        list: parts.next()?,
        more: parts.next().filter(|name| !name.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_what_the_models_say() {
        let instances = ec2("DescribeInstances").expect("known");
        let page = instances.page.expect("paged");
        assert_eq!((page.least, page.most, page.list), (5, 1000, "reservationSet"));
        assert_eq!(page.not_with, Some("InstanceId"));
        assert!(instances.dry_run && instances.filters.contains(&"instance-state-name"));
        assert_eq!(ec2("DescribeRouteTables").and_then(|o| o.page).map(|p| p.most), Some(100));
        assert_eq!(ec2("DeleteVpc").map(|o| o.required.clone()), Some(vec!["VpcId"]));
        assert_eq!(ec2("Nope"), None);

        let ssm = service(Protocol::Json, "ssm").expect("known");
        let by_path = &ssm["GetParametersByPath"];
        assert_eq!(by_path.members[0].name, "Path");
        assert!(by_path.members[0].required);
        assert_eq!(by_path.page.map(|page| page.most), Some(10));
        let roles = &service(Protocol::Query, "iam").expect("known")["ListRoles"];
        assert_eq!(roles.page.and_then(|page| page.more), Some("IsTruncated"));
        assert!(service(Protocol::Json, "s3").is_none() && !knows("s3") && knows("iam"));
    }
}
