//! stub
use std::net::IpAddr;
/// stub
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}
impl Prefix {
    /// stub
    pub fn source_of(addr: IpAddr, v6_len: u8) -> Prefix {
        Prefix { addr, len: v6_len }
    }
    /// stub
    pub fn addr(&self) -> IpAddr {
        self.addr
    }
    /// stub
    pub fn len(&self) -> u8 {
        self.len
    }
}
/// stub
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrefixSet;
