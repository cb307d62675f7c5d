//! The unix socket of the engine: one bounded request a connection, answered within bounded time.
//!
//! Who may connect may ask: the socket is 0660, its folder 0750. Who may order is decided by [`super::rights`] from the
//! [`Peer`] that the kernel names. Whoever it is cannot hold the engine up: at most [`MAX_CLIENTS`] threads at a time, a
//! second for a request to arrive, ten for a reply to be read. Nor can who may only ask hold up who may order: half of the
//! places are never theirs. Nothing here is on the way of a packet; if this server dies, verdicts go on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, geteuid};

pub use super::socket::ServerError;

use super::socket::Socket;
use super::wire::{MAX_REQUEST_BYTES, Reply, Request, RequestError};

/// Who asks, by the kernel's word (SO_PEERCRED) at the time of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process; 0 when it lives in another pid namespace.
    pub pid: i32,
}

/// What answers requests. Called from several threads at a time, so it locks what it must, and shortly.
pub trait Handler: Send + Sync {
    /// Does what is asked, or refuses in words.
    fn handle(&self, request: Request, peer: Peer) -> Reply;
}

/// The running server; stops when told to or dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds `path` (0660, in a folder made 0750 if there is none). Clients wait until it is served.
    ///
    /// A socket that a dead engine left is replaced; one that is answered is not.
    pub fn bind(path: &Path) -> Result<Bound, ServerError> {
        Ok(Bound(Socket::bind(path)?))
    }

    /// Binds `path` and answers on a thread of its own.
    pub fn start(path: &Path, handler: Arc<dyn Handler>) -> Result<Server, ServerError> {
        Server::bind(path)?.serve(handler)
    }

    /// The path that is answered on.
    pub fn path(&self) -> &Path {
        self.shared.socket.path()
    }

    /// Takes no more clients, waits for those that are being answered (some seconds at most), removes the socket.
    pub fn stop(mut self) {
        self.close();
    }

    fn close(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // First: a client then reads "no engine" and not a refused connection to a file that is still there.
        self.shared.socket.remove();
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Shutting a listening unix socket down wakes its accept() with EINVAL, now and for ever.
        let _ = rustix::net::shutdown(self.shared.socket.listener(), rustix::net::Shutdown::Both);
        let _ = thread.join();
        self.shared.wait_for(|clients| clients.all() == 0, STOP_TIME);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// A socket that is listened on and not yet answered.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// Answers on a thread of its own.
    pub fn serve(self, handler: Arc<dyn Handler>) -> Result<Server, ServerError> {
        let shared = Arc::new(Shared {
            socket: self.0,
            stopping: AtomicBool::new(false),
            clients: Mutex::default(),
            left: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept_clients(&theirs, &handler))
            .map_err(|error| ServerError::io("start a thread for", shared.socket.path(), error))?;
        Ok(Server {
            shared,
            thread: Some(thread),
        })
    }
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    stopping: AtomicBool,
    clients: Mutex<Clients>,
    left: Condvar,
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the clients are as `wanted` or `limit` is over; says which.
    fn wait_for(&self, wanted: impl Fn(&Clients) -> bool, limit: Duration) -> bool {
        let waited = self
            .left
            .wait_timeout_while(self.clients(), limit, |clients| !wanted(clients));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Who is being answered.
#[derive(Debug, Default)]
struct Clients {
    /// Root and the engine's own user.
    masters: usize,
    /// Whoever else may connect, by user.
    guests: Vec<u32>,
}

impl Clients {
    fn all(&self) -> usize {
        self.masters + self.guests.len()
    }

    /// Whether one more of `uid` fits in beside the others.
    fn has_room_for(&self, uid: u32) -> bool {
        let his = self.guests.iter().filter(|guest| **guest == uid).count();
        let is_let_in = is_master(uid) || (self.guests.len() < MAX_GUESTS && his < MAX_OF_A_GUEST);
        is_let_in && self.all() < MAX_CLIENTS
    }

    fn enter(&mut self, uid: u32) {
        match is_master(uid) {
            true => self.masters += 1,
            false => self.guests.push(uid),
        }
    }

    fn leave(&mut self, uid: u32) {
        match self.guests.iter().position(|guest| *guest == uid) {
            Some(at) => drop(self.guests.swap_remove(at)),
            None => self.masters -= 1,
        }
    }
}

fn is_master(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Masters wait in the listen backlog while all places are taken: none is turned away. Guests who find theirs taken are,
/// and at once, so that nobody waits behind them.
fn accept_clients(shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    while !shared.stopping.load(Ordering::SeqCst) {
        if !shared.wait_for(|clients| clients.all() < MAX_CLIENTS, POLL) {
            continue;
        }
        match shared.socket.listener().accept() {
            Ok((stream, _)) => admit(stream, shared, handler),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) if shared.stopping.load(Ordering::SeqCst) => {}
            // Out of descriptors or memory: others need them more. The clients wait meanwhile.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                thread::sleep(POLL);
            }
        }
    }
}

fn admit(stream: UnixStream, shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    match peer_of(&stream) {
        Ok(peer) if shared.clients().has_room_for(peer.uid) => {
            serve_on_a_thread(stream, peer, shared, handler)
        }
        Ok(_) => turn_away(stream),
        Err(error) => tracing::debug!(%error, "control client without a name"),
    }
}

/// With a word, if there is room for it.
fn turn_away(mut stream: UnixStream) {
    let why = Reply::refused("too many ask at a time, ask again in a second");
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(&why.encode());
}

fn serve_on_a_thread(stream: UnixStream, peer: Peer, shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    let place = Place::take(shared, peer.uid);
    let handler = Arc::clone(handler);
    let spawned = thread::Builder::new()
        .name("control client".into())
        .spawn(move || {
            let _place = place;
            if let Err(error) = serve(stream, peer, handler.as_ref()) {
                tracing::debug!(%error, "control client went away");
            }
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a control client");
    }
}

/// A place of one client; given back on drop, whatever happens to the thread.
struct Place {
    shared: Arc<Shared>,
    uid: u32,
}

impl Place {
    fn take(shared: &Arc<Shared>, uid: u32) -> Place {
        shared.clients().enter(uid);
        let shared = Arc::clone(shared);
        Place { shared, uid }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.clients().leave(self.uid);
        self.shared.left.notify_all();
    }
}

fn serve(mut stream: UnixStream, peer: Peer, handler: &dyn Handler) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_TIME;
    let Some(request) = receive(&mut stream, deadline)? else {
        return Ok(());
    };
    let reply = match request {
        Ok(request) => answer(handler, request, peer),
        Err(error) => Reply::refused(error),
    };
    send(&mut stream, &reply.encode(), Instant::now() + REPLY_TIME)?;
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream, deadline);
    Ok(())
}

/// A handler that panics costs its caller an answer, not the engine its control socket.
fn answer(handler: &dyn Handler, request: Request, peer: Peer) -> Reply {
    catch_unwind(AssertUnwindSafe(|| handler.handle(request, peer))).unwrap_or_else(|_| {
        tracing::error!("control handler panicked");
        Reply::refused("the engine failed while answering, its log says where")
    })
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(Peer {
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pid: Pid::as_raw(Some(credentials.pid)),
    })
}

/// Reads until a newline or the end; `None` when nothing was asked at all.
fn receive(stream: &mut UnixStream, deadline: Instant) -> io::Result<Option<Result<Request, RequestError>>> {
    let mut line = Vec::with_capacity(256);
    let mut chunk = [0; 1024];
    loop {
        let Ok(left) = time_left(deadline) else {
            return Ok(Some(Err(RequestError::Late)));
        };
        stream.set_read_timeout(Some(left))?;
        let got = match stream.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(Err(RequestError::Late))),
            other => other?,
        };
        line.extend_from_slice(&chunk[..got]);
        let newline = line.iter().position(|byte| *byte == b'\n');
        if let Some(end) = newline {
            line.truncate(end);
        }
        // The newline is part of the size.
        if line.len() >= MAX_REQUEST_BYTES {
            return Ok(Some(Err(RequestError::Oversized)));
        }
        if newline.is_some() || got == 0 {
            let asked = newline.is_some() || !line.is_empty();
            return Ok(asked.then(|| Request::decode(&line)));
        }
    }
}

