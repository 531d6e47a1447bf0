/* SPDX-License-Identifier: Apache-2.0
 *
 * The modes of operation over whole messages.
 */
#include "sm4.h"

/* ---- ECB and CBC: GB/T 17964-2021, clauses 5 and 6; PKCS #7: RFC 5652, clause 6.3 ------------------------------ */

static void xor_block(uint8_t to[BLOCK], const uint8_t a[BLOCK], const uint8_t b[BLOCK]) {
    for (uint32_t i = 0; i < BLOCK; i++) to[i] = a[i] ^ b[i];
}

uint32_t padded_len(uint32_t len, bool pkcs7) { return pkcs7 ? (len / BLOCK + 1) * BLOCK : len; }

void blocks_encrypt(const sm4_key *key, const uint8_t *iv, bool pkcs7, const uint8_t *in, uint32_t len, uint8_t *out) {
    uint8_t block[BLOCK];
    for (uint32_t at = 0; at < padded_len(len, pkcs7); at += BLOCK) {
        uint32_t left = len - at < BLOCK ? len - at : BLOCK;
        memcpy(block, in + at, left);
        memset(block + left, (int)(BLOCK - left), BLOCK - left);
        if (iv) xor_block(block, block, at ? out + at - BLOCK : iv);
        crypt_block(key, block, out + at);
    }
}

static void decrypt_one(const sm4_key *key, const uint8_t *iv, const uint8_t *in, uint32_t at, uint8_t plain[BLOCK]) {
    crypt_block(key, in + at, plain);
    if (iv) xor_block(plain, plain, at ? in + at - BLOCK : iv);
}

uint32_t padding_of(const sm4_key *key, const uint8_t *iv, const uint8_t *in, uint32_t len) {
    uint8_t last[BLOCK];
    decrypt_one(key, iv, in, len - BLOCK, last);
    uint32_t padding = last[BLOCK - 1], wrong = padding - 1 >= BLOCK;
    for (uint32_t i = 0; i < BLOCK; i++) wrong |= i < padding && last[BLOCK - 1 - i] != padding;
    return wrong ? 0 : padding;
}

void blocks_decrypt(const sm4_key *key, const uint8_t *iv, const uint8_t *in, uint8_t *out, uint32_t out_len) {
    uint8_t block[BLOCK];
    for (uint32_t at = 0; at < out_len; at += BLOCK) {
        decrypt_one(key, iv, in, at, block);
        memcpy(out + at, block, out_len - at < BLOCK ? out_len - at : BLOCK);
    }
}

/* ---- GCM: NIST SP 800-38D ---------------------------------------------------------------------------------------- */

/* An element of GF(2^128), its bits in the order of clause 6.3: the highest bit of `hi` is the coefficient of 1. */
typedef struct { uint64_t hi, lo; } element;

static element times_x(element v) {
    uint64_t carry = v.lo & 1;
    return (element){.hi = v.hi >> 1 ^ (0 - carry & 0xe100000000000000u), .lo = v.lo >> 1 | v.hi << 63};
}

typedef struct {
    element multiple[16];   /* of the hash key, by four bits */
    uint64_t reduction[16]; /* what the four bits shifted out at the low end bring back at the high end */
    element sum;
} ghash;

static void ghash_begin(ghash *g, const uint8_t hash_key[BLOCK]) {
    element v = {gw_be64(hash_key), gw_be64(hash_key + 8)};
    *g = (ghash){0};
    for (uint32_t bit = 8; bit; bit >>= 1, v = times_x(v)) g->multiple[bit] = v;
    for (uint32_t i = 1; i < 16; i++) {
        uint32_t low = i & -i;
        element one = g->multiple[low], rest = g->multiple[i ^ low], shifted = {0, i};
        if (i != low) g->multiple[i] = (element){one.hi ^ rest.hi, one.lo ^ rest.lo};
        for (uint32_t step = 0; step < 4; step++) shifted = times_x(shifted);
        g->reduction[i] = shifted.hi;
    }
}

static void ghash_block(ghash *g, const uint8_t block[BLOCK]) {
    uint64_t half[2] = {g->sum.lo ^ gw_be64(block + 8), g->sum.hi ^ gw_be64(block)};
    element z = {0, 0};
    for (uint32_t i = 0; i < 32; i++) {
        element m = g->multiple[half[i / 16] >> 4 * (i % 16) & 15];
        uint64_t out = g->reduction[z.lo & 15];
        z.lo = (z.lo >> 4 | z.hi << 60) ^ m.lo;
        z.hi = z.hi >> 4 ^ out ^ m.hi;
    }
    g->sum = z;
}

/* The bytes, filled up with zeros to a whole block. */
static void ghash_feed(ghash *g, const uint8_t *bytes, uint32_t len) {
    for (; len >= BLOCK; bytes += BLOCK, len -= BLOCK) ghash_block(g, bytes);
    if (len) {
        uint8_t last[BLOCK] = {0};
        memcpy(last, bytes, len);
        ghash_block(g, last);
    }
}

/* The counter block with the given 32-bit number. */
static void counter_block(const gcm *g, uint32_t number, uint8_t block[BLOCK]) {
    number = __builtin_bswap32(number);
    memcpy(block, g->nonce, NONCE_BYTES);
    memcpy(block + NONCE_BYTES, &number, 4);
}

void gcm_crypt(const sm4_key *key, const gcm *g, const uint8_t *in, uint32_t len, uint8_t *out) {
    uint8_t block[BLOCK], stream[BLOCK];
    for (uint32_t at = 0; at < len; at += BLOCK) {
        counter_block(g, 2 + at / BLOCK, block);
        crypt_block(key, block, stream);
        for (uint32_t i = 0; i < BLOCK && at + i < len; i++) out[at + i] = in[at + i] ^ stream[i];
    }
}

void gcm_tag(const sm4_key *key, const gcm *g, const uint8_t *ciphertext, uint32_t len, uint8_t tag[TAG_MOST]) {
    uint8_t block[BLOCK] = {0};
    ghash h;
    crypt_block(key, block, block);
    ghash_begin(&h, block);
    ghash_feed(&h, g->aad, g->aad_len);
    ghash_feed(&h, ciphertext, len);
    uint64_t bits[2] = {__builtin_bswap64(8ull * g->aad_len), __builtin_bswap64(8ull * len)};
    memcpy(block, bits, BLOCK);
    ghash_block(&h, block);
    uint64_t sum[2] = {__builtin_bswap64(h.sum.hi), __builtin_bswap64(h.sum.lo)};
    counter_block(g, 1, block);
    crypt_block(key, block, tag);
    for (uint32_t i = 0; i < TAG_MOST; i++) tag[i] ^= ((const uint8_t *)sum)[i];
}
