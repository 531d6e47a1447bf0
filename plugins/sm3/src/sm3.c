/* SPDX-License-Identifier: Apache-2.0
 *
 * The hash function, in the names of GB/T 32905-2016, clauses 4 and 5.
 */
#include "sm3.h"

static uint32_t rotl(uint32_t x, uint32_t n) { return x << (n & 31) | x >> (-n & 31); }
static uint32_t p0(uint32_t x) { return x ^ rotl(x, 9) ^ rotl(x, 17); }
static uint32_t p1(uint32_t x) { return x ^ rotl(x, 15) ^ rotl(x, 23); }
static uint32_t parity(uint32_t x, uint32_t y, uint32_t z) { return x ^ y ^ z; }
static uint32_t majority(uint32_t x, uint32_t y, uint32_t z) { return (x & y) | (x & z) | (y & z); }
static uint32_t choose(uint32_t x, uint32_t y, uint32_t z) { return (x & y) | (~x & z); }

/* Clause 5.3.2: a block becomes the words W; W' is made of them on the way. */
static void expand(uint32_t w[68], const uint8_t block[SM3_BLOCK]) {
    for (uint32_t j = 0; j < 16; j++) w[j] = gw_be32(block + 4 * j);
    for (uint32_t j = 16; j < 68; j++)
        w[j] = p1(w[j - 16] ^ w[j - 9] ^ rotl(w[j - 3], 15)) ^ rotl(w[j - 13], 7) ^ w[j - 6];
}

/* Clause 5.3.3. */
static void compress(uint32_t state[8], const uint8_t block[SM3_BLOCK]) {
    uint32_t w[68];
    expand(w, block);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (uint32_t j = 0; j < 64; j++) {
        bool early = j < 16;
        uint32_t ss1 = rotl(rotl(a, 12) + e + rotl(early ? 0x79cc4519u : 0x7a879d8au, j), 7);
        uint32_t ss2 = ss1 ^ rotl(a, 12);
        uint32_t tt1 = (early ? parity(a, b, c) : majority(a, b, c)) + d + ss2 + (w[j] ^ w[j + 4]);
        uint32_t tt2 = (early ? parity(e, f, g) : choose(e, f, g)) + h + ss1 + w[j];
        d = c;
        c = rotl(b, 9);
        b = a;
        a = tt1;
        h = g;
        g = rotl(f, 19);
        f = e;
        e = p0(tt2);
    }
    const uint32_t out[8] = {a, b, c, d, e, f, g, h};
    for (uint32_t i = 0; i < 8; i++) state[i] ^= out[i];
}

void sm3_begin(sm3 *h) {
    static const uint32_t iv[8] = {0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600,
                                   0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e};
    memcpy(h->state, iv, sizeof iv);
    h->bytes = 0;
}

void sm3_feed(sm3 *h, const uint8_t *data, uint32_t len) {
    uint32_t held = (uint32_t)(h->bytes % SM3_BLOCK);
    h->bytes += len;
    if (held) {
        uint32_t more = len < SM3_BLOCK - held ? len : SM3_BLOCK - held;
        memcpy(h->block + held, data, more);
        if (held + more < SM3_BLOCK) return;
        compress(h->state, h->block);
        data += more;
        len -= more;
    }
    for (; len >= SM3_BLOCK; data += SM3_BLOCK, len -= SM3_BLOCK) compress(h->state, data);
    memcpy(h->block, data, len);
}

/* Clause 5.2: a one bit, zeros, the number of bits. */
void sm3_end(sm3 *h, uint8_t digest[SM3_DIGEST]) {
    static const uint8_t fill[SM3_BLOCK] = {0x80};
    uint64_t bits = __builtin_bswap64(8 * h->bytes);
    uint8_t length[8];
    memcpy(length, &bits, 8);
    sm3_feed(h, fill, 1 + (uint32_t)((119 - h->bytes % SM3_BLOCK) % SM3_BLOCK));
    sm3_feed(h, length, 8);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(h->state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

/* A key longer than a block is hashed first. Source: RFC 2104, clause 2. */
void sm3_hmac(const uint8_t *key, uint32_t key_len, const uint8_t *data, uint32_t len, uint8_t mac[SM3_DIGEST]) {
    uint8_t pad[SM3_BLOCK] = {0};
    sm3 h;
    if (key_len > SM3_BLOCK) {
        sm3_begin(&h);
        sm3_feed(&h, key, key_len);
        sm3_end(&h, pad);
    } else {
        memcpy(pad, key, key_len);
    }
    for (uint32_t i = 0; i < SM3_BLOCK; i++) pad[i] ^= 0x36;
    sm3_begin(&h);
    sm3_feed(&h, pad, SM3_BLOCK);
    sm3_feed(&h, data, len);
    sm3_end(&h, mac);
    for (uint32_t i = 0; i < SM3_BLOCK; i++) pad[i] ^= 0x36 ^ 0x5c;
    sm3_begin(&h);
    sm3_feed(&h, pad, SM3_BLOCK);
    sm3_feed(&h, mac, SM3_DIGEST);
    sm3_end(&h, mac);
}
