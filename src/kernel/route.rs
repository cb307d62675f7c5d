//! rtnetlink as bytes: the addresses of this host and the next hops of its routes, asked for and read. What
//! they are good for is said in [`super::host`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::netlink::{Attributes, Builder, Netlink, NetlinkError};
use crate::core::prefix::Prefix;

/// An address of this host and the index of its interface.
pub(super) type Address = (u32, IpAddr);

/// Every address of this network namespace.
pub(super) fn addresses(netlink: &mut Netlink) -> Result<Vec<Address>, NetlinkError> {
    let request = request(netlink, libc::RTM_GETADDR, libc::AF_UNSPEC, IFADDRMSG);
    netlink.dump_whole(request.bytes(), |addresses: &mut Vec<_>, kind, payload| {
        addresses.extend(read_address(kind, payload));
    })
}

/// The networks that this host's addresses make neighbours of, each with the index of its interface.
pub(super) fn networks(netlink: &mut Netlink) -> Result<Vec<(u32, Prefix)>, NetlinkError> {
    let request = request(netlink, libc::RTM_GETADDR, libc::AF_UNSPEC, IFADDRMSG);
    netlink.dump_whole(request.bytes(), |networks: &mut Vec<_>, kind, payload| {
        networks.extend(read_network(kind, payload));
    })
}

/// Every gateway that a route, or a next hop object, of this network namespace leads to.
pub(super) fn gateways(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut gateways = BTreeSet::new();
    for (kind, family, fixed) in [
        (libc::RTM_GETROUTE, libc::AF_INET, RTMSG),
        (libc::RTM_GETROUTE, libc::AF_INET6, RTMSG),
        (RTM_GETNEXTHOP, libc::AF_UNSPEC, NHMSG),
    ] {
        let request = request(netlink, kind, family, fixed);
        let asked = netlink.dump_whole(request.bytes(), |all: &mut BTreeSet<_>, kind, payload| {
            all.extend(read_gateways(kind, payload));
        });
        match asked {
            Ok(found) => gateways.extend(found),
            // No IPv6, or no next hop objects, in this kernel.
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gateways)
}

/// The networks that routes of this network namespace lead to, and those that are local, of every table. Left out are
/// default routes and those that only refuse: a narrower route goes before them.
pub(super) fn destinations(netlink: &mut Netlink) -> Result<Vec<Prefix>, NetlinkError> {
    let request = request(netlink, libc::RTM_GETROUTE, libc::AF_INET, RTMSG);
    netlink.dump_whole(request.bytes(), |all: &mut Vec<_>, kind, payload| {
        all.extend(read_destination(kind, payload));
    })
}

/// Whether a notice of the kernel can change what [`addresses`] or [`gateways`] say.
pub(super) fn matters(kind: u16, payload: &[u8]) -> bool {
    match kind {
        libc::RTM_NEWADDR | libc::RTM_DELADDR => true,
        // A link that goes down takes its IPv4 routes with it, without a word about each.
        libc::RTM_NEWLINK | libc::RTM_DELLINK => true,
        libc::RTM_DELROUTE => !read_gateways(libc::RTM_NEWROUTE, payload).is_empty(),
        kind => !read_gateways(kind, payload).is_empty(),
    }
}

/// The address in an RTM_NEWADDR.
fn read_address(kind: u16, payload: &[u8]) -> Option<Address> {
    if kind != libc::RTM_NEWADDR {
        return None;
    }
    let index = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let attributes = Attributes::new(payload.get(IFADDRMSG..)?);
    let attribute = |wanted| attributes.clone().find(|(kind, _)| *kind == wanted);
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has IFA_LOCAL only there.
    let (_, bytes) = attribute(libc::IFA_LOCAL).or_else(|| attribute(libc::IFA_ADDRESS))?;
    Some((index, address(bytes)?))
}

/// The network in an RTM_NEWADDR: where the address is the near end of a link, its far end.
fn read_network(kind: u16, payload: &[u8]) -> Option<(u32, Prefix)> {
    let (index, own) = read_address(kind, payload)?;
    let far = Attributes::new(payload.get(IFADDRMSG..)?).find(|(kind, _)| *kind == libc::IFA_ADDRESS);
    let addr = far.and_then(|(_, bytes)| address(bytes)).unwrap_or(own);
    Some((index, Prefix::new(addr, *payload.get(1)?).ok()?))
}

/// Where an RTM_NEWROUTE leads to, if it leads anywhere in particular.
fn read_destination(kind: u16, payload: &[u8]) -> Option<Prefix> {
    let leads = matches!(
        payload.get(RTM_TYPE),
        Some(&(libc::RTN_UNICAST | libc::RTN_LOCAL))
    );
    if kind != libc::RTM_NEWROUTE || !leads {
        return None;
    }
    let mut attributes = Attributes::new(payload.get(RTMSG..)?);
    let (_, bytes) = attributes.find(|(kind, _)| *kind == libc::RTA_DST)?;
    let prefix = Prefix::new(address(bytes)?, *payload.get(1)?).ok()?;
    (prefix.len() > 0).then_some(prefix)
}

/// The gateways in an RTM_NEWROUTE or RTM_NEWNEXTHOP; several if the route has several paths.
fn read_gateways(kind: u16, payload: &[u8]) -> Vec<IpAddr> {
    let mut gateways = Vec::new();
    match kind {
        libc::RTM_NEWROUTE if payload.get(RTM_TYPE) == Some(&libc::RTN_UNICAST) => {
            read_hop(payload.get(RTMSG..).unwrap_or_default(), &mut gateways);
        }
        RTM_NEWNEXTHOP => {
            let attributes = Attributes::new(payload.get(NHMSG..).unwrap_or_default());
            let gateway = attributes.filter(|(kind, _)| *kind == NHA_GATEWAY);
            gateways.extend(gateway.filter_map(|(_, bytes)| address(bytes)));
        }
        _ => {}
    }
    gateways.retain(|gateway| !gateway.is_unspecified());
    gateways
}

/// The gateway among the attributes of a route or of one path of it.
fn read_hop(attributes: &[u8], gateways: &mut Vec<IpAddr>) {
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            libc::RTA_GATEWAY => gateways.extend(address(value)),
            // An IPv4 route through an IPv6 neighbour: address family, then the address.
            libc::RTA_VIA => gateways.extend(value.get(2..).and_then(address)),
            libc::RTA_MULTIPATH => read_paths(value, gateways),
            _ => {}
        }
    }
}

