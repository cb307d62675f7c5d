//! Where the made-up scanner lives: eight addresses of a documentation range that this host sends nowhere else.

use std::net::Ipv4Addr;

use super::proof::Fault;
use crate::control::selftest_view::{DOCUMENTATION, documentation_range};
use crate::core::prefix::Prefix;
use crate::kernel::host;

/// The near end of the device, the scanner and the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) own: Ipv4Addr,
    pub(super) source: Ipv4Addr,
    pub(super) witness: Ipv4Addr,
}

/// The length of their network.
pub(super) const LENGTH: u8 = 29;

impl Place {
    /// Eight addresses of `range`, chosen by `draw`: over many runs each worker of the engine gets its turn.
    fn of(range: Ipv4Addr, draw: u8) -> Place {
        let first = u32::from(range) + u32::from(draw & 0b1111_1000);
        let at = |offset| Ipv4Addr::from(first + offset);
        Place {
            own: at(1),
            source: at(2),
            witness: at(3),
        }
    }
}

/// One place in each range that nothing on this host stands in the way of.
pub(super) fn free_places() -> Result<Vec<Place>, Fault> {
    let routed = host::destinations().map_err(|error| {
        Fault::new(
            "range",
            "the routes of this host",
            error.to_string(),
            "ip route show table all",
        )
        .of_the_test()
    })?;
    let mut draw = [0; 3];
    // Without randomness the first eight addresses do as well.
    let _ = rustix::rand::getrandom(&mut draw, rustix::rand::GetRandomFlags::NONBLOCK);
    let (places, taken) = sort(&routed, draw);
    match places.is_empty() {
        false => Ok(places),
        true => Err(Fault::new(
            "range",
            "one of 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24 (RFC 5737) without a route of its own",
            taken.join("; "),
            "ip route show table all: these ranges are for documentation and tests, nobody lives there",
        )
        .of_the_test()),
    }
}

fn sort(routed: &[Prefix], draw: [u8; 3]) -> (Vec<Place>, Vec<String>) {
    let (mut places, mut taken) = (Vec::new(), Vec::new());
    for (range, draw) in DOCUMENTATION.into_iter().zip(draw) {
        let whole = documentation_range(range);
        match routed.iter().find(|route| route.overlaps(&whole)) {
            Some(route) => taken.push(format!("{whole} has a route: {route}")),
            None => places.push(Place::of(range, draw)),
        }
    }
    (places, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_with_a_route_is_left_alone() {
        let routed = ["10.0.0.0/8", "192.0.2.128/25"].map(|text| text.parse().unwrap());
        let (places, taken) = sort(&routed, [0, 255, 17]);
        let own: Vec<String> = places.iter().map(|place| place.own.to_string()).collect();
        assert_eq!(own, ["198.51.100.249", "203.0.113.17"]);
        assert_eq!(taken, ["192.0.2.0/24 has a route: 192.0.2.128/25"]);
        let (none, taken) = sort(&["192.0.0.0/2".parse().unwrap()], [0; 3]);
        assert_eq!((none.len(), taken.len()), (0, 3));
    }

    #[test]
    fn the_three_are_neighbours_and_none_is_an_edge() {
        for draw in 0..=255 {
            let place = Place::of(DOCUMENTATION[0], draw);
            let network = Prefix::new(place.own.into(), LENGTH).unwrap();
            for addr in [place.own, place.source, place.witness] {
                assert!(network.contains(addr.into()) && ![0, 7].contains(&(addr.octets()[3] % 8)));
            }
        }
    }
}
