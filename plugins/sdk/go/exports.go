// SPDX-License-Identifier: Apache-2.0

package gw1

import (
	"encoding/binary"
	"unsafe"
)

const (
	codeBytes = 5   // an error code as msgpack
	textBytes = 512 // of an error text that the host reads
)

// A module has one thread, and the host is in one call at a time.
var (
	plugin Plugin
	input  []byte
	output []byte
	text   string
)

func packed(p unsafe.Pointer, n int) int64 { return int64(uint64(uintptr(p))<<32 | uint64(n)) }

// received is the input that the host wrote: within the buffer that gw_buf gave it, whatever it says.
func received(ptr, n uint32) []byte {
	start := uint64(ptr) - uint64(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
	if start > uint64(len(input)) || uint64(n) > uint64(len(input))-start {
		return nil
	}
	return input[start : start+uint64(n)]
}

// begin gives a writer over the whole output; what a call before said is not this one's.
func begin() Writer {
	text = ""
	return Writer{bytes: output[:0], most: MostOutput}
}

// Write runs a function that writes one result; the packed bytes, or its code. For packages with exports of their own.
func Write(function func(out *Writer) error) int64 {
	out := begin()
	err := writeGuarded(function, &out)
	output = out.bytes
	switch {
	case err != nil:
		return int64(failed(err))
	case out.full:
		return int64(TooLarge)
	}
	return packed(unsafe.Pointer(unsafe.SliceData(output)), len(output))
}

// Read runs a function that reads; 0, or its code. For packages with exports of their own.
func Read(function func(Reader) error, ptr, n uint32) int32 {
	if function == nil {
		return 0
	}
	if err := readGuarded(function, NewReader(received(ptr, n))); err != nil {
		return int32(failed(err))
	}
	return 0
}

func writeGuarded(function func(out *Writer) error, out *Writer) (err error) {
	defer recovered(&err)
	return function(out)
}

func readGuarded(function func(Reader) error, in Reader) (err error) {
	defer recovered(&err)
	return function(in)
}

//go:wasmexport gw_abi
func gwAbi() int32 { return 0x0001_0000 }

//go:wasmexport gw_buf
func gwBuf(n uint32) uint32 {
	if uint64(n) > uint64(len(input)) {
		input = make([]byte, n)
	}
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
}

//go:wasmexport gw_last_error
func gwLastError() int64 {
	if text == "" {
		return 0
	}
	return packed(unsafe.Pointer(unsafe.StringData(text)), min(len(text), textBytes))
}

//go:wasmexport gw_init
func gwInit(ptr, n uint32) int32 { return Read(plugin.Init, ptr, n) }

//go:wasmexport gw_decode
func gwDecode(ptr, n, aux uint32) int64 {
	if plugin.Decode == nil {
		return int64(Unsupported)
	}
	return Write(func(out *Writer) error { return plugin.Decode(out, received(ptr, n), aux) })
}

// gwDecodeBatch decodes n frames into one msgpack array. Every item keeps room for the codes of those after it.
//
//go:wasmexport gw_decode_batch
func gwDecodeBatch(ptr, size, n uint32) int64 {
	in, count := received(ptr, size), int(n)
	if plugin.Decode == nil {
		return int64(Unsupported)
	}
	if count > len(in)/8 || count > (MostOutput-16)/codeBytes {
		return int64(Truncated)
	}
	lengths, auxes, frames := in[:4*count], in[4*count:8*count], in[8*count:]
	out := begin()
	out.Array(count)
	for i := range count {
		length := binary.LittleEndian.Uint32(lengths[4*i:])
		if uint64(length) > uint64(len(frames)) {
			return int64(Truncated)
		}
		frame := frames[:length:length]
		frames = frames[length:]
		out.start, out.most = len(out.bytes), MostOutput-codeBytes*(count-i)
		err := decodeOne(&out, frame, binary.LittleEndian.Uint32(auxes[4*i:]))
		if err == nil && !out.full {
			continue
		}
		code := TooLarge
		if err != nil {
			code = failed(err)
		}
		out.bytes, out.full, out.most = out.bytes[:out.start], false, MostOutput
		if code == Drop {
			out.Nil()
		} else {
			out.Uint(uint64(code))
		}
	}
	output = out.bytes
	return packed(unsafe.Pointer(unsafe.SliceData(output)), len(output))
}

func decodeOne(out *Writer, frame []byte, aux uint32) (err error) {
	defer recovered(&err)
	return plugin.Decode(out, frame, aux)
}

//go:wasmexport gw_encode
func gwEncode(ptr, n, aux uint32) int64 {
	if plugin.Encode == nil {
		return int64(Unsupported)
	}
	return Write(func(out *Writer) error { return plugin.Encode(out, NewReader(received(ptr, n)), aux) })
}

//go:wasmexport gw_call
func gwCall(ptr, n, aux uint32) int64 {
	if plugin.Call == nil {
		return int64(Unsupported)
	}
	return Write(func(out *Writer) error { return plugin.Call(out, NewReader(received(ptr, n)), aux) })
}