fn send(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            sent => bytes = &bytes[sent?..],
        }
    }
    Ok(())
}

/// Closing with unread bytes would reset the connection of a client that is still writing, before it reads why.
fn drain(stream: &mut UnixStream, deadline: Instant) {
    let mut chunk = [0; 4096];
    for _ in 0..MAX_DRAINED {
        let Ok(left) = time_left(deadline) else { return };
        if stream.set_read_timeout(Some(left)).is_err() || !matches!(stream.read(&mut chunk), Ok(1..)) {
            return;
        }
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Clients that are answered at a time.
pub const MAX_CLIENTS: usize = 16;
/// Of those, clients that are neither root nor the engine's own user.
const MAX_GUESTS: usize = 8;
/// Of one user of theirs: the exporter has one.
const MAX_OF_A_GUEST: usize = 4;
/// From accept to the end of the request line, and of what follows it.
const REQUEST_TIME: Duration = Duration::from_secs(1);
/// For the whole reply to be read: a list of a million bans is some 200 MB.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How long a stop waits for clients that are being answered.
const STOP_TIME: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
/// Chunks read and thrown away behind a request: 1 MiB.
const MAX_DRAINED: usize = 256;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// Refuses every unban with its own target, panics when asked to unban "panic".
    struct Echo;

    impl Handler for Echo {
        fn handle(&self, request: Request, peer: Peer) -> Reply {
            match request {
                Request::Unban { target } if target == "panic" => panic!("as asked"),
                Request::Unban { target } => Reply::refused(target),
                _ => Reply::refused(format!("uid {} pid {}", peer.uid, peer.pid)),
            }
        }
    }

    struct Fixture {
        server: Server,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let folder = tempfile::tempdir().unwrap();
            let server = Server::start(&folder.path().join("run/control.sock"), Arc::new(Echo)).unwrap();
            Fixture { server, folder }
        }

        fn connect(&self) -> UnixStream {
            let stream = UnixStream::connect(self.server.path()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        }

        fn ask(&self, bytes: &[u8]) -> String {
            let mut stream = self.connect();
            let _ = stream.write_all(bytes);
            reply_from(stream)
        }
    }

    /// The refusal's words, or "" when the connection was closed without an answer.
    fn reply_from(stream: UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        if line.is_empty() {
            return line;
        }
        match Reply::decode(line.as_bytes()).unwrap() {
            Reply::Refused { message } => message,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[test]
    fn the_handler_hears_the_request_and_who_asks() {
        let fixture = Fixture::new();
        let me = format!(
            "uid {} pid {}",
            rustix::process::getuid().as_raw(),
            std::process::id()
        );
        assert_eq!(fixture.ask(&Request::List {}.encode()), me);
        // The end of the stream ends a line as well.
        let mut stream = fixture.connect();
        stream.write_all(br#"{"request":"list"}"#).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reply_from(stream), me);
    }

    #[test]
    fn stop_removes_the_socket_and_a_new_server_takes_its_place() {
        let Fixture { server, folder } = Fixture::new();
        let path = server.path().to_owned();
        server.stop();
        assert!(!path.exists());
        let again = Server::start(&path, Arc::new(Echo)).unwrap();
        assert!(path.exists());
        drop(again);
        assert!(!path.exists());
        drop(folder);
    }

    #[test]
    fn an_oversized_request_is_told_so_and_the_next_one_answered() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.ask(&vec![b'x'; 1 << 20]),
            "request is longer than 4096 bytes"
        );
        assert_eq!(
            fixture.ask(&vec![b'x'; MAX_REQUEST_BYTES]),
            "request is longer than 4096 bytes"
        );
        let mut longest = Request::Unban { target: "a".into() }.encode();
        longest.splice(0..0, vec![b' '; MAX_REQUEST_BYTES - longest.len()]);
        assert_eq!(fixture.ask(&longest), "a");
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let fixture = Fixture::new();
        assert!(fixture.ask(b"hello\n").starts_with("not a request: "));
        assert!(fixture.ask(b"\xff\x00\x80\n").starts_with("not a request: "));
        assert!(fixture.ask(b"\n").starts_with("not a request: "));
        let silent = fixture.connect();
        silent.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reply_from(silent), "");
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let fixture = Fixture::new();
        // xorshift64: random enough, and the same bytes every time.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..200 {
            let bytes: Vec<u8> = (0..round * 7)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .chain(*b"\n")
                .collect();
            fixture.ask(&bytes);
        }
        assert_eq!(
            fixture.ask(
                &Request::Unban {
                    target: "alive".into()
                }
                .encode()
            ),
            "alive"
        );
    }

    #[test]
    fn a_handler_that_panics_costs_one_answer() {
        let fixture = Fixture::new();
        assert!(
            fixture
                .ask(
                    &Request::Unban {
                        target: "panic".into()
                    }
                    .encode()
                )
                .contains("failed")
        );
        assert_eq!(
            fixture.ask(
                &Request::Unban {
                    target: "alive".into()
                }
                .encode()
            ),
            "alive"
        );
    }

    #[test]
    fn slow_clients_lose_their_place_after_a_second() {
        let fixture = Fixture::new();
        // More than there are places: the honest client behind them is answered after a second or two.
        let slow: Vec<_> = (0..MAX_CLIENTS + 2).map(|_| fixture.connect()).collect();
        let mut dripping = fixture.connect();
        let drip = thread::spawn(move || {
            while dripping.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        });
        let asked = Instant::now();
        assert_eq!(
            fixture.ask(&Request::Unban { target: "me".into() }.encode()),
            "me"
        );
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        for stream in slow {
            assert_eq!(reply_from(stream), "request did not arrive within a second");
        }
        drip.join().unwrap();
    }

    #[test]
    fn half_of_the_places_are_for_who_may_order() {
        let mut clients = Clients::default();
        let mut enter = |uid: u32| {
            let fits = clients.has_room_for(uid);
            if fits {
                clients.enter(uid);
            }
            fits
        };
        let own = geteuid().as_raw();
        let (one, other, third) = (own + 1, own + 2, own + 3);
        let of_one: Vec<bool> = (0..5).map(|_| enter(one)).collect();
        assert_eq!(of_one, [true, true, true, true, false]);
        assert!((0..4).all(|_| enter(other)) && !enter(third));
        assert!((0..8).all(|_| enter(own)) && !enter(own));
        clients.leave(own);
        assert!(!clients.has_room_for(third) && clients.has_room_for(0));
        clients.leave(one);
        assert!(clients.has_room_for(third) && clients.has_room_for(one));
    }

    #[test]
    fn a_hundred_clients_at_once_are_all_answered() {
        let fixture = Fixture::new();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..100)
                .map(|n| {
                    let fixture = &fixture;
                    scope.spawn(move || {
                        let target = format!("client {n}");
                        assert_eq!(
                            fixture.ask(
                                &Request::Unban {
                                    target: target.clone()
                                }
                                .encode()
                            ),
                            target
                        );
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
        });
    }

    #[test]
    fn stopping_does_not_wait_for_idle_clients_for_long() {
        let fixture = Fixture::new();
        let _idle: Vec<_> = (0..5).map(|_| fixture.connect()).collect();
        let told = Instant::now();
        fixture.server.stop();
        assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    }
}
