// SPDX-License-Identifier: Apache-2.0

// Package gw1 writes Flux Gateway plugins (ABI gw1) in Go.
//
// It owns the buffers of the ABI, the msgpack writer and reader, and the batch loop. It knows no protocol. A whole
// plugin:
//
//	package main
//
//	import "gw1"
//
//	func decode(out *gw1.Writer, frame []byte, aux uint32) error {
//		at := gw1.Bytes{Rest: frame[:]}
//		at.U8()
//		tenths := at.BeI16()
//		if at.Short { // a read past the end gives 0 and says so here
//			return gw1.Truncated
//		}
//		out.Map(2)
//		out.Key("kind").Str("report")
//		out.Key("points").Array(1).Map(1)
//		out.Key("values").Map(1)
//		out.Key("temperature").F64(float64(tenths) / 10)
//		return nil
//	}
//
//	func init() { gw1.Register(gw1.Plugin{Decode: decode}) }
//
//	func main() {} // never runs: the gateway calls the exports
//
// A decoder writes one item and returns nil, or returns a Code (or an Error with words of its own), and whatever it
// wrote is taken back. Writing past the output is safe: the writer turns deaf and the item becomes TooLarge. aux is the
// number of the connection that a frame came by (0: it is only tried), or its fPort or unit id.
//
// A panic becomes code 5 with the panic's words, so that a wrong index costs its frame and not the instance.
// The module is a WASI reactor: its manifest says `caps.wasi = true`, and its runtime wants 32 MiB of memory.
// Buffers are kept between calls; what a decoder itself allocates, Go's collector finds.
package gw1

import (
	"math"
	"unicode/utf8"
)

// Code is a result code of the ABI; from Own on they are the plugin's own.
type Code uint32

// The codes of the ABI.
const (
	Drop Code = iota // nothing to tell, no error
	Truncated
	UnknownType
	Checksum
	TooLarge
	Unsupported
	NeedsMore
	BadConfig      // bad configuration, or bad arguments of a command
	Own       Code = 256
)

// Error makes a code an error, so that a function returns it as it is.
func (c Code) Error() string { return "" }

// Because is the code with words for whoever reads it; 512 bytes of them are shown.
func (c Code) Because(text string) error { return &Error{c, text} }

// Error is a code with words.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Plugin is what a plugin offers; every field may be nil. State over a reload: package gw1/carry.
type Plugin struct {
	// Init reads the map {config, host, plugin_id}; an error refuses the start.
	Init func(host Reader) error
	// Decode writes one item.
	Decode func(out *Writer, frame []byte, aux uint32) error
	// Encode writes the bytes for the device.
	Encode func(out *Writer, request Reader, aux uint32) error
	// Call writes one msgpack value (crypto, notify, parser, algo, report).
	Call func(out *Writer, args Reader, aux uint32) error
}

// MostOutput bounds one result; a manifest's max_output is the same where it is not said.
var MostOutput = 1 << 20

// Register names the plugin of this module; call it from init.
func Register(p Plugin) { plugin = p }

// Bytes is a cursor over a frame. A read past the end gives 0 and sets Short.
type Bytes struct {
	Rest  []byte
	Short bool
}

// Take gives the next n bytes, nil past the end.
func (b *Bytes) Take(n int) []byte {
	if n < 0 || n > len(b.Rest) {
		b.Rest, b.Short = nil, true
		return nil
	}
	taken := b.Rest[:n]
	b.Rest = b.Rest[n:]
	return taken
}

func (b *Bytes) big(n int) (v uint64) {
	for _, one := range b.Take(n) {
		v = v<<8 | uint64(one)
	}
	return v
}

func (b *Bytes) little(n int) (v uint64) {
	for i, one := range b.Take(n) {
		v |= uint64(one) << (8 * i)
	}
	return v
}

