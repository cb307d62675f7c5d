//! Does this kernel do what the engine needs? One packet of our own is sent through a throw-away rule into a
//! throw-away queue and judged there, twice: dropped, then accepted. Asking for features by name would answer
//! another question than "do verdicts hold".
//!
//! The queue is served by the `nfq` crate, an implementation other than ours: what it sees is a statement
//! about the kernel, not about our code.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::netlink::{Builder, Netlink, NetlinkError, nfnl_type};
use super::queue::{FeedError, free_queues};
pub use super::ruleset::Backend;

/// Why this host cannot run the verdict loop as it is.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// The loopback interface has no address.
    #[error("the loopback interface does not carry 127.0.0.1 ({0}), bring it up: ip link set lo up")]
    Loopback(io::Error),
    /// No capability, no nfnetlink_queue, no number.
    #[error(transparent)]
    Queue(#[from] FeedError),
    /// The `nfq` crate could not serve the queue.
    #[error("the throw-away queue {number} cannot be served: {error}")]
    Serve {
        /// The queue's number.
        number: u16,
        /// What the socket said.
        error: io::Error,
    },
    /// Neither way to a queue exists.
    #[error(
        "this kernel has neither the nft queue expression ({native}) nor the xt target NFQUEUE ({xt}), \
         load nft_queue, or nft_compat and xt_NFQUEUE"
    )]
    NoBackend {
        /// The answer to the native expression.
        native: NetlinkError,
        /// The answer to the xt target.
        xt: NetlinkError,
    },
    /// The rule stands but the packet did not come.
    #[error(
        "a test packet on 127.0.0.1 was not queued within {} ms by the {} rule, \
         look for an output rule that drops loopback traffic: nft list ruleset",
        PATIENCE.as_millis(), .0
    )]
    NotQueued(Backend),
    /// The accepted packet did not arrive.
    #[error(
        "a test packet on 127.0.0.1 was accepted but did not arrive within {} ms, \
         look for an input rule that drops loopback traffic: nft list ruleset",
        PATIENCE.as_millis()
    )]
    NotDelivered,
    /// The dropped packet arrived all the same.
    #[error("a test packet arrived although its verdict was drop, verdicts have no effect on this kernel")]
    NotDropped,
    /// The socket for the throw-away table failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The test's own sockets failed.
    #[error("sending the test packet: {0}")]
    Send(io::Error),
}

/// Has one packet dropped and one accepted, and says which kind of queue rule this kernel takes (the native one
/// first). Takes a few milliseconds, at most 4 s where packets vanish.
///
/// To be called before the engine's own queues are bound and with none of its packets waiting: removing the
/// throw-away chain makes the kernel drop whatever waits in any queue of this network namespace.
///
/// The table `verdictd-preflight-<pid>` is removed on every way out; should the process be killed in between,
/// the kernel removes it with our socket (owner flag).
pub fn judge_one_packet() -> Result<Backend, PreflightError> {
    let (sender, receiver) = socket_pair()?;
    let number = free_queues(FIRST_NUMBER, 1)?;
    let mut queue = open_queue(number).map_err(|error| PreflightError::Serve { number, error })?;
    let table = Table::install(number, &sender)?;
    for (verdict, packet) in [(nfq::Verdict::Drop, DROPPED), (nfq::Verdict::Accept, ACCEPTED)] {
        sender.send(packet).map_err(PreflightError::Send)?;
        let queued =
            answer(&mut queue, packet, verdict).map_err(|error| PreflightError::Serve { number, error })?;
        if !queued {
            return Err(PreflightError::NotQueued(table.backend));
        }
    }
    arrived(&receiver)?;
    let backend = table.backend;
    drop(table);
    // Nobody is to find the number taken because a closed socket is not yet torn down.
    queue
        .unbind(number)
        .map_err(|error| PreflightError::Serve { number, error })?;
    Ok(backend)
}

/// Two sockets that know only each other.
fn socket_pair() -> Result<(UdpSocket, UdpSocket), PreflightError> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let connect = |(from, to): (UdpSocket, UdpSocket)| -> io::Result<_> {
        from.connect(to.local_addr()?)?;
        to.connect(from.local_addr()?)?;
        to.set_read_timeout(Some(PATIENCE))?;
        Ok((from, to))
    };
    bind()
        .and_then(|from| Ok((from, bind()?)))
        .and_then(connect)
        .map_err(PreflightError::Loopback)
}

