//! A network namespace of a test's own: loopback, a sender, a receiver, and rules that divert what is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::panic::resume_unwind;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities};

/// Runs `test` on a thread in a new network namespace, which ends with it, also on panic.
pub(crate) fn run(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // NEWNET concerns this thread alone; the function is deprecated for the sake of FILES.
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET)
                .expect("a network namespace needs root: run sudo make test");
            test();
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Takes CAP_NET_ADMIN from the calling thread for good.
pub(crate) fn drop_net_admin() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    sets.permitted.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
}

/// Waits until `done`, at most 5 s.
pub(crate) fn wait_for(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(5), "waited for 5 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Loopback with one UDP sender and one receiver.
pub(crate) struct Ground {
    is_v6: bool,
    sender: Sender,
    receiver: UdpSocket,
}

impl Ground {
    pub(crate) fn v4() -> Ground {
        Ground::new(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn v6() -> Ground {
        Ground::new(Ipv6Addr::LOCALHOST.into())
    }

    fn new(address: IpAddr) -> Ground {
        command("ip", "link set lo up");
        let receiver = UdpSocket::bind((address, 0)).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&receiver, 64 << 20).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = UdpSocket::bind((address, 0)).unwrap();
        // Held packets count against their sender: with the default it would block after a few hundred.
        rustix::net::sockopt::set_socket_send_buffer_size_force(&sender, 512 << 20).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        Ground {
            is_v6: address.is_ipv6(),
            sender: Sender(sender),
            receiver,
        }
    }

    /// Sends all UDP to queue `number`, before it leaves.
    pub(crate) fn queue_udp(&self, number: u16) {
        self.iptables(&format!("-A OUTPUT -p udp -j NFQUEUE --queue-num {number}"));
    }

    /// The same for TCP.
    pub(crate) fn queue_tcp(&self, number: u16) {
        self.iptables(&format!("-A OUTPUT -p tcp -j NFQUEUE --queue-num {number}"));
    }

    /// The same for what [`send_raw`] sends, and for none of the answers to it.
    pub(crate) fn queue_raw(&self, number: u16) {
        command("ip", &format!("addr add {RAW_SOURCE_V6}/128 dev lo"));
        for (program, source) in [
            ("iptables-nft", RAW_SOURCE.to_string()),
            ("ip6tables-nft", RAW_SOURCE_V6.to_string()),
        ] {
            command(
                program,
                &format!("-A OUTPUT -s {source} -j NFQUEUE --queue-num {number}"),
            );
        }
    }

    /// Removes all diversion, without removing a base chain.
    pub(crate) fn flush(&self) {
        self.iptables("-F OUTPUT");
    }

    fn iptables(&self, words: &str) {
        command(
            if self.is_v6 {
                "ip6tables-nft"
            } else {
                "iptables-nft"
            },
            words,
        );
    }

    /// Copies all UDP that left the queues to log group `number`.
    pub(crate) fn copy_udp(&self, number: u16) {
        self.copy_udp_as(number, "");
    }

    /// The same by a rule with more words, such as a prefix.
    pub(crate) fn copy_udp_as(&self, number: u16, words: &str) {
        self.nft(&format!(
            "add table inet copy ; add chain inet copy out {{ type filter hook output priority 10 ; }} ; \
             add rule inet copy out meta l4proto udp log {words} group {number}"
        ));
    }

    /// Runs an nft command.
    pub(crate) fn nft(&self, words: &str) {
        command("nft", words);
    }

    /// Removes every table, base chains and all.
    pub(crate) fn flush_tables(&self) {
        self.nft("flush ruleset");
    }

    /// What `nft list tables` says.
    pub(crate) fn tables(&self) -> String {
        command("nft", "list tables")
    }

    /// Sends a packet that carries `number`.
    pub(crate) fn send(&self, number: u32) {
        self.sender.send(number);
    }

    /// The same, filled up to `length` bytes.
    pub(crate) fn send_padded(&self, number: u32, length: usize) {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(length, 0);
        assert_eq!(self.sender.0.send(&bytes).unwrap(), length);
    }

    /// The sender, for a thread of its own.
    pub(crate) fn sender(&self) -> Sender {
        Sender(self.sender.0.try_clone().unwrap())
    }

    /// The number in a packet, IP header first.
    pub(crate) fn number(&self, packet: &[u8]) -> u32 {
        let header = if self.is_v6 { 40 + 8 } else { 20 + 8 };
        u32::from_be_bytes(packet[header..header + 4].try_into().unwrap())
    }

    /// The numbers that have arrived so far.
    pub(crate) fn arrived(&self) -> Vec<u32> {
        let mut bytes = [0; 2048];
        std::iter::from_fn(|| {
            self.receiver
                .recv(&mut bytes)
                .ok()
                .map(|_| ())
                .map(|()| bytes[..4].to_vec())
        })
        .map(|number| u32::from_be_bytes(number.try_into().unwrap()))
        .collect()
    }

    /// The numbers that arrive until there are `count`, and any that come too many.
    pub(crate) fn receive(&self, count: usize) -> Vec<u32> {
        let mut numbers = self.arrived();
        let began = Instant::now();
        while numbers.len() < count && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
            numbers.extend(self.arrived());
        }
        std::thread::sleep(Duration::from_millis(10));
        numbers.extend(self.arrived());
        numbers
    }
}

/// The sending end.
pub(crate) struct Sender(UdpSocket);

impl Sender {
    /// Whether the packet was queued, dropped or passed: `send` succeeds.
    pub(crate) fn send(&self, number: u32) {
        assert_eq!(self.0.send(&number.to_be_bytes()).unwrap(), 4);
    }
}

/// Runs a command, at most 10 s; its output.
fn command(program: &str, words: &str) -> String {
    let output = Command::new("timeout")
        .arg("10")
        .arg(program)
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

const RAW_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);
const RAW_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
/// UDP, TCP with every byte of flags, ICMP echo, and a protocol nobody speaks.
const PROTOCOLS: [u8; 4] = [17, 6, 1, 253];

/// Packets of both families, every protocol, many lengths, whole and fragmented: the same bytes each time.
pub(crate) fn recorded() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for number in 0..400u16 {
        let protocol = PROTOCOLS[usize::from(number) % 4];
        let transport = transport(protocol, number);
        packets.push(ipv4(protocol, number, 0, &transport));
        if number % 16 == 0 {
            packets.push(ipv4(protocol, number, 5, &transport));
        }
        if protocol != 1 {
            packets.push(ipv6(protocol, number % 3, &transport));
        }
    }
    packets
}