func (b *Bytes) U8() uint8      { return uint8(b.big(1)) }
func (b *Bytes) I8() int8       { return int8(b.big(1)) }
func (b *Bytes) BeU16() uint16  { return uint16(b.big(2)) }
func (b *Bytes) BeI16() int16   { return int16(b.big(2)) }
func (b *Bytes) BeU32() uint32  { return uint32(b.big(4)) }
func (b *Bytes) BeI32() int32   { return int32(b.big(4)) }
func (b *Bytes) BeU64() uint64  { return b.big(8) }
func (b *Bytes) BeI64() int64   { return int64(b.big(8)) }
func (b *Bytes) BeF32() float32 { return math.Float32frombits(b.BeU32()) }
func (b *Bytes) BeF64() float64 { return math.Float64frombits(b.BeU64()) }
func (b *Bytes) LeU16() uint16  { return uint16(b.little(2)) }
func (b *Bytes) LeI16() int16   { return int16(b.little(2)) }
func (b *Bytes) LeU32() uint32  { return uint32(b.little(4)) }
func (b *Bytes) LeI32() int32   { return int32(b.little(4)) }
func (b *Bytes) LeU64() uint64  { return b.little(8) }
func (b *Bytes) LeI64() int64   { return int64(b.little(8)) }
func (b *Bytes) LeF32() float32 { return math.Float32frombits(b.LeU32()) }
func (b *Bytes) LeF64() float64 { return math.Float64frombits(b.LeU64()) }

// Writer writes msgpack, or a frame's raw bytes. Past its end it writes nothing and remembers that.
type Writer struct {
	bytes []byte
	start int
	most  int
	full  bool
}

// Full tells whether something did not fit. A long loop asks, to end early.
func (w *Writer) Full() bool { return w.full }

// Written is what was written so far, to patch a length or to sum up.
func (w *Writer) Written() []byte { return w.bytes[w.start:] }

func (w *Writer) room(n int) bool {
	w.full = w.full || n > w.most-len(w.bytes)
	return !w.full
}

// Raw writes bytes as they are: of a frame, or of prepared msgpack.
func (w *Writer) Raw(bytes ...byte) *Writer {
	if w.room(len(bytes)) {
		w.bytes = append(w.bytes, bytes...)
	}
	return w
}

// big writes the lowest n bytes of a number, the highest first.
func (w *Writer) big(v uint64, n int) *Writer {
	if w.room(n) {
		for shift := 8 * (n - 1); shift >= 0; shift -= 8 {
			w.bytes = append(w.bytes, byte(v>>shift))
		}
	}
	return w
}

// BeU16 writes a number of a frame, the highest byte first.
func (w *Writer) BeU16(v uint16) *Writer { return w.big(uint64(v), 2) }

// BeU32 writes a number of a frame, the highest byte first.
func (w *Writer) BeU32(v uint32) *Writer { return w.big(uint64(v), 4) }

// BeU64 writes a number of a frame, the highest byte first.
func (w *Writer) BeU64(v uint64) *Writer { return w.big(v, 8) }

func (w *Writer) tag(tag byte, v uint64, n int) *Writer {
	if w.room(1 + n) {
		w.bytes = append(w.bytes, tag)
		w.big(v, n)
	}
	return w
}

func (w *Writer) Nil() *Writer { return w.Raw(0xc0) }

func (w *Writer) Bool(v bool) *Writer {
	if v {
		return w.Raw(0xc3)
	}
	return w.Raw(0xc2)
}

func (w *Writer) F64(v float64) *Writer { return w.tag(0xcb, math.Float64bits(v), 8) }

func (w *Writer) Uint(v uint64) *Writer {
	switch {
	case v < 0x80:
		return w.Raw(byte(v))
	case v <= 0xff:
		return w.tag(0xcc, v, 1)
	case v <= 0xffff:
		return w.tag(0xcd, v, 2)
	case v <= 0xffff_ffff:
		return w.tag(0xce, v, 4)
	default:
		return w.tag(0xcf, v, 8)
	}
}

func (w *Writer) Int(v int64) *Writer {
	switch {
	case v >= 0:
		return w.Uint(uint64(v))
	case v >= -32:
		return w.Raw(byte(v))
	case v >= math.MinInt8:
		return w.tag(0xd0, uint64(v), 1)
	case v >= math.MinInt16:
		return w.tag(0xd1, uint64(v), 2)
	case v >= math.MinInt32:
		return w.tag(0xd2, uint64(v), 4)
	default:
		return w.tag(0xd3, uint64(v), 8)
	}
}

