//! Clients: connections that work or do not, and flows that run until something cuts them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use super::namespace::Namespace;

/// How long a client waits for a connection that may be dropped silently: over one SYN retransmission.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

/// Opens a TCP connection from inside `ns`.
pub(crate) fn connect(ns: &Namespace, address: &str, port: u16) -> io::Result<TcpStream> {
    let to = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port);
    let stream = ns.inside(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// As [`connect`], from this address of `ns`.
pub(crate) fn connect_from(ns: &Namespace, from: &str, address: &str, port: u16) -> io::Result<TcpStream> {
    let [from, to] = [(from, 0), (address, port)]
        .map(|(addr, port)| SocketAddr::new(addr.parse::<IpAddr>().expect("an address"), port));
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = ns.inside(|| rustix::net::socket(family, SocketType::STREAM, None))?;
    let patience = u32::try_from(PATIENCE.as_millis()).expect("a moment");
    rustix::net::sockopt::set_tcp_user_timeout(&socket, patience)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a TCP connection from inside `ns` comes about and echoes.
pub(crate) fn talks(ns: &Namespace, address: &str, port: u16) -> bool {
    connect(ns, address, port).is_ok_and(|mut stream| echoes(&mut stream))
}

/// Whether an open connection still echoes.
pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut back).is_ok() && &back == b"hello"
}

/// A UDP socket inside `ns`, connected to `address`.
pub(crate) fn udp(ns: &Namespace, address: &str, port: u16) -> UdpSocket {
    let to = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = ns.inside(|| UdpSocket::bind(any)).expect("a UDP socket");
    socket.connect(to).expect("a route");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    socket
}

/// Whether a datagram from this socket is echoed; two tries, datagrams may be lost.
pub(crate) fn udp_echoes(socket: &UdpSocket) -> bool {
    (0..2).any(|_| {
        let mut back = [0; 16];
        socket.send(b"hello").is_ok() && socket.recv(&mut back).is_ok()
    })
}

/// Whether one of `count` pings (20 ms apart) is answered.
pub(crate) fn pings(ns: &Namespace, address: &str, count: u32) -> bool {
    let (count, limit) = (count.to_string(), Duration::from_secs(20));
    let args = ["-n", "-q", "-i", "0.02", "-W", "1", "-c", &count, address];
    ns.run(Command::new("ping").args(args), limit).status.success()
}

/// One kind of traffic between two machines, asked every few milliseconds until it is stopped; remembers when
/// the last answer came.
pub(crate) struct Stream {
    last: Arc<Mutex<Option<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Asks over `exchange` (true: answered) until dropped.
    pub(crate) fn new(mut exchange: impl FnMut() -> bool + Send + 'static) -> Stream {
        let (last, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&last), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if exchange() {
                    *seen.lock().expect("no panic under this lock") = Some(Instant::now());
                }
                thread::sleep(Duration::from_millis(3));
            }
        });
        Stream {
            last,
            stop,
            thread: Some(thread),
        }
    }

    /// An open TCP connection that is spoken over.
    pub(crate) fn tcp(mut stream: TcpStream) -> Stream {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
        Stream::new(move || {
            let mut back = [0; 64];
            stream.write(b"x").is_ok() && matches!(stream.read(&mut back), Ok(length) if length > 0)
        })
    }

    /// A UDP flow.
    pub(crate) fn udp(socket: UdpSocket) -> Stream {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        Stream::new(move || socket.send(b"x").is_ok() && socket.recv(&mut [0; 64]).is_ok())
    }

    /// When the last answer came.
    pub(crate) fn last_answer(&self) -> Option<Instant> {
        *self.last.lock().expect("no panic under this lock")
    }

    /// Whether an answer came within the last 200 ms.
    pub(crate) fn runs(&self) -> bool {
        self.last_answer()
            .is_some_and(|at| at.elapsed() < Duration::from_millis(200))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
