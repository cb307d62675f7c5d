//! What one source did within its window: which ports it asked for and when, and whether that is too much.
//!
//! It stands alone because this arithmetic decides who is banned: it knows no ban, no address and no clock.

use std::time::{Duration, Instant};

use super::policy::Policy;
use super::verdict::{Asked, Proto};

/// One port (or IP protocol) that a source asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// What it asked for.
    pub what: Asked,
    /// Stealth probes among them; of an IP protocol the first packet only.
    pub stealth: u16,
    /// When it asked last.
    pub at: Instant,
}

/// How much is tolerated within which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Distinct TCP ports that are tolerated; one more is an offence.
    pub tcp: u32,
    /// The same of UDP ports; counted apart.
    pub udp: u32,
    /// Stealth probes that are tolerated.
    pub stealth: u32,
    /// What was not asked for again for this long no longer counts.
    pub window: Duration,
}

/// Which limit a touch crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossed {
    /// Distinct ports of this protocol.
    Ports(Proto),
    /// Stealth probes.
    Stealth,
}

/// What one source asked for in a sliding window.
///
/// Holds at most one of each kind more than is tolerated: what counts beyond an offence is nothing.
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
            stealth: policy.stealth_threshold,
            window: policy.window,
        }
    }

    /// What is tolerated where `crossed` went too far.
    pub fn tolerated(&self, crossed: Crossed) -> u32 {
        match crossed {
            Crossed::Ports(Proto::Tcp) => self.tcp,
            Crossed::Ports(Proto::Udp) => self.udp,
            Crossed::Stealth => self.stealth,
        }
    }
}

impl Source {
    /// Notes that `what` was asked for at `now`, by a stealth probe or not, and says which limit that crosses.
    /// Asking for the same port again only renews it, but each stealth probe counts.
    pub fn touch(&mut self, what: Asked, stealth: bool, limits: &Limits, now: Instant) -> Option<Crossed> {
        self.expire(limits.window, now);
        let touch = Touch {
            what,
            stealth: u16::from(stealth),
            at: now,
        };
        self.put(touch);
        self.crossed(what, stealth, limits)
    }

    /// Takes back a touch of before, not older than any that is there already.
    pub fn restore(&mut self, touch: Touch, limits: &Limits) {
        self.put(touch);
        self.crossed(touch.what, touch.stealth > 0, limits);
    }

    /// The source completed a handshake on this TCP port: it no longer speaks against it.
    pub fn clear(&mut self, port: u16) {
        let of_port = |touch: &Touch| touch.what == Asked::Port(Proto::Tcp, port);
        if let Some(at) = self.touches.as_slice().iter().position(of_port) {
            self.touches.remove(at);
        }
    }

    /// What is in the window at `now`, oldest first.
    pub fn within(&self, window: Duration, now: Instant) -> &[Touch] {
        let touches = self.touches.as_slice();
        &touches[stale(touches, window, now)..]
    }

    /// The ports that made it cross that limit, in the order in which they were last touched, oldest first.
    pub fn ports(&self, crossed: Crossed) -> impl Iterator<Item = (Proto, u16)> + '_ {
        let touches = self.touches.as_slice().iter();
        touches
            .filter(move |touch| speaks_for(touch, crossed))
            .filter_map(|touch| touch.what.port())
    }

    /// The last touch.
    pub fn latest(&self) -> Option<Touch> {
        self.touches.as_slice().last().copied()
    }

    /// How many touches it holds, as of the last one.
    pub fn len(&self) -> usize {
        self.touches.as_slice().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&mut self, touch: Touch) {
        let touches = self.touches.as_mut_slice();
        let Some(known) = touches.iter().rposition(|known| known.what == touch.what) else {
            return self.touches.push(touch);
        };
        touches[known..].rotate_left(1);
        if let Some(last) = touches.last_mut() {
            last.at = touch.at;
            // An IP protocol is asked for by every packet of a one-way tunnel: it counts once.
            if last.what.port().is_some() {
                last.stealth = last.stealth.saturating_add(touch.stealth);
            }
        }
    }

    fn expire(&mut self, window: Duration, now: Instant) {
        let stale = stale(self.touches.as_slice(), window, now);
        if stale > 0 {
            self.touches.drop_first(stale);
        }
    }

    fn crossed(&mut self, what: Asked, stealth: bool, limits: &Limits) -> Option<Crossed> {
        let ports = what
            .port()
            .map(|(proto, _)| Crossed::Ports(proto))
            .filter(|ports| self.is_beyond(*ports, limits));
        (stealth && self.is_beyond(Crossed::Stealth, limits))
            .then_some(Crossed::Stealth)
            .or(ports)
    }

    /// Whether there is more than is tolerated; if so only as much is kept as an offence needs.
    fn is_beyond(&mut self, crossed: Crossed, limits: &Limits) -> bool {
        let count = || {
            let touches = self.touches.as_slice().iter();
            touches.map(|touch| weighs(touch, crossed)).sum::<u32>()
        };
        let most = limits.tolerated(crossed).saturating_add(1);
        let count = count();
        if count < most {
            return false;
        }
        let mut surplus = count - most;
        while let Some((at, weight)) = self.oldest(crossed)
            && weight <= surplus
        {
            self.touches.remove(at);
            surplus -= weight;
        }
        true
    }

    fn oldest(&self, crossed: Crossed) -> Option<(usize, u32)> {
        let touches = self.touches.as_slice();
        let at = touches.iter().position(|touch| speaks_for(touch, crossed))?;
        Some((at, weighs(&touches[at], crossed)))
    }
}

