// SPDX-License-Identifier: Apache-2.0
//! Write a Flux Gateway plugin (ABI gw1) in Rust.
//!
//! Owns the buffers of the ABI, the msgpack writer and reader, and the batch loop. Knows no protocol. A whole plugin:
//!
//! ```ignore
//! use gw1::{Bytes, Outcome, Writer};
//!
//! fn decode(out: &mut Writer, frame: &[u8], _aux: u32) -> Outcome {
//!     let mut at = Bytes(frame);
//!     at.u8()?;
//!     let tenths = at.be_i16()?; // a frame that ends too early is code 1
//!     out.map(2);
//!     out.key("kind").str("report");
//!     out.key("points").array(1).map(1);
//!     out.key("values").map(1);
//!     out.key("temperature").f64(f64::from(tenths) / 10.0);
//!     Ok(())
//! }
//! gw1::plugin! { decode: decode }
//! ```
//!
//! A decoder writes one item and returns `Ok(())`, or returns a failure (`Err(Code::CHECKSUM.into())`) and whatever it
//! wrote is taken back. Writing past the output is safe: the writer turns deaf and the item becomes `Code::TOO_LARGE`.
//! `aux` is the number of the connection that a frame came by (0: it is only tried), or its fPort or unit id.
//!
//! A panic is a trap: it costs the instance, and the frame counts against the plugin. Take numbers with [`Bytes`],
//! slices with `get`. Buffers are kept between calls, so that a frame that fails nothing allocates nothing.
//! Needs Rust 1.63 or newer.

use std::borrow::Cow;
use std::str;

/// A result code of the ABI. From 256 on they are the plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing to tell, no error.
    pub const DROP: Code = Code(0);
    pub const TRUNCATED: Code = Code(1);
    pub const UNKNOWN_TYPE: Code = Code(2);
    pub const CHECKSUM: Code = Code(3);
    pub const TOO_LARGE: Code = Code(4);
    pub const UNSUPPORTED: Code = Code(5);
    pub const NEEDS_MORE: Code = Code(6);
    /// Bad configuration, or bad arguments of a command.
    pub const BAD_CONFIG: Code = Code(7);
    /// The first code of the plugin's own.
    pub const OWN: Code = Code(256);

    /// The failure with this code, and with words for whoever reads it (512 bytes of them are shown).
    pub fn because(self, text: impl Into<Cow<'static, str>>) -> Failure {
        Failure { code: self, text: text.into() }
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub text: Cow<'static, str>,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Failure {
        code.because("")
    }
}

/// What every function of a plugin returns.
pub type Outcome = Result<(), Failure>;

/// A cursor over a frame: each read takes bytes off its front, or fails with `Code::TRUNCATED`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

macro_rules! numbers {
    ($($be:ident $le:ident $kind:ty),+) => {
        $(
            pub fn $be(&mut self) -> Result<$kind, Failure> {
                Ok(<$kind>::from_be_bytes(self.fixed()?))
            }
            pub fn $le(&mut self) -> Result<$kind, Failure> {
                Ok(<$kind>::from_le_bytes(self.fixed()?))
            }
        )+
    };
}

impl<'a> Bytes<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Failure> {
        if self.0.len() < n {
            return Err(Code::TRUNCATED.into());
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
    pub fn u8(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?[0])
    }
    pub fn i8(&mut self) -> Result<i8, Failure> {
        Ok(self.u8()? as i8)
    }
    numbers!(be_u16 le_u16 u16, be_i16 le_i16 i16, be_u32 le_u32 u32, be_i32 le_i32 i32);
    numbers!(be_u64 le_u64 u64, be_i64 le_i64 i64, be_f32 le_f32 f32, be_f64 le_f64 f64);
}

/// Writes msgpack, or a frame's raw bytes. Past its end it writes nothing and remembers that.
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    most: usize,
    full: bool,
}

