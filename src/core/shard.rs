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

    const SEED: u32 = 0x5eed;
    /// Seen on Linux 6.18: in which chain `jhash ip saddr mod 4 seed 0x5eed vmap {…}` put packets from
    /// 10.9.1.7, 10.9.2.7, … 10.9.24.7.
    const KERNEL_V4: [u32; 24] = [
        1, 3, 0, 2, 3, 0, 0, 1, 3, 1, 1, 1, 1, 1, 0, 3, 2, 0, 3, 3, 2, 3, 2, 0,
    ];
    /// The same of `jhash ip6 saddr & ffff:ffff:ffff:ffff:: mod 4 seed 0x5eed` and 2001:db8:0:1::77 … 2001:db8:0:18::77.
    const KERNEL_V6: [u32; 24] = [
        1, 1, 2, 3, 0, 2, 2, 0, 0, 2, 1, 3, 3, 0, 0, 0, 3, 0, 0, 0, 3, 3, 0, 3,
    ];

    #[test]
    fn the_kernel_puts_ipv4_sources_there() {
        for (i, expected) in (1..).zip(KERNEL_V4) {
            let source = Prefix::host(IpAddr::from([10, 9, i, 7]));
            assert_eq!(shard_of(source, SEED, 4), expected, "{source}");
        }
    }

    #[test]
    fn the_kernel_puts_ipv6_sources_there() {
        for (i, expected) in (1..).zip(KERNEL_V6) {
            let source = Prefix::source_of(IpAddr::from([0x2001, 0xdb8, 0, i, 0, 0, 0, 0x77]), 64);
            assert_eq!(shard_of(source, SEED, 4), expected, "{source}");
        }
    }

    #[test]
    fn a_shard_is_always_one_of_them() {
        for shards in [1, 2, 3, 7, 64] {
            let mut hit = vec![0u32; shards as usize];
            for i in 0..4096u32 {
                hit[shard_of(Prefix::host(IpAddr::from(i.to_be_bytes())), SEED, shards) as usize] += 1;
            }
            assert!(hit.iter().all(|count| *count > 4096 / shards / 2), "{hit:?}");
        }
        assert_eq!(shard_of(Prefix::host(IpAddr::from([10, 0, 0, 1])), SEED, 0), 0);
    }
}
