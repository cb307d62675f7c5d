//! Every way to verify that the documentation shows agrees with the library that signs.

use std::fs;
use std::process::Command;

use verdictd::webhook::wire::EventType;

use super::rig::{KEY, Post, run, send, unix_seconds};
use super::{Example, batch, home, one, verify};

/// What must be accepted.
fn good() -> Vec<(&'static str, Post)> {
    let both = batch(vec![one(EventType::IpBlocked), one(EventType::IpUnblocked)]);
    let old = Post::signed(both.body.clone(), KEY, unix_seconds() - 200);
    vec![
        ("both signatures", both.clone()),
        ("from the Python system", Post { v2: None, ..both }),
        ("200 s old", old),
    ]
}

/// What must be refused.
fn bad() -> Vec<(&'static str, Post)> {
    let good = batch(vec![one(EventType::IpBlocked)]);
    let at = |seconds| Post::signed(good.body.clone(), KEY, seconds);
    let other = Post::signed(good.body.clone(), "another", unix_seconds());
    let longer = [good.body.clone(), b" ".to_vec()].concat();
    vec![
        (
            "not signed",
            Post {
                v1: None,
                v2: None,
                ..good.clone()
            },
        ),
        ("another secret", other.clone()),
        (
            "one signature by another",
            Post {
                v2: other.v2,
                ..good.clone()
            },
        ),
        (
            "a changed body",
            Post {
                body: longer.clone(),
                ..good.clone()
            },
        ),
        (
            "a changed body, one signature",
            Post {
                body: longer,
                v2: None,
                ..good.clone()
            },
        ),
        (
            "sent again, redated",
            Post {
                timestamp: Some((unix_seconds() + 1).to_string()),
                ..good.clone()
            },
        ),
        (
            "no time",
            Post {
                timestamp: None,
                v2: None,
                ..good.clone()
            },
        ),
        (
            "no number",
            Post {
                timestamp: Some("nan".into()),
                v2: None,
                ..good.clone()
            },
        ),
        (
            "half a signature",
            Post {
                v1: good.v1.clone().map(|text| text[..40].to_owned()),
                ..good.clone()
            },
        ),
        ("too old", at(unix_seconds() - 310)),
        (
            "too old, one signature",
            Post {
                v2: None,
                ..at(unix_seconds() - 310)
            },
        ),
        ("of tomorrow", at(unix_seconds() + 86_400)),
    ]
}

fn verifies(path: &str) {
    let example = Example::start(path, |_| Vec::new());
    for (what, post) in bad() {
        assert_eq!(
            example.post(&post),
            401,
            "{path}: {what}: {}",
            example.program.log()
        );
    }
    for (what, post) in good() {
        let answer = example.program.post(&post);
        assert_eq!(answer.status, 200, "{path}: {what}: {}", example.program.log());
        assert_eq!(answer.json()["processed_events"], 2, "{path}: {what}");
    }
    let printed = example.printed();
    assert!(
        printed.iter().any(|line| line.contains("192.0.2.1")),
        "{path}: {printed:?}"
    );
}

/// What is signed and makes no sense is not worth sending again, and nobody is made to hold what is too large.
fn refuses_nonsense(path: &str) {
    let example = Example::start(path, |_| Vec::new());
    for body in ["{", "[]", "{}", "{\"events\":7}", "\u{ff}"] {
        let answer = example.post(&Post::of(body));
        assert_eq!(answer, 400, "{path}: {body}: {}", example.program.log());
    }
    let mut large = Post::of(vec![b' '; 2 << 20 | 1]).bytes("/webhook");
    if path == "python/handlers.py" {
        // It answers without reading: what it was sent then would cut its answer off.
        large.truncate(large.len() - (2 << 20 | 1));
    }
    let answer = send(example.program.address, &large);
    assert_eq!(answer.status, 413, "{path}: {}", example.program.log());
    let answer = example.program.post(&batch(vec![one(EventType::IpBlocked)]));
    assert_eq!(answer.status, 200, "{path}: {}", example.program.log());
}

#[test]
fn nonsense_is_refused_for_good() {
    for path in [
        "python/handlers.py",
        "python/flask_handler.py",
        "node/receiver.mjs",
    ] {
        refuses_nonsense(path);
    }
    let example = Example::start("python/handlers.py", |_| Vec::new());
    for field in ["id", "event_type", "data"] {
        let mut event = serde_json::to_value(one(EventType::IpBlocked)).unwrap();
        event.as_object_mut().unwrap().remove(field);
        assert_eq!(example.post(&Post::events(&[event])), 400, "{field}");
    }
}

