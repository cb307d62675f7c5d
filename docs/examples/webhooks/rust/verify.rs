//! Verifies verdictd's webhooks with the crates hmac (0.13), sha2 (0.11) and subtle (2). Works in any server: it takes
//! three headers and the body as they came.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A request is refused when its timestamp is further off than so many seconds.
const WINDOW_SECONDS: f64 = 300.0;

/// What a request says of its sender.
pub struct Headers<'a> {
    /// `X-Firewall-Signature`
    pub signature: Option<&'a str>,
    /// `X-Firewall-Signature-V2`
    pub signature_v2: Option<&'a str>,
    /// `X-Firewall-Timestamp`
    pub timestamp: &'a str,
}

/// Whether `secret` made every signature that is there, at least one is, and the timestamp is within five minutes of
/// `now` (unix seconds). Check it before the body is parsed.
pub fn is_genuine(headers: &Headers<'_>, body: &[u8], secret: &str, now: f64) -> bool {
    let dated = [headers.timestamp.as_bytes(), b".", body];
    let signatures = [
        (headers.signature, &dated[2..]),
        (headers.signature_v2, &dated[..]),
    ];
    let mut given = signatures
        .iter()
        .filter_map(|(text, parts)| Some(((*text)?, *parts)))
        .peekable();
    let recent = headers
        .timestamp
        .parse::<f64>()
        .is_ok_and(|sent| (now - sent).abs() <= WINDOW_SECONDS);
    recent && given.peek().is_some() && given.all(|(text, parts)| fits(text, parts, secret))
}

fn fits(text: &str, parts: &[&[u8]], secret: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}").as_bytes().ct_eq(text.as_bytes()).into()
}
