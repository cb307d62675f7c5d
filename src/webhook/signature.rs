//! Who sent a request, and when: HMAC-SHA256 over its body, and over its timestamp with its body.
//!
//! The first signature is the Python system's, and every receiver written for that system checks it. It does not cover
//! the timestamp, so whoever recorded a request can send it again with a fresh one; the second signature does.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// A key that signs. Shows itself to nobody: its `Debug` has neither its text nor its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret as an operator wrote it; none if it is empty, since everybody knows the empty one.
    pub fn new(text: impl Into<String>) -> Option<Secret> {
        Some(text.into()).filter(|text| !text.is_empty()).map(Secret)
    }

    /// The text itself, for the one place that hands it on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `X-Firewall-Signature`: `sha256=` and the HMAC-SHA256 of `body` in lower-case hex.
pub fn sign_v1(body: &[u8], secret: &Secret) -> String {
    signed(&[body], secret)
}

/// The value of `X-Firewall-Signature-V2`: as [`sign_v1`], over the value of `X-Firewall-Timestamp`, a full stop and
/// the body. A sender gives its unix seconds, a receiver the header's text as it came.
pub fn sign_v2(timestamp: impl fmt::Display, body: &[u8], secret: &Secret) -> String {
    let timestamp = timestamp.to_string();
    signed(&[timestamp.as_bytes(), b".", body], secret)
}

fn signed(parts: &[&[u8]], secret: &Secret) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    let mut text = String::with_capacity(SCHEME.len() + 64);
    text.push_str(SCHEME);
    for byte in mac.finalize().into_bytes() {
        text.extend([byte >> 4, byte & 15].map(|half| char::from(HEX[usize::from(half)])));
    }
    text
}

/// What a request says about its sender: three headers and the body, all as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signed<'a> {
    /// `X-Firewall-Signature`.
    pub v1: Option<&'a str>,
    /// `X-Firewall-Signature-V2`.
    pub v2: Option<&'a str>,
    /// `X-Firewall-Timestamp`.
    pub timestamp: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// What held of an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which of the secrets made the signatures; 0 is the first. While a secret is being changed, others still use
    /// the second.
    pub secret: usize,
    /// Whether the signature that covers the timestamp was there.
    pub replay_proof: bool,
}

/// Why a request is not what it says. The words are for the receiver's own log; a sender is told nothing of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Neither signature is there.
    #[error("it is not signed: neither {SIGNATURE} nor {SIGNATURE_V2} is there")]
    Unsigned,
    /// Not in the form that a signature has.
    #[error("{header} is not \"{SCHEME}\" and 64 hexadecimal digits")]
    Form {
        /// Which header.
        header: &'static str,
    },
    /// Made with another secret, or over another body.
    #[error("{header} does not fit: another secret, or the body was changed on its way")]
    Wrong {
        /// Which header.
        header: &'static str,
    },
    /// The first signature fits, the second does not.
    #[error(
        "{SIGNATURE_V2} does not fit though {SIGNATURE} does: the timestamp is not the one that was signed"
    )]
    Redated,
    /// No timestamp.
    #[error("{TIMESTAMP} is missing")]
    Undated,
    /// A timestamp that is no number of seconds.
    #[error("{TIMESTAMP} is not a number of seconds since 1970")]
    Date,
    /// More than [`WINDOW_SECONDS`] off.
    #[error(
        "{TIMESTAMP} is {seconds} s {side} this clock, more than {WINDOW_SECONDS}: an old request, or a clock is wrong"
    )]
    Stale {
        /// How far.
        seconds: u64,
        /// `behind` or `ahead of`.
        side: &'static str,
    },
}

/// Whether one of `secrets` made every signature of the request, and its timestamp is within [`WINDOW_SECONDS`] of
/// `now` (unix seconds). At least one signature has to be there, and whichever is there has to fit. Takes as long for
/// a signature that is nearly right as for one that is all wrong.
///
/// # Errors
/// If not, with the first reason.
pub fn verify(request: Signed<'_>, secrets: &[Secret], now: u64) -> Result<Accepted, Refusal> {
    let secret = fitting(request, secrets)?;
    check_date(request.timestamp, now)?;
    Ok(Accepted {
        secret,
        replay_proof: request.v2.is_some(),
    })
}

