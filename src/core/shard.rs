//! Which worker a source's packets reach: the kernel's hash, to the bit.
//!
//! The ruleset spreads packets over queues by `jhash ip saddr mod N seed S`; what the engine restores or
//! bans must lie where those packets arrive. Figures: `include/linux/jhash.h`, `net/netfilter/nft_hash.c`.

use std::net::IpAddr;

use super::prefix::Prefix;

/// The worker, from 0, that judges `source`, as `jhash ip saddr mod shards seed seed` (for IPv6: over the
/// address masked to the configured source prefix) computes it.
///
/// `source` must be as long as the mask in the ruleset: [`Policy::source_of`](super::policy::Policy::source_of),
/// not a narrower ban.
pub fn shard_of(source: Prefix, seed: u32, shards: u32) -> u32 {
    let hash = match source.addr() {
        IpAddr::V4(v4) => jhash(&v4.octets(), seed),
        IpAddr::V6(v6) => jhash(&v6.octets(), seed),
    };
    reciprocal_scale(hash, shards)
}

/// Maps a hash to 0..`range` without a division; 0 if `range` is 0.
#[allow(clippy::cast_possible_truncation)] // the product of two u32 has at most 32 bits above bit 32
fn reciprocal_scale(hash: u32, range: u32) -> u32 {
    ((u64::from(hash) * u64::from(range)) >> 32) as u32
}

/// Bob Jenkins' hash as `jhash()` computes it over a byte buffer in network order. Whole rounds read words in
/// host order, the tail reads bytes in little-endian order.
fn jhash(key: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let start = JHASH_INITVAL.wrapping_add(length).wrapping_add(seed);
    let mut abc = [start; 3];
    let mut rest = key;
    while rest.len() > 12 {
        let (round, after) = rest.split_at(12);
        add(&mut abc, round, u32::from_ne_bytes);
        mix(&mut abc);
        rest = after;
    }
    if rest.is_empty() {
        return abc[2];
    }
    add(&mut abc, rest, u32::from_le_bytes);
    finish(&mut abc);
    abc[2]
}

fn add(abc: &mut [u32; 3], bytes: &[u8], word: fn([u8; 4]) -> u32) {
    for (sum, chunk) in abc.iter_mut().zip(bytes.chunks(4)) {
        let mut padded = [0; 4];
        padded[..chunk.len()].copy_from_slice(chunk);
        *sum = sum.wrapping_add(word(padded));
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
    *b = b.wrapping_add(*a);
    *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
    *b = b.wrapping_add(*a);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
}

const JHASH_INITVAL: u32 = 0xdead_beef;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print() {
        for i in 1..=24u8 {
            let v4 = Prefix::host(IpAddr::from([10, 9, i, 7]));
            let v6 = Prefix::source_of(format!("2001:db8:0:{i:x}::77").parse().unwrap(), 64);
            println!("{} {} {} {}", v4, shard_of(v4, 0x5eed, 4), v6, shard_of(v6, 0x5eed, 4));
        }
    }
}