// head writes the head of a container or text of n items; a tag8 of 0 says that there is no form with one byte.
func (w *Writer) head(short byte, below int, tag8, tag16 byte, n int) *Writer {
	switch {
	case n < below:
		return w.Raw(short | byte(n))
	case n <= 0xff && tag8 != 0:
		return w.tag(tag8, uint64(n), 1)
	case n <= 0xffff:
		return w.tag(tag16, uint64(n), 2)
	default:
		return w.tag(tag16+1, uint64(n), 4)
	}
}

// Map says that n pairs follow, each a Key and a value.
func (w *Writer) Map(n int) *Writer { return w.head(0x80, 16, 0, 0xde, n) }

// Array says that n values follow.
func (w *Writer) Array(n int) *Writer { return w.head(0x90, 16, 0, 0xdc, n) }

// Str writes text, which must be UTF-8: the host takes an item with any other text for malformed.
func (w *Writer) Str(text string) *Writer {
	w.head(0xa0, 32, 0xd9, 0xda, len(text))
	if w.room(len(text)) {
		w.bytes = append(w.bytes, text...)
	}
	return w
}

// Key writes the key of a pair.
func (w *Writer) Key(text string) *Writer { return w.Str(text) }

// Text writes bytes that are UTF-8 as text.
func (w *Writer) Text(text []byte) *Writer {
	return w.head(0xa0, 32, 0xd9, 0xda, len(text)).Raw(text...)
}

// Bin writes bytes as msgpack's binary type.
func (w *Writer) Bin(bytes []byte) *Writer { return w.head(0, 0, 0xc4, 0xc5, len(bytes)).Raw(bytes...) }

// Hex writes bytes as a text of lower-case hex digits.
func (w *Writer) Hex(bytes []byte) *Writer {
	const digits = "0123456789abcdef"
	w.head(0xa0, 32, 0xd9, 0xda, 2*len(bytes))
	for _, one := range bytes {
		w.Raw(digits[one>>4], digits[one&15])
	}
	return w
}

// Type is what a Value holds.
type Type uint8

// End: nothing is left, or nothing that is msgpack of the JSON types and bin.
const (
	End Type = iota
	Nil
	Bool
	Uint // 0 and up
	Int  // below 0
	F64
	Str
	Bin
	Array
	Map
)

// Value is one msgpack value. Of an array or map it is only the head: Len items (map: pairs) follow in the reader.
type Value struct {
	Type  Type
	Len   int     // of Array and Map
	Bytes []byte  // of Str and Bin, in place: copy what is kept
	Uint  uint64  // of Uint; of Bool 0 or 1
	Int   int64   // of Int, and of Uint where it fits
	F64   float64 // of F64, Uint and Int
}

// Number is an integer of whatever sign, and whether the value is one that fits.
func (v Value) Number() (int64, bool) {
	return v.Int, v.Type == Int || v.Type == Uint && v.Uint <= math.MaxInt64
}

// Is tells whether the value is this text.
func (v Value) Is(text string) bool { return v.Type == Str && string(v.Bytes) == text }

// Reader walks msgpack that the host sent: requests, configuration. A copy is a place to come back to.
type Reader struct{ at Bytes }

// NewReader reads msgpack.
func NewReader(data []byte) Reader { return Reader{Bytes{Rest: data}} }

// Rest is what was not read yet.
func (r Reader) Rest() []byte { return r.at.Rest }

func (r *Reader) text(t Type, n uint64) Value {
	if n > uint64(len(r.at.Rest)) {
		r.at.Rest = nil
		return Value{}
	}
	text := r.at.Take(int(n))
	if t == Str && !utf8.Valid(text) {
		r.at.Rest = nil
		return Value{}
	}
	return Value{Type: t, Bytes: text}
}

func unsigned(v uint64) Value { return Value{Type: Uint, Uint: v, Int: int64(v), F64: float64(v)} }