/// Which secret made the signatures.
fn fitting(request: Signed<'_>, secrets: &[Secret]) -> Result<usize, Refusal> {
    let (header, given) = match (request.v1, request.v2) {
        (Some(v1), _) => (SIGNATURE, v1),
        (None, Some(v2)) => (SIGNATURE_V2, v2),
        (None, None) => return Err(Refusal::Unsigned),
    };
    let present = [(SIGNATURE, request.v1), (SIGNATURE_V2, request.v2)];
    for (header, text) in present
        .into_iter()
        .filter_map(|(header, text)| Some((header, text?)))
    {
        has_form(text).then_some(()).ok_or(Refusal::Form { header })?;
    }
    let expected = |secret: &Secret| match request.v1 {
        Some(_) => sign_v1(request.body, secret),
        None => sign_v2(request.timestamp.unwrap_or_default(), request.body, secret),
    };
    // Every secret is tried, also after one fitted: the time taken says nothing of which.
    let fitting = secrets.iter().enumerate().fold(None, |found, (at, secret)| {
        let fits = same(&expected(secret), given);
        found.or(fits.then_some(at))
    });
    let secret = fitting.ok_or(Refusal::Wrong { header })?;
    match (request.v1, request.v2) {
        (Some(_), Some(v2)) => {
            let timestamp = request.timestamp.ok_or(Refusal::Undated)?;
            let fits = same(&sign_v2(timestamp, request.body, &secrets[secret]), v2);
            fits.then_some(secret).ok_or(Refusal::Redated)
        }
        _ => Ok(secret),
    }
}

fn check_date(timestamp: Option<&str>, now: u64) -> Result<(), Refusal> {
    let text = timestamp.ok_or(Refusal::Undated)?;
    let sent = seconds(text).ok_or(Refusal::Date)?;
    let side = if sent < now { "behind" } else { "ahead of" };
    match sent.abs_diff(now) {
        0..=WINDOW_SECONDS => Ok(()),
        seconds => Err(Refusal::Stale { seconds, side }),
    }
}

/// Whole seconds; a fraction, as Python's `time.time()` has it, is cut off.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(fraction)).then(|| whole.parse().ok())?
}

