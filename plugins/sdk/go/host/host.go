// SPDX-License-Identifier: Apache-2.0

// Package host is what the gateway offers a plugin; each function needs its word in the manifest's [caps] and the
// operator's grant. A module imports only what it calls.
package host

import "unsafe"

//go:wasmimport gw1 log
func gwLog(level int32, text unsafe.Pointer, n uint32)

//go:wasmimport gw1 now_ms
func gwNowMs() int64

//go:wasmimport gw1 config
func gwConfig(key unsafe.Pointer, n uint32, to unsafe.Pointer, room uint32) int32

//go:wasmimport gw1 kv_get
func gwKvGet(key unsafe.Pointer, n uint32, to unsafe.Pointer, room uint32) int32

//go:wasmimport gw1 kv_set
func gwKvSet(key unsafe.Pointer, n uint32, value unsafe.Pointer, size uint32) int32

//go:wasmimport gw1 random
func gwRandom(to unsafe.Pointer, n uint32)

func at(bytes []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(bytes)) }

// Log needs caps.log. Levels: 0 debug, 1 info, 2 warning, 3 error. Long text is cut, too many lines are dropped.
func Log(level int32, text string) {
	gwLog(level, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}

// NowMs needs caps.clock: epoch milliseconds UTC.
func NowMs() int64 { return gwNowMs() }

// Config needs caps.config: a setting's msgpack, put into `to`; nil where there is none, or where it does not fit.
func Config(key string, to []byte) []byte {
	n := gwConfig(unsafe.Pointer(unsafe.StringData(key)), uint32(len(key)), at(to), uint32(len(to)))
	return given(n, to)
}

// KvGet needs caps.kv: as Config, from a small store that outlives a respawn.
func KvGet(key, to []byte) []byte {
	return given(gwKvGet(at(key), uint32(len(key)), at(to), uint32(len(to))), to)
}

// KvSet needs caps.kv: false where the store is full.
func KvSet(key, value []byte) bool {
	return gwKvSet(at(key), uint32(len(key)), at(value), uint32(len(value))) == 0
}

// Random needs caps.random: fill with unpredictable bytes, at most 4,096.
func Random(to []byte) { gwRandom(at(to), uint32(len(to))) }

func given(n int32, to []byte) []byte {
	if n < 0 || int(n) > len(to) {
		return nil
	}
	return to[:n]
}