/// How much a touch counts toward a limit.
fn weighs(touch: &Touch, crossed: Crossed) -> u32 {
    match (crossed, touch.what) {
        (Crossed::Stealth, _) => touch.stealth.into(),
        (Crossed::Ports(wanted), Asked::Port(proto, _)) => u32::from(proto == wanted),
        (Crossed::Ports(_), Asked::Protocol(_)) => 0,
    }
}

fn speaks_for(touch: &Touch, crossed: Crossed) -> bool {
    weighs(touch, crossed) > 0
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
            Touches::Many(many) => {
                // Not twice as many each time: what a stranger can make us hold is counted in these.
                if many.len() == many.capacity() {
                    many.reserve_exact(SEVERAL);
                }
                many.push(touch);
            }
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
        stealth: 3,
        window: Duration::from_secs(7200),
    };
    const TCP: Crossed = Crossed::Ports(Proto::Tcp);
    const UDP: Crossed = Crossed::Ports(Proto::Udp);

    fn tcp(port: u16) -> Asked {
        Asked::Port(Proto::Tcp, port)
    }

    fn udp(port: u16) -> Asked {
        Asked::Port(Proto::Udp, port)
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn numbers(source: &Source, crossed: Crossed) -> Vec<u16> {
        source.ports(crossed).map(|(_, port)| port).collect()
    }

    #[test]
    fn seven_are_tolerated_and_the_eighth_is_not() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=7 {
            assert_eq!(source.touch(tcp(port), false, &LIMITS, now), None, "{port}");
        }
        assert_eq!(source.touch(tcp(8), false, &LIMITS, now), Some(TCP));
        assert_eq!(numbers(&source, TCP), (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_port_counts_once() {
        let (mut source, now) = (Source::default(), Instant::now());
        for second in 0..1000 {
            let crossed = source.touch(tcp(443), false, &LIMITS, seconds(now, second));
            assert_eq!(crossed, None);
        }
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn the_window_slides_and_a_touch_renews_its_port() {
        let (mut source, start) = (Source::default(), Instant::now());
        for port in 1..=7 {
            source.touch(tcp(port), false, &LIMITS, seconds(start, u64::from(port)));
        }
        source.touch(tcp(1), false, &LIMITS, seconds(start, 7000));
        // Ports 2 and 3 left; 1 was renewed.
        let late = seconds(start, 7203);
        assert_eq!(source.touch(tcp(8), false, &LIMITS, late), None);
        assert_eq!(numbers(&source, TCP), [4, 5, 6, 7, 1, 8]);
        assert_eq!(source.touch(tcp(9), false, &LIMITS, late), None);
        assert_eq!(source.touch(tcp(10), false, &LIMITS, late), Some(TCP));
    }

    #[test]
    fn a_port_every_quarter_of_an_hour_is_a_scan() {
        let (mut source, start) = (Source::default(), Instant::now());
        let crossed = (0..20).find(|nth| {
            let at = seconds(start, nth * 900);
            source.touch(tcp(*nth as u16), false, &LIMITS, at).is_some()
        });
        assert_eq!(crossed, Some(7)); // the eighth, after 105 minutes
    }

    #[test]
    fn a_port_leaves_exactly_when_the_window_is_over() {
        let (mut source, start) = (Source::default(), Instant::now());
        source.touch(tcp(1), false, &LIMITS, start);
        assert_eq!(source.within(LIMITS.window, seconds(start, 7199)).len(), 1);
        assert_eq!(source.within(LIMITS.window, seconds(start, 7200)).len(), 0);
        source.touch(tcp(2), false, &LIMITS, seconds(start, 7200));
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn udp_is_counted_apart_from_tcp() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=7 {
            assert_eq!(source.touch(tcp(port), false, &LIMITS, now), None);
        }
        for port in 1..=28 {
            assert_eq!(source.touch(udp(port), false, &LIMITS, now), None, "{port}");
        }
        assert_eq!(source.touch(udp(29), false, &LIMITS, now), Some(UDP));
        assert_eq!(numbers(&source, UDP).len(), 29);
        assert_eq!(source.touch(tcp(7), false, &LIMITS, now), None);
        assert_eq!(source.touch(tcp(8), false, &LIMITS, now), Some(TCP));
    }

    #[test]
    fn each_stealth_probe_counts_also_on_the_same_port() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in [80, 80, 443] {
            assert_eq!(source.touch(tcp(port), true, &LIMITS, now), None);
        }
        assert_eq!(source.touch(tcp(22), false, &LIMITS, now), None);
        let crossed = source.touch(tcp(80), true, &LIMITS, now);
        assert_eq!(crossed, Some(Crossed::Stealth));
        assert_eq!(numbers(&source, Crossed::Stealth), [443, 80]);
        let later = seconds(now, 7200);
        assert_eq!(source.touch(tcp(80), true, &LIMITS, later), None);
    }

    #[test]
    fn an_ip_protocol_counts_once_however_long_its_tunnel_runs() {
        let (mut source, now) = (Source::default(), Instant::now());
        for second in 0..1000 {
            let at = seconds(now, second);
            assert_eq!(source.touch(Asked::Protocol(47), true, &LIMITS, at), None);
        }
        let late = seconds(now, 1000);
        for number in [50, 132] {
            assert_eq!(source.touch(Asked::Protocol(number), true, &LIMITS, late), None);
        }
        let crossed = source.touch(Asked::Protocol(3), true, &LIMITS, late);
        assert_eq!(crossed, Some(Crossed::Stealth));
        assert_eq!(numbers(&source, Crossed::Stealth), [0; 0]);
    }

    #[test]
    fn a_port_with_a_completed_handshake_leaves_the_count() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=100 {
            assert_eq!(source.touch(tcp(port), false, &LIMITS, now), None, "{port}");
            source.clear(port);
        }
        assert!(source.is_empty());
        source.clear(1);
    }

    #[test]
    fn it_never_holds_more_than_an_offence_needs() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 1..=1000 {
            source.touch(tcp(port), false, &LIMITS, now);
            source.touch(udp(port), false, &LIMITS, now);
            source.touch(tcp(port), true, &LIMITS, now);
            source.touch(Asked::Protocol((port % 250) as u8), true, &LIMITS, now);
        }
        assert!(source.len() <= 8 + 29 + 4, "{}", source.len());
        assert_eq!(source.ports(TCP).last(), Some((Proto::Tcp, 1000)));
    }

    #[test]
    fn with_nothing_tolerated_the_first_port_is_the_offence() {
        let mut source = Source::default();
        let limits = Limits {
            tcp: 0,
            udp: 0,
            stealth: 0,
            ..LIMITS
        };
        let now = Instant::now();
        assert_eq!(source.touch(tcp(22), false, &limits, now), Some(TCP));
        assert_eq!(source.touch(tcp(23), false, &limits, now), Some(TCP));
        assert_eq!(source.touch(tcp(24), true, &limits, now), Some(Crossed::Stealth));
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn as_much_as_is_tolerated_takes_little_more_memory_than_it_needs() {
        let (mut source, now) = (Source::default(), Instant::now());
        for port in 0..LIMITS.udp as u16 {
            assert_eq!(source.touch(udp(port), false, &LIMITS, now), None);
        }
        for port in 0..LIMITS.tcp as u16 {
            assert_eq!(source.touch(tcp(port), false, &LIMITS, now), None);
        }
        for number in 0..LIMITS.stealth as u8 {
            assert_eq!(source.touch(Asked::Protocol(number), true, &LIMITS, now), None);
        }
        let Touches::Many(many) = &source.touches else {
            panic!("{source:?}");
        };
        assert_eq!((many.len(), many.capacity()), (38, 40));
    }
}