#[test]
fn node_handles_an_event_once_and_knows_its_own_types_only() {
    let example = Example::start("node/receiver.mjs", |_| Vec::new());
    let mut prefix = one(EventType::IpBlocked);
    prefix.data.insert("prefix".into(), "2001:db8::/64".into());
    let mut others = ["constructor", "__proto__", "from_the_future"].map(|kind| {
        let mut event = one(EventType::IpBlocked);
        event.event_type = kind.into();
        event
    });
    others[0].data.insert("ip".into(), "192.0.2.77".into());
    let all = batch([vec![prefix], others.to_vec()].concat());
    assert_eq!([example.post(&all), example.post(&all)], [200, 200]);
    assert_eq!(example.printed(), ["blocked 2001:db8::/64 for port_scanning"]);
}

#[test]
fn the_old_secret_holds_while_it_is_being_changed() {
    for path in ["python/handlers.py", "node/receiver.mjs"] {
        let example = Example::start_with(path, &format!("the-new-one\n{KEY}\n"), |_| Vec::new());
        let body = batch(vec![one(EventType::IpBlocked)]).body;
        for (key, expected) in [("the-new-one", 200), (KEY, 200), ("another", 401)] {
            let post = Post::signed(body.clone(), key, unix_seconds());
            assert_eq!(example.post(&post), expected, "{path}: {key}");
        }
        // All signatures by one secret: not one by each.
        let mut mixed = Post::signed(body.clone(), KEY, unix_seconds());
        mixed.v2 = Post::signed(body, "the-new-one", unix_seconds()).v2;
        assert_eq!(example.post(&mixed), 401, "{path}");
    }
}

#[test]
fn a_signature_that_is_no_text_of_ours_is_a_wrong_one() {
    for path in [
        "python/handlers.py",
        "python/flask_handler.py",
        "node/receiver.mjs",
    ] {
        let example = Example::start(path, |_| Vec::new());
        let mut post = batch(vec![one(EventType::IpBlocked)]);
        post.v1 = Some("sha256=ä".into());
        assert_eq!(example.post(&post), 401, "{path}: {}", example.program.log());
    }
}

#[test]
fn a_flask_handler_that_verifies_as_documented_agrees() {
    verifies("python/flask_handler.py");
}

#[test]
fn the_python_module_agrees() {
    verifies("python/handlers.py");
}

#[test]
fn node_agrees() {
    verifies("node/receiver.mjs");
}

#[test]
fn rust_agrees() {
    let genuine = |post: &Post| {
        let headers = verify::Headers {
            signature: post.v1.as_deref(),
            signature_v2: post.v2.as_deref(),
            timestamp: post.timestamp.as_deref().unwrap_or_default(),
        };
        verify::is_genuine(&headers, &post.body, KEY, unix_seconds() as f64)
    };
    for (what, post) in good() {
        assert!(genuine(&post), "{what}");
    }
    for (what, post) in bad() {
        assert!(!genuine(&post), "{what}");
    }
}

#[test]
fn openssl_in_a_shell_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, body) = (folder.path().join("secret"), folder.path().join("body"));
    fs::write(&secret, KEY).unwrap();
    let checked = |post: &Post| {
        fs::write(&body, &post.body).unwrap();
        let mut command = Command::new(home("docs/examples/webhooks/sh/verify.sh"));
        command.args([&secret, &body]).args(&post.v1);
        command
            .args(post.v2.as_ref().and(post.timestamp.as_ref()))
            .args(&post.v2);
        run(&mut command)
    };
    for (what, post) in good() {
        let (text, code) = checked(&post);
        assert_eq!(code, 0, "{what}: {text}");
        assert_eq!(
            text.matches(" fits\n").count(),
            1 + usize::from(post.v2.is_some()),
            "{text}"
        );
    }
    fs::write(&secret, "\n").unwrap();
    let (text, code) = checked(&good()[0].1);
    assert_eq!(code, 2, "{text}");
    fs::write(&secret, KEY).unwrap();
    // Whoever reads its words judges the time.
    let wrong = bad().into_iter().filter(|(what, post)| {
        post.v1.is_some()
            && !what.starts_with("too old")
            && !["of tomorrow", "no time", "no number"].contains(what)
    });
    for (what, post) in wrong {
        let (text, code) = checked(&post);
        assert_eq!(code, 1, "{what}: {text}");
        assert!(text.contains("does not fit: it would be sha256="), "{text}");
    }
}
