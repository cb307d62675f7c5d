//! What became of a flow, asked of conntrack: by one question, or many in one datagram.

use super::entry::{CTA_TUPLE_ORIG, Entry, family, put_flow};
use super::{Flow, IPCTNL_MSG_CT_GET};
use crate::kernel::netlink::{Builder, Netlink, NetlinkError, nfnl_type};

/// How far conntrack saw a TCP connection come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The client's SYN, no answer.
    SynSent,
    /// Our SYN+ACK, and nobody came.
    SynRecv,
    /// Open, as far as conntrack can tell.
    Established,
    /// Any other TCP_CONNTRACK_… number: 4 FIN_WAIT, 5 CLOSE_WAIT, 6 LAST_ACK, 7 TIME_WAIT, 8 CLOSE (a RST),
    /// 9 SYN_SENT2.
    Other(u8),
}

impl TcpState {
    fn of(number: u8) -> TcpState {
        match number {
            1 => TcpState::SynSent,
            2 => TcpState::SynRecv,
            3 => TcpState::Established,
            other => TcpState::Other(other),
        }
    }
}

/// A socket for questions, in the network namespace of the thread that opened it.
pub struct Asker {
    netlink: Netlink,
    request: Builder,
}

impl Asker {
    /// The most questions that go in one datagram: their answers take about 0.6 MB of the receive buffer.
    pub const BATCH: usize = 128;

    /// Opens the socket; wakes nothing.
    pub fn open() -> Result<Asker, NetlinkError> {
        Ok(Asker {
            netlink: Netlink::open(mnl::Bus::Netfilter)?,
            request: Builder::new(),
        })
    }

    /// How far `flow` came; `None` when conntrack has no entry for it (any more), or one of the other direction.
    pub fn state(&mut self, flow: &Flow) -> Result<Option<TcpState>, NetlinkError> {
        Ok(self.states(std::slice::from_ref(flow))?[0])
    }

    /// The same for many flows, in their order, [`Asker::BATCH`] at a time.
    ///
    /// # Errors
    /// If an answer is missing or the kernel refuses a question for another reason than that it knows no such flow.
    pub fn states(&mut self, flows: &[Flow]) -> Result<Vec<Option<TcpState>>, NetlinkError> {
        let mut states = Vec::with_capacity(flows.len());
        for flows in flows.chunks(Asker::BATCH) {
            self.batch(flows, &mut states)?;
        }
        Ok(states)
    }

    fn batch(&mut self, flows: &[Flow], states: &mut Vec<Option<TcpState>>) -> Result<(), NetlinkError> {
        let seqs = self.netlink.take_seqs(flows.len() as u32);
        self.request.clear();
        for (flow, seq) in flows.iter().zip(seqs.clone()) {
            let kind = nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET);
            self.request
                .nfnetlink(kind, libc::NLM_F_REQUEST, seq, family(flow), 0);
            put_flow(&mut self.request, CTA_TUPLE_ORIG, flow);
        }
        let mut answers = Answers::new(seqs.start, flows.len());
        self.netlink
            .exchange(self.request.bytes(), |message| match message.error() {
                Some((0, _)) => {}
                Some((libc::ENOENT, _)) => answers.put(message.seq, |_| None),
                Some((errno, words)) => answers.refuse(message.seq, errno, words),
                None => answers.put(message.seq, |index| {
                    let entry = Entry::read(message.payload).filter(|entry| entry.is_of(&flows[index]))?;
                    entry.state.map(TcpState::of)
                }),
            })?;
        answers.finish(states)
    }
}

/// Answers to a row of questions, each put in its place.
pub(super) struct Answers<T> {
    first: u32,
    answers: Vec<Option<T>>,
    refusal: Option<NetlinkError>,
}

impl<T: Clone> Answers<T> {
    /// For `count` questions whose sequence numbers begin with `first`.
    pub(super) fn new(first: u32, count: usize) -> Answers<T> {
        Answers {
            first,
            answers: vec![None; count],
            refusal: None,
        }
    }

    /// The answer to question `seq`; `answer` gets its place in the row.
    pub(super) fn put(&mut self, seq: u32, answer: impl FnOnce(usize) -> T) {
        let index = seq.wrapping_sub(self.first) as usize;
        if let Some(slot) = self.answers.get_mut(index) {
            *slot = Some(answer(index));
        }
    }

    /// The kernel refused question `seq`.
    pub(super) fn refuse(&mut self, seq: u32, errno: i32, message: Option<String>) {
        self.refusal
            .get_or_insert(NetlinkError::Refused { seq, errno, message });
    }

    /// Appends the answers to `all`, if there is one to each question.
    pub(super) fn finish(self, all: &mut Vec<T>) -> Result<(), NetlinkError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let asked = self.answers.len() as u32;
        let missing = self.answers.iter().filter(|answer| answer.is_none()).count() as u32;
        if missing > 0 {
            return Err(NetlinkError::Unconfirmed { asked, missing });
        }
        all.extend(self.answers.into_iter().flatten());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_place_and_none_may_be_missing() {
        let mut all = vec!['z'];
        let mut answers = Answers::new(u32::MAX, 3);
        answers.put(1, |_| 'c');
        answers.put(u32::MAX, |_| 'a');
        answers.put(9, |_| 'x');
        answers.put(0, |index| if index == 1 { 'b' } else { 'x' });
        answers.finish(&mut all).unwrap();
        assert_eq!(all, ['z', 'a', 'b', 'c']);
        let mut cut = Answers::new(7, 2);
        cut.put(8, |_| 'b');
        let error = cut.finish(&mut all).unwrap_err();
        assert!(
            matches!(error, NetlinkError::Unconfirmed { asked: 2, missing: 1 }),
            "{error}"
        );
        assert_eq!(all.len(), 4, "a row that is not whole adds nothing");
    }

    #[test]
    fn a_refused_question_refuses_the_row() {
        let mut answers = Answers::new(1, 1);
        answers.refuse(1, libc::EPERM, None);
        assert_eq!(
            answers.finish(&mut vec!['a']).unwrap_err().errno(),
            Some(libc::EPERM)
        );
    }
}