func signed(v int64) Value {
	if v >= 0 {
		return unsigned(uint64(v))
	}
	return Value{Type: Int, Int: v, F64: float64(v)}
}

// Next takes the next value (or head) off.
func (r *Reader) Next() Value {
	if len(r.at.Rest) == 0 {
		return Value{}
	}
	tag := r.at.U8()
	switch {
	case tag < 0x80:
		return unsigned(uint64(tag))
	case tag < 0x90:
		return Value{Type: Map, Len: int(tag & 15)}
	case tag < 0xa0:
		return Value{Type: Array, Len: int(tag & 15)}
	case tag < 0xc0:
		return r.text(Str, uint64(tag&31))
	case tag >= 0xe0:
		return signed(int64(int8(tag)))
	}
	value := r.long(tag)
	if r.at.Short || value.Type == End {
		r.at.Rest = nil
		return Value{}
	}
	return value
}

// long reads what follows a tag from 0xc0 to 0xdf.
func (r *Reader) long(tag byte) Value {
	switch tag {
	case 0xc0:
		return Value{Type: Nil}
	case 0xc2, 0xc3:
		return Value{Type: Bool, Uint: uint64(tag & 1)}
	case 0xc4, 0xc5, 0xc6:
		return r.text(Bin, r.at.big(1<<(tag-0xc4)))
	case 0xca:
		return Value{Type: F64, F64: float64(r.at.BeF32())}
	case 0xcb:
		return Value{Type: F64, F64: r.at.BeF64()}
	case 0xcc, 0xcd, 0xce, 0xcf:
		return unsigned(r.at.big(1 << (tag - 0xcc)))
	case 0xd0:
		return signed(int64(r.at.I8()))
	case 0xd1:
		return signed(int64(r.at.BeI16()))
	case 0xd2:
		return signed(int64(r.at.BeI32()))
	case 0xd3:
		return signed(r.at.BeI64())
	case 0xd9, 0xda, 0xdb:
		return r.text(Str, r.at.big(1<<(tag-0xd9)))
	case 0xdc, 0xdd:
		return Value{Type: Array, Len: int(uint32(r.at.big(2 << (tag - 0xdc))))}
	case 0xde, 0xdf:
		return Value{Type: Map, Len: int(uint32(r.at.big(2 << (tag - 0xde))))}
	default:
		return Value{}
	}
}

// Skip steps over one whole value, however deep; false where the input ends inside it.
func (r *Reader) Skip() bool {
	for left := 1; left > 0; left-- {
		switch value := r.Next(); value.Type {
		case End:
			return false
		case Array:
			left += value.Len
		case Map:
			left += 2 * value.Len
		}
	}
	return true
}

// Find gives a reader before the value of a string key of the map that comes next, and whether there is such a key.
func (r Reader) Find(key string) (Reader, bool) {
	head := r.Next()
	if head.Type != Map {
		return Reader{}, false
	}
	for i := 0; i < head.Len; i++ {
		name := r
		if !r.Skip() {
			break
		}
		if name.Next().Is(key) {
			return r, true
		}
		if !r.Skip() {
			break
		}
	}
	return Reader{}, false
}

// Get gives the value (or head) of a key; its type is End where there is no such key.
func (r Reader) Get(key string) Value {
	found, _ := r.Find(key)
	return found.Next()
}

// failed keeps the words of an error for gw_last_error and gives its code.
func failed(err error) Code {
	switch own := err.(type) {
	case Code:
		text = ""
		return own
	case *Error:
		text = own.Text
		return own.Code
	default:
		text = err.Error()
		return Unsupported
	}
}

// recovered turns a panic of the plugin into an error; deferred around every call of its functions.
func recovered(err *error) {
	switch cause := recover().(type) {
	case nil:
	case error: // of Go's runtime: an index out of range, a nil map
		*err = Unsupported.Because("panic: " + cause.Error())
	case string:
		*err = Unsupported.Because("panic: " + cause)
	default:
		*err = Unsupported.Because("panic")
	}
}
