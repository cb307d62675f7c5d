//! Numbers of the kernel's and of nft's interfaces that libc does not have.

// include/uapi/linux/netfilter/nf_tables.h: attributes
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFTA_TABLE_OWNER: u16 = 7;
pub(super) const NFTA_GEN_ID: u16 = 1;
pub(super) const NFTA_GEN_PROC_PID: u16 = 2;
pub(super) const NFTA_GEN_PROC_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_USERDATA: u16 = 12;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_DESC: u16 = 9;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_TIMEOUT: u16 = 11;
pub(super) const NFTA_SET_GC_INTERVAL: u16 = 12;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(super) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SET_ID: u16 = 4;
pub(super) const NFTA_HASH_MODULUS: u16 = 4;
pub(super) const NFTA_HASH_SEED: u16 = 5;
pub(super) const NFTA_QUEUE_NUM: u16 = 1;
pub(super) const NFTA_TARGET_INFO: u16 = 3;
pub(super) const NFTA_LOG_GROUP: u16 = 1;

// include/uapi/linux/netfilter/nf_tables.h: values
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
pub(super) const NFT_TABLE_F_PERSIST: u32 = 4;
pub(super) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(super) const NFTA_FIB_F_DADDR: u32 = 2;
pub(super) const NFT_SOCKET_WILDCARD: u32 = 2;
pub(super) const NFT_HASH_JENKINS: u32 = 0;

/// include/uapi/linux/netfilter/xt_NFQUEUE.h
pub(super) const NFQ_FLAG_BYPASS: u16 = 1;
/// include/uapi/linux/netfilter/nf_conntrack_tuple_common.h
pub(super) const IP_CT_DIR_REPLY: u8 = 1;
/// include/uapi/linux/rtnetlink.h
pub(super) const RTN_LOCAL: u32 = 2;

// include/uapi/linux/in.h, icmp.h, icmpv6.h
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
pub(super) const ICMP_ECHO: u8 = 8;
pub(super) const ICMP_DEST_UNREACH: u8 = 3;
pub(super) const ICMP_FRAG_NEEDED: u8 = 4;
pub(super) const ICMPV6_ECHO_REQUEST: u8 = 128;

// RFC 791, section 3.1: flags and offset of a fragment; RFC 8200, section 4.5: the same of IPv6, its header's number
pub(super) const V4_FRAGMENT_OFFSET: u16 = 0x1fff;
pub(super) const V4_MORE_FRAGMENTS: u16 = 0x2000;
pub(super) const V6_FRAGMENT_HEADER: u8 = 44;
pub(super) const V6_FRAGMENT_OFFSET: u16 = 0xfff8;
pub(super) const V6_MORE_FRAGMENTS: u8 = 1;

/// include/uapi/linux/if.h
pub(super) const IFNAMSIZ: usize = 16;

// nftables include/datatype.h: by these nft lists what a set holds
pub(super) const TYPE_INTEGER: u32 = 4;
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_INET_PROTOCOL: u32 = 12;
pub(super) const TYPE_INET_SERVICE: u32 = 13;
pub(super) const TYPE_MARK: u32 = 19;
pub(super) const TYPE_ICMP6_TYPE: u32 = 29;
pub(super) const HOST_ENDIAN: u32 = 1;
pub(super) const BIG_ENDIAN: u32 = 2;

// libnftnl include/libnftnl/udata.h
pub(super) const UDATA_COMMENT: u8 = 0;
pub(super) const UDATA_SET_KEYBYTEORDER: u8 = 0;
pub(super) const UDATA_SET_COMMENT: u8 = 7;
/// NFTNL_UDATA_SET_ELEM_FLAGS = SET_ELEM_F_INTERVAL_OPEN: the interval has no end element.
pub(super) const OPEN_INTERVAL: [u8; 6] = {
    let flags = 1_u32.to_ne_bytes();
    [1, 4, flags[0], flags[1], flags[2], flags[3]]
};
