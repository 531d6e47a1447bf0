// SPDX-License-Identifier: Apache-2.0

// Package carry takes a plugin's state over a reload; the manifest says `[state] carry = true`.
package carry

import "gw1"

var (
	saves func(out *gw1.Writer) error
	loads func(state gw1.Reader) error
)

// Register names the function that writes the state as one msgpack value, and the one that reads what a version before
// wrote; an error of it loses the state, and the plugin runs. Call it from init.
func Register(save func(out *gw1.Writer) error, load func(state gw1.Reader) error) {
	saves, loads = save, load
}

//go:wasmexport gw_state_save
func gwStateSave() int64 {
	if saves == nil {
		return int64(gw1.Unsupported)
	}
	return gw1.Write(saves)
}

//go:wasmexport gw_state_load
func gwStateLoad(ptr, n uint32) int32 {
	if loads == nil {
		return int32(gw1.Unsupported)
	}
	return gw1.Read(loads, ptr, n)
}