impl Writer<'_> {
    /// Whether something did not fit. A long loop asks, to end early.
    pub fn full(&self) -> bool {
        self.full
    }
    /// What was written so far, to patch a length or to sum up.
    pub fn written(&mut self) -> &mut [u8] {
        let start = self.start;
        &mut self.bytes[start..]
    }
    /// Bytes as they are: of a frame, or of prepared msgpack.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        if self.full || bytes.len() > self.most - self.bytes.len() {
            self.full = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self
    }
    fn tag<const N: usize>(&mut self, tag: u8, number: [u8; N]) -> &mut Self {
        let before = self.bytes.len();
        self.raw(&[tag]).raw(&number);
        if self.full {
            self.bytes.truncate(before);
        }
        self
    }
    pub fn nil(&mut self) -> &mut Self {
        self.raw(&[0xc0])
    }
    pub fn bool(&mut self, v: bool) -> &mut Self {
        self.raw(&[0xc2 + u8::from(v)])
    }
    pub fn f64(&mut self, v: f64) -> &mut Self {
        self.tag(0xcb, v.to_be_bytes())
    }
    pub fn uint(&mut self, v: u64) -> &mut Self {
        match v {
            0..=0x7f => self.raw(&[v as u8]),
            0x80..=0xff => self.tag(0xcc, [v as u8]),
            0x100..=0xffff => self.tag(0xcd, (v as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.tag(0xce, (v as u32).to_be_bytes()),
            _ => self.tag(0xcf, v.to_be_bytes()),
        }
    }
    pub fn int(&mut self, v: i64) -> &mut Self {
        match v {
            0..=i64::MAX => self.uint(v as u64),
            -32..=-1 => self.raw(&[v as u8]),
            -0x80..=-33 => self.tag(0xd0, [v as u8]),
            -0x8000..=-0x81 => self.tag(0xd1, (v as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => self.tag(0xd2, (v as i32).to_be_bytes()),
            _ => self.tag(0xd3, v.to_be_bytes()),
        }
    }
    fn head(&mut self, short: u8, below: u32, tags: [u8; 3], n: usize) -> &mut Self {
        match n as u32 {
            n if n < below => self.raw(&[short | n as u8]),
            n if n <= 0xff && tags[0] != 0 => self.tag(tags[0], [n as u8]),
            n if n <= 0xffff => self.tag(tags[1], (n as u16).to_be_bytes()),
            n => self.tag(tags[2], n.to_be_bytes()),
        }
    }
    /// `n` pairs follow, each a `key` and a value.
    pub fn map(&mut self, n: usize) -> &mut Self {
        self.head(0x80, 16, [0, 0xde, 0xdf], n)
    }
    /// `n` values follow.
    pub fn array(&mut self, n: usize) -> &mut Self {
        self.head(0x90, 16, [0, 0xdc, 0xdd], n)
    }
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.head(0xa0, 32, [0xd9, 0xda, 0xdb], text.len()).raw(text.as_bytes())
    }
    pub fn key(&mut self, text: &str) -> &mut Self {
        self.str(text)
    }
    /// Two texts joined, so that a name need not be put together first.
    pub fn str2(&mut self, head: &str, tail: &str) -> &mut Self {
        self.head(0xa0, 32, [0xd9, 0xda, 0xdb], head.len() + tail.len()).raw(head.as_bytes()).raw(tail.as_bytes())
    }
    pub fn bin(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(0, 0, [0xc4, 0xc5, 0xc6], bytes.len()).raw(bytes)
    }
    /// Bytes as a text of lower-case hex digits.
    pub fn hex(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(0xa0, 32, [0xd9, 0xda, 0xdb], 2 * bytes.len());
        for byte in bytes {
            let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
            self.raw(&[digit(byte >> 4), digit(byte & 15)]);
        }
        self
    }
}

/// One msgpack value. Of an array or map it is only the head: so many items (map: pairs) follow in the reader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    /// 0 and up.
    Uint(u64),
    /// Below 0.
    Int(i64),
    F64(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Array(u32),
    Map(u32),
}

impl<'a> Value<'a> {
    /// An integer, whatever its sign.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Value::Uint(v) => i64::try_from(v).ok(),
            Value::Int(v) => Some(v),
            _ => None,
        }
    }
    /// Any number.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Value::Uint(v) => Some(v as f64),
            Value::Int(v) => Some(v as f64),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }
}