/// struct rtnexthop, one after the other: length, flags, hops, interface, then attributes of its own.
fn read_paths(mut paths: &[u8], gateways: &mut Vec<IpAddr>) {
    while let Some(length) = paths
        .first_chunk()
        .map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
    {
        let Some(attributes) = paths.get(RTNEXTHOP..length) else {
            return;
        };
        for (kind, value) in Attributes::new(attributes) {
            match kind {
                libc::RTA_GATEWAY => gateways.extend(address(value)),
                libc::RTA_VIA => gateways.extend(value.get(2..).and_then(address)),
                _ => {}
            }
        }
        paths = paths.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// An address by its length.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// A dump request: header, then a fixed part of `fixed` bytes of which only the family is set.
fn request(netlink: &mut Netlink, kind: u16, family: i32, fixed: usize) -> Builder {
    let mut header = vec![0; fixed];
    header[0] = family as u8;
    let mut request = Builder::new();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    request
        .raw(kind, flags, netlink.take_seqs(1).start)
        .fixed(&header);
    request
}

/// Bytes of struct ifaddrmsg.
const IFADDRMSG: usize = 8;
/// Bytes of struct rtmsg.
const RTMSG: usize = 12;
/// Offset of rtm_type in it.
const RTM_TYPE: usize = 7;
/// Bytes of struct rtnexthop.
const RTNEXTHOP: usize = 8;
/// Bytes of struct nhmsg.
const NHMSG: usize = 8;
// include/uapi/linux/rtnetlink.h and nexthop.h (Linux 5.3)
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_GATEWAY: u16 = 6;

#[cfg(test)]
mod tests {
    use super::super::netlink::Messages;
    use super::*;

    /// The payload of a message: fixed part, then attributes.
    fn payload(fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new();
        builder.raw(0, 0, 0).fixed(fixed);
        for (kind, value) in attributes {
            builder.put(*kind, value);
        }
        Messages::new(builder.bytes()).next().unwrap().payload.to_vec()
    }

    fn route(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        payload(
            &[2, 0, 0, 0, 254, 4, 0, libc::RTN_UNICAST, 0, 0, 0, 0],
            attributes,
        )
    }

    fn path(length: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = payload(&[0, 0, 0, 0, 3, 0, 0, 0], attributes);
        let length = if length == 0 { bytes.len() as u16 } else { length };
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_near_end_of_a_point_to_point_link_is_the_own_address() {
        let fixed = [2, 32, 0, 0, 7, 0, 0, 0];
        let both: &[(u16, &[u8])] = &[
            (libc::IFA_ADDRESS, &[10, 0, 0, 2]),
            (libc::IFA_LOCAL, &[10, 0, 0, 1]),
        ];
        let read = |bytes: &[u8]| read_address(libc::RTM_NEWADDR, bytes);
        let index = u32::from_ne_bytes([7, 0, 0, 0]);
        assert_eq!(read(&payload(&fixed, both)), Some((index, ip("10.0.0.1"))));
        assert_eq!(read(&payload(&fixed, &both[..1])), Some((index, ip("10.0.0.2"))));
        assert_eq!(read(&payload(&fixed, &[])), None);
        assert_eq!(read(&payload(&fixed, &[(libc::IFA_LOCAL, &[10, 0, 0])])), None);
        assert_eq!(read_address(libc::RTM_DELADDR, &payload(&fixed, both)), None);
    }

    #[test]
    fn the_network_of_an_address_is_that_of_its_far_end() {
        let fixed = [2, 24, 0, 0, 7, 0, 0, 0];
        let both: &[(u16, &[u8])] = &[
            (libc::IFA_ADDRESS, &[10, 0, 1, 2]),
            (libc::IFA_LOCAL, &[10, 0, 0, 1]),
        ];
        let read = |fixed: &[u8], attributes| read_network(libc::RTM_NEWADDR, &payload(fixed, attributes));
        let network = |text| Some((u32::from_ne_bytes([7, 0, 0, 0]), Prefix::parse(text).unwrap().0));
        assert_eq!(read(&fixed, both), network("10.0.1.0/24"));
        assert_eq!(read(&fixed, &both[1..]), network("10.0.0.0/24"));
        assert_eq!(read(&[2, 33, 0, 0, 7, 0, 0, 0], both), None);
        assert_eq!(read(&fixed[..3], both), None);
    }

    #[test]
    fn gateways_are_found_wherever_a_route_has_them() {
        let v6 = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let via: Vec<u8> = [&[10, 0][..], &v6].concat();
        let paths = [
            path(0, &[(libc::RTA_GATEWAY, &[10, 0, 0, 2])]),
            path(0, &[]),
            path(0, &[(libc::RTA_VIA, &via)]),
        ];
        let bytes = route(&[
            (libc::RTA_GATEWAY, &[10, 0, 0, 1]),
            (libc::RTA_MULTIPATH, &paths.concat()),
            (libc::RTA_GATEWAY, &[0, 0, 0, 0]),
        ]);
        let found = read_gateways(libc::RTM_NEWROUTE, &bytes);
        assert_eq!(found, [ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1")]);
        assert!(matters(libc::RTM_DELROUTE, &bytes));
        assert!(!matters(libc::RTM_NEWROUTE, &route(&[])));

        let object = payload(&[2, 0, 0, 0, 0, 0, 0, 0], &[(NHA_GATEWAY, &[10, 0, 0, 9])]);
        assert_eq!(read_gateways(RTM_NEWNEXTHOP, &object), [ip("10.0.0.9")]);
    }

    #[test]
    fn a_route_leads_to_its_network_unless_it_refuses_or_leads_everywhere() {
        let to = |len: u8, kind: u8| {
            let fixed = [2, len, 0, 0, 254, 4, 0, kind, 0, 0, 0, 0];
            let read = payload(&fixed, &[(libc::RTA_DST, &[192, 0, 2, 0])]);
            read_destination(libc::RTM_NEWROUTE, &read).map(|prefix| prefix.to_string())
        };
        assert_eq!(to(24, libc::RTN_UNICAST).as_deref(), Some("192.0.2.0/24"));
        assert_eq!(to(32, libc::RTN_LOCAL).as_deref(), Some("192.0.2.0"));
        assert_eq!(to(24, libc::RTN_BLACKHOLE), None);
        assert_eq!(to(33, libc::RTN_UNICAST), None);
        assert_eq!(
            read_destination(libc::RTM_NEWROUTE, &route(&[])),
            None,
            "a default route"
        );
        assert_eq!(read_destination(libc::RTM_NEWROUTE, &[2, 24]), None);
    }

    #[test]
    fn routes_that_lead_nowhere_have_no_gateway() {
        let mut bytes = route(&[(libc::RTA_GATEWAY, &[10, 0, 0, 1])]);
        bytes[RTM_TYPE] = libc::RTN_BLACKHOLE;
        assert!(read_gateways(libc::RTM_NEWROUTE, &bytes).is_empty());
    }

    #[test]
    fn bytes_that_lie_about_their_length_end_the_reading() {
        let whole = path(0, &[(libc::RTA_GATEWAY, &[10, 0, 0, 2])]);
        for length in [1, 4, 7, 9, 200, u16::MAX] {
            let paths = [
                path(length, &[(libc::RTA_GATEWAY, &[10, 0, 0, 3])]),
                whole.clone(),
            ]
            .concat();
            assert!(read_gateways(libc::RTM_NEWROUTE, &route(&[(libc::RTA_MULTIPATH, &paths)])).len() <= 1);
        }
        let bytes = route(&[(libc::RTA_MULTIPATH, &[whole.clone(), whole].concat())]);
        for length in 0..bytes.len() {
            for kind in [libc::RTM_NEWROUTE, RTM_NEWNEXTHOP, libc::RTM_NEWADDR] {
                assert!(read_gateways(kind, &bytes[..length]).len() <= 2);
                let _ = read_address(kind, &bytes[..length]);
            }
        }
    }
}
