//! packaging/docker/Dockerfile, step by step, without Docker: its second stage is run in a chroot over a copy-on-write
//! view of this machine's root, in namespaces of its own, with the program that these tests built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use verdictd::webhook::wire::EventType;

use super::rig::{KEY, run};
use super::{batch, home, one};

/// An instruction and what follows it, on one line.
type Step = (String, String);

/// The steps of each stage.
fn stages(text: &str) -> Vec<Vec<Step>> {
    let uncommented: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = uncommented.join("\n").replace("\\\n", " ");
    let mut stages: Vec<Vec<Step>> = Vec::new();
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap();
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        // Exec forms hold quoted blanks.
        let rest = if rest.contains('[') {
            rest.trim().to_owned()
        } else {
            words.join(" ")
        };
        stages.last_mut().unwrap().push((word.to_owned(), rest));
    }
    stages
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The words of an exec form, quoted for a shell.
fn exec(text: &str) -> String {
    let words: Vec<String> = serde_json::from_str(&text[text.find('[').unwrap()..]).unwrap();
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// What an image is: how to make it, and how it is run.
#[derive(Default)]
struct Image {
    build: String,
    environment: String,
    user: String,
    folder: String,
    health: String,
    command: [String; 2],
    exposed: Vec<String>,
    volumes: Vec<String>,
    copied: Vec<String>,
}

impl Image {
    fn read(steps: &[Step]) -> Image {
        let mut image = Image::default();
        for (word, rest) in steps {
            match word.as_str() {
                "FROM" => {}
                "VOLUME" => image.volumes.push(rest.clone()),
                "COPY" => {
                    image.build += &copied(rest);
                    image
                        .copied
                        .extend(rest.split(' ').next_back().map(str::to_owned));
                }
                "RUN" => image.build += &format!("chroot \"$root\" /bin/sh -ec {}\n", quoted(rest)),
                "ENV" => image.environment += &format!(" {}", quoted(rest)),
                "USER" => image.user.clone_from(rest),
                "WORKDIR" => image.folder.clone_from(rest),
                "EXPOSE" => image.exposed.push(rest.clone()),
                "HEALTHCHECK" => image.health = exec(rest),
                "ENTRYPOINT" => image.command[0] = exec(rest),
                "CMD" => image.command[1] = exec(rest),
                other => panic!("this test does not know {other}"),
            }
        }
        image
    }

    /// As Docker runs a program: in the root, as the user, with nothing but the image's variables.
    fn inside(&self, variables: &str, command: &str) -> String {
        let Image {
            user,
            folder,
            environment,
            ..
        } = self;
        format!(
            "chroot --userspec={user} --groups= \"$root\" /usr/bin/env --ignore-environment --chdir={folder} \
             PATH=/usr/bin:/bin{environment} {variables} {command}"
        )
    }
}

fn copied(rest: &str) -> String {
    let words: Vec<&str> = rest.split(' ').collect();
    let ["--from=build", from, to] = words[..] else {
        panic!("a COPY of another form: {rest}");
    };
    let (from, mode) = match from {
        "/src/target/release/verdict-receiver" => (env!("CARGO_BIN_EXE_verdict-receiver"), 755),
        from => (from, 644),
    };
    format!("install -D --mode={mode} {} \"$root\"{to}\n", quoted(from))
}

fn dockerfile() -> Vec<Vec<Step>> {
    stages(&fs::read_to_string(home("packaging/docker/Dockerfile")).unwrap())
}

#[test]
fn the_container_serves_as_nobody_in_particular_and_says_whether_it_is_well() {
    let stages = dockerfile();
    let image = Image::read(&stages[1]);
    assert_eq!(image.exposed, ["5000"]);
    assert_eq!(image.volumes, [image.folder.as_str()]);
    // This machine's root has certificates, a slim image has none.
    assert!(
        image
            .copied
            .iter()
            .any(|path| path == "/etc/ssl/certs/ca-certificates.crt")
    );
    let folder = tempfile::tempdir().unwrap();
    let request = batch(vec![one(EventType::IpBlocked)]);
    // /health of a receiver that cannot store.
    let ailing = "import http.server as h\n\
                  class Ailing(h.BaseHTTPRequestHandler):\n\
                  \x20   def do_GET(self):\n\
                  \x20       self.send_response(503); self.end_headers(); self.wfile.write(b'answers 503\\n')\n\
                  h.HTTPServer(('127.0.0.1', 5000), Ailing).serve_forever()\n";
    fs::write(folder.path().join("body"), &request.body).unwrap();
    let script = format!(
        r#"
mount -t tmpfs none "$1"
mkdir -m 755 "$1/new" "$1/work" "$1/root"
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/new,workdir=$1/work" "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
ip link set lo up
ip address add 198.51.100.1/32 dev lo
{build}
health() {{ {health}; }}
{serve} > "$1/log" 2>&1 &
served=$!
trap 'kill "$served" 2>/dev/null || true' EXIT
for _ in $(seq 100); do health 2>/dev/null && break; sleep 0.1; done
health && echo "healthy"
curl --silent --data-binary @"$2/body" -H "X-Firewall-Signature: $3" -H "X-Firewall-Timestamp: $4" \
    http://198.51.100.1:5000/webhook; echo
echo "user $(stat -c %u:%g "/proc/$served") capabilities $(sed -n 's/^CapEff:\t//p' "/proc/$served/status")"
stat -c 'folder %u %a' "$root"/var/lib/verdict-receiver
stat -c 'database %u %a' "$root"/var/lib/verdict-receiver/events.db
find "$1/new" -newer "$1/work" -type f -user 10001 | sed "s|$1/new|wrote |"
kill "$served"; wait "$served" && echo "stopped with 0"
health 2>/dev/null || echo "ill when stopped"
python3 -c "$ailing" & served=$!
for _ in $(seq 100); do curl --silent http://127.0.0.1:5000/ > "$1/said" && break; sleep 0.1; done
cat "$1/said"
health || echo "ill when it says so"
cat "$1/log"
"#,
        build = image.build,
        health = image.inside("", &image.health),
        serve = image.inside(
            &quoted(&format!("WEBHOOK_SECRET={KEY}")),
            &image.command.join(" ")
        ),
    );
    fs::create_dir(folder.path().join("mount")).unwrap();
    fs::write(folder.path().join("script"), script).unwrap();
    let mut command = Command::new("unshare");
    command
        .env("ailing", ailing)
        .args(["--mount", "--net", "bash", "-euo", "pipefail"])
        .args([
            &folder.path().join("script"),
            &folder.path().join("mount"),
            folder.path(),
        ])
        .args([request.v1.unwrap(), request.timestamp.unwrap()]);
    let (text, code) = run(&mut command);
    assert_eq!(code, 0, "{text}");
    for line in [
        "healthy",
        r#"{"processed_events":1,"status":"success"}"#,
        "user 10001:10001 capabilities 0000000000000000",
        "folder 10001 700",
        "database 10001 600",
        "stopped with 0",
        "ill when stopped",
        "answers 503",
        "ill when it says so",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line:?} in\n{text}");
    }
    let elsewhere: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("wrote "))
        .filter(|path| !path.starts_with("/var/lib/verdict-receiver/"))
        .collect();
    assert!(elsewhere.is_empty(), "it wrote to {elsewhere:?}");
    assert!(!text.contains(KEY), "{text}");
}

