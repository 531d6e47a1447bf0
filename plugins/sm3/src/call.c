/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask: {op: "hash", data} and {op: "hmac", key, data}.
 */
#include "sm3.h"

static void write_bytes(gw_out *out, const char *name, const uint8_t bytes[SM3_DIGEST]) {
    gw_map(out, 1);
    gw_cstr(out, name);
    gw_bin(out, bytes, SM3_DIGEST);
}

static int32_t hash(gw_out *out, const gw_args *args) {
    const uint8_t *data;
    uint32_t len;
    uint8_t digest[SM3_DIGEST];
    sm3 h;
    GW_TRY(gw_arg_bytes(args, "data", &data, &len));
    sm3_begin(&h);
    sm3_feed(&h, data, len);
    sm3_end(&h, digest);
    write_bytes(out, "digest", digest);
    return GW_WRITTEN;
}

static int32_t hmac(gw_out *out, const gw_args *args) {
    const uint8_t *key, *data;
    uint32_t key_len, len;
    uint8_t mac[SM3_DIGEST];
    GW_TRY(gw_arg_bytes(args, "key", &key, &key_len));
    GW_TRY(gw_arg_bytes(args, "data", &data, &len));
    sm3_hmac(key, key_len, data, len, mac);
    write_bytes(out, "mac", mac);
    return GW_WRITTEN;
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    GW_TRY(gw_args_read(&args, in));
    gw_value op = gw_arg_value(&args, "op");
    if (gw_is(op, "hash")) return hash(out, &args);
    if (gw_is(op, "hmac")) return hmac(out, &args);
    return gw_unwanted_arg(&args, "op", "\"hash\" or \"hmac\"");
}

GW_CALLER(call)
