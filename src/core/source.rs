//! What one source did within its window: which ports it touched and when, and whether that is too much.
//!
//! It stands alone because this arithmetic decides who is banned: it knows no ban, no address and no clock.

use std::time::{Duration, Instant};

use super::policy::Policy;
use super::verdict::Proto;

/// One port that a source touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Protocol and port.
    pub port: (Proto, u16),
    /// When it was touched last.
    pub at: Instant,
}

/// How many distinct ports are tolerated within which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP ports that are tolerated; one more is an offence.
    pub tcp: u32,
    /// The same of UDP ports; counted apart.
    pub udp: u32,
    /// A port that was not touched for this long no longer counts.
    pub window: Duration,
}

/// The distinct ports of one source in a sliding window.
///
/// Holds at most one port of each protocol more than is tolerated: what counts beyond an offence is nothing.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Ordered by when they were touched, oldest first.
    touches: Touches,
}

impl Limits {
    /// The limits of a policy.
    pub fn of(policy: &Policy) -> Limits {
        Limits {
            tcp: policy.ports_threshold,
            udp: policy.udp_ports_threshold,
            window: policy.window,
        }
    }

    /// What is tolerated of `proto`.
    pub fn tolerated(&self, proto: Proto) -> u32 {
        match proto {
            Proto::Tcp => self.tcp,
            Proto::Udp => self.udp,
        }
    }
}

impl Source {
    /// Notes that `port` was touched at `now`; true if with it the source has more ports of this protocol in
    /// its window than are tolerated. Touching the same port again only renews it.
    pub fn touch(&mut self, port: (Proto, u16), limits: &Limits, now: Instant) -> bool {
        self.expire(limits.window, now);
        let touches = self.touches.as_mut_slice();
        match touches.iter().rposition(|touch| touch.port == port) {
            Some(known) => {
                touches[known..].rotate_left(1);
                if let Some(last) = touches.last_mut() {
                    last.at = now;
                }
            }
            None => self.touches.push(Touch { port, at: now }),
        }
        self.crossed(port.0, limits.tolerated(port.0))
    }

    /// What is in the window at `now`, oldest first.
    pub fn within(&self, window: Duration, now: Instant) -> &[Touch] {
        let touches = self.touches.as_slice();
        &touches[stale(touches, window, now)..]
    }

    /// The ports of `proto` in the order in which they were last touched, oldest first.
    pub fn ports(&self, proto: Proto) -> impl Iterator<Item = (Proto, u16)> + '_ {
        self.touches
            .as_slice()
            .iter()
            .map(|touch| touch.port)
            .filter(move |port| port.0 == proto)
    }

    /// How many ports it holds, as of the last touch.
    pub fn len(&self) -> usize {
        self.touches.as_slice().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn expire(&mut self, window: Duration, now: Instant) {
        let stale = stale(self.touches.as_slice(), window, now);
        if stale > 0 {
            self.touches.drop_first(stale);
        }
    }

    /// Whether there are too many of `proto`; if so only the newest `tolerated + 1` are kept.
    fn crossed(&mut self, proto: Proto, tolerated: u32) -> bool {
        let count = self.ports(proto).count();
        let tolerated = usize::try_from(tolerated).unwrap_or(usize::MAX);
        if count <= tolerated {
            return false;
        }
        for _ in tolerated + 1..count {
            let oldest = self
                .touches
                .as_slice()
                .iter()
                .position(|touch| touch.port.0 == proto);
            oldest.into_iter().for_each(|at| self.touches.remove(at));
        }
        true
    }
}

/// How many of the oldest are out of the window.
fn stale(touches: &[Touch], window: Duration, now: Instant) -> usize {
    // From the oldest on, not by bisection: mostly the first one is inside.
    touches
        .iter()
        .take_while(|touch| now.saturating_duration_since(touch.at) >= window)
        .count()
}

/// A list of touches that needs no memory of its own while it is as short as most are: a flood from forged
/// addresses makes a source of one port for each packet.
#[derive(Clone, Debug, Default)]
enum Touches {
    #[default]
    None,
    One([Touch; 1]),
    Many(Vec<Touch>),
}