#[test]
fn the_program_needs_no_library_that_the_slim_image_has_not() {
    let (text, code) = run(Command::new("ldd").arg(env!("CARGO_BIN_EXE_verdict-receiver")));
    assert_eq!(code, 0, "{text}");
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let known = ["linux-vdso", "libc.so", "libm.so", "libgcc_s.so", "ld-linux"];
    let strange: Vec<&str> = names
        .filter(|name| {
            !known
                .iter()
                .any(|one| name.rsplit('/').next().unwrap().starts_with(one))
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn the_build_stage_names_what_is_there() {
    let build = &dockerfile()[0];
    let runs: Vec<&str> = build
        .iter()
        .filter(|(word, _)| word == "RUN")
        .map(|(_, rest)| &**rest)
        .collect();
    let expected = "packaging/deps.sh build && cargo build --release --locked --bin verdict-receiver";
    assert_eq!(runs, [expected]);
    let sent = Sent::read();
    for path in &sent.0 {
        assert!(home(path).exists(), "{path}");
    }
    // Cargo wants every target of the manifest to be there, and the source includes files of other folders.
    let folder = tempfile::tempdir().unwrap();
    sent.copy_to(folder.path());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--offline"]);
    let (text, code) = run(cargo.current_dir(folder.path()));
    assert_eq!(code, 0, "{text}");
    // A build, unlike this, refuses a target that is named and not there.
    let manifest: toml::Table = fs::read_to_string(folder.path().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    for bench in manifest["bench"].as_array().unwrap() {
        let path = format!("benches/{}.rs", bench["name"].as_str().unwrap());
        assert!(folder.path().join(&path).exists(), "{path} is not sent");
    }
    let included = included(&folder.path().join("src"));
    assert!(!included.is_empty(), "this test looks for the wrong thing");
    for (file, path) in included {
        assert!(path.exists(), "{file:?} includes {path:?}, which is not sent");
    }
    // What is linked there has to run here.
    let [of_build, of_image] = [&build[0].1, &dockerfile()[1][0].1].map(|image| {
        let tag = image.split(' ').next().and_then(|name| name.split(':').nth(1));
        tag.unwrap().replace("-slim", "").replace("1-", "")
    });
    assert_eq!(of_build, of_image);
    let base = &build[0].1;
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        base.starts_with("rust:1-") && wanted.starts_with("1."),
        "{base} {wanted}"
    );
}

/// What the build is sent: the top of the source, but for what `Dockerfile.dockerignore` leaves out.
struct Sent(Vec<String>);

impl Sent {
    fn read() -> Sent {
        let text = fs::read_to_string(home("packaging/docker/Dockerfile.dockerignore")).unwrap();
        let mut rules = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(rules.next(), Some("*"), "nothing is sent but what is named");
        let names = rules.map(|line| line.strip_prefix('!').unwrap().to_owned());
        Sent(names.collect())
    }

    fn copy_to(&self, folder: &Path) {
        let mut command = Command::new("cp");
        command.arg("-r").args(self.0.iter().map(|path| home(path)));
        let (text, code) = run(command.arg(folder));
        assert_eq!(code, 0, "{text}");
    }
}

/// Every file that a file below `folder` takes into the program, and which one does.
fn included(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(included(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["include_str!(\"", "include_bytes!(\""] {
                let paths = text.split(word).skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(paths.map(|to| (path.clone(), path.with_file_name(to))));
            }
        }
    }
    found
}
