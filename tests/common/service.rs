//! Servers inside a namespace: echo over TCP and UDP, many ports in one place, gone on drop.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::namespace::Namespace;

const TICK: Duration = Duration::from_millis(200);

/// TCP and UDP echo on some ports, for IPv4 and IPv6.
pub(crate) struct Echo {
    listeners: Vec<Arc<TcpListener>>,
    stop: Arc<AtomicBool>,
}

impl Echo {
    /// Echo over TCP on `ports`.
    pub(crate) fn tcp(ns: &Namespace, ports: &[u16]) -> Echo {
        Echo::both(ns, ports, &[])
    }

    /// Echo over TCP on `tcp` and over UDP on `udp`.
    pub(crate) fn both(ns: &Namespace, tcp: &[u16], udp: &[u16]) -> Echo {
        let stop = Arc::new(AtomicBool::new(false));
        let any = |port: &u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        let listen = || {
            tcp.iter()
                .map(|port| TcpListener::bind(any(port)).expect("a free port"))
                .collect::<Vec<_>>()
        };
        let listeners: Vec<_> = ns.inside(listen).into_iter().map(Arc::new).collect();
        for listener in &listeners {
            let (listener, stop) = (Arc::clone(listener), Arc::clone(&stop));
            thread::spawn(move || accept_until(&listener, &stop));
        }
        for socket in ns.inside(|| {
            udp.iter()
                .map(|p| UdpSocket::bind(any(p)).expect("a free port"))
                .collect::<Vec<_>>()
        }) {
            let stop = Arc::clone(&stop);
            thread::spawn(move || echo_datagrams(&socket, &stop));
        }
        Echo { listeners, stop }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Wakes the blocked accept() on Linux.
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
    }
}

fn accept_until(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let stop = Arc::clone(stop);
        thread::spawn(move || echo_stream(stream, &stop));
    }
}

fn echo_stream(mut stream: TcpStream, stop: &AtomicBool) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(TICK));
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => return,
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(TICK));
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}
