//! One question to the engine, and its answer, within bounded time.

use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use serde::de::DeserializeOwned;

use crate::control::wire::{Reply, Request};

/// Where the packaged engine listens.
pub const DEFAULT_SOCKET: &str = "/run/verdictd/control.sock";
/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "VERDICTD_SOCKET";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens on that path.
    #[error("no engine runs on {path:?} ({source}), start verdictd or name its socket with --socket")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("no permission to talk to the engine on {0:?}, be root or join the group of the socket")]
    Forbidden(PathBuf),
    /// The engine is there and does not answer.
    #[error("the engine on {path:?} did not answer within {} seconds, it may hang", .limit.as_secs())]
    Late {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The conversation broke off.
    #[error("cannot talk to the engine on {path:?}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection was closed without an answer.
    #[error("the engine on {0:?} closed the connection without an answer")]
    Silent(PathBuf),
    /// What came is not a reply.
    #[error("the answer of {path:?} is not a reply of verdictd: {source}")]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The way to one engine; each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    connect_time: Duration,
    answer_time: Duration,
    /// The whole answer within `answer_time`, and no more than this of it.
    whole: Option<u64>,
}

impl Client {
    /// By `socket`, else by [`SOCKET_VARIABLE`], else [`DEFAULT_SOCKET`].
    pub fn find(socket: Option<PathBuf>) -> Client {
        let named = env::var_os(SOCKET_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        Client {
            path: socket.or(named).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)),
            connect_time: CONNECT_TIME,
            answer_time: ANSWER_TIME,
            whole: None,
        }
    }

    /// The same way, for somebody who waits no longer than `limit` for a short answer, also where the engine sends it
    /// drop by drop.
    pub fn within(mut self, limit: Duration) -> Client {
        self.connect_time = limit.min(CONNECT_TIME);
        self.answer_time = limit.min(ANSWER_TIME);
        self.whole = Some(SHORT_REPLY_BYTES);
        self
    }

    /// The process that listens there, by the kernel's word (SO_PEERCRED); none if that cannot be seen from here. It
    /// need not answer for that.
    ///
    /// # Errors
    /// If nobody listens, or too many wait for it already.
    pub fn server(&self) -> Result<Option<Pid>, ClientError> {
        let stream = connect(&self.path, self.connect_time, self.answer_time);
        let peer = stream.and_then(|stream| Ok(socket_peercred(&stream)?));
        let peer = peer.map_err(|error| self.unreachable(error))?;
        // 0, which is no Pid, stands for a process of another pid namespace: never looked at by way of `Pid`.
        Ok(Pid::from_raw(Pid::as_raw(Some(peer.pid))))
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same way, where that answer may be so many bytes.
    pub fn taking(mut self, bytes: u64) -> Client {
        self.whole = Some(bytes);
        self
    }

    /// Asks and waits for the answer.
    pub fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        self.ask_for(request)
    }

    /// As [`Client::ask`], for somebody who wants only some of what a [`Reply`] says.
    pub fn ask_for<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        let mut stream = connect(&self.path, self.connect_time, self.answer_time)
            .map_err(|error| self.unreachable(error))?;
        // A server that refuses may close before all is written: what it said counts, not our EPIPE.
        let written = stream.write_all(&request.encode());
        let line = match self.whole {
            None => read_line(stream, MAX_REPLY_BYTES),
            Some(most) => read_line(Hasty::new(stream, self.answer_time), most),
        };
        let line = line.and_then(|line| match line.is_empty() {
            true => written.map(|()| line),
            false => Ok(line),
        });
        let line = line.map_err(|error| self.broken(error))?;
        if line.is_empty() {
            return Err(ClientError::Silent(self.path.clone()));
        }
        serde_json::from_slice(&line).map_err(|source| ClientError::Malformed {
            path: self.path.clone(),
            source,
        })
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning { path, source },
            ErrorKind::PermissionDenied => ClientError::Forbidden(path),
            ErrorKind::WouldBlock => ClientError::Late {
                path,
                limit: self.connect_time,
            },
            _ => ClientError::Io { path, source },
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::WouldBlock => ClientError::Late {
                path,
                limit: self.answer_time,
            },
            _ => ClientError::Io { path, source },
        }
    }
}

/// With a limit, which std's connect lacks: a stopped engine with a full backlog would hang us for ever.
fn connect(path: &Path, connect_time: Duration, answer_time: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(connect_time))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(answer_time))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// Reads until a moment, whatever comes until then.
struct Hasty {
    stream: UnixStream,
    end: Instant,
}

impl Hasty {
    fn new(stream: UnixStream, limit: Duration) -> Hasty {
        let end = Instant::now() + limit;
        Hasty { stream, end }
    }
}

impl Read for Hasty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn read_line(stream: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::with_capacity(1 << 16, stream)
        .take(most)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The engine may wait for the kernel to take a ban; seconds mean that something hangs.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// What is asked in haste is how the engine is, which is some kilobytes.
const SHORT_REPLY_BYTES: u64 = 1 << 20;
/// A list of four million bans: more than the kernel sets hold.
const MAX_REPLY_BYTES: u64 = 1 << 30;
