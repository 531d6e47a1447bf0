/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask: {op: "encrypt" | "decrypt", mode: "ecb" | "cbc" | "gcm", key, data, ...}.
 *
 * With iv = "prefix" the data is a message that stands alone: IV (CBC, 16 bytes) or nonce (GCM, 12 bytes) first, the tag
 * (GCM) last; this is what a stage around a codec needs.
 */
#include "sm4.h"

enum { NO_RANDOM = GW_OWN };

typedef enum { ECB, CBC, GCM } mode;

typedef struct {
    mode mode;
    bool encrypts, prefixed, pkcs7;
    sm4_key key;
    uint8_t iv[BLOCK];
    uint32_t iv_len;  /* of the mode; 0 in ECB */
    uint32_t tag_len; /* 0 but in GCM */
    gcm gcm;
    const uint8_t *data;
    uint32_t len;
} request;

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

/* So many bytes, as they are or, for configurations that have no bytes, as hexadecimal text of twice the length. */
static bool exact_bytes(gw_value v, uint32_t want, uint8_t *to) {
    if (v.type != GW_T_BIN && v.type != GW_T_STR) return false;
    if (v.len == want) {
        memcpy(to, v.text, want);
        return true;
    }
    v.type = GW_T_STR; /* whichever the digits came as */
    return gw_hex_bytes(v, to, want, false);
}

static int32_t read_mode(request *r, const gw_args *args) {
    gw_value op = gw_arg_value(args, "op"), name = gw_arg_value(args, "mode");
    r->encrypts = gw_is(op, "encrypt");
    if (!r->encrypts && !gw_is(op, "decrypt")) return gw_unwanted_arg(args, "op", "\"encrypt\" or \"decrypt\"");
    if (gw_is(name, "ecb")) r->mode = ECB;
    else if (gw_is(name, "cbc")) r->mode = CBC;
    else if (gw_is(name, "gcm")) r->mode = GCM;
    else return gw_unwanted_arg(args, "mode", "\"ecb\", \"cbc\" or \"gcm\"");
    r->iv_len = r->mode == CBC ? BLOCK : r->mode == GCM ? NONCE_BYTES : 0;
    return GW_WRITTEN;
}

static int32_t read_key(request *r, const gw_args *args) {
    uint8_t bytes[KEY_BYTES];
    if (!exact_bytes(gw_arg_value(args, "key"), KEY_BYTES, bytes))
        return gw_unwanted_arg(args, "key", "16 bytes, or their 32 hexadecimal digits");
    if (r->encrypts || r->mode == GCM) key_for_encryption(&r->key, bytes);
    else key_for_decryption(&r->key, bytes);
    return GW_WRITTEN;
}

static int32_t read_iv(request *r, const gw_args *args) {
    const char *key = r->mode == GCM && gw_arg_value(args, "nonce").type != GW_T_END ? "nonce" : "iv";
    gw_value v = gw_arg_value(args, key);
    if (r->mode == ECB) return v.type == GW_T_END ? GW_WRITTEN : gw_bad_arg("iv", "mode ecb has none: leave it out");
    r->prefixed = gw_is(v, "prefix");
    if (!r->prefixed && !exact_bytes(v, r->iv_len, r->iv))
        return r->mode == CBC ? gw_unwanted_arg(args, key, "16 bytes (or 32 hexadecimal digits), or \"prefix\"")
                              : gw_unwanted_arg(args, key, "12 bytes (or 24 hexadecimal digits), or \"prefix\"");
    return GW_WRITTEN;
}

static int32_t read_padding(request *r, const gw_args *args) {
    gw_value v = gw_arg_value(args, "padding");
    r->pkcs7 = r->mode != GCM && (v.type == GW_T_END || gw_is(v, "pkcs7"));
    if (v.type == GW_T_END || gw_is(v, "none") || r->pkcs7) return GW_WRITTEN;
    return gw_bad_arg("padding", r->mode == GCM ? "mode gcm has none: leave it out" : "must be \"pkcs7\" or \"none\"");
}

static int32_t read_gcm(request *r, const gw_args *args) {
    double tag_len = TAG_MOST;
    if (r->mode != GCM) return GW_WRITTEN;
    GW_TRY(gw_arg_number_or(args, "tag_len", TAG_LEAST, TAG_MOST, "a number of bytes from 12 to 16", &tag_len));
    r->tag_len = (uint32_t)tag_len;
    if (r->tag_len != tag_len) return gw_unwanted_arg(args, "tag_len", "a whole number of bytes");
    if (gw_arg_value(args, "aad").type != GW_T_END) GW_TRY(gw_arg_bytes(args, "aad", &r->gcm.aad, &r->gcm.aad_len));
    r->gcm.nonce = r->iv;
    return GW_WRITTEN;
}