fn open_queue(number: u16) -> io::Result<nfq::Queue> {
    let mut queue = nfq::Queue::open()?;
    queue.bind(number)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// Waits until `packet` is in the queue and answers it; false if it never came.
fn answer(queue: &mut nfq::Queue, packet: &[u8], verdict: nfq::Verdict) -> io::Result<bool> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match queue.recv() {
            Ok(mut message) => {
                let ours = message.get_payload().ends_with(packet);
                message.set_verdict(if ours { verdict } else { nfq::Verdict::Accept });
                queue.verdict(message)?;
                if ours {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Loopback keeps the order of packets: if the second is the first to arrive, the first was dropped.
fn arrived(receiver: &UdpSocket) -> Result<(), PreflightError> {
    let mut buffer = [0; 64];
    match receiver.recv(&mut buffer) {
        Ok(length) if &buffer[..length] == ACCEPTED => Ok(()),
        Ok(_) => Err(PreflightError::NotDropped),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(PreflightError::NotDelivered)
        }
        Err(error) => Err(PreflightError::Send(error)),
    }
}

/// The throw-away table; dropping it removes it.
struct Table {
    netlink: Netlink,
    name: String,
    backend: Backend,
}

impl Table {
    /// Installs a table whose one rule queues what `sender` sends to its peer.
    fn install(number: u16, sender: &UdpSocket) -> Result<Table, PreflightError> {
        let name = format!("verdictd-preflight-{}", std::process::id());
        let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
        let flow = flow(sender).map_err(PreflightError::Send)?;
        let mut attempt = |backend| {
            let seqs = netlink.take_seqs(5);
            let batch = table_batch(&name, &flow, number, backend, seqs.start);
            netlink.transact(batch.bytes(), seqs.start + 1..seqs.end - 1)
        };
        let backend = match attempt(Backend::Native) {
            Ok(()) => Backend::Native,
            Err(native) => match attempt(Backend::Xt) {
                Ok(()) => Backend::Xt,
                Err(xt) => return Err(PreflightError::NoBackend { native, xt }),
            },
        };
        Ok(Table {
            netlink,
            name,
            backend,
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let seqs = self.netlink.take_seqs(3);
        let mut batch = Builder::new();
        batch.batch_begin(seqs.start);
        nft(&mut batch, libc::NFT_MSG_DELTABLE, 0, seqs.start + 1).put_str(NAME, &self.name);
        batch.batch_end(seqs.start + 2);
        // If even this fails, the table goes with the socket that owns it, in a moment.
        let _ = self
            .netlink
            .transact(batch.bytes(), seqs.start + 1..seqs.start + 2);
    }
}

/// What the rule compares: the addresses as they stand in the IP header, the ports as in the UDP header.
struct Flow {
    addresses: [u8; 8],
    ports: [u8; 4],
}

fn flow(sender: &UdpSocket) -> io::Result<Flow> {
    let mut flow = Flow {
        addresses: [0; 8],
        ports: [0; 4],
    };
    for (at, end) in [sender.local_addr()?, sender.peer_addr()?]
        .into_iter()
        .enumerate()
    {
        if let SocketAddr::V4(end) = end {
            flow.addresses[at * 4..][..4].copy_from_slice(&end.ip().octets());
            flow.ports[at * 2..][..2].copy_from_slice(&end.port().to_be_bytes());
        }
    }
    Ok(flow)
}

/// Table, output chain and rule as one transaction of five messages from sequence number `seq` on.
fn table_batch(table: &str, flow: &Flow, number: u16, backend: Backend, seq: u32) -> Builder {
    let mut batch = Builder::new();
    batch.batch_begin(seq);
    nft(
        &mut batch,
        libc::NFT_MSG_NEWTABLE,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        seq + 1,
    )
    .put_str(NAME, table)
    .put_be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
    nft(&mut batch, libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, seq + 2)
        .put_str(NAME, table)
        .put_str(NFTA_CHAIN_NAME, CHAIN);
    let hook = batch.open(NFTA_CHAIN_HOOK);
    batch
        .put_be32(NFTA_HOOK_HOOKNUM, libc::NF_INET_LOCAL_OUT as u32)
        .put_be32(NFTA_HOOK_PRIORITY, 0)
        .close(hook)
        .put_str(NFTA_CHAIN_TYPE, "filter");
    nft(
        &mut batch,
        libc::NFT_MSG_NEWRULE,
        libc::NLM_F_CREATE | libc::NLM_F_APPEND,
        seq + 3,
    )
    .put_str(NAME, table)
    .put_str(NFTA_RULE_CHAIN, CHAIN);
    let rule = batch.open(NFTA_RULE_EXPRESSIONS);
    meta_is(&mut batch, libc::NFT_META_NFPROTO, &[libc::NFPROTO_IPV4 as u8]);
    meta_is(&mut batch, libc::NFT_META_L4PROTO, &[libc::IPPROTO_UDP as u8]);
    header_is(&mut batch, libc::NFT_PAYLOAD_NETWORK_HEADER, 12, &flow.addresses);
    header_is(&mut batch, libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, &flow.ports);
    queue_to(&mut batch, number, backend);
    batch.close(rule);
    batch.batch_end(seq + 4);
    batch
}

fn nft(batch: &mut Builder, message: i32, flags: i32, seq: u32) -> &mut Builder {
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, message);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags;
    batch.nfnetlink(kind, flags, seq, libc::NFPROTO_INET, 0)
}

fn expression(batch: &mut Builder, name: &str, data: impl FnOnce(&mut Builder)) {
    let element = batch.open(NFTA_LIST_ELEM);
    batch.put_str(NFTA_EXPR_NAME, name);
    let nest = batch.open(NFTA_EXPR_DATA);
    data(batch);
    batch.close(nest).close(element);
}

fn meta_is(batch: &mut Builder, key: i32, value: &[u8]) {
    expression(batch, "meta", |batch| {
        batch
            .put_be32(NFTA_META_DREG, REGISTER)
            .put_be32(NFTA_META_KEY, key as u32);
    });
    register_is(batch, value);
}

fn header_is(batch: &mut Builder, base: i32, offset: u32, value: &[u8]) {
    expression(batch, "payload", |batch| {
        batch
            .put_be32(NFTA_PAYLOAD_DREG, REGISTER)
            .put_be32(NFTA_PAYLOAD_BASE, base as u32)
            .put_be32(NFTA_PAYLOAD_OFFSET, offset)
            .put_be32(NFTA_PAYLOAD_LEN, value.len() as u32);
    });
    register_is(batch, value);
}

fn register_is(batch: &mut Builder, value: &[u8]) {
    expression(batch, "cmp", |batch| {
        batch
            .put_be32(NFTA_CMP_SREG, REGISTER)
            .put_be32(NFTA_CMP_OP, libc::NFT_CMP_EQ as u32);
        let data = batch.open(NFTA_CMP_DATA);
        batch.put(NFTA_DATA_VALUE, value).close(data);
    });
}

/// No `bypass`: without a listener the packet would arrive and look accepted.
fn queue_to(batch: &mut Builder, number: u16, backend: Backend) {
    match backend {
        Backend::Native => expression(batch, "queue", |batch| {
            batch.put(NFTA_QUEUE_NUM, &number.to_be_bytes());
        }),
        Backend::Xt => expression(batch, "target", |batch| {
            // struct xt_NFQ_info_v3 (number, how many, flags) in host byte order, padded to XT_ALIGN.
            let mut info = [0; 8];
            info[..2].copy_from_slice(&number.to_ne_bytes());
            info[2..4].copy_from_slice(&1u16.to_ne_bytes());
            batch
                .put_str(NFTA_TARGET_NAME, "NFQUEUE")
                .put_be32(NFTA_TARGET_REV, 3)
                .put(NFTA_TARGET_INFO, &info);
        }),
    }
}

/// The search for a throw-away number begins here, far from those in common use.
const FIRST_NUMBER: u16 = 64_000;
/// For one packet over loopback; a busy machine is still a thousand times faster.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(200);
const DROPPED: &[u8] = b"verdictd preflight: to be dropped";
const ACCEPTED: &[u8] = b"verdictd preflight: to be accepted";
const CHAIN: &str = "out";

// include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h; `libc` has the messages, not the attributes.
const NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
/// Since Linux 5.12: the table is nobody else's to change, and vanishes with its owner's socket.
const NFT_TABLE_F_OWNER: u32 = 2;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_QUEUE_NUM: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_TARGET_REV: u16 = 2;
const NFTA_TARGET_INFO: u16 = 3;
/// NFT_REG_1, 16 bytes wide.
const REGISTER: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::{Attributes, Messages, string};

    const FLOW: Flow = Flow {
        addresses: [127, 0, 0, 1, 127, 0, 0, 1],
        ports: [0x12, 0x34, 0x56, 0x78],
    };

    fn expressions(batch: &Builder) -> Vec<String> {
        let rule = Messages::new(batch.bytes()).nth(3).unwrap();
        let list = Attributes::after_nfgen(rule.payload)
            .find(|(kind, _)| *kind == NFTA_RULE_EXPRESSIONS)
            .unwrap();
        Attributes::new(list.1)
            .map(|(_, element)| {
                string(Attributes::new(element).next().unwrap().1)
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn the_two_backends_differ_in_the_last_expression() {
        let matches = ["meta", "cmp", "meta", "cmp", "payload", "cmp", "payload", "cmp"];
        for (backend, last) in [(Backend::Native, "queue"), (Backend::Xt, "target")] {
            let batch = table_batch("t", &FLOW, 5, backend, 10);
            assert_eq!(
                Messages::new(batch.bytes()).map(|m| m.seq).collect::<Vec<_>>(),
                [10, 11, 12, 13, 14]
            );
            let found = expressions(&batch);
            assert_eq!(found[..8], matches);
            assert_eq!(found[8..], [last]);
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let lo = PreflightError::Loopback(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert!(lo.to_string().contains("ip link set lo up"), "{lo}");
        let none = PreflightError::NoBackend {
            native: NetlinkError::Malformed("a"),
            xt: NetlinkError::Malformed("b"),
        };
        assert!(none.to_string().contains("xt_NFQUEUE"), "{none}");
        assert!(
            PreflightError::NotQueued(Backend::Xt)
                .to_string()
                .contains("by the xt NFQUEUE rule")
        );
    }
}
