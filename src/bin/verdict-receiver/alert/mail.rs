//! Alerts by e-mail: STARTTLS with a verified certificate, unless the operator says otherwise.

use std::error::Error;
use std::io;
use std::time::Duration;

use lettre::message::{Mailbox, Mailboxes, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};

use super::digest::Digest;
use super::{Channel, Unsent};
use crate::config::{Mail, MailTls};

/// One mail server, and who writes to whom.
pub(super) struct Mailer {
    server: SmtpTransport,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// What no error may repeat.
    password: Option<String>,
}

impl Mailer {
    /// Nothing is sent yet.
    pub(super) fn new(mail: &Mail) -> Result<Mailer, String> {
        let tls = || TlsParameters::new(mail.server.clone()).map_err(|why| chain(&why));
        let tls = match mail.tls {
            MailTls::Starttls => Tls::Required(tls()?),
            MailTls::Wrapped => Tls::Wrapper(tls()?),
            MailTls::Plain => Tls::None,
        };
        let mut server = SmtpTransport::builder_dangerous(&mail.server)
            .port(mail.port)
            .tls(tls)
            .timeout(Some(TIME));
        if let Some((user, password)) = &mail.login {
            server = server.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
        }
        Ok(Mailer {
            server: server.build(),
            from: mail.from.clone(),
            to: mail.to.clone(),
            password: mail
                .login
                .as_ref()
                .map(|(_, password)| password.reveal().to_owned()),
        })
    }

    fn message(&self, digest: &Digest) -> Result<Message, lettre::error::Error> {
        Message::builder()
            .message_id(None)
            .from(self.from.clone())
            .mailbox(header::To::from(Mailboxes::from_iter(self.to.clone())))
            .subject(format!("[verdictd] {}", digest.subject))
            .header(header::ContentType::TEXT_PLAIN)
            .body(digest.lines.join("\n") + "\n")
    }
}

impl Channel for Mailer {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn send(&self, digest: &Digest) -> Result<(), Unsent> {
        let message = self.message(digest).map_err(|why| chain(&why))?;
        let hide = |text: String| match &self.password {
            Some(password) => text.replace(password, "…"),
            None => text,
        };
        match self.server.send(&message) {
            Ok(_) => Ok(()),
            Err(why) if timed_out(&why) => Err(format!("no answer within {} s", TIME.as_secs()).into()),
            Err(why) => Err(hide(chain(&why)).into()),
        }
    }
}

/// A socket whose time ran out says `WouldBlock`, which lettre's own question does not know and nobody can read.
fn timed_out(why: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(why);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        }
        cause = error.source();
    }
    false
}

fn chain(why: &dyn Error) -> String {
    let mut text = why.to_string();
    let mut cause = why.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// For each step of the talk with the server.
const TIME: Duration = Duration::from_secs(10);