static int32_t read_request(request *r, gw_args *args, gw_in in) {
    GW_TRY(gw_args_read(args, in));
    GW_TRY(read_mode(r, args));
    GW_TRY(read_key(r, args));
    GW_TRY(read_iv(r, args));
    GW_TRY(read_padding(r, args));
    GW_TRY(read_gcm(r, args));
    return gw_arg_bytes(args, "data", &r->data, &r->len);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* A head for n bytes, and the room for them; NULL where the output is full. */
static uint8_t *bytes_room(gw_out *out, uint32_t n) {
    if (n <= 0xff) gw_tag8(out, 0xc4, (uint8_t)n);
    else if (n <= 0xffff) gw_tag16(out, 0xc5, (uint16_t)n);
    else gw_tag32(out, 0xc6, n);
    return gw_room(out, n);
}

/* The IV that blocks are chained with; NULL in ECB. */
static const uint8_t *chained_iv(const request *r) { return r->mode == CBC ? r->iv : NULL; }

/* A fresh IV. The buffer is cleared first: a host that wrote nothing must not make all messages share one. */
static bool fresh_iv(uint8_t *iv, uint32_t len) {
    uint8_t any = 0;
    memset(iv, 0, len);
#if defined(__wasm__)
    gw_random(iv, len);
#endif
    for (uint32_t i = 0; i < len; i++) any |= iv[i];
    return any != 0;
}

static int32_t encrypt(gw_out *out, request *r) {
    uint8_t tag[TAG_MOST];
    if (r->prefixed && !fresh_iv(r->iv, r->iv_len))
        return gw_error(NO_RANDOM, "the host gave no random bytes for the IV; try again");
    if (r->mode != GCM && !r->pkcs7 && r->len % BLOCK)
        return gw_bad_arg("data", "is no multiple of 16 bytes, which padding \"none\" needs");
    uint32_t body = padded_len(r->len, r->pkcs7);
    uint32_t around = r->prefixed ? r->iv_len + r->tag_len : 0;
    bool tag_apart = r->mode == GCM && !r->prefixed;
    gw_map(out, tag_apart ? 2 : 1);
    gw_key(out, "data");
    uint8_t *to = bytes_room(out, body + around);
    if (!to) return GW_TOO_LARGE;
    if (r->prefixed) {
        memcpy(to, r->iv, r->iv_len);
        to += r->iv_len;
    }
    if (r->mode != GCM) {
        blocks_encrypt(&r->key, chained_iv(r), r->pkcs7, r->data, r->len, to);
        return GW_WRITTEN;
    }
    gcm_crypt(&r->key, &r->gcm, r->data, r->len, to);
    gcm_tag(&r->key, &r->gcm, to, r->len, tag);
    if (tag_apart) {
        gw_key(out, "tag");
        gw_bin(out, tag, r->tag_len);
    } else {
        memcpy(to + r->len, tag, r->tag_len);
    }
    return GW_WRITTEN;
}

/* Nothing is decrypted before the tag is proven. */
static int32_t decrypt_gcm(gw_out *out, const request *r, const uint8_t *tag) {
    uint8_t right[TAG_MOST], wrong = 0;
    gcm_tag(&r->key, &r->gcm, r->data, r->len, right);
    for (uint32_t i = 0; i < r->tag_len; i++) wrong |= right[i] ^ tag[i];
    if (wrong) return gw_error(GW_CHECKSUM, "the tag does not fit: wrong key, nonce or aad, or changed data");
    uint8_t *to = bytes_room(out, r->len);
    if (!to) return GW_TOO_LARGE;
    gcm_crypt(&r->key, &r->gcm, r->data, r->len, to);
    return GW_WRITTEN;
}

/* Nothing but the last block is decrypted before the padding is proven. */
static int32_t decrypt_blocks(gw_out *out, const request *r) {
    uint32_t padding = 0;
    if (r->len % BLOCK || (r->pkcs7 && !r->len)) return gw_error(GW_TRUNCATED, "data: is no multiple of 16 bytes");
    if (r->pkcs7) padding = padding_of(&r->key, chained_iv(r), r->data, r->len);
    if (r->pkcs7 && !padding) return gw_error(GW_CHECKSUM, "the padding is wrong: wrong key or IV, or changed data");
    uint8_t *to = bytes_room(out, r->len - padding);
    if (!to) return GW_TOO_LARGE;
    blocks_decrypt(&r->key, chained_iv(r), r->data, to, r->len - padding);
    return GW_WRITTEN;
}

static int32_t decrypt(gw_out *out, request *r, const gw_args *args) {
    const uint8_t *tag = NULL;
    uint32_t tag_len = 0;
    if (r->prefixed) {
        if (r->len < r->iv_len + r->tag_len) return gw_error(GW_TRUNCATED, "data: is shorter than its IV and tag");
        memcpy(r->iv, r->data, r->iv_len);
        r->data += r->iv_len;
        r->len -= r->iv_len + r->tag_len;
        tag = r->data + r->len;
    } else if (r->mode == GCM) {
        GW_TRY(gw_arg_bytes(args, "tag", &tag, &tag_len));
        /* The expected length decides, never what came with the message: a shorter tag is easier to guess. */
        if (tag_len != r->tag_len) return gw_bad_arg("tag", "must have tag_len bytes (16 where that is not given)");
    }
    gw_map(out, 1);
    gw_key(out, "data");
    return r->mode == GCM ? decrypt_gcm(out, r, tag) : decrypt_blocks(out, r);
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    request r = {0};
    GW_TRY(read_request(&r, &args, in));
    return r.encrypts ? encrypt(out, &r) : decrypt(out, &r, &args);
}

GW_CALLER(call)
