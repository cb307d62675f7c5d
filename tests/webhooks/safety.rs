//! FAULTS 47 and 48: where nothing is ever sent, and what nobody ever reads.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use verdictd::webhook::wire::EventType;
use verdictd::webhook::{Lookup, Webhooks};

use crate::rig::{QUICK, Receiver, config, of, publish, to, until};

/// Every name leads to these addresses.
#[derive(Debug)]
struct Leads(Vec<SocketAddr>);

impl Lookup for Leads {
    fn lookup(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let at = |address: &SocketAddr| {
            SocketAddr::new(address.ip(), if port == 80 { address.port() } else { port })
        };
        Ok(self.0.iter().map(at).collect())
    }
}

/// What is said of an endpoint whose name leads to `addresses`, and how many events it took.
fn told(url: &str, keys: &str, addresses: &[&str]) -> (Option<String>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let lookup = Leads(addresses.iter().map(|address| address.parse().unwrap()).collect());
    let config = config(QUICK, &[("soc", url, keys)]);
    let (webhooks, outbox) = Webhooks::start_with(&config, folder.path(), Arc::new(lookup)).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    let status = until(10, &webhooks, "an attempt", |status| {
        of(status, "soc").attempts > 0
    });
    let soc = of(&status, "soc");
    (soc.last_error.clone(), soc.delivered)
}

#[test]
fn a_name_that_leads_where_nothing_may_go_is_not_followed() {
    for (address, what) in [
        ("169.254.169.254:80", "metadata"),
        ("169.254.7.7:80", "link-local"),
        ("[fe80::1]:80", "link-local"),
        ("[::ffff:169.254.169.254]:80", "metadata"),
        ("[fd00:ec2::254]:80", "metadata"),
        ("0.0.0.0:80", "no address of a host"),
        ("224.0.0.1:80", "multicast"),
    ] {
        let (said, delivered) = told("http://soc.example.com/", "allow_http = true", &[address]);
        let said = said.unwrap();
        assert!(
            said.starts_with("nothing is ever sent there: ") && said.contains(what),
            "{address}: {said}"
        );
        assert_eq!(delivered, 0);
    }
}

#[test]
fn plain_http_stays_off_public_ways() {
    let (said, _) = told("http://soc.example.com/", "", &["192.0.2.7:9"]);
    assert!(
        said.unwrap()
            .starts_with("192.0.2.7 is public, and http:// leads there readable")
    );
    let receiver = Receiver::fine();
    let here = receiver.address.to_string();
    // of two addresses the one that may be used is
    assert_eq!(
        told("http://soc.example.com/", "", &["169.254.1.1:9", &here]),
        (None, 1)
    );
}

#[test]
fn requests_look_as_documented_and_both_signatures_fit() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "first secret\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("secret_file = {file:?}\nheaders = {{ \"X-Team\" = \"ir\" }}");
    let config = to(&receiver, QUICK, &keys);
    let (webhooks, outbox) = Webhooks::start(&config, &folder.path().join("spool")).unwrap();
    publish(&outbox, EventType::IpBlocked, 2);
    until(5, &webhooks, "taken", |status| of(status, "soc").delivered == 2);
    let request = receiver.requests().remove(0);
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "Firewall-Webhook/1.0"),
        ("x-team", "ir"),
    ] {
        assert_eq!(request.headers[name], value, "{request:?}");
    }
    let timestamp = &request.headers["x-firewall-timestamp"];
    let v1 = &request.headers["x-firewall-signature"];
    let v2 = &request.headers["x-firewall-signature-v2"];
    let both = [timestamp.as_bytes(), b".", &request.body].concat();
    assert_eq!((openssl(&request.body), openssl(&both)), (v1.clone(), v2.clone()));
    assert_eq!(python(&request.body), *v1);
    // another secret counts at once
    std::fs::write(&file, "second").unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    until(5, &webhooks, "taken", |status| of(status, "soc").delivered == 3);
    let request = receiver.requests().remove(1);
    assert_ne!(openssl(&request.body), request.headers["x-firewall-signature"]);
    // and one that is gone stops everything: nothing goes unsigned
    std::fs::remove_file(&file).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    let status = until(5, &webhooks, "noticed", |status| of(status, "soc").failed > 0);
    assert!(
        of(&status, "soc")
            .last_error
            .as_ref()
            .unwrap()
            .contains("cannot be read")
    );
    assert_eq!(receiver.requests().len(), 2);
}

fn openssl(body: &[u8]) -> String {
    let out = piped(
        Command::new("openssl").args(["dgst", "-sha256", "-hmac", "first secret", "-r"]),
        body,
    );
    format!("sha256={}", out.split_whitespace().next().unwrap())
}

/// As the Python system's documentation verifies.
fn python(body: &[u8]) -> String {
    let program = "import hmac,hashlib,sys; \
                   print('sha256='+hmac.new(b'first secret', sys.stdin.buffer.read(), hashlib.sha256).hexdigest())";
    piped(Command::new("python3").args(["-c", program]), body)
        .trim()
        .to_owned()
}

fn piped(command: &mut Command, input: &[u8]) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn headers_may_have_other_names_and_without_a_secret_nothing_is_signed() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let names = format!("{QUICK}\nsignature_header = \"X-Sig\"\ntimestamp_header = \"X-At\"");
    let config = to(&receiver, &names, "secret = \"hush\"");
    let (mut webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    until(5, &webhooks, "taken", |status| of(status, "soc").delivered == 1);
    webhooks.reload(&to(&receiver, QUICK, "")).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    until(5, &webhooks, "taken", |status| of(status, "soc").delivered == 2);
    let [first, second] = &receiver.requests()[..] else {
        panic!()
    };
    assert!(first.headers.contains_key("x-sig") && first.headers.contains_key("x-at"));
    assert!(!first.headers.contains_key("x-firewall-signature"));
    assert!(second.headers.contains_key("x-firewall-timestamp"));
    assert!(
        !second.headers.keys().any(|name| name.contains("sig")),
        "{second:?}"
    );
}

/// Whatever goes wrong, no secret, no header, no user part, path or query of an address is shown.
#[test]
fn fault_47_secrets_are_shown_nowhere() {
    let refusing = Receiver::start(|_| crate::rig::answer("401 Unauthorized hush", "x-hush: hush\r\n"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = |address: SocketAddr| format!("http://hush:hush@{address}/hush?key=hush");
    let keys = "secret = \"hush\"\nheaders = { Authorization = \"Bearer hush\" }";
    let (one, two) = (url(refusing.address), url(closed));
    let three = "http://hush@hush.invalid/hush".replace("//hush@hush", "//hush@name");
    let config = config(
        QUICK,
        &[("a", &one, keys), ("b", &two, keys), ("c", &three, keys)],
    );
    let folder = tempfile::tempdir().unwrap();
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    let status = until(10, &webhooks, "all failed", |status| {
        status.endpoints.iter().all(|e| e.failed > 0)
    });
    let shown = format!("{status:?} {webhooks:?} {outbox:?} {config:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(refusing.requests()[0].headers["authorization"].starts_with("B"));
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains("hush"), "{path:?}: {text}");
            let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
            assert_eq!(mode & 0o077, 0, "{path:?}");
        }
    }
}