fn has_form(text: &str) -> bool {
    text.strip_prefix(SCHEME)
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Compares without stopping at the first difference. Upper-case digits mean the same.
fn same(expected: &str, given: &str) -> bool {
    expected
        .as_bytes()
        .ct_eq(given.to_ascii_lowercase().as_bytes())
        .into()
}

/// Header of the Python system's signature, unless an endpoint names another.
pub const SIGNATURE: &str = "X-Firewall-Signature";
/// Header of the signature that covers the timestamp.
pub const SIGNATURE_V2: &str = "X-Firewall-Signature-V2";
/// Header of the time of sending in unix seconds, unless an endpoint names another.
pub const TIMESTAMP: &str = "X-Firewall-Timestamp";
/// A request is refused when its timestamp is further off than so many seconds: room for a slow network and for
/// clocks that differ, little for whoever recorded it.
pub const WINDOW_SECONDS: u64 = 300;

const SCHEME: &str = "sha256=";
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_780_000_000;

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    /// As a sender makes it: both signatures and the time.
    struct Sent {
        v1: String,
        v2: String,
        timestamp: String,
        body: Vec<u8>,
    }

    impl Sent {
        fn at(timestamp: impl fmt::Display, key: &str) -> Sent {
            let body = b"{\"events\":[]}".to_vec();
            Sent {
                v1: sign_v1(&body, &secret(key)),
                v2: sign_v2(&timestamp, &body, &secret(key)),
                timestamp: timestamp.to_string(),
                body,
            }
        }

        fn both(&self) -> Signed<'_> {
            Signed {
                v1: Some(&self.v1),
                v2: Some(&self.v2),
                timestamp: Some(&self.timestamp),
                body: &self.body,
            }
        }
    }

    fn tried(request: Signed<'_>) -> Result<Accepted, Refusal> {
        verify(request, &[secret("new"), secret("old")], NOW)
    }

    #[test]
    fn the_signature_is_the_one_of_the_standard() {
        // RFC 4231, test case 2
        assert_eq!(
            sign_v1(b"what do ya want for nothing?", &secret("Jefe")),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let over_both = sign_v1(b"1780000000.{}", &secret("Jefe"));
        assert_eq!(sign_v2(NOW, b"{}", &secret("Jefe")), over_both);
    }

    #[test]
    fn either_secret_and_either_signature_is_enough() {
        let new = Sent::at(NOW, "new");
        let fine = |secret, replay_proof| Ok(Accepted { secret, replay_proof });
        assert_eq!(tried(new.both()), fine(0, true));
        assert_eq!(tried(Sent::at(NOW, "old").both()), fine(1, true));
        assert_eq!(
            tried(Signed {
                v2: None,
                ..new.both()
            }),
            fine(0, false)
        );
        assert_eq!(
            tried(Signed {
                v1: None,
                ..new.both()
            }),
            fine(0, true)
        );
        let upper = new.v1.to_ascii_uppercase().replace("SHA256", "sha256");
        assert_eq!(
            tried(Signed {
                v1: Some(&upper),
                ..new.both()
            }),
            fine(0, true)
        );
    }

    #[test]
    fn whatever_does_not_fit_is_refused_with_its_reason() {
        let sent = Sent::at(NOW, "new");
        let whole = sent.both();
        let none = Signed {
            v1: None,
            v2: None,
            ..whole
        };
        assert_eq!(tried(none), Err(Refusal::Unsigned));
        assert_eq!(
            tried(Signed { body: b"{}", ..whole }),
            Err(Refusal::Wrong { header: SIGNATURE })
        );
        assert_eq!(
            tried(Sent::at(NOW, "third").both()),
            Err(Refusal::Wrong { header: SIGNATURE })
        );
        let third = Sent::at(NOW, "third");
        let only_v2 = Signed {
            v1: None,
            ..third.both()
        };
        assert_eq!(tried(only_v2), Err(Refusal::Wrong { header: SIGNATURE_V2 }));
        let redated = Signed {
            timestamp: Some("1780000001"),
            ..whole
        };
        assert_eq!(tried(redated), Err(Refusal::Redated));
        assert_eq!(
            tried(Signed {
                timestamp: None,
                ..whole
            }),
            Err(Refusal::Undated)
        );
        assert_eq!(
            tried(Signed {
                timestamp: None,
                v2: None,
                ..whole
            }),
            Err(Refusal::Undated)
        );
        for form in [
            "",
            "sha256=",
            "sha1=00",
            &sent.v1[7..],
            &sent.v1[..70],
            "sha256=\u{e4}",
        ] {
            let refused = Err(Refusal::Form { header: SIGNATURE });
            assert_eq!(
                tried(Signed {
                    v1: Some(form),
                    ..whole
                }),
                refused,
                "{form}"
            );
        }
        assert_eq!(verify(whole, &[], NOW), Err(Refusal::Wrong { header: SIGNATURE }));
    }

    #[test]
    fn the_window_is_five_minutes_to_either_side() {
        let at = |sent: u64| tried(Sent::at(sent, "new").both()).err();
        assert_eq!([NOW - 300, NOW, NOW + 300].map(at), [None, None, None]);
        let stale = |side| Some(Refusal::Stale { seconds: 301, side });
        assert_eq!(at(NOW - 301), stale("behind"));
        assert_eq!(at(NOW + 301), stale("ahead of"));
        assert_eq!(tried(Sent::at("1780000000.73", "new").both()).err(), None);
        for text in [
            "",
            "-1",
            "1e9",
            "now",
            "1780000000.",
            ".5",
            "0x1",
            "99999999999999999999",
            " 1780000000",
        ] {
            assert_eq!(tried(Sent::at(text, "new").both()), Err(Refusal::Date), "{text}");
        }
    }

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        assert_eq!(format!("{:?}", secret("hunter2")), "Secret(…)");
        assert_eq!(Secret::new(""), None);
    }
}
