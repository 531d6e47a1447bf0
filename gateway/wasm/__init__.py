"""The Wasm host: runs codec plugins of ABI gw1 in a sandbox. The only room that knows wasmtime."""