impl Touches {
    fn as_slice(&self) -> &[Touch] {
        match self {
            Touches::None => &[],
            Touches::One(one) => one,
            Touches::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Touch] {
        match self {
            Touches::None => &mut [],
            Touches::One(one) => one,
            Touches::Many(many) => many,
        }
    }

    fn push(&mut self, touch: Touch) {
        match self {
            Touches::None => *self = Touches::One([touch]),
            Touches::One([first]) => *self = Touches::Many(several(*first, touch)),
            Touches::Many(many) => many.push(touch),
        }
    }

    fn drop_first(&mut self, count: usize) {
        match self {
            Touches::Many(many) if count < many.len() => drop(many.drain(..count)),
            _ => *self = Touches::None,
        }
    }

    fn remove(&mut self, at: usize) {
        match self {
            Touches::Many(many) if many.len() > 1 => drop(many.remove(at)),
            _ => *self = Touches::None,
        }
    }
}

fn several(first: Touch, second: Touch) -> Vec<Touch> {
    let mut many = Vec::with_capacity(SEVERAL);
    many.extend([first, second]);
    many
}

/// Room for a scan under the standard preset (7 tolerated and the one that crosses).
const SEVERAL: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        tcp: 7,
        udp: 28,
        window: Duration::from_secs(7200),
    };

    fn tcp(port: u16) -> (Proto, u16) {
        (Proto::Tcp, port)
    }

    fn udp(port: u16) -> (Proto, u16) {
        (Proto::Udp, port)
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn seven_are_tolerated_and_the_eighth_is_not() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=7 {
            assert!(!source.touch(tcp(port), &LIMITS, now), "{port}");
        }
        assert!(source.touch(tcp(8), &LIMITS, now));
        assert_eq!(
            source.ports(Proto::Tcp).collect::<Vec<_>>(),
            (1..=8).map(tcp).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_same_port_counts_once() {
        let (mut source, now) = (Source::default(), Instant::now());
        for second in 0..1000 {
            assert!(!source.touch(tcp(443), &LIMITS, seconds(now, second)));
        }
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn the_window_slides_and_a_touch_renews_its_port() {
        let (mut source, start) = (Source::default(), Instant::now());
        for port in 1..=7 {
            source.touch(tcp(port), &LIMITS, seconds(start, u64::from(port)));
        }
        source.touch(tcp(1), &LIMITS, seconds(start, 7000));
        // Ports 2 and 3 left; 1 was renewed.
        assert!(!source.touch(tcp(8), &LIMITS, seconds(start, 7203)));
        assert_eq!(
            source.ports(Proto::Tcp).collect::<Vec<_>>(),
            [4, 5, 6, 7, 1, 8].map(tcp)
        );
        assert!(!source.touch(tcp(9), &LIMITS, seconds(start, 7203)));
        assert!(source.touch(tcp(10), &LIMITS, seconds(start, 7203)));
    }

    #[test]
    fn a_port_leaves_exactly_when_the_window_is_over() {
        let (mut source, start) = (Source::default(), Instant::now());
        source.touch(tcp(1), &LIMITS, start);
        assert_eq!(source.within(LIMITS.window, seconds(start, 7199)).len(), 1);
        assert_eq!(source.within(LIMITS.window, seconds(start, 7200)).len(), 0);
        source.touch(tcp(2), &LIMITS, seconds(start, 7200));
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn udp_is_counted_apart_from_tcp() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=7 {
            assert!(!source.touch(tcp(port), &LIMITS, now));
        }
        for port in 1..=28 {
            assert!(!source.touch(udp(port), &LIMITS, now), "{port}");
        }
        assert!(source.touch(udp(29), &LIMITS, now));
        assert_eq!(source.ports(Proto::Udp).count(), 29);
        assert!(!source.touch(tcp(7), &LIMITS, now));
        assert!(source.touch(tcp(8), &LIMITS, now));
    }

    #[test]
    fn it_never_holds_more_than_an_offence_needs() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=1000 {
            source.touch(tcp(port), &LIMITS, now);
            source.touch(udp(port), &LIMITS, now);
        }
        assert_eq!(source.len(), 8 + 29);
        assert_eq!(source.ports(Proto::Tcp).last(), Some(tcp(1000)));
    }

    #[test]
    fn with_nothing_tolerated_the_first_port_is_the_offence() {
        let (mut source, limits) = (
            Source::default(),
            Limits {
                tcp: 0,
                udp: 0,
                ..LIMITS
            },
        );
        assert!(source.touch(tcp(22), &limits, Instant::now()));
        assert!(source.touch(tcp(23), &limits, Instant::now()));
        assert_eq!(source.len(), 1);
    }
}