/// Walks msgpack that the host sent: requests, configuration. A copy is a place to come back to.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: u64) -> Option<&'a [u8]> {
        let mut at = Bytes(self.0);
        let taken = at.take(usize::try_from(n).ok()?).ok()?;
        self.0 = at.0;
        Some(taken)
    }
    fn number(&mut self, n: u64) -> Option<u64> {
        Some(self.bytes(n)?.iter().fold(0, |v, byte| v << 8 | u64::from(*byte)))
    }
    fn text(&mut self, n: u64) -> Option<Value<'a>> {
        str::from_utf8(self.bytes(n)?).ok().map(Value::Str)
    }
    /// Take the next value (or head) off; None where nothing is left, or nothing that is msgpack of the JSON types.
    pub fn next(&mut self) -> Option<Value<'a>> {
        let signed = |v: i64| if v < 0 { Value::Int(v) } else { Value::Uint(v as u64) };
        let tag = self.number(1)? as u8;
        Some(match tag {
            0..=0x7f => Value::Uint(tag.into()),
            0x80..=0x8f => Value::Map(u32::from(tag & 15)),
            0x90..=0x9f => Value::Array(u32::from(tag & 15)),
            0xa0..=0xbf => self.text(u64::from(tag & 31))?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(tag == 0xc3),
            0xc4..=0xc6 => {
                let n = self.number(1 << (tag - 0xc4))?;
                Value::Bin(self.bytes(n)?)
            }
            0xca => Value::F64(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Value::F64(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Uint(self.number(1 << (tag - 0xcc))?),
            0xd0 => signed((self.number(1)? as i8).into()),
            0xd1 => signed((self.number(2)? as i16).into()),
            0xd2 => signed((self.number(4)? as i32).into()),
            0xd3 => signed(self.number(8)? as i64),
            0xd9..=0xdb => {
                let n = self.number(1 << (tag - 0xd9))?;
                self.text(n)?
            }
            0xdc | 0xdd => Value::Array(self.number(2 << (tag - 0xdc))? as u32),
            0xde | 0xdf => Value::Map(self.number(2 << (tag - 0xde))? as u32),
            0xe0..=0xff => Value::Int((tag as i8).into()),
            _ => return None,
        })
    }
    /// Step over one whole value, however deep; None where the input ends inside it.
    pub fn skip(&mut self) -> Option<()> {
        let mut left = 1_u64;
        while left > 0 {
            left -= 1;
            left += match self.next()? {
                Value::Array(n) => n.into(),
                Value::Map(n) => 2 * u64::from(n),
                _ => 0,
            };
        }
        Some(())
    }
    /// A reader before the value of a string key of the map that comes next; None where there is no such key.
    pub fn find(mut self, key: &str) -> Option<Reader<'a>> {
        let pairs = match self.next()? {
            Value::Map(pairs) => pairs,
            _ => return None,
        };
        for _ in 0..pairs {
            let mut name = self;
            self.skip()?;
            if name.next() == Some(Value::Str(key)) {
                return Some(self);
            }
            self.skip()?;
        }
        None
    }
    /// The value (or head) of a key.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.find(key)?.next()
    }
}

/// What the host offers; each needs its word in the manifest's `[caps]` and the operator's grant.
#[cfg(target_arch = "wasm32")]
pub mod host {
    mod imports {
        #[link(wasm_import_module = "gw1")]
        extern "C" {
            pub fn log(level: i32, text: *const u8, len: u32);
            pub fn now_ms() -> i64;
            pub fn config(key: *const u8, key_len: u32, to: *mut u8, room: u32) -> i32;
            pub fn kv_get(key: *const u8, key_len: u32, to: *mut u8, room: u32) -> i32;
            pub fn kv_set(key: *const u8, key_len: u32, value: *const u8, len: u32) -> i32;
            pub fn random(to: *mut u8, len: u32);
        }
    }
    /// `caps.log`: level 0 debug, 1 info, 2 warning, 3 error. Long text is cut, too many lines are dropped.
    pub fn log(level: i32, text: &str) {
        unsafe { imports::log(level, text.as_ptr(), text.len() as u32) }
    }
    /// `caps.clock`: epoch milliseconds UTC.
    pub fn now_ms() -> i64 {
        unsafe { imports::now_ms() }
    }
    /// `caps.config`: put a setting's msgpack into `to`; its length where it fits, None where not or where there is none.
    pub fn config(key: &str, to: &mut [u8]) -> Option<usize> {
        let n = unsafe { imports::config(key.as_ptr(), key.len() as u32, to.as_mut_ptr(), to.len() as u32) };
        usize::try_from(n).ok().filter(|n| *n <= to.len())
    }
    /// `caps.kv`: as `config`, from a small store that outlives a respawn.
    pub fn kv_get(key: &[u8], to: &mut [u8]) -> Option<usize> {
        let n = unsafe { imports::kv_get(key.as_ptr(), key.len() as u32, to.as_mut_ptr(), to.len() as u32) };
        usize::try_from(n).ok().filter(|n| *n <= to.len())
    }
    /// `caps.kv`: false where the store is full.
    pub fn kv_set(key: &[u8], value: &[u8]) -> bool {
        unsafe { imports::kv_set(key.as_ptr(), key.len() as u32, value.as_ptr(), value.len() as u32) == 0 }
    }
    /// `caps.random`: fill with unpredictable bytes, at most 4,096.
    pub fn random(to: &mut [u8]) {
        unsafe { imports::random(to.as_mut_ptr(), to.len() as u32) }
    }
}

