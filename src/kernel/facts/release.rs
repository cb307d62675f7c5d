//! Which kernel this is: the version of kernel.org that it was made of, which a distribution's own name for it hides.

use std::fmt;

use crate::kernel::host;

/// A version of kernel.org.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What it was made of, as far as its names tell.
    pub version: Version,
    /// `uname -r`.
    pub name: String,
    /// Who built it, if that is a distribution known to tell the version in its own way.
    pub vendor: Option<&'static str>,
}

impl Release {
    /// The running kernel; `None` if its name holds no version.
    pub fn running() -> Option<Release> {
        let uname = rustix::system::uname();
        let signature = host::read(SIGNATURE).ok();
        Release::of(
            &uname.release().to_string_lossy(),
            &uname.version().to_string_lossy(),
            signature.as_deref(),
        )
    }

    /// From `uname -r`, `uname -v` and, on Ubuntu, `/proc/version_signature`.
    ///
    /// Debian's `uname -r` names an ABI (6.1.0-37-amd64), its `uname -v` the version (Debian 6.1.140-1); the last word
    /// of Ubuntu's signature is the version.
    fn of(name: &str, build: &str, signature: Option<&str>) -> Option<Release> {
        let debian = build.split_once("Debian ").and_then(|(_, rest)| version(rest));
        let ubuntu = signature
            .filter(|text| text.starts_with("Ubuntu "))
            .and_then(|text| version(text.split_whitespace().last()?));
        let (version, vendor) = match (debian, ubuntu) {
            (Some(version), _) => (version, Some("Debian")),
            (_, Some(version)) => (version, Some("Ubuntu")),
            _ => (version(name)?, None),
        };
        Some(Release {
            version,
            name: name.to_owned(),
            vendor,
        })
    }

    /// Whether kernels of this version drop UDP packets that were merged on reception (GRO) when they go through a
    /// queue that did not ask for them whole (CVE-2026-45859). A distribution may have put the fix into an older version.
    pub fn may_drop_merged_udp(&self) -> bool {
        MERGED_UDP
            .iter()
            .any(|(first, fixed)| (*first..*fixed).contains(&self.version))
    }
}

/// Two or three numbers at the beginning, with dots between them.
fn version(text: &str) -> Option<Version> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
    Some(Version(major, minor, patch))
}

const SIGNATURE: &str = "/proc/version_signature";
/// CVE-2026-45859: first version that has the fault, first that has it no more; for each line of kernel.org.
const MERGED_UDP: [(Version, Version); 3] = [
    (Version(6, 11, 0), Version(6, 12, 75)),
    (Version(6, 13, 0), Version(6, 18, 14)),
    (Version(6, 19, 0), Version(6, 19, 4)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, build: &str, signature: Option<&str>) -> Option<(String, Option<&'static str>)> {
        let release = Release::of(name, build, signature)?;
        Some((release.version.to_string(), release.vendor))
    }

    #[test]
    fn the_version_is_found_behind_the_names_of_distributions() {
        for (name, build, signature, version, vendor) in [
            (
                "6.1.0-37-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)",
                None,
                "6.1.140",
                Some("Debian"),
            ),
            (
                "6.12.38+deb13-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.12.38-1 (2025-07-16)",
                None,
                "6.12.38",
                Some("Debian"),
            ),
            (
                "6.8.0-45-generic",
                "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024",
                Some("Ubuntu 6.8.0-45.45-generic 6.8.12\n"),
                "6.8.12",
                Some("Ubuntu"),
            ),
            ("6.18.13-arch1-1", "#1 SMP PREEMPT_DYNAMIC", None, "6.18.13", None),
            ("6.19-rc3", "#1 SMP", None, "6.19.0", None),
            ("5.14.0-503.el9.x86_64", "#1 SMP", Some("junk"), "5.14.0", None),
        ] {
            assert_eq!(
                of(name, build, signature),
                Some((version.into(), vendor)),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_version_is_none_and_nothing_panics() {
        for name in [
            "",
            "x",
            "6",
            "6.",
            ".",
            "..",
            "99999999999.1",
            "\u{fffd}6.1",
            "6.x.1",
            "Debian ",
        ] {
            assert_eq!(of(name, name, Some(name)), None, "{name:?}");
        }
        assert_eq!(
            of("6.1.2", "Debian x", Some("Ubuntu ")),
            Some(("6.1.2".into(), None))
        );
    }

    #[test]
    fn the_range_ends_where_kernel_org_fixed_it() {
        for (name, bad) in [
            ("6.10.14", false),
            ("6.11.0", true),
            ("6.12.74", true),
            ("6.12.75", false),
            ("6.13.0", true),
            ("6.17.9", true),
            ("6.18.13", true),
            ("6.18.14", false),
            ("6.19.0", true),
            ("6.19.3", true),
            ("6.19.4", false),
            ("7.0.0", false),
            ("5.15.1", false),
        ] {
            let release = Release::of(name, "", None).unwrap();
            assert_eq!(release.may_drop_merged_udp(), bad, "{name}");
        }
    }
}
