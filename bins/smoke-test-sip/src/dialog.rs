//! The state of one call after its 2xx (RFC 3261 §12): tags, sequence numbers, where requests go. Pure.

use crate::header::{NameAddr, split_commas, tag};
use crate::message::Message;
use crate::uri::SipUri;

/// A confirmed dialog, seen from the caller.
#[derive(Debug, Clone)]
pub struct Dialog {
    /// The call's name.
    pub call_id: String,
    /// Our `From` value, tag included.
    pub local: String,
    /// Their `To` value, tag included.
    pub remote: String,
    /// Our last sequence number.
    pub cseq: u32,
    /// The URI of their `Contact`.
    pub target: SipUri,
    /// `Route` values, nearest proxy first.
    pub routes: Vec<String>,
}

/// Request line, `Route` values and next hop of a request inside a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The request's URI.
    pub uri: String,
    /// The `Route` header values.
    pub routes: Vec<String>,
    /// Whom to send it to.
    pub hop: SipUri,
}

impl Dialog {
    /// The dialog that a 2xx to an INVITE makes (RFC 3261 §12.1.2); the reason when it makes none.
    ///
    /// # Errors
    /// A sentence about the header that is missing or cannot be read.
    pub fn from_2xx(response: &Message) -> Result<Self, String> {
        let field = |name: &'static str| {
            response.header(name).ok_or_else(|| format!("the 2xx has no {name}"))
        };
        let remote = field("To")?;
        tag(remote).ok_or("the 2xx has no tag in To")?;
        let contact = field("Contact")?;
        let uri = split_commas(contact)
            .first()
            .and_then(|first| NameAddr::parse(first))
            .map(|parsed| parsed.uri);
        let uri =
            uri.ok_or_else(|| format!("the 2xx has a Contact that cannot be read: `{contact}`"))?;
        let target =
            uri.parse().map_err(|error| format!("the 2xx has the Contact `{uri}`: {error}"))?;
        let mut routes: Vec<String> =
            response.all("Record-Route").flat_map(split_commas).map(str::to_owned).collect();
        routes.reverse();
        let (cseq, _) = response.cseq().ok_or("the 2xx has no CSeq")?;
        Ok(Self {
            call_id: field("Call-ID")?.to_owned(),
            local: field("From")?.to_owned(),
            remote: remote.to_owned(),
            cseq,
            target,
            routes,
        })
    }

    /// How the next request goes, RFC 3261 §12.2.1.1: loose routing, or strict when the first route has no `lr`.
    ///
    /// # Errors
    /// A sentence when the first route cannot be read.
    pub fn way(&self) -> Result<Way, String> {
        let Some(first) = self.routes.first() else {
            return Ok(Way {
                uri: self.target.to_string(),
                routes: Vec::new(),
                hop: self.target.clone(),
            });
        };
        let hop: SipUri = NameAddr::parse(first)
            .ok_or_else(|| format!("the 2xx has a Record-Route that cannot be read: `{first}`"))?
            .uri
            .parse()
            .map_err(|error| format!("the 2xx has the Record-Route `{first}`: {error}"))?;
        if hop.param("lr").is_some() {
            return Ok(Way { uri: self.target.to_string(), routes: self.routes.clone(), hop });
        }
        let mut routes = self.routes[1..].to_vec();
        routes.push(format!("<{}>", self.target));
        Ok(Way { uri: hop.to_string(), routes, hop })
    }

    /// Whether a message belongs to this dialog. `theirs` is true for requests from the other side.
    pub fn holds(&self, message: &Message, theirs: bool) -> bool {
        let (ours, other) = if theirs { ("To", "From") } else { ("From", "To") };
        let same = |name, own: &str| message.header(name).and_then(tag) == tag(own);
        message.header("Call-ID") == Some(&self.call_id)
            && same(ours, &self.local)
            && same(other, &self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(extra: &str) -> Message {
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=l\r\nTo: <sip:6@b>;tag=r\r\n\
             Call-ID: c\r\nCSeq: 3 INVITE\r\n{extra}\r\n"
        );
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn without_routes_requests_go_to_the_contact() {
        let dialog = Dialog::from_2xx(&ok("Contact: <sip:6@10.0.0.9:5070>\r\n")).unwrap();
        let way = dialog.way().unwrap();
        assert_eq!(
            (way.uri.as_str(), way.hop.authority()),
            ("sip:6@10.0.0.9:5070", "10.0.0.9:5070".into())
        );
        assert!(dialog.holds(&ok(""), false) && !dialog.holds(&ok(""), true));
    }

    #[test]
    fn the_route_set_is_the_record_route_backwards() {
        let extra = "Contact: <sip:6@10.0.0.9>\r\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\r\nRecord-Route: <sip:p0;lr>\r\n";
        let way = Dialog::from_2xx(&ok(extra)).unwrap().way().unwrap();
        assert_eq!(way.uri, "sip:6@10.0.0.9");
        assert_eq!(way.routes, ["<sip:p0;lr>", "<sip:p1;lr>", "<sip:p2;lr>"]);
        assert_eq!(way.hop.host, "p0");
    }

    #[test]
    fn a_strict_router_gets_the_request_line() {
        let extra =
            "Contact: <sip:6@10.0.0.9>\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p0>\r\n";
        let way = Dialog::from_2xx(&ok(extra)).unwrap().way().unwrap();
        assert_eq!((way.uri.as_str(), way.hop.host.as_str()), ("sip:p0", "p0"));
        assert_eq!(way.routes, ["<sip:p1;lr>", "<sip:6@10.0.0.9>"]);
    }

    #[test]
    fn a_2xx_that_makes_no_dialog_says_why() {
        let why = |extra| Dialog::from_2xx(&ok(extra)).unwrap_err();
        assert_eq!(why(""), "the 2xx has no Contact");
        assert_eq!(
            why("Contact: *\r\n"),
            "the 2xx has the Contact `*`: expected `sip:`, found `*`"
        );
        assert_eq!(
            why("Contact: <sip:h:0>\r\n"),
            "the 2xx has the Contact `sip:h:0`: bad port `0`: expected 1 to 65535"
        );
    }
}
