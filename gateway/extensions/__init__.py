"""Native extensions: pluggy hookspecs and their discovery (trusted Python; untrusted code is Wasm)."""
