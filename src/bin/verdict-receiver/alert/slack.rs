//! Alerts to a Slack incoming webhook, whose address is itself the key to it.

use std::time::Duration;

use serde_json::json;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use verdictd::webhook::signature::Secret;
use verdictd::webhook::wire::USER_AGENT;

use super::digest::Digest;
use super::{Channel, Unsent};

/// One webhook.
pub(super) struct Slack {
    agent: Agent,
    url: Secret,
}

impl Slack {
    /// Nothing is sent yet. No redirect is followed and no proxy of the environment is asked: alerts go where the
    /// operator said. Certificates are verified by what this system trusts.
    pub(super) fn new(url: Secret) -> Slack {
        let roots = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .tls_config(roots)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(TIME))
            .user_agent(USER_AGENT)
            .build()
            .new_agent();
        Slack { agent, url }
    }
}

impl Channel for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn send(&self, digest: &Digest) -> Result<(), Unsent> {
        let body = json!({ "text": text(digest) }).to_string();
        let request = self
            .agent
            .post(self.url.reveal())
            .header("content-type", "application/json");
        // Only the kind of an error and never its address.
        let answer = request
            .send(body)
            .map_err(|why| why.to_string().replace(self.url.reveal(), "…"))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => {
                let seconds = answer.headers().get("retry-after");
                let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
                Err(Unsent {
                    why: format!("it answered {}", status.as_u16()),
                    not_before: seconds.map(Duration::from_secs),
                })
            }
        }
    }
}

/// Slack reads `&`, `<` and `>` as markup (mentions, links), and backticks end the block that keeps the rest literal.
fn text(digest: &Digest) -> String {
    let literal = |line: &str| {
        line.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('`', "'")
    };
    format!(
        "*{}*\n```\n{}\n```",
        literal(&digest.subject).replace('*', "·"),
        literal(&digest.lines.join("\n"))
    )
}

const TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_called_by_what_an_event_holds() {
        let digest = Digest {
            subject: "a*b".into(),
            lines: vec!["<!channel> ```& x".into()],
        };
        assert_eq!(text(&digest), "*a·b*\n```\n&lt;!channel&gt; '''&amp; x\n```");
    }
}