fn transport(protocol: u8, number: u16) -> Vec<u8> {
    let length = 20 + usize::from(number) * 7 % 1200;
    let mut bytes: Vec<u8> = (0..length).map(|at| (at as u16 ^ number) as u8).collect();
    match protocol {
        17 => {
            bytes[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            bytes[6..8].fill(0);
        }
        6 => bytes[12..14].copy_from_slice(&[0x50, number as u8]),
        1 => bytes[..2].copy_from_slice(&[8, 0]),
        _ => {}
    }
    bytes
}

fn ipv4(protocol: u8, number: u16, fragment: u16, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + transport.len() as u16).to_be_bytes());
    bytes.extend((number + 1).to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(RAW_SOURCE.octets());
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend(transport);
    bytes
}

fn ipv6(protocol: u8, extensions: u16, transport: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for left in (0..extensions).rev() {
        // Destination options of 8 bytes: next header, length 0, PadN(4).
        chain.extend([if left == 0 { protocol } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(((chain.len() + transport.len()) as u16).to_be_bytes());
    bytes.extend([if extensions == 0 { protocol } else { 60 }, 64]);
    bytes.extend(RAW_SOURCE_V6.octets());
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend(chain);
    bytes.extend(transport);
    bytes
}

/// Whether the kernel would hand the packet to a socket: not a lone fragment.
pub(crate) fn is_deliverable(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 || packet[6..8] == [0, 0]
}

fn raw_socket(family: AddressFamily, protocol: Protocol) -> UdpSocket {
    UdpSocket::from(socket_with(family, SocketType::RAW, SocketFlags::NONBLOCK, Some(protocol)).unwrap())
}

/// Sends packets as they are, IP header and all.
pub(crate) struct RawSender(UdpSocket, UdpSocket);

impl RawSender {
    pub(crate) fn open() -> RawSender {
        RawSender(
            raw_socket(AddressFamily::INET, ipproto::RAW),
            raw_socket(AddressFamily::INET6, ipproto::RAW),
        )
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let (socket, to): (_, IpAddr) = match packet[0] >> 4 {
            4 => (&self.0, Ipv4Addr::LOCALHOST.into()),
            _ => (&self.1, Ipv6Addr::LOCALHOST.into()),
        };
        assert_eq!(
            socket.send_to(packet, SocketAddr::new(to, 0)).unwrap(),
            packet.len()
        );
    }
}

/// Sockets that are handed what [`RawSender`] sent, once it is delivered.
pub(crate) struct Sniffers(Vec<UdpSocket>);

impl Sniffers {
    pub(crate) fn open() -> Sniffers {
        let raw = |protocol: u8| Protocol::from_raw(std::num::NonZeroU32::new(protocol.into()).unwrap());
        let v4 = PROTOCOLS.map(|protocol| raw_socket(AddressFamily::INET, raw(protocol)));
        let v6 = [17, 6, 253].map(|protocol| raw_socket(AddressFamily::INET6, raw(protocol)));
        let all: Vec<_> = v4.into_iter().chain(v6).collect();
        for socket in &all {
            rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, 8 << 20).unwrap();
        }
        Sniffers(all)
    }

    /// Everything delivered so far, socket by socket, in order (IPv6 without its header).
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut bytes = [0; 2048];
        for socket in &self.0 {
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                if from.ip() == RAW_SOURCE || from.ip() == RAW_SOURCE_V6 {
                    packets.push(bytes[..length].to_vec());
                }
            }
        }
        packets
    }
}
