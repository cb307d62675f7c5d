//! Witnesses that are not the engine: what the network itself saw, kept by a small nft table of their own.

use std::collections::BTreeSet;

use super::namespace::Namespace;

/// Counts, in the attacker's namespace, which TCP ports ever answered (SYN+ACK or RST).
pub(crate) struct Witness<'a> {
    ns: &'a Namespace,
}

impl<'a> Witness<'a> {
    /// Watches what reaches `ns`.
    pub(crate) fn new(ns: &'a Namespace) -> Witness<'a> {
        ns.nft(
            "add table inet witness; \
             add set inet witness answered { type inet_service; size 65536; flags dynamic; }; \
             add chain inet witness seen { type filter hook prerouting priority -400; policy accept; }; \
             add counter inet witness rst; \
             add rule inet witness seen tcp flags & (syn|ack) == (syn|ack) add @answered { tcp sport }; \
             add rule inet witness seen tcp flags & rst == rst add @answered { tcp sport }; \
             add rule inet witness seen tcp flags & rst == rst counter name rst",
        );
        Witness { ns }
    }

    /// The distinct TCP ports that ever answered.
    pub(crate) fn answered(&self) -> BTreeSet<u16> {
        set_elements(self.ns, "witness", "answered")
            .iter()
            .filter_map(|e| e.parse().ok())
            .collect()
    }

    /// How many RST packets came back so far.
    pub(crate) fn resets(&self) -> u64 {
        counter(self.ns, "witness", "rst")
    }
}

/// Packets that a named counter saw.
pub(crate) fn counter(ns: &Namespace, table: &str, name: &str) -> u64 {
    let text = ns.must("nft", &["-j", "list", "counter", "inet", table, name]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("nft speaks JSON");
    let objects = json["nftables"].as_array().expect("a list of objects");
    objects
        .iter()
        .find_map(|o| o["counter"]["packets"].as_u64())
        .expect("a counter")
}

/// The elements of a set as nft writes them (without timeouts); empty when the set or its table is missing.
pub(crate) fn set_elements(ns: &Namespace, table: &str, set: &str) -> Vec<String> {
    let text = ns.nft_list(&["-j", "list", "set", "inet", table, set]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = json["nftables"].as_array().cloned().unwrap_or_default();
    let elements = objects
        .iter()
        .find_map(|o| o["set"]["elem"].as_array().cloned())
        .unwrap_or_default();
    elements.iter().map(plain).collect()
}

/// One element without what is written around it: `{"elem":{"val":…}}`, `{"prefix":…}` or the bare value.
fn plain(element: &serde_json::Value) -> String {
    use serde_json::Value;
    match element {
        Value::String(text) => text.clone(),
        Value::Object(_) if element["elem"].is_object() => plain(&element["elem"]["val"]),
        Value::Object(_) if element["prefix"].is_object() => {
            format!(
                "{}/{}",
                plain(&element["prefix"]["addr"]),
                element["prefix"]["len"]
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn elements_lose_their_trimmings() {
        let cases = [
            (r#""10.0.0.1""#, "10.0.0.1"),
            (r#"443"#, "443"),
            (
                r#"{"elem":{"val":"10.0.0.1","timeout":3,"expires":2}}"#,
                "10.0.0.1",
            ),
            (r#"{"elem":{"val":443}}"#, "443"),
            (r#"{"prefix":{"addr":"fd66::","len":64}}"#, "fd66::/64"),
        ];
        for (json, text) in cases {
            assert_eq!(plain(&serde_json::from_str(json).expect("json")), text);
        }
    }
}
