//! The bridge to libnftnl for what the `nftnl` crate has no type for: any expression, any message.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use nftnl::nftnl_sys::{self as ffi};
use nftnl::{MsgType, NlMsg, nft_nlmsg_maxsize};

/// An expression by name, with its attributes in libnftnl's numbering.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    name: &'static CStr,
    attributes: Vec<(u16, Value)>,
}

/// What an attribute holds; libnftnl trusts the caller to choose the width it expects.
#[derive(Clone, Debug)]
pub(super) enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Name(CString),
    Bytes(Vec<u8>),
    /// Bytes that libnftnl takes over and frees by itself (xtables infos).
    Owned(Vec<u8>),
    /// An expression within (the limit of a set's element).
    Inner(Box<Expression>),
}

impl Expression {
    pub(super) fn new(name: &'static CStr) -> Expression {
        Expression {
            name,
            attributes: Vec::new(),
        }
    }

    pub(super) fn with(mut self, attribute: u32, value: Value) -> Expression {
        self.attributes.push((attribute as u16, value));
        self
    }

    fn build(&self) -> NonNull<ffi::nftnl_expr> {
        // SAFETY: the name is a C string; the result is checked before it is used.
        let raw = unsafe { ffi::nftnl_expr_alloc(self.name.as_ptr()) };
        let Some(expr) = NonNull::new(raw) else {
            // Only for want of memory or of an expression that this libnftnl (1.2.0 or later) has to know.
            panic!("libnftnl makes no expression {:?}", self.name);
        };
        for (attribute, value) in &self.attributes {
            set(expr, *attribute, value);
        }
        expr
    }
}

fn set(expr: NonNull<ffi::nftnl_expr>, attribute: u16, value: &Value) {
    let raw = expr.as_ptr();
    // SAFETY: `raw` is a live expression. The setters copy numbers, strings and bytes of the given length into
    // it. What they take over instead of copying is handed over here and not touched again: memory from
    // malloc, which libnftnl frees with the expression, and a fresh inner expression.
    unsafe {
        match value {
            Value::U8(number) => ffi::nftnl_expr_set_u8(raw, attribute, *number),
            Value::U16(number) => ffi::nftnl_expr_set_u16(raw, attribute, *number),
            Value::U32(number) => ffi::nftnl_expr_set_u32(raw, attribute, *number),
            Value::U64(number) => ffi::nftnl_expr_set_u64(raw, attribute, *number),
            Value::Name(name) => {
                ffi::nftnl_expr_set_str(raw, attribute, name.as_ptr());
            }
            Value::Bytes(bytes) => {
                ffi::nftnl_expr_set(raw, attribute, bytes.as_ptr().cast(), bytes.len() as u32);
            }
            Value::Owned(bytes) => {
                let copy = libc::malloc(bytes.len());
                assert!(!copy.is_null(), "out of memory");
                copy.copy_from_nonoverlapping(bytes.as_ptr().cast::<c_void>(), bytes.len());
                ffi::nftnl_expr_set(raw, attribute, copy, bytes.len() as u32);
            }
            Value::Inner(inner) => {
                ffi::nftnl_expr_set(raw, attribute, inner.build().as_ptr().cast::<c_void>(), 0);
            }
        }
    }
}

impl nftnl::expr::Expression for Expression {
    fn to_expr(&self, _rule: &nftnl::Rule<'_>) -> NonNull<ffi::nftnl_expr> {
        self.build()
    }
}

/// One finished netlink message; its sequence number is filled in by the batch.
#[derive(Clone, Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// # Panics
    /// If `bytes` is not one whole message that fits a batch.
    pub(super) fn new(bytes: &[u8]) -> Message {
        let length = bytes.first_chunk().map(|length| u32::from_ne_bytes(*length));
        assert!(
            length == Some(bytes.len() as u32) && bytes.len() >= 16,
            "one whole message"
        );
        assert!(
            bytes.len() <= nft_nlmsg_maxsize() as usize,
            "a message fits its batch"
        );
        Message(bytes.to_vec())
    }
}

// SAFETY: `write` writes exactly the bytes of the message, which `new` holds to be at most
// nft_nlmsg_maxsize(), the room that the caller grants.
unsafe impl NlMsg for Message {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, _msg_type: MsgType) {
        // SAFETY: `buf` has room for nft_nlmsg_maxsize() bytes, see above; nlmsg_seq is at offset 8 of at
        // least 16 bytes, and may be unaligned.
        unsafe {
            let buf = buf.cast::<u8>();
            buf.copy_from_nonoverlapping(self.0.as_ptr(), self.0.len());
            buf.add(8).cast::<u32>().write_unaligned(seq);
        }
    }
}
