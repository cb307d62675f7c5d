//! Which addresses a request may go to: judged on the address that is connected to, so that no name, however it is
//! looked up, leads to where it must not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This host.
    Loopback,
    /// A private network (RFC 1918, RFC 4193, RFC 6598, site-local ones before RFC 3879): a security operations centre lives there.
    Private,
    /// Anywhere else.
    Public,
}

/// Why nothing is ever sent to an address, whatever the config says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Hands out keys of the machine to whoever asks.
    #[error("{0} is the metadata service of a cloud")]
    Metadata(IpAddr),
    /// RFC 3927, RFC 4291 section 2.5.6.
    #[error("{0} is a link-local address")]
    LinkLocal(IpAddr),
    /// `0.0.0.0`, which Linux takes for this host.
    #[error("{0} is no address of a host")]
    Unspecified(IpAddr),
    /// Many hosts, or none.
    #[error("{0} is a multicast, broadcast or reserved address")]
    NoHost(IpAddr),
}

/// Where `address` lies. An IPv4 address in IPv6 clothes is judged as what it is.
///
/// # Errors
/// If nothing is ever sent there.
pub fn place(address: IpAddr) -> Result<Place, Refused> {
    let bare = unwrapped(address);
    if METADATA.contains(&bare) {
        return Err(Refused::Metadata(bare));
    }
    match bare {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => place_v6(v6),
    }
}

fn place_v4(v4: Ipv4Addr) -> Result<Place, Refused> {
    let [a, b, ..] = v4.octets();
    match a {
        0 => Err(Refused::Unspecified(v4.into())),
        169 if b == 254 => Err(Refused::LinkLocal(v4.into())),
        224.. => Err(Refused::NoHost(v4.into())),
        127 => Ok(Place::Loopback),
        100 if b & 0xc0 == 64 => Ok(Place::Private),
        _ if v4.is_private() => Ok(Place::Private),
        _ => Ok(Place::Public),
    }
}

fn place_v6(v6: Ipv6Addr) -> Result<Place, Refused> {
    if v6.is_unspecified() {
        Err(Refused::Unspecified(v6.into()))
    } else if v6.is_unicast_link_local() {
        Err(Refused::LinkLocal(v6.into()))
    } else if v6.is_multicast() {
        Err(Refused::NoHost(v6.into()))
    } else if v6.is_loopback() {
        Ok(Place::Loopback)
    } else if v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0 {
        Ok(Place::Private)
    } else {
        Ok(Place::Public)
    }
}

/// The IPv4 address inside mapped (RFC 4291), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056) ones: that is where it
/// ends.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        IpAddr::from([a, b, c, d])
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, .., high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => address,
    }
}

/// Those that are not link-local: EC2, its pods (EKS Pod Identity) and GCP by IPv6, Alibaba, Oracle, Azure.
/// (169.254.169.254 is named for its message.)
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_lies_where_it_should() {
        let of = |text: &str| place(text.parse().unwrap());
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(text), Ok(Place::Loopback), "{text}");
        }
        for text in [
            "10.0.0.1",
            "172.31.9.9",
            "192.168.0.1",
            "100.64.0.1",
            "fd00::1",
            "::ffff:10.1.1.1",
            "64:ff9b::a00:1",
            "64:ff9b:1:2::a00:1",
            "fec0::1",
        ] {
            assert_eq!(of(text), Ok(Place::Private), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "2606::1"] {
            assert_eq!(of(text), Ok(Place::Public), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.1.1",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "ff02::1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "64:ff9b:1::a9fe:a9fe",
            "100.100.100.200",
            "::169.254.169.254",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        assert!(matches!(of("169.254.169.254"), Err(Refused::Metadata(_))));
    }
}