/// Define the exports of a plugin around its functions; use once. Any of:
///
/// - `init`: `fn(host: Reader) -> Outcome` reads the map `{config, host, plugin_id}`; a failure refuses the start.
/// - `decode`: `fn(out: &mut Writer, frame: &[u8], aux: u32) -> Outcome` writes one item.
/// - `encode`: `fn(out: &mut Writer, request: Reader, aux: u32) -> Outcome` writes the bytes for the device.
/// - `call`: `fn(out: &mut Writer, args: Reader, aux: u32) -> Outcome` writes one msgpack value (crypto, notify, ...).
/// - `save`: `fn(out: &mut Writer) -> Outcome` and `load`: `fn(state: Reader) -> Outcome` carry state over a reload.
#[macro_export]
macro_rules! plugin {
    ($($role:ident: $function:path),+ $(,)?) => {
        #[no_mangle]
        pub extern "C" fn gw_abi() -> i32 {
            0x0001_0000
        }
        #[no_mangle]
        pub extern "C" fn gw_buf(len: u32) -> u32 {
            $crate::exports::buffer(len)
        }
        #[no_mangle]
        pub extern "C" fn gw_last_error() -> i64 {
            $crate::exports::last_error()
        }
        $($crate::export!($role $function);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export {
    (init $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_init(ptr: u32, len: u32) -> i32 {
            $crate::exports::read($function, ptr, len)
        }
    };
    (decode $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_decode(ptr: u32, len: u32, aux: u32) -> i64 {
            $crate::exports::write(|out| $function(out, $crate::exports::input(ptr, len), aux))
        }
        #[no_mangle]
        pub extern "C" fn gw_decode_batch(ptr: u32, len: u32, n: u32) -> i64 {
            $crate::exports::batch($function, ptr, len, n)
        }
    };
    (encode $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_encode(ptr: u32, len: u32, aux: u32) -> i64 {
            $crate::exports::write(|out| $function(out, $crate::Reader($crate::exports::input(ptr, len)), aux))
        }
    };
    (call $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_call(ptr: u32, len: u32, aux: u32) -> i64 {
            $crate::exports::write(|out| $function(out, $crate::Reader($crate::exports::input(ptr, len)), aux))
        }
    };
    (save $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_state_save() -> i64 {
            $crate::exports::write($function)
        }
    };
    (load $function:path) => {
        #[no_mangle]
        pub extern "C" fn gw_state_load(ptr: u32, len: u32) -> i32 {
            $crate::exports::read($function, ptr, len)
        }
    };
}

/// What the macros call; not for plugins.
#[doc(hidden)]
pub mod exports {
    use super::{Code, Failure, Outcome, Reader, Writer};
    use std::borrow::Cow;
    use std::cell::UnsafeCell;

    /// Bytes of one result; a manifest's `max_output` is the same where it is not said.
    const MOST_OUTPUT: usize = 1 << 20;
    /// An error code as msgpack.
    const CODE_BYTES: usize = 5;
    /// Bytes of an error text that the host reads.
    const TEXT_BYTES: usize = 512;

    /// A module has one thread, and the host is in one call at a time.
    struct Single<T>(UnsafeCell<T>);
    unsafe impl<T> Sync for Single<T> {}

    static INPUT: Single<Vec<u8>> = Single(UnsafeCell::new(Vec::new()));
    static OUTPUT: Single<Vec<u8>> = Single(UnsafeCell::new(Vec::new()));
    static TEXT: Single<Cow<'static, str>> = Single(UnsafeCell::new(Cow::Borrowed("")));

    pub fn buffer(len: u32) -> u32 {
        let input = unsafe { &mut *INPUT.0.get() };
        let len = len as usize;
        if input.len() < len {
            if input.try_reserve_exact(len - input.len()).is_err() {
                return 0;
            }
            input.resize(len, 0);
        }
        input.as_ptr() as usize as u32
    }

    /// The input that the host wrote: within the buffer that `buffer` gave it, whatever it says.
    pub fn input<'a>(ptr: u32, len: u32) -> &'a [u8] {
        let input: &'a [u8] = unsafe { &*INPUT.0.get() };
        let start = (ptr as usize).wrapping_sub(input.as_ptr() as usize);
        input.get(start..).and_then(|rest| rest.get(..len as usize)).unwrap_or(&[])
    }

    fn packed(bytes: &[u8]) -> i64 {
        ((bytes.as_ptr() as usize as u64) << 32 | bytes.len() as u64) as i64
    }

    /// The output, empty; and what a call before said is not this one's.
    fn begin() -> &'static mut Vec<u8> {
        let bytes = unsafe { &mut *OUTPUT.0.get() };
        bytes.clear();
        unsafe { *TEXT.0.get() = Cow::Borrowed("") };
        bytes
    }

    fn failed(failure: Failure) -> Code {
        unsafe { *TEXT.0.get() = failure.text };
        failure.code
    }

    pub fn last_error() -> i64 {
        let text: &str = unsafe { &*TEXT.0.get() };
        if text.is_empty() {
            return 0;
        }
        packed(&text.as_bytes()[..text.len().min(TEXT_BYTES)])
    }

    /// Run a function that reads; 0, or its code.
    pub fn read(function: fn(Reader) -> Outcome, ptr: u32, len: u32) -> i32 {
        match function(Reader(input(ptr, len))) {
            Ok(()) => 0,
            Err(failure) => failed(failure).0 as i32,
        }
    }

    /// Run a function that writes one result; the packed bytes, or its code.
    pub fn write(function: impl FnOnce(&mut Writer) -> Outcome) -> i64 {
        let mut out = Writer { bytes: begin(), start: 0, most: MOST_OUTPUT, full: false };
        match function(&mut out) {
            Ok(()) if out.full => Code::TOO_LARGE.0.into(),
            Ok(()) => packed(out.bytes),
            Err(failure) => failed(failure).0.into(),
        }
    }

    fn le32(bytes: &[u8], at: usize) -> u32 {
        bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    }

    /// Decode n frames into one msgpack array. Every item keeps room for the codes of those after it.
    pub fn batch(decode: fn(&mut Writer, &[u8], u32) -> Outcome, ptr: u32, len: u32, n: u32) -> i64 {
        let (input, n) = (input(ptr, len), n as usize);
        if n > input.len() / 8 || n > (MOST_OUTPUT - 16) / CODE_BYTES {
            return Code::TRUNCATED.0.into();
        }
        let (heads, mut frames) = input.split_at(8 * n);
        let bytes = begin();
        Writer { bytes, start: 0, most: MOST_OUTPUT, full: false }.array(n);
        for i in 0..n {
            let size = le32(heads, 4 * i) as usize;
            if size > frames.len() {
                return Code::TRUNCATED.0.into();
            }
            let (frame, rest) = frames.split_at(size);
            frames = rest;
            let start = bytes.len();
            let mut item = Writer { bytes, start, most: MOST_OUTPUT - CODE_BYTES * (n - i), full: false };
            let code = match decode(&mut item, frame, le32(heads, 4 * (n + i))) {
                Ok(()) if item.full => Code::TOO_LARGE,
                Ok(()) => continue,
                Err(failure) => failed(failure),
            };
            bytes.truncate(start);
            let mut item = Writer { bytes, start, most: MOST_OUTPUT, full: false };
            match code {
                Code::DROP => item.nil(),
                Code(number) => item.uint(number.into()),
            };
        }
        packed(bytes)
    }
}
